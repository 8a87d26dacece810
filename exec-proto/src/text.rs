//! Text of the other side, where people see it.

use core::fmt::{self, Write};

use crate::MAX_MESSAGE_BYTES;

/// Most bytes of several lines that are shown, the last ones.
const MAX_LINES_BYTES: usize = 16 * 1024;

/// Text that somebody else chose, fit for a terminal or a log: what would move
/// a cursor, or turn the direction of writing, is escaped as in Rust's strings,
/// and too much of it is cut. Showing what is shown already changes nothing.
///
/// ```
/// use supermachine_exec_proto::Printable;
///
/// let name = "no\x1b[2Jbody\n";
/// assert_eq!(Printable::line(name).to_string(), r"no\u{1b}[2Jbody\u{a}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a> {
    text: &'a str,
    /// Line ends and tabs stay.
    keeps_lines: bool,
}

impl<'a> Printable<'a> {
    /// A name or a message: its first 1,024 bytes, in one line.
    #[must_use]
    pub fn line(text: &'a str) -> Self {
        Self {
            text,
            keeps_lines: false,
        }
    }

    /// Output or a log: its last 16 KiB, in the lines it has.
    #[must_use]
    pub fn lines(text: &'a str) -> Self {
        Self {
            text,
            keeps_lines: true,
        }
    }

    /// Whether a character may be shown as it is.
    #[must_use]
    pub fn is_harmless(char: char) -> bool {
        match char {
            // Marks, embeddings and isolates of the Unicode bidirectional
            // algorithm (UAX #9), and the two separators that end lines.
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => false,
            char => !char.is_control(),
        }
    }

    fn put(&self, text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '\n' | '\t' if self.keeps_lines => f.write_char(char)?,
                // Part of a line's end, as consoles have it.
                '\r' if self.keeps_lines && chars.peek() == Some(&'\n') => {}
                char if Self::is_harmless(char) => f.write_char(char)?,
                char => write!(f, "{}", char.escape_unicode())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text;
        if self.keeps_lines {
            let cut = text.len().saturating_sub(MAX_LINES_BYTES);
            let start = text.ceil_char_boundary(cut);
            if start > 0 {
                f.write_str("...")?;
            }
            return self.put(text.get(start..).unwrap_or_default(), f);
        }
        let end = text.floor_char_boundary(MAX_MESSAGE_BYTES);
        self.put(text.get(..end).unwrap_or_default(), f)?;
        if end < text.len() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn foreign_text_cannot_drive_a_terminal() {
        let line = |text| Printable::line(text).to_string();
        assert_eq!(line("oci:größe/日本"), "oci:größe/日本");
        assert_eq!(line("a\x1b[31mb\x7f"), "a\\u{1b}[31mb\\u{7f}");
        assert_eq!(line("a\nb\u{9b}c\u{202e}d"), "a\\u{a}b\\u{9b}c\\u{202e}d");
        let lines = |text| Printable::lines(text).to_string();
        assert_eq!(lines("a\tb\r\nc\rd\x1b\n"), "a\tb\nc\\u{d}d\\u{1b}\n");
        // What is shown is shown the same again.
        assert_eq!(line(&line("\x1b")), line("\x1b"));
    }

    #[test]
    fn foreign_text_is_cut_where_a_character_ends() {
        let long = "é".repeat(MAX_LINES_BYTES);
        for max in [
            Printable::line(&long).to_string(),
            Printable::lines(&long).to_string(),
        ] {
            assert!(max.len() <= MAX_LINES_BYTES + 3 && max.contains("..."));
            assert!(max.replace("...", "").chars().all(|char| char == 'é'));
        }
        assert!(Printable::lines("a\nb").to_string().ends_with('b'));
    }
}
