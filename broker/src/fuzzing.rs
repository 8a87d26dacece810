//! Fuzz logic as plain functions over bytes, for fuzzers and for replay under `cargo
//! test`. They panic when an invariant breaks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use httparse::{EMPTY_HEADER, Request, Status};
use memchr::memmem::find;

use crate::http::{Answer, Asked, MAX_FIELDS, Malformed, Requests, Responses};
use crate::keep::{HostSecrets, Orders};
use crate::secret::Secret;
use crate::value::Value;

/// The value that is put in, which no input has by chance.
const VALUE: &[u8] = b"VALUE-9c41d7e2-VALUE";
/// What stands for it.
const PLACE: &[u8] = b"PLACE-0123456-PLACE!";
const HOST: &str = "api.example.com";

fn secrets() -> Option<Arc<HostSecrets>> {
    let secret = Secret {
        name: "KEY".to_owned(),
        value: Value::new(String::from_utf8_lossy(VALUE)),
        hosts: vec![HOST.parse().ok()?],
        headers: Vec::new(),
        roots: Vec::new(),
    };
    let mut orders = Orders::new(&[secret], SystemTime::now()).ok()?;
    for kept in &mut orders.secrets {
        kept.placeholder = String::from_utf8_lossy(PLACE).into_owned();
    }
    Arc::new(orders).of_host(HOST, 443)
}

/// What becomes of a guest's bytes that come in pieces of this size.
fn passed(secrets: &Arc<HostSecrets>, data: &[u8], by: usize) -> (Vec<u8>, Option<Malformed>) {
    let mut requests = Requests::new(secrets.clone());
    let mut out = Vec::new();
    let mut waiting = Vec::new();
    for piece in data.chunks(by.max(1)) {
        waiting.extend_from_slice(piece);
        loop {
            let taken = match requests.feed(&waiting, &mut out) {
                Ok(taken) => taken,
                Err(malformed) => return (out, Some(malformed)),
            };
            waiting.drain(..taken);
            // The host answers everything.
            requests.unanswered.clear();
            let answered = requests.answered(Answer::Ordinary);
            if answered.is_err() || taken == 0 || waiting.is_empty() {
                break;
            }
        }
    }
    (out, None)
}

/// A guest's bytes to a host of a secret, of which the first says how they are cut. What
/// is passed on does not depend on that; the value is in it only where another reader of
/// HTTP finds it in a header of a request to this host.
pub fn fuzz_requests(data: &[u8]) {
    let Some((by, data)) = data.split_first() else {
        return;
    };
    if find(data, VALUE).is_some() {
        return;
    }
    let Some(secrets) = secrets() else {
        return;
    };
    requests(&secrets, usize::from(*by), data);
}

fn requests(secrets: &Arc<HostSecrets>, by: usize, data: &[u8]) {
    let (out, malformed) = passed(secrets, data, by);
    let (whole, other) = passed(secrets, data, 1);
    assert_eq!(malformed, other, "by {by}");
    match malformed {
        None => assert_eq!(out, whole, "by {by}"),
        // Of what is wrong more or less was passed on before that was seen.
        Some(_) => assert!(whole.starts_with(&out), "by {by}"),
    }
    check(&whole);
    check(&out);
}

/// Reads what was passed on another way: heads by httparse and lengths by this.
fn check(mut out: &[u8]) {
    while !out.is_empty() {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = Request::new(&mut fields);
        let Ok(Status::Complete(head)) = request.parse(out) else {
            assert!(find(out, VALUE).is_none(), "the value is in no head");
            return;
        };
        let field = |name: &str| {
            let mut fields = request.headers.iter();
            fields.find(|field| field.name.eq_ignore_ascii_case(name))
        };
        let host = field("host").map(|field| field.value.to_ascii_lowercase());
        let host = host.unwrap_or_default();
        assert!(host == HOST.as_bytes() || host == format!("{HOST}:443").as_bytes());
        let target = request.path.unwrap_or_default();
        assert!(
            find(target.as_bytes(), VALUE).is_none(),
            "the value is in the target"
        );
        let rest = out.get(head..).unwrap_or_default();
        let length = if field("transfer-encoding").is_some() {
            chunked(rest)
        } else {
            let text = field("content-length").map(|field| field.value.to_vec());
            let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
            Some(text.trim().parse::<usize>().unwrap_or(0))
        };
        let body = match length {
            Some(length) if length <= rest.len() => rest.get(..length),
            // It is not all there.
            _ => Some(rest),
        };
        let body = body.unwrap_or_default();
        assert!(find(body, VALUE).is_none(), "the value is in a body");
        out = rest.get(body.len()..).unwrap_or_default();
    }
}

