//! Messages of the domain name system (RFC 1035), as far as a resolver for one
//! guest needs them: one question, and its answer.

use std::net::IpAddr;

use crate::policy::{HostPattern, MAX_NAME_BYTES};
use crate::wire::be16;

/// Bytes of a message's header.
const HEADER_BYTES: usize = 12;
/// What goes over UDP if the guest says nothing else (RFC 1035, 4.2.1).
const PLAIN_BYTES: usize = 512;
/// What goes over UDP at most: it fits in a packet of any network (RFC 9715).
const MAX_UDP_BYTES: usize = 1232;
/// How long the guest may keep an answer, in seconds. The host's resolver does not
/// say, and has a cache of its own.
const LIFETIME: u32 = 30;
/// Most addresses in an answer.
const MAX_ADDRESSES: usize = 64;

/// An answer that was cut (RFC 1035, 4.1.1).
const TRUNCATED: u8 = 2;

/// Types of records.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    /// From here on, questions that are not about a record (RFC 1995, RFC 1035).
    pub(crate) const IXFR: u16 = 251;
}

/// Why a question has no answer (RFC 1035, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Good = 0,
    Malformed = 1,
    Failed = 2,
    NoName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// A question that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    id: [u8; 2],
    recursion_desired: bool,
    /// The name in small letters, without a dot at its end; empty for the root.
    pub(crate) name: String,
    pub(crate) kind: u16,
    is_internet: bool,
    /// As it stands in the message: resolvers compare letters (0x20 hacks).
    asked: Vec<u8>,
    /// Bytes of the answer that fit, if the guest said so.
    udp_bytes: Option<usize>,
}

/// What a message asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Question(Question),
    /// Nothing that could be answered but with a code.
    Unanswerable(Vec<u8>),
    /// Not even that.
    Garbage,
}

/// Whether a message is an answer to this question, as that stands in a message.
pub(crate) fn answers(message: &[u8], asked: &[u8]) -> bool {
    let Some((header, rest)) = message.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let same = |there: &[u8]| there.eq_ignore_ascii_case(asked);
    header[2] & 0xf8 == 0x80 && header[4..6] == [0, 1] && rest.get(..asked.len()).is_some_and(same)
}

/// Whether an answer was cut, and is whole over TCP.
#[cfg(feature = "driver")]
pub(crate) fn is_cut(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Whether whoever answered could not find out.
#[cfg(feature = "driver")]
pub(crate) fn is_failure(message: &[u8]) -> bool {
    let code = message.get(3).map_or(0, |flags| flags & 0x0f);
    code == Code::Failed as u8 || code == Code::Refused as u8
}

/// A question for another name server, which is to look further.
#[cfg(feature = "driver")]
pub(crate) fn ask(id: [u8; 2], asked: &[u8]) -> Vec<u8> {
    let mut out = id.to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend(asked);
    out
}

/// Reads a message from the guest.
pub(crate) fn read(message: &[u8]) -> Asked {
    let Some(header) = message.first_chunk::<HEADER_BYTES>() else {
        return Asked::Garbage;
    };
    let [id0, id1, flags, ..] = *header;
    // An answer is nothing to answer.
    if flags & 0x80 != 0 {
        return Asked::Garbage;
    }
    let refuse = |code: Code| {
        let mut out = vec![id0, id1, 0x80 | flags & 0x79, 0x80 | code as u8];
        out.resize(HEADER_BYTES, 0);
        Asked::Unanswerable(out)
    };
    if flags & 0x78 != 0 {
        return refuse(Code::NotImplemented);
    }
    if be16(message, 4) != Some(1) {
        return refuse(Code::Malformed);
    }
    match question(message, [id0, id1], flags & 1 != 0) {
        Some(question) => Asked::Question(question),
        None => refuse(Code::Malformed),
    }
}

fn question(message: &[u8], id: [u8; 2], recursion_desired: bool) -> Option<Question> {
    let mut at = HEADER_BYTES;
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Longer ones are pointers, and there is nothing to point to.
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        for byte in label {
            // What is no host name has no addresses, but may have other things.
            let letter = char::from(byte.to_ascii_lowercase());
            let odd = !byte.is_ascii_graphic() || matches!(letter, '.' | '*' | '\\');
            name.push(if odd { '?' } else { letter });
        }
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
    }
    let kind = be16(message, at)?;
    let class = be16(message, at + 2)?;
    at += 4;
    Some(Question {
        id,
        recursion_desired,
        name,
        kind,
        is_internet: class == 1,
        asked: message.get(HEADER_BYTES..at)?.to_vec(),
        udp_bytes: extension(message, at),
    })
}

