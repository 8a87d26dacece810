//! The keys that leave a terminal without ending what runs in it.

/// As docker has it: hold Ctrl, press P and Q.
pub const USUAL: &str = "ctrl-p,ctrl-q";

/// A sequence of keys, as bytes of a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

/// Keys as docker spells them: letters, or `ctrl-` and a letter or one of `@[\]^_`,
/// with commas between; nothing for none.
pub fn parse(text: &str) -> Result<Keys, String> {
    let words = text.split(',').filter(|_| !text.is_empty());
    let keys: Result<Vec<u8>, String> = words.map(key).collect();
    keys.map(Keys)
}

fn key(word: &str) -> Result<u8, String> {
    let bytes = word.as_bytes();
    match (word.to_ascii_lowercase().strip_prefix("ctrl-"), bytes) {
        (Some(letter), _) => match letter.as_bytes() {
            // What Ctrl makes of a key since ASCII: its two high bits go.
            [letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => {
                Ok(letter & 0x1f)
            }
            _ => Err(format!("`{word}` is no key: use ctrl- and a letter")),
        },
        (None, [letter @ 0x21..=0x7e]) => Ok(*letter),
        _ => Err(format!(
            "`{word}` is no key: use one letter, or ctrl- and a letter, with commas between"
        )),
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub struct Watch {
    keys: Vec<u8>,
    /// How many of them were typed last, and are held back.
    typed: usize,
}

impl Watch {
    pub fn new(keys: &Keys) -> Self {
        Self {
            keys: keys.0.clone(),
            typed: 0,
        }
    }

    /// Forgets what was typed.
    pub fn begin_again(&mut self) {
        self.typed = 0;
    }

    /// What of `bytes` is for the command, and whether the keys were typed: what comes
    /// behind them is for nobody.
    pub fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len());
        if self.keys.is_empty() {
            out.extend_from_slice(bytes);
            return (out, false);
        }
        for byte in bytes {
            if self.keys[self.typed] != *byte {
                // Held back in vain.
                out.extend_from_slice(&self.keys[..self.typed]);
                self.typed = 0;
            }
            if self.keys[self.typed] != *byte {
                out.push(*byte);
                continue;
            }
            self.typed += 1;
            if self.typed == self.keys.len() {
                return (out, true);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spelt_as_docker_spells_them() {
        assert_eq!(parse(USUAL), Ok(Keys(vec![16, 17])));
        assert_eq!(parse("ctrl-\\"), Ok(Keys(vec![28])));
        assert_eq!(parse("Ctrl-A,d"), Ok(Keys(vec![1, b'd'])));
        assert_eq!(parse(""), Ok(Keys(vec![])));
        for bad in ["ctrl-", "ctrl-ä", "ctrl-1", "ab", "a,", " ", "ä"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_only_begins_like_the_keys_is_for_the_command() {
        let typed = |pieces: &[&[u8]]| {
            let mut watch = Watch::new(&parse("ctrl-p,ctrl-q").unwrap());
            let mut all = Vec::new();
            for piece in pieces {
                let (out, over) = watch.take(piece);
                all.extend(out);
                if over {
                    return (all, true);
                }
            }
            (all, false)
        };
        assert_eq!(typed(&[b"ab"]), (b"ab".to_vec(), false));
        assert_eq!(typed(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(typed(&[b"\x10", b"x\x11"]), (b"\x10x\x11".to_vec(), false));
        // The first key twice: the second one may be the beginning.
        assert_eq!(typed(&[b"\x10\x10", b"\x11"]), (b"\x10".to_vec(), true));
        let mut none = Watch::new(&parse("").unwrap());
        assert_eq!(none.take(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
