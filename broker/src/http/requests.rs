//! The guest's requests, into which secrets are put.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Header, Request, Status};
use memchr::memmem::find;
use zeroize::Zeroizing;

use super::body::Body;
use super::head::{Gathered, has_word, length, values};
use super::{Answer, Asked, MAX_FIELDS, MAX_UNANSWERED, Malformed};
use crate::find::{Replacer, replace_all};
use crate::keep::HostSecrets;

#[derive(Debug)]
enum State {
    Head,
    Body(Body),
    /// The answer decides what the next bytes are.
    Waiting,
    /// Bytes of no request.
    Other,
}

/// The stream of a guest's requests to one host.
#[derive(Debug)]
pub(crate) struct Requests {
    secrets: Arc<HostSecrets>,
    state: State,
    head: Gathered,
    /// Finds placeholders where they are not replaced.
    elsewhere: Replacer,
    /// Requests whose answers have not come.
    pub(crate) unanswered: VecDeque<Asked>,
    /// Numbers of the secrets that were put in.
    pub(crate) used: BTreeSet<usize>,
    /// Numbers of those whose placeholder was where none is replaced.
    pub(crate) misplaced: BTreeSet<usize>,
}

impl Requests {
    pub(crate) fn new(secrets: Arc<HostSecrets>) -> Self {
        let elsewhere = Replacer::new(secrets.placeholders().map(|text| (text, text)));
        Self {
            secrets,
            state: State::Head,
            head: Gathered::default(),
            elsewhere,
            unanswered: VecDeque::new(),
            used: BTreeSet::new(),
            misplaced: BTreeSet::new(),
        }
    }

    /// All requests have their answers: what follows are more, or bytes of something else.
    pub(crate) fn answered(&mut self, last: Answer) -> Result<(), Malformed> {
        let is_waiting = matches!(self.state, State::Waiting);
        match last {
            Answer::Ordinary if is_waiting => self.state = State::Head,
            Answer::Ordinary => {}
            Answer::Switched if is_waiting => self.state = State::Other,
            // The host would take what is left of the request for something else.
            Answer::Switched => return Err(Malformed::Response),
        }
        Ok(())
    }

