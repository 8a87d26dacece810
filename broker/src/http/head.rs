//! Heads of messages: where they end, and what they say.

use httparse::Header;
use memchr::memmem::find;

use super::body::{Body, Chunks};
use super::{MAX_HEAD_BYTES, Malformed};

/// What ends a head.
const END: &[u8] = b"\r\n\r\n";

/// Gathers a head that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
}

impl Gathered {
    /// Takes bytes up to the head's end; how many, and whether it is all there.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        // Its end may have begun in the piece before.
        let before = self.bytes.len();
        let room = MAX_HEAD_BYTES.saturating_sub(before);
        let piece = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.bytes.extend_from_slice(piece);
        let from = before.saturating_sub(END.len() - 1);
        let end = find(self.bytes.get(from..).unwrap_or_default(), END);
        match end {
            Some(at) => {
                let length = from + at + END.len();
                self.bytes.truncate(length);
                Ok((length - before, true))
            }
            None if self.bytes.len() >= MAX_HEAD_BYTES => Err(Malformed::TooLong),
            None => Ok((piece.len(), false)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the head out, without empty lines in front (RFC 9112, 2.2); none if it is
    /// read in different ways by different readers.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let mut head = std::mem::take(&mut self.bytes);
        while head.starts_with(b"\r\n") && head.len() > END.len() {
            head.drain(..2);
        }
        let mut last = 0;
        let is_clear = head.iter().enumerate().all(|(at, byte)| {
            let before = std::mem::replace(&mut last, *byte);
            let after = head.get(at + 1).copied();
            match byte {
                b'\n' => before == b'\r',
                b'\r' => after == Some(b'\n'),
                0 => false,
                _ => true,
            }
        });
        is_clear.then_some(head)
    }
}

/// The values of a field.
pub(super) fn values<'a>(
    fields: &'a [Header<'_>],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    let named = fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| field.value.trim_ascii())
}

/// The length of a body that fields say; none if they say nothing.
pub(super) fn length(fields: &[Header<'_>], is_first_version: bool) -> Option<Result<Body, ()>> {
    let mut codings = values(fields, "transfer-encoding");
    let mut lengths = values(fields, "content-length");
    let body = match (codings.next(), lengths.next()) {
        (None, None) => return None,
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && !is_first_version => {
            Some(Body::Chunked(Chunks::FIRST))
        }
        (None, Some(length)) => digits(length).map(Body::Sized),
        _ => None,
    };
    let is_said_once = codings.next().is_none() && lengths.next().is_none();
    Some(body.filter(|_| is_said_once).ok_or(()))
}

fn digits(text: &[u8]) -> Option<u64> {
    if !(1..=18).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whether a list of words, in one or more fields, has this one.
pub(super) fn has_word(fields: &[Header<'_>], name: &str, word: &[u8]) -> bool {
    values(fields, name).any(|value| {
        let mut words = value.split(|byte| *byte == b',');
        words.any(|found| found.trim_ascii().eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_where_they_end_however_they_are_cut() {
        let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody";
        for by in 1..=stream.len() {
            let mut head = Gathered::default();
            let mut taken = 0;
            for piece in stream.chunks(by) {
                let (count, is_whole) = head.take(piece).unwrap();
                taken += count;
                if is_whole {
                    break;
                }
            }
            assert_eq!(taken, stream.len() - 4, "by {by}");
            assert_eq!(head.finish().unwrap(), stream[..taken]);
        }
    }

    #[test]
    fn endless_heads_are_refused_at_their_limit() {
        let mut head = Gathered::default();
        let mut taken = 0;
        let error = loop {
            match head.take(&[b'a'; 1000]) {
                Ok((count, _)) => taken += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error, Malformed::TooLong);
        assert!(taken <= MAX_HEAD_BYTES && head.bytes.len() <= MAX_HEAD_BYTES);
    }

    #[test]
    fn line_ends_that_only_some_readers_see_are_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\nA: b\nHost: c\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nA: b\rHost: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
            b"GET / HTTP/1.1\n\r\n\r\n",
        ] {
            let mut head = Gathered::default();
            head.take(bad).unwrap();
            assert_eq!(head.finish(), None, "{bad:?}");
        }
    }
}