/// What the guest says it can receive (RFC 6891), where that is the only record of
/// its message, as it is in all of them but signed ones.
fn extension(message: &[u8], at: usize) -> Option<usize> {
    let alone = message.get(6..12)? == [0, 0, 0, 0, 0, 1];
    let is_option = *message.get(at)? == 0 && be16(message, at + 1)? == kind::OPT;
    let bytes = usize::from(be16(message, at + 3)?);
    (alone && is_option).then_some(bytes.clamp(PLAIN_BYTES, MAX_UDP_BYTES))
}

impl Question {
    /// Whether it is of the Internet's names; all others are of the past.
    pub(crate) fn is_internet(&self) -> bool {
        self.is_internet
    }

    /// Whether what it asks for can be a host's name.
    pub(crate) fn is_host_name(&self) -> bool {
        self.name.parse::<HostPattern>().is_ok()
    }

    /// Bytes that its answer may have over UDP.
    pub(crate) fn udp_limit(&self) -> usize {
        self.udp_bytes.unwrap_or(PLAIN_BYTES)
    }

    /// The question, as it stands in the message.
    pub(crate) fn asked(&self) -> &[u8] {
        &self.asked
    }

    /// An answer of another server's to this question, whose text it has. What does
    /// not fit in `limit` bytes is asked again over TCP.
    pub(crate) fn relay(&self, message: &[u8], limit: usize) -> Vec<u8> {
        let answer = message.split_first_chunk::<HEADER_BYTES>();
        let Some((header, rest)) = answer.filter(|_| answers(message, &self.asked)) else {
            return self.reply(Code::Failed);
        };
        let records = rest.get(self.asked.len()..).unwrap_or_default();
        let option = self.option();
        let whole = HEADER_BYTES + self.asked.len() + records.len() + option.len();
        let more = be16(header, 10).unwrap_or(0);
        let Some(more) = more.checked_add(u16::from(!option.is_empty())) else {
            return self.reply(Code::Failed);
        };
        if whole > limit || header[2] & TRUNCATED != 0 {
            return self.answer(Code::Good, &[], 0);
        }
        let mut out = self.id.to_vec();
        out.push(0x80 | u8::from(self.recursion_desired));
        out.push(0x80 | header[3] & 0x0f);
        out.extend(&header[4..10]);
        out.extend(more.to_be_bytes());
        out.extend(&self.asked);
        out.extend(records);
        out.extend(option);
        out
    }