    /// Passes on what the guest sent; how much of it. The rest is for when answers have
    /// come.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Waiting => break,
                State::Other => {
                    self.pass(rest, out);
                    at += rest.len();
                }
                State::Body(body) => {
                    let taken = body.take(rest)?;
                    if body.is_over() {
                        self.state = self.after_body();
                    }
                    self.pass(rest.get(..taken).unwrap_or_default(), out);
                    at += taken;
                }
                State::Head => {
                    if self.head.is_empty() && self.unanswered.len() >= MAX_UNANSWERED {
                        break;
                    }
                    let (taken, is_whole) = self.head.take(rest)?;
                    at += taken;
                    if is_whole {
                        let head = self.head.finish().ok_or(Malformed::Request)?;
                        self.state = State::Body(self.rewrite(&head, out)?);
                        if let State::Body(body) = self.state
                            && body.is_over()
                        {
                            self.state = self.after_body();
                        }
                    }
                }
            }
        }
        Ok(at)
    }

    fn after_body(&self) -> State {
        match self.unanswered.back() {
            Some(asked) if asked.wants_upgrade => State::Waiting,
            _ => State::Head,
        }
    }

    /// Passes bytes on as they are, and takes note of placeholders among them.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let misplaced = &mut self.misplaced;
        // What it holds back it would hold back from the host: it only looks.
        let mut seen = Vec::new();
        self.elsewhere.feed(bytes, &mut seen, |number| {
            misplaced.insert(number);
        });
        out.extend_from_slice(bytes);
    }

    fn rewrite(&mut self, head: &[u8], out: &mut Vec<u8>) -> Result<Body, Malformed> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = Request::new(&mut fields);
        match request.parse(head) {
            Ok(Status::Complete(bytes)) if bytes == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLong),
            _ => return Err(Malformed::Request),
        }
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(Malformed::Request);
        };
        let fields: &[Header<'_>] = request.headers;
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(Malformed::Method);
        }
        // Another form names a host of its own.
        let is_of_host = target.starts_with('/') || target == "*" && method == "OPTIONS";
        if !is_of_host {
            return Err(Malformed::Host);
        }
        self.check_host(fields)?;
        let body = match length(fields, version == 0) {
            None => Body::Sized(0),
            Some(body) => body.map_err(|()| Malformed::Length)?,
        };
        let wants_upgrade = has_word(fields, "connection", b"upgrade")
            && values(fields, "upgrade").next().is_some();
        self.unanswered.push_back(Asked {
            is_head: method == "HEAD",
            wants_upgrade,
        });
        self.note_misplaced(target.as_bytes());
        out.extend_from_slice(format!("{method} {target} HTTP/1.{version}\r\n").as_bytes());
        for field in fields {
            let value = self.value_of(field);
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(&value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(body)
    }

    /// The connection's host and no other: what stands behind its address may serve many.
    fn check_host(&self, fields: &[Header<'_>]) -> Result<(), Malformed> {
        let mut hosts = values(fields, "host");
        let (host, others) = (hosts.next(), hosts.next());
        let host = host.filter(|_| others.is_none()).ok_or(Malformed::Host)?;
        let (name, port) = match host.iter().position(|byte| *byte == b':') {
            Some(colon) => host.split_at(colon),
            None => (host, &b""[..]),
        };
        let own = format!(":{}", self.secrets.port());
        let is_own_port = port.is_empty() || port == own.as_bytes();
        match name.eq_ignore_ascii_case(self.secrets.host().as_bytes()) && is_own_port {
            true => Ok(()),
            false => Err(Malformed::Host),
        }
    }

    fn note_misplaced(&mut self, bytes: &[u8]) {
        for (number, placeholder) in self.secrets.placeholders().enumerate() {
            if find(bytes, placeholder).is_some() {
                self.misplaced.insert(number);
            }
        }
    }

    /// A field's value, with the secrets that it is to have.
    fn value_of(&mut self, field: &Header<'_>) -> Zeroizing<Vec<u8>> {
        let mut value = Zeroizing::new(field.value.trim_ascii().to_vec());
        let used = &mut self.used;
        let mut put_in = |value: &mut Vec<u8>| {
            let mut any = false;
            for (number, placeholder, secret) in self.secrets.for_header(field.name) {
                if replace_all(value, placeholder, secret) {
                    used.insert(number);
                    any = true;
                }
            }
            any
        };
        put_in(&mut value);
        // RFC 7617: user and password are one text behind a coding.
        if field.name.eq_ignore_ascii_case("authorization")
            && let Some((scheme, text)) = value.split_at_checked(6)
            && scheme.eq_ignore_ascii_case(b"basic ")
            && let Ok(mut decoded) = STANDARD.decode(text.trim_ascii()).map(Zeroizing::new)
        {
            if put_in(&mut decoded) {
                let encoded = Zeroizing::new(STANDARD.encode(&*decoded));
                *value = [&b"Basic "[..], encoded.as_bytes()].concat();
            }
            self.note_misplaced(&decoded);
        }
        self.note_misplaced(&value);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::tests::{PLACE, SECRET, host_secrets};

    fn through(bytes: &[u8], by: usize) -> Result<(String, Requests), Malformed> {
        let mut requests = Requests::new(host_secrets(&[]));
        let mut out = Vec::new();
        let mut waiting = Vec::new();
        for piece in bytes.chunks(by) {
            waiting.extend_from_slice(piece);
            let taken = requests.feed(&waiting, &mut out)?;
            waiting.drain(..taken);
        }
        Ok((String::from_utf8(out).unwrap(), requests))
    }

    fn refused(text: &str) -> Malformed {
        through(text.as_bytes(), 7).unwrap_err()
    }

    #[test]
    fn secrets_are_put_into_headers_however_the_request_is_cut() {
        let request = format!(
            "POST /v1 HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {PLACE}\r\n\
             X-Two: {PLACE}{PLACE}\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\
             host: API.example.com:443\r\nx-key:{PLACE}\r\n\r\n"
        );
        for by in 1..=request.len() {
            let (out, requests) = through(request.as_bytes(), by).unwrap();
            assert_eq!(out.matches(SECRET).count(), 4, "by {by}");
            assert_eq!(out.matches(PLACE).count(), 0);
            assert!(out.contains(&format!("Authorization: Bearer {SECRET}\r\n")));
            assert_eq!(requests.unanswered.len(), 2);
            assert!(requests.used.contains(&0) && requests.misplaced.is_empty());
        }
    }

    #[test]
    fn passwords_are_put_into_basic_credentials() {
        let text = STANDARD.encode(format!("user:{PLACE}"));
        let request = format!(
            "GET / HTTP/1.1\r\nHost: api.example.com\r\nauthorization: Basic {text}\r\n\r\n"
        );
        let (out, requests) = through(request.as_bytes(), 1000).unwrap();
        assert!(
            out.contains(&STANDARD.encode(format!("user:{SECRET}"))),
            "{out}"
        );
        assert!(requests.used.contains(&0) && requests.misplaced.is_empty());
    }

    #[test]
    fn placeholders_elsewhere_stay_and_are_noted() {
        for text in [
            format!("GET /?key={PLACE} HTTP/1.1\r\nHost: api.example.com\r\n\r\n"),
            format!(
                "POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {}\r\n\r\nab{PLACE}",
                PLACE.len() + 2
            ),
            format!(
                "POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {:x}\r\n{PLACE}\r\n0\r\n\r\n",
                PLACE.len()
            ),
            format!("GET / HTTP/1.1\r\nHost: api.example.com\r\nExpect: {PLACE}\r\n\r\n"),
        ] {
            for by in [1, 5, 1000] {
                let (out, requests) = through(text.as_bytes(), by).unwrap();
                assert_eq!(out, text);
                assert!(requests.misplaced.contains(&0) && requests.used.is_empty());
            }
        }
    }

    #[test]
    fn secrets_go_into_the_headers_that_they_are_for() {
        let mut requests = Requests::new(host_secrets(&["x-api-key"]));
        let request = format!(
            "GET / HTTP/1.1\r\nHost: api.example.com\r\nX-API-Key: {PLACE}\r\nX-Other: {PLACE}\r\n\r\n"
        );
        let mut out = Vec::new();
        requests.feed(request.as_bytes(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains(&format!("X-API-Key: {SECRET}\r\n")));
        assert!(out.contains(&format!("X-Other: {PLACE}\r\n")));
        assert!(requests.misplaced.contains(&0));
    }

    #[test]
    fn requests_for_another_host_are_refused() {
        for host in [
            "other.example.com",
            "api.example.com.evil",
            "api.example.com:444",
            "",
        ] {
            assert_eq!(
                refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
                Malformed::Host
            );
        }
        for request in [
            "GET / HTTP/1.1\r\nAccept: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: api.example.com\r\n\r\n",
            "GET https://other.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        ] {
            assert_eq!(refused(request), Malformed::Host);
        }
        for method in ["CONNECT", "TRACE"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: api.example.com\r\n\r\n");
            assert_eq!(refused(&request), Malformed::Method);
        }
    }

    #[test]
    fn requests_that_end_in_two_places_are_refused() {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
        ] {
            let request = format!("POST / HTTP/1.1\r\nHost: api.example.com\r\n{fields}\r\nabc");
            let error = refused(&request);
            assert!(
                matches!(error, Malformed::Length | Malformed::Request),
                "{fields}: {error}"
            );
        }
        let first =
            "POST / HTTP/1.0\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(first), Malformed::Length);
        for request in [
            "GET / HTTP/1.1\r\nHost: api.example.com\r\n folded: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : api.example.com\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: api.example.com\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /\r\nHost: api.example.com\r\n\r\n",
        ] {
            let error = refused(request);
            assert!(
                matches!(error, Malformed::Request | Malformed::Host),
                "{request}: {error}"
            );
        }
        let many = "A: b\r\n".repeat(200);
        let request = format!("GET / HTTP/1.1\r\nHost: api.example.com\r\n{many}\r\n");
        assert_eq!(refused(&request), Malformed::TooLong);
    }

    #[test]
    fn nothing_passes_behind_an_upgrade_until_it_is_answered() {
        let request = "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\n\r\n";
        let more = format!("GET / HTTP/1.1\r\nHost: other\r\nA: {PLACE}\r\n\r\n");
        for answer in [Answer::Switched, Answer::Ordinary] {
            let mut requests = Requests::new(host_secrets(&[]));
            let mut out = Vec::new();
            let text = format!("{request}{more}");
            assert_eq!(requests.feed(text.as_bytes(), &mut out), Ok(request.len()));
            assert!(requests.unanswered[0].wants_upgrade);
            requests.answered(answer).unwrap();
            let mut rest = Vec::new();
            let fed = requests.feed(more.as_bytes(), &mut rest);
            match answer {
                Answer::Switched => {
                    assert_eq!((fed, rest), (Ok(more.len()), more.clone().into_bytes()))
                }
                Answer::Ordinary => assert_eq!(fed, Err(Malformed::Host)),
            }
        }
    }

    #[test]
    fn requests_wait_while_too_many_are_unanswered() {
        let mut requests = Requests::new(host_secrets(&[]));
        let one = "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
        let many = one.repeat(MAX_UNANSWERED + 5);
        let mut out = Vec::new();
        let taken = requests.feed(many.as_bytes(), &mut out).unwrap();
        assert_eq!(taken, one.len() * MAX_UNANSWERED);
        requests.unanswered.pop_front();
        let rest = &many.as_bytes()[taken..];
        assert_eq!(requests.feed(rest, &mut out), Ok(one.len()));
    }
}
