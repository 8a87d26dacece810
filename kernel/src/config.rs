//! The configuration fragment, and the check that a build honoured it.
//!
//! Kconfig drops a request silently when something it depends on is missing or
//! when another symbol selects the opposite. So after the merge every request
//! is compared with what came out.

/// Our configuration, as differences from `allnoconfig`.
pub const FRAGMENT: &str = include_str!("../config/supermachine.config");

/// One line of a fragment or of a `.config`: a symbol and what it is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The symbol, with its `CONFIG_` prefix.
    pub symbol: &'a str,
    /// The text after `=`; `None` for `is not set`.
    pub value: Option<&'a str>,
}

/// A request that the configuration system did not honour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{symbol}: asked for {}, got {}", shown(.wanted), shown(.got))]
pub struct Unmet {
    /// The symbol.
    pub symbol: String,
    /// The value the fragment asks for; `None` for `is not set`.
    pub wanted: Option<String>,
    /// The value in the final configuration; `None` for absent or not set.
    pub got: Option<String>,
}

fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("not set")
}

/// The settings of a fragment or `.config`, in order. Comments and blank lines
/// are skipped.
pub fn settings(text: &str) -> impl Iterator<Item = Setting<'_>> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("# ") {
            let symbol = comment.strip_suffix(" is not set")?;
            return is_symbol(symbol).then_some(Setting {
                symbol,
                value: None,
            });
        }
        let (symbol, value) = line.split_once('=')?;
        is_symbol(symbol).then_some(Setting {
            symbol,
            value: Some(value),
        })
    })
}

fn is_symbol(text: &str) -> bool {
    text.strip_prefix("CONFIG_").is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// The requests of `fragment` that `config`, a final `.config`, does not meet.
///
/// A symbol absent from `config` counts as not set, as it does for the kernel.
#[must_use]
pub fn unmet(fragment: &str, config: &str) -> Vec<Unmet> {
    let result: Vec<Setting<'_>> = settings(config).collect();
    settings(fragment)
        .filter_map(|want| {
            let got = result
                .iter()
                .find(|have| have.symbol == want.symbol)
                .and_then(|have| have.value);
            // "=n" never appears in a .config, yet is legal in a fragment.
            let wanted = want.value.filter(|value| *value != "n");
            (got != wanted).then(|| Unmet {
                symbol: want.symbol.to_owned(),
                wanted: wanted.map(str::to_owned),
                got: got.map(str::to_owned),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn honoured_requests_are_not_reported() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_D=16\n";
        let fragment = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_GONE is not set\nCONFIG_C=\"x\"\nCONFIG_D=16\nCONFIG_E=n\n";
        assert_eq!(unmet(fragment, config), vec![]);
    }

    #[test]
    fn dropped_overridden_and_forced_requests_are_reported() {
        let config = "CONFIG_FORCED=y\nCONFIG_NUMBER=4\n";
        let fragment = "CONFIG_DROPPED=y\n# CONFIG_FORCED is not set\nCONFIG_NUMBER=16\n";
        let report: Vec<String> = unmet(fragment, config)
            .iter()
            .map(Unmet::to_string)
            .collect();
        assert_eq!(
            report,
            [
                "CONFIG_DROPPED: asked for y, got not set",
                "CONFIG_FORCED: asked for not set, got y",
                "CONFIG_NUMBER: asked for 16, got 4",
            ]
        );
    }

    #[test]
    fn one_symbol_does_not_stand_for_a_longer_one() {
        assert_eq!(unmet("CONFIG_BPF=y\n", "CONFIG_BPF_JIT=y\n").len(), 1);
    }

    #[test]
    fn prose_comments_are_no_settings() {
        let text = "# CONFIG symbols: the rest is not set\n# This is not set\n\n";
        assert_eq!(settings(text).count(), 0);
    }

    #[test]
    fn our_fragment_names_each_symbol_once() {
        let mut seen = BTreeSet::new();
        for setting in settings(FRAGMENT) {
            assert!(seen.insert(setting.symbol), "{} twice", setting.symbol);
        }
        assert!(seen.len() > 100);
    }

    #[test]
    fn every_fragment_line_is_a_setting_or_prose() {
        for line in FRAGMENT.lines().filter(|line| !line.is_empty()) {
            let names_a_symbol = line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
            assert_eq!(
                settings(line).count(),
                usize::from(names_a_symbol),
                "{line}"
            );
            assert!(names_a_symbol || line.starts_with('#'), "{line}");
        }
    }
}