    /// What it is told of lengths, if it told of its own.
    fn option(&self) -> &'static [u8] {
        match self.udp_bytes {
            // MAX_UDP_BYTES is 0x04d0.
            Some(_) => &[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0],
            None => &[],
        }
    }

    /// An answer without records.
    pub(crate) fn reply(&self, code: Code) -> Vec<u8> {
        self.answer(code, &[], usize::MAX)
    }

    /// An answer with the addresses of the kind that was asked for. What does not
    /// fit in `limit` bytes is asked again over TCP.
    pub(crate) fn addresses(&self, addresses: &[IpAddr], limit: usize) -> Vec<u8> {
        self.answer(Code::Good, addresses, limit)
    }

    fn answer(&self, code: Code, addresses: &[IpAddr], limit: usize) -> Vec<u8> {
        let mut records = Vec::new();
        let mut count = 0_u8;
        for address in addresses.iter().take(MAX_ADDRESSES) {
            // The name is the question's, right after the header.
            let (kind, octets) = match address {
                IpAddr::V4(address) => (kind::A, address.octets().to_vec()),
                IpAddr::V6(address) => (kind::AAAA, address.octets().to_vec()),
            };
            records.extend([0xc0, 0x0c]);
            records.extend(kind.to_be_bytes());
            records.extend([0, 1]);
            records.extend(LIFETIME.to_be_bytes());
            records.push(0);
            records.push(if octets.len() == 4 { 4 } else { 16 });
            records.extend(octets);
            count += 1;
        }
        let option = self.option();
        let whole = HEADER_BYTES + self.asked.len() + records.len() + option.len();
        let is_cut = whole > limit;
        if is_cut {
            records.clear();
            count = 0;
        }
        let mut out = self.id.to_vec();
        let desired = u8::from(self.recursion_desired);
        out.push(0x80 | u8::from(is_cut) << 1 | desired);
        out.push(0x80 | code as u8);
        out.extend([0, 1, 0, count, 0, 0, 0, u8::from(!option.is_empty())]);
        out.extend(&self.asked);
        out.extend(records);
        out.extend(option);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question as resolvers send it.
    fn ask(name: &[&[u8]], kind: u16, option: bool) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(option)];
        for label in name {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(*label);
        }
        out.push(0);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        if option {
            out.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        }
        out
    }

    fn question_of(message: &[u8]) -> Question {
        match read(message) {
            Asked::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_come_back_with_their_letters_and_answers() {
        let message = ask(&[b"eXample", b"COM"], kind::A, true);
        let question = question_of(&message);
        assert_eq!(question.name, "example.com");
        assert!(question.is_host_name() && question.is_internet());
        let answer = question.addresses(&[[9, 9, 9, 9].into()], question.udp_limit());
        assert_eq!(
            &answer[..12],
            [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]
        );
        assert_eq!(
            &answer[12..message.len() - 11],
            &message[12..message.len() - 11]
        );
        let record = &answer[message.len() - 11..];
        assert_eq!(record[..12], [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        assert_eq!(record[12..16], [9, 9, 9, 9]);
        assert_eq!(record[16..], [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_too_long_for_a_datagram_say_so() {
        let question = question_of(&ask(&[b"many", b"org"], kind::AAAA, false));
        let many: Vec<IpAddr> = (0..40).map(|n| [0, 0, 0, 0, 0, 0, 0, n].into()).collect();
        let cut = question.addresses(&many, question.udp_limit());
        assert_eq!((cut[2] & 2, cut[7]), (2, 0));
        let whole = question.addresses(&many, usize::MAX);
        assert_eq!((whole[2] & 2, whole[7]), (0, 40));
    }

    #[test]
    fn malformed_questions_get_a_code_or_nothing() {
        let good = ask(&[b"a", b"org"], kind::A, false);
        let code = |message: &[u8]| match read(message) {
            Asked::Unanswerable(reply) => Some(reply[3] & 15),
            Asked::Garbage => None,
            Asked::Question(question) => panic!("{question:?}"),
        };
        for len in 0..HEADER_BYTES {
            assert_eq!(code(&good[..len]), None);
        }
        for len in HEADER_BYTES..good.len() {
            assert_eq!(code(&good[..len]), Some(Code::Malformed as u8));
        }
        let with = |at: usize, byte| {
            let mut message = good.clone();
            message[at] = byte;
            message
        };
        assert_eq!(code(&with(2, 0x81)), None, "an answer");
        assert_eq!(code(&with(2, 0x28)), Some(Code::NotImplemented as u8));
        assert_eq!(code(&with(5, 2)), Some(Code::Malformed as u8));
        assert_eq!(
            code(&with(12, 0xc0)),
            Some(Code::Malformed as u8),
            "a pointer"
        );
        let label = [b'x'; 63];
        let long = ask(&[&label, &label, &label, &label, b"x"], kind::A, false);
        assert_eq!(code(&long), Some(Code::Malformed as u8));
        for odd in [&b"\0"[..], b"a.b", b"*", b" ", b"\xff", b"a/b"] {
            let question = question_of(&ask(&[odd, b"org"], kind::A, false));
            assert!(!question.is_host_name(), "{odd:?}");
        }
    }
}
