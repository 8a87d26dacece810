//! What is written, by level and by the part that tells of it.

use std::ffi::OsStr;
use std::str::FromStr;
use tracing::level_filters::LevelFilter;

/// Name of the variable with the filter.
pub const NAME: &str = "SUPERMACHINE_LOG";
/// What the names of all parts begin with.
const PARTS: &str = "supermachine";

/// A value of `SUPERMACHINE_LOG` that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{NAME} has {word:?}, which is no filter: give a level (off, error, warn, info, debug or \
     trace), or parts with a level each, as in info,supermachine_vmm_core=trace"
)]
pub struct BadFilter {
    word: String,
}

/// Parts of the product by the beginning of their names, and their levels.
pub type Filter = Vec<(String, LevelFilter)>;

/// The filter of this process's environment, if there is one.
pub fn of_environment() -> Result<Option<Filter>, BadFilter> {
    match std::env::var_os(NAME) {
        Some(text) if !text.is_empty() => parse(&text).map(Some),
        _ => Ok(None),
    }
}

pub fn parse(text: &OsStr) -> Result<Filter, BadFilter> {
    let text = text.to_string_lossy();
    text.split(',').map(|word| part(word.trim())).collect()
}

/// `LEVEL`, or `PART=LEVEL`. A level alone is that of all parts.
fn part(word: &str) -> Result<(String, LevelFilter), BadFilter> {
    let (name, level) = word.split_once('=').unwrap_or((PARTS, word));
    // LevelFilter takes numbers, and nothing at all, for levels too.
    let is_word = level.starts_with(|first: char| first.is_ascii_alphabetic());
    match LevelFilter::from_str(level) {
        Ok(level) if is_word && name.starts_with(PARTS) => Ok((name.to_owned(), level)),
        _ => Err(BadFilter {
            word: word.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn levels_are_of_all_parts_or_of_one() {
        let filter = |text: &str| parse(text.as_ref()).unwrap();
        let all = |level| ("supermachine".to_owned(), level);
        assert_eq!(filter("info"), [all(LevelFilter::INFO)]);
        assert_eq!(filter("OFF"), [all(LevelFilter::OFF)]);
        assert_eq!(
            filter("warn, supermachine::bake=debug"),
            [
                all(LevelFilter::WARN),
                ("supermachine::bake".to_owned(), LevelFilter::DEBUG)
            ]
        );
    }

    #[test]
    fn what_would_silently_write_nothing_is_refused() {
        for (text, word) in [
            ("debgu", "debgu"),
            ("info,", ""),
            ("3", "3"),
            ("info,vmm=trace", "vmm=trace"),
            ("supermachine", "supermachine"),
            ("supermachine=", "supermachine="),
            ("supermachine=loud", "supermachine=loud"),
            ("[machine]=trace", "[machine]=trace"),
        ] {
            assert_eq!(parse(text.as_ref()).unwrap_err().word, word, "{text}");
        }
        assert!(parse(OsStr::from_bytes(b"\xff\x1b[2J")).is_err());
    }
}
