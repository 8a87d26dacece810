//! A host's answers: which request each is to, and where it ends.

use std::collections::VecDeque;

use httparse::{EMPTY_HEADER, Response, Status};

use super::body::Body;
use super::head::{Gathered, length};
use super::{Answer, Asked, MAX_FIELDS, Malformed};

/// The answer that makes the connection another (RFC 9110, 15.2.2).
const SWITCHING: u16 = 101;

#[derive(Debug)]
enum State {
    Head,
    Body(Body),
    /// Bytes of no answer.
    Other,
}

/// The stream of a host's answers.
#[derive(Debug)]
pub(crate) struct Responses {
    state: State,
    head: Gathered,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            state: State::Head,
            head: Gathered::default(),
        }
    }
}

impl Responses {
    /// Whether the host has sent part of an answer, and not all of it.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.head.is_empty()
    }

    /// Whether what follows is another message, or comes when it likes.
    pub(crate) fn may_pause(&self) -> bool {
        matches!(self.state, State::Other) || self.is_between()
    }

    /// Looks at what the host sent. Answers are taken off the requests that they are to;
    /// `each` is told of them.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        unanswered: &mut VecDeque<Asked>,
        mut each: impl FnMut(Answer),
    ) -> Result<(), Malformed> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Other => return Ok(()),
                State::Body(body) => {
                    at += body.take(rest).map_err(|_| Malformed::Response)?;
                    if body.is_over() {
                        self.state = State::Head;
                    }
                }
                State::Head => {
                    let taken = self.head.take(rest);
                    let (taken, is_whole) = taken.map_err(|_| Malformed::Response)?;
                    at += taken;
                    if is_whole {
                        let head = self.head.finish().ok_or(Malformed::Response)?;
                        let asked = unanswered.front().copied().ok_or(Malformed::Response)?;
                        let (code, body) = read(&head, asked)?;
                        self.state = match body {
                            None => State::Other,
                            Some(body) if body.is_over() => State::Head,
                            Some(body) => State::Body(body),
                        };
                        // Others of this kind come before the answer.
                        if code < 200 && code != SWITCHING {
                            continue;
                        }
                        unanswered.pop_front();
                        each(match code {
                            SWITCHING => Answer::Switched,
                            _ => Answer::Ordinary,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// The code of an answer and its body; none if the connection becomes another.
fn read(head: &[u8], asked: Asked) -> Result<(u16, Option<Body>), Malformed> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut response = Response::new(&mut fields);
    match response.parse(head) {
        Ok(Status::Complete(bytes)) if bytes == head.len() => {}
        _ => return Err(Malformed::Response),
    }
    let (Some(code), Some(version)) = (response.code, response.version) else {
        return Err(Malformed::Response);
    };
    if code == SWITCHING {
        return match asked.wants_upgrade {
            true => Ok((code, None)),
            false => Err(Malformed::Response),
        };
    }
    if code < 200 || matches!(code, 204 | 304) || asked.is_head {
        return Ok((code, Some(Body::Sized(0))));
    }
    let body = match length(response.headers, version == 0) {
        None => Body::ToTheEnd,
        Some(body) => body.map_err(|()| Malformed::Response)?,
    };
    Ok((code, Some(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(count: usize) -> VecDeque<Asked> {
        let one = Asked {
            is_head: false,
            wants_upgrade: false,
        };
        std::iter::repeat_n(one, count).collect()
    }

    fn through(
        bytes: &[u8],
        by: usize,
        mut unanswered: VecDeque<Asked>,
    ) -> Result<Vec<Answer>, Malformed> {
        let mut responses = Responses::default();
        let mut answers = Vec::new();
        for piece in bytes.chunks(by) {
            responses.feed(piece, &mut unanswered, |answer| answers.push(answer))?;
        }
        Ok(answers)
    }

    #[test]
    fn answers_are_counted_however_they_are_cut() {
        let stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            1\r\na\r\n0\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.0 200 OK\r\n\r\nto the end HTTP/1.1 200 OK\r\n\r\n";
        for by in 1..=stream.len() {
            let answers = through(stream, by, asked(5)).unwrap();
            assert_eq!(answers, [Answer::Ordinary; 5], "by {by}");
        }
    }

    #[test]
    fn answers_to_head_have_no_body() {
        let mut unanswered = asked(2);
        unanswered[0].is_head = true;
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(
            through(stream, 9, unanswered),
            Ok(vec![Answer::Ordinary; 2])
        );
    }

    #[test]
    fn answers_that_nobody_asked_for_are_refused() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(through(stream, 9, asked(0)), Err(Malformed::Response));
        let upgraded = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert_eq!(through(upgraded, 9, asked(1)), Err(Malformed::Response));
        let mut wanted = asked(1);
        wanted[0].wants_upgrade = true;
        assert_eq!(through(upgraded, 9, wanted), Ok(vec![Answer::Switched]));
    }
}
