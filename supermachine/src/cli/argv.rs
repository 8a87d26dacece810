//! The words of a command.

use crate::{Error, ImageConfig};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The image's command with the user's words, which need not be text: what is
/// text decides how many there are, and the words are put in as they came.
pub fn argv(
    config: &ImageConfig,
    entrypoint: Option<&OsStr>,
    command: &[OsString],
) -> Result<Vec<Vec<u8>>, Error> {
    let text = |word: &OsStr| word.to_string_lossy().into_owned();
    let program = entrypoint.map(|word| [text(word)]);
    let words: Vec<String> = command.iter().map(|word| text(word)).collect();
    let argv = config.command(
        program.as_ref().map(|program| &program[..]),
        (!words.is_empty()).then_some(&words[..]),
    )?;
    let mut argv: Vec<Vec<u8>> = argv.into_iter().map(String::into_bytes).collect();
    let own = argv.len().saturating_sub(command.len());
    for (place, word) in argv.iter_mut().skip(own).zip(command) {
        *place = word.as_bytes().to_vec();
    }
    for (place, word) in argv.iter_mut().take(own).zip(entrypoint) {
        *place = word.as_bytes().to_vec();
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_text_reach_the_command_as_they_are() {
        let odd = OsStr::from_bytes(b"\xff\xfe=\x80");
        let mut config = ImageConfig::default();
        config.cmd = vec!["image's".into()];
        let words = |entrypoint, command: &[&OsStr]| {
            let command: Vec<OsString> = command.iter().map(|word| (*word).into()).collect();
            argv(&config, entrypoint, &command).unwrap()
        };
        let odd_bytes = odd.as_bytes().to_vec();
        assert_eq!(words(None, &[]), [b"image's".to_vec()]);
        for only in [words(None, &[odd]), words(Some(odd), &[])] {
            assert_eq!(only, vec![odd_bytes.clone()]);
        }
        let both = words(Some(odd), &["x".as_ref(), odd]);
        assert_eq!(both, [odd_bytes.clone(), b"x".to_vec(), odd_bytes]);
    }
}
