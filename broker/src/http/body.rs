//! Where bodies end.

use super::Malformed;

/// Longest line with a chunk's size: 16 digits.
const MAX_SIZE_DIGITS: usize = 16;
/// Most bytes of the fields behind the last chunk.
const MAX_TRAILER_BYTES: usize = 8192;

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Sized(u64),
    /// Chunks (RFC 9112, 7.1).
    Chunked(Chunks),
    /// All until the connection ends.
    ToTheEnd,
}

/// Where in a chunked body a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the digits of a size: how many there were, and what they say.
    Size(usize, u64),
    /// At the line feed behind a size.
    SizeEnd(u64),
    /// In the content of a chunk.
    Content(u64),
    /// At the carriage return behind a chunk's content.
    Return,
    /// At the line feed behind that.
    Feed,
    /// At the beginning of a trailer's line, so many bytes in.
    Line(usize),
    /// In a trailer's line.
    Field(usize),
    /// At the line feed of a trailer's line.
    FieldEnd(usize),
    /// At the last line feed.
    LastFeed,
    Over,
}

impl Chunks {
    pub(super) const FIRST: Self = Self::Size(0, 0);
}

impl Body {
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Sized(0) | Self::Chunked(Chunks::Over))
    }

    /// How many of these bytes are the body's: all of them, or those to its end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::ToTheEnd => Ok(bytes.len()),
            Self::Sized(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left = left.saturating_sub(taken as u64);
                Ok(taken)
            }
            Self::Chunked(chunks) => {
                let mut at = 0;
                while *chunks != Chunks::Over
                    && let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty())
                {
                    at += chunks.step(rest)?;
                }
                Ok(at)
            }
        }
    }
}

impl Chunks {
    /// Takes some of the bytes, of which there is at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        if let Self::Content(left) = self {
            let taken = usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let left = left.saturating_sub(taken as u64);
            *self = match left {
                0 => Self::Return,
                left => Self::Content(left),
            };
            return Ok(taken);
        }
        let Some(byte) = bytes.first().copied() else {
            return Ok(0);
        };
        let digit = char::from(byte).to_digit(16).map(u64::from);
        *self = match (*self, byte) {
            (Self::Size(digits, size), _) if digits < MAX_SIZE_DIGITS && digit.is_some() => {
                let size = size.checked_mul(16).ok_or(Malformed::Length)?;
                Self::Size(digits + 1, size | digit.unwrap_or(0))
            }
            // Extensions are not among what is understood here.
            (Self::Size(1.., size), b'\r') => Self::SizeEnd(size),
            (Self::SizeEnd(0), b'\n') => Self::Line(0),
            (Self::SizeEnd(size), b'\n') => Self::Content(size),
            (Self::Return, b'\r') => Self::Feed,
            (Self::Feed, b'\n') => Self::FIRST,
            (Self::Line(_), b'\r') => Self::LastFeed,
            (Self::LastFeed, b'\n') => Self::Over,
            (Self::Field(length), b'\r') => Self::FieldEnd(length + 1),
            (Self::FieldEnd(length), b'\n') => Self::Line(length + 1),
            (Self::Line(length) | Self::Field(length), byte)
                if length < MAX_TRAILER_BYTES && !matches!(byte, b'\n' | 0) =>
            {
                Self::Field(length + 1)
            }
            _ => return Err(Malformed::Length),
        };
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], by: usize) -> Result<usize, Malformed> {
        let mut body = Body::Chunked(Chunks::FIRST);
        let mut taken = 0;
        for piece in bytes.chunks(by) {
            if body.is_over() {
                break;
            }
            taken += body.take(piece)?;
        }
        match body.is_over() {
            true => Ok(taken),
            false => Err(Malformed::Length),
        }
    }

    #[test]
    fn chunked_bodies_end_where_they_say_however_they_are_cut() {
        let body = b"4\r\nWiki\r\nB\r\npedia in \r\n\r\n0\r\nX: y\r\n\r\nGET ";
        for by in 1..=body.len() {
            assert_eq!(whole(body, by), Ok(body.len() - 4), "by {by}");
        }
    }

    #[test]
    fn sizes_that_readers_understand_differently_are_refused() {
        for bad in [
            &b"4;x=y\r\nWiki\r\n0\r\n\r\n"[..],
            b"4\nWiki\n0\n\n",
            b"+4\r\nWiki\r\n0\r\n\r\n",
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b" 4\r\nWiki\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b"00000000000000004\r\nWiki\r\n0\r\n\r\n",
            b"4\r\nWikipedia\r\n0\r\n\r\n",
            b"0\r\nX: y\nZ: 1\r\n\r\n",
        ] {
            assert_eq!(whole(bad, 3), Err(Malformed::Length), "{bad:?}");
        }
        assert!(whole(b"FFFFFFFFFFFFFFFF\r\n", 1).is_err());
    }

    #[test]
    fn sized_bodies_take_no_more_than_their_length() {
        let mut body = Body::Sized(5);
        assert_eq!(body.take(b"123"), Ok(3));
        assert_eq!(body.take(b"45GET"), Ok(2));
        assert!(body.is_over());
    }
}
