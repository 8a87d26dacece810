//! Looks for texts in streams that come in pieces.

use memchr::memmem::find;
use zeroize::Zeroizing;

/// Fewest bytes that are held back: what text ends in by chance is passed on.
const LEAST_HELD: usize = 4;

/// Replaces texts in a stream by others of the same length, and says which were there.
/// What may be the beginning of one is held back until that is known, or until whoever
/// reads it would wait for it.
#[derive(Debug, Default)]
pub(crate) struct Replacer {
    pairs: Vec<Pair>,
    longest: usize,
    /// What may be the beginning of a text.
    held: Vec<u8>,
    /// Bytes of it that were passed on all the same.
    passed: usize,
}

#[derive(Debug)]
struct Pair {
    from: Zeroizing<Vec<u8>>,
    to: Zeroizing<Vec<u8>>,
}

impl Replacer {
    /// Looks for the first of each pair, and puts the second in its place.
    pub(crate) fn new<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let pairs: Vec<Pair> = pairs
            .map(|(from, to)| Pair {
                from: from.to_vec().into(),
                to: to.to_vec().into(),
            })
            .collect();
        let longest = pairs.iter().map(|pair| pair.from.len()).max().unwrap_or(0);
        Self {
            pairs,
            longest,
            held: Vec::new(),
            passed: 0,
        }
    }

    /// Passes on the stream's next bytes, as far as they are known; calls `found` with
    /// the number of each pair that was there.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>, mut found: impl FnMut(usize)) {
        if self.pairs.is_empty() {
            return out.extend_from_slice(bytes);
        }
        self.held.extend_from_slice(bytes);
        self.replace(&mut found);
        let known = self.held.len() - self.beginning();
        let fresh = self.held.get(self.passed.min(known)..known);
        out.extend_from_slice(fresh.unwrap_or_default());
        self.held.drain(..known);
        self.passed = self.passed.saturating_sub(known);
        if self.held.len() < LEAST_HELD {
            self.flush(out);
        }
    }

    /// Passes on what is held back: it is waited for. The rest of a text is found still.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.held.get(self.passed..).unwrap_or_default());
        self.passed = self.held.len();
    }

    /// Replaces texts, but for what was passed on of them.
    fn replace(&mut self, found: &mut impl FnMut(usize)) {
        for (number, pair) in self.pairs.iter().enumerate() {
            let mut from = 0;
            while let Some(at) = find(self.held.get(from..).unwrap_or_default(), &pair.from) {
                let place = from + at;
                from = place + pair.from.len();
                if let Some(there) = self.held.get_mut(place..from) {
                    for (place, byte) in there.iter_mut().zip(pair.to.iter()) {
                        *place = *byte;
                    }
                }
                found(number);
            }
        }
    }

    /// Bytes at the end that may be the beginning of a text.
    fn beginning(&self) -> usize {
        let most = self.held.len().min(self.longest.saturating_sub(1));
        let begins = |bytes: &usize| {
            let tail = self.held.len() - bytes;
            let tail = self.held.get(tail..).unwrap_or_default();
            let mut pairs = self.pairs.iter();
            pairs.any(|pair| pair.from.len() > tail.len() && pair.from.starts_with(tail))
        };
        (1..=most).rev().find(begins).unwrap_or(0)
    }
}

/// Replaces all of a text in a header's value; whether there was any.
pub(crate) fn replace_all(bytes: &mut Vec<u8>, text: &[u8], by: &[u8]) -> bool {
    let mut from = 0;
    let mut any = false;
    while let Some(at) = bytes.get(from..).and_then(|rest| find(rest, text)) {
        let place = from + at;
        bytes.splice(place..place + text.len(), by.iter().copied());
        from = place + by.len();
        any = true;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_however_the_stream_is_cut() {
        let stream = b"xSECRETySECSECRETzSECRE";
        for cut in 1..stream.len() {
            let pairs = [(&b"SECRET"[..], &b"plcehl"[..]), (b"absent", b"xxxxxx")];
            let mut replacer = Replacer::new(pairs.into_iter());
            let (mut out, mut found) = (Vec::new(), Vec::new());
            for piece in stream.chunks(cut) {
                replacer.feed(piece, &mut out, |number| found.push(number));
            }
            replacer.flush(&mut out);
            assert_eq!(out.len(), stream.len(), "by {cut}");
            // Only of the first bytes some may have been passed on.
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches("ehl").count(), 2, "{text} by {cut}");
            assert!(text.ends_with("zSECRE"), "{text} by {cut}");
            assert_eq!(found, [0, 0]);
        }
    }

    #[test]
    fn what_is_waited_for_is_passed_on_and_the_rest_is_found() {
        let mut replacer = Replacer::new([(&b"SECRET"[..], &b"plcehl"[..])].into_iter());
        let (mut out, mut found) = (Vec::new(), Vec::new());
        replacer.feed(b"a SECRE", &mut out, |number| found.push(number));
        assert_eq!(out, b"a ");
        replacer.flush(&mut out);
        replacer.flush(&mut out);
        assert_eq!(out, b"a SECRE");
        replacer.feed(b"T, SECRET", &mut out, |number| found.push(number));
        assert_eq!(out, b"a SECREl, plcehl");
        assert_eq!(found, [0, 0]);
    }

    #[test]
    fn nothing_is_held_that_is_no_beginning() {
        let mut replacer = Replacer::new([(&b"SECRET"[..], &b"plcehl"[..])].into_iter());
        let mut out = Vec::new();
        replacer.feed(b"data: 1\n\n", &mut out, |_| {});
        assert_eq!(out, b"data: 1\n\n");
        // Nor what ends like one by chance.
        replacer.feed(b"SEC", &mut out, |_| {});
        assert_eq!(out, b"data: 1\n\nSEC");
        replacer.feed(b"x", &mut out, |_| {});
        assert_eq!(out, b"data: 1\n\nSECx");
    }

    #[test]
    fn all_of_a_text_is_replaced() {
        let mut value = b"a PLACE b PLACE".to_vec();
        assert!(replace_all(&mut value, b"PLACE", b"value"));
        assert_eq!(value, b"a value b value");
        assert!(!replace_all(&mut value, b"PLACE", b"value"));
    }
}
