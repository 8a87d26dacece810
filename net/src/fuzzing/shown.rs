//! The first bytes of connections, for the names that they show.

use crate::shown::{self, Shown};

/// Bytes that a guest begins a connection with. What they show is the same however they
/// come, it is known as soon as it is said to be, and more bytes do not change it.
pub fn fuzz_shown(data: &[u8]) {
    let mut known = 0;
    let mut wanted = 1;
    let mut first = None;
    for length in 1..=data.len().min(2048) {
        let bytes = data.get(..length).unwrap_or_default();
        let at_once = shown::look(bytes, 0);
        if length < wanted {
            assert_eq!(at_once, Shown::More(wanted), "it was not there yet");
            continue;
        }
        let shown = shown::look(bytes, known);
        known = length;
        match (&first, shown) {
            (None, Shown::More(more)) => {
                assert!(more > length, "it waits for what is there");
                assert_eq!(at_once, Shown::More(more));
                wanted = more;
            }
            (None, shown) => {
                assert_eq!(at_once, shown);
                first = Some(shown);
                wanted = 0;
            }
            (Some(first), shown) => {
                assert_eq!(*first, at_once, "more bytes changed it");
                drop(shown);
            }
        }
    }
    if let Some(Shown::Tls(Some(name))) = &first {
        assert!(crate::policy::is_name(name));
    }
    if let Some(Shown::Http(names)) = &first {
        assert!(names.iter().all(|name| crate::policy::is_name(name)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello of TLS for `a.example`, in two records.
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x10\x01\x00\x00\x3d\x03\x03\
        AAAAAAAAAA\x16\x03\x01\x00\x31AAAAAAAAAAAAAAAAAAAAAA\
        \x00\x00\x02\x13\x01\x01\x00\x00\x12\x00\x00\x00\x0e\x00\x0c\x00\x00\x09a.example";
    const REQUEST: &[u8] =
        b"GET http://b.example/ HTTP/1.1\r\nX: y\r\nHost: a.example:80\r\n\r\nGET ";

    #[test]
    fn first_bytes_keep_the_promises() {
        assert_eq!(
            shown::look(HELLO, 0),
            Shown::Tls(Some("a.example".into())),
            "or what follows tries nothing"
        );
        assert!(matches!(shown::look(REQUEST, 0), Shown::Http(_)));
        let mut roll = super::super::rolls();
        for _ in 0..2000 {
            let seed = if roll(2) == 0 { HELLO } else { REQUEST };
            let mut input = seed.to_vec();
            for _ in 0..roll(4) {
                let place = roll(input.len());
                match roll(4) {
                    0 => drop(input.remove(place)),
                    1 => input.insert(place, b"\r\n :\0\x01aA"[roll(8)]),
                    2 => input.truncate(place + 1),
                    _ => input[place] ^= 1 << roll(8),
                }
            }
            fuzz_shown(&input);
        }
    }
}