/// The length of a chunked body, by lines; none if it is not all there.
fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        let line = find(rest, b"\r\n")?;
        let text = std::str::from_utf8(rest.get(..line)?).ok()?;
        let size = usize::from_str_radix(text, 16).ok()?;
        at = at.checked_add(line + 2)?;
        if size == 0 {
            // Trailers, up to an empty line.
            loop {
                let rest = bytes.get(at..)?;
                let line = find(rest, b"\r\n")?;
                at += line + 2;
                if line == 0 {
                    return Some(at);
                }
            }
        }
        at = at.checked_add(size)?.checked_add(2)?;
    }
}

/// A host's bytes, of which the first says how they are cut and what was asked: what they
/// answer does not depend on the cuts.
pub fn fuzz_answers(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let read = |by: usize| {
        let mut unanswered: VecDeque<Asked> = (0..4)
            .map(|number| Asked {
                is_head: first & (1 << number) != 0,
                wants_upgrade: number == 3 && first & 0x80 != 0,
            })
            .collect();
        let mut responses = Responses::default();
        let mut answers = Vec::new();
        for piece in data.chunks(by) {
            let fed = responses.feed(piece, &mut unanswered, |answer| answers.push(answer));
            if let Err(malformed) = fed {
                return (answers, Some(malformed));
            }
        }
        (answers, None)
    };
    let once = read(usize::from(*first).max(1));
    assert!(once.0.len() <= 4, "answers that nobody asked for");
    assert_eq!(once, read(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: PLACE-0123456-PLACE!\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: api.example.com:443\r\nK: PLACE-0123456-PLACE!\r\n\
          Content-Length: 20\r\n\r\nPLACE-0123456-PLACE!",
        b"POST /x HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\
          K: PLACE-0123456-PLACE!\r\n\r\n14\r\nPLACE-0123456-PLACE!\r\n0\r\nT: u\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ];
    const ANSWERS: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ];
    /// What goes wrong between readers of HTTP.
    const PIECES: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"0",
        b"a",
        b"Content-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: other\r\n",
        b"\r\n\r\n",
        b"PLACE-0123456-PLACE!",
        b"GET / HTTP/1.1\r\n",
    ];

    fn roller() -> impl FnMut(usize) -> usize {
        let mut state = 0x5eed_u64;
        move |sides: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % sides
        }
    }

    fn inputs(seeds: &[&[u8]], count: usize, mut each: impl FnMut(&[u8])) {
        let mut roll = roller();
        for _ in 0..count {
            let mut input = vec![u8::try_from(roll(256)).unwrap()];
            for _ in 0..1 + roll(4) {
                input.extend(seeds[roll(seeds.len())]);
            }
            for _ in 0..roll(4) {
                let place = 1 + roll(input.len() - 1);
                match roll(4) {
                    0 => drop(input.remove(place)),
                    1 => input[place] ^= 1 << roll(8),
                    _ => {
                        let piece = PIECES[roll(PIECES.len())];
                        input.splice(place..place, piece.iter().copied());
                    }
                }
            }
            each(&input);
        }
    }

    #[test]
    fn requests_keep_the_promises() {
        let secrets = secrets().unwrap();
        for seed in REQUESTS {
            let (out, malformed) = passed(&secrets, seed, 1000);
            assert_eq!(malformed, None, "or what follows tries nothing");
            assert_eq!(find(seed, PLACE).is_some(), find(&out, VALUE).is_some());
        }
        inputs(REQUESTS, 2000, |input| {
            requests(&secrets, usize::from(input[0]), &input[1..]);
        });
        fuzz_requests(&[&[9], REQUESTS[1]].concat());
    }

    #[test]
    fn answers_keep_the_promises() {
        inputs(ANSWERS, 2000, fuzz_answers);
    }
}
