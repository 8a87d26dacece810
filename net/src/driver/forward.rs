//! Asks the host's name servers for records that are no addresses.
//!
//! They are read anew for each question, so that a host which changed its network is
//! noticed; `getaddrinfo`, which answers for addresses, does the same.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::reach::any_like;
use crate::dns::{Answer, message};

/// Where the host says who its name servers are (resolv.conf(5)).
const CONFIGURATION: &str = "/etc/resolv.conf";
/// Most bytes of it that are read.
const MAX_CONFIGURATION_BYTES: u64 = 64 << 10;
/// Most servers that are asked, and how often: what resolvers of Linux do.
const MAX_SERVERS: usize = 3;
const ROUNDS: usize = 2;
/// How long one server has.
const PATIENCE: Duration = Duration::from_secs(3);
const PORT: u16 = 53;

/// The host's name servers.
pub(super) fn servers() -> Vec<SocketAddr> {
    let mut text = Vec::new();
    let read = std::fs::File::open(CONFIGURATION)
        .and_then(|file| file.take(MAX_CONFIGURATION_BYTES).read_to_end(&mut text));
    let found = match read {
        Ok(_) => parse(&String::from_utf8_lossy(&text)),
        Err(_) => Vec::new(),
    };
    match found.is_empty() {
        // As resolvers of C libraries do.
        true => vec![(Ipv4Addr::LOCALHOST, PORT).into()],
        false => found,
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver");
        let address = address.and_then(|_| words.next())?;
        let address: IpAddr = address.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    });
    lines.take(MAX_SERVERS).collect()
}

/// The message with which one of the servers answers.
pub(super) fn ask(servers: &[SocketAddr], asked: &[u8]) -> Answer {
    let mut failure = None;
    for _ in 0..ROUNDS {
        for server in servers {
            match exchange(*server, asked) {
                Ok(message) if !message::is_failure(&message) => return Answer::Message(message),
                // Another server may know.
                Ok(message) => failure = Some(message),
                Err(_) => {}
            }
        }
        if let Some(message) = failure {
            return Answer::Message(message);
        }
    }
    Answer::Failed
}

fn exchange(server: SocketAddr, asked: &[u8]) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|_| io::ErrorKind::Other)?;
    let question = message::ask(id, asked);
    let answer = over_udp(server, &question, asked)?;
    match message::is_cut(&answer) {
        true => over_tcp(server, &question, asked),
        false => Ok(answer),
    }
}

/// Whether this answers the question, and nobody else's.
fn fits(answer: &[u8], question: &[u8], asked: &[u8]) -> bool {
    answer.get(..2) == question.get(..2) && message::answers(answer, asked)
}

fn over_udp(server: SocketAddr, question: &[u8], asked: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(any_like(server.ip()))?;
    socket.connect(server)?;
    socket.send(question)?;
    let end = Instant::now() + PATIENCE;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        socket.set_read_timeout(Some(left(end)?))?;
        let bytes = socket.recv(&mut answer)?;
        answer.truncate(bytes);
        if fits(&answer, question, asked) {
            return Ok(answer);
        }
        answer.resize(usize::from(u16::MAX), 0);
    }
}

fn over_tcp(server: SocketAddr, question: &[u8], asked: &[u8]) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.set_write_timeout(Some(left(end)?))?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    read(&mut stream, &mut length, end)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    read(&mut stream, &mut answer, end)?;
    match fits(&answer, question, asked) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read(stream: &mut TcpStream, mut room: &mut [u8], end: Instant) -> io::Result<()> {
    while !room.is_empty() {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(room)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => room = room.get_mut(bytes..).unwrap_or_default(),
        }
    }
    Ok(())
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// `example.org`, type TXT, as it stands in a message.
    const ASKED: &[u8] = b"\x07example\x03org\x00\x00\x10\x00\x01";
    /// A record of it with the text `hello`.
    const RECORD: &[u8] = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x1e\x00\x06\x05hello";

    fn answer(question: &[u8], flags: [u8; 2], records: u8) -> Vec<u8> {
        let mut out = question[..2].to_vec();
        out.extend(flags);
        out.extend([0, 1, 0, records, 0, 0, 0, 0]);
        out.extend(&question[12..]);
        (0..records).for_each(|_| out.extend(RECORD));
        out
    }

    /// A server that answers each question with what `replies` make of it.
    fn server(replies: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, UdpSocket) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let ours = socket.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((bytes, from)) = ours.recv_from(&mut question) {
                for reply in replies(&question[..bytes]) {
                    let _ = ours.send_to(&reply, from);
                }
            }
        });
        (address, socket)
    }

    #[test]
    fn servers_are_those_of_the_file_and_at_most_three() {
        let search = "search".to_owned() + &" long.example".repeat(5000) + "\n";
        let text = "# nameserver 9.9.9.9\n; x\nsearch a b\n  nameserver 1.1.1.1 x\n\
                    nameserver ::1\nnameserver fe80::1%eth0\nnameserver 2.2.2.2\n\
                    nameserver 3.3.3.3\noptions x\n";
        let expected = ["1.1.1.1:53", "[::1]:53", "2.2.2.2:53"];
        assert_eq!(parse(text), expected.map(|text| text.parse().unwrap()));
        assert_eq!(parse(&(search + text)), parse(text));
        assert!(!servers().is_empty());
    }

    #[test]
    fn answer_that_was_cut_is_asked_for_over_tcp() {
        // Both on one port, as name servers are.
        let (address, listener, _socket) = loop {
            let (address, socket) = server(|question| vec![answer(question, [0x83, 0x80], 0)]);
            if let Ok(listener) = TcpListener::bind(address) {
                break (address, listener, socket);
            }
        };
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let whole = answer(&question, [0x81, 0x80], 100);
            let length = u16::try_from(whole.len()).unwrap();
            stream.write_all(&length.to_be_bytes()).unwrap();
            stream.write_all(&whole).unwrap();
        });
        let Answer::Message(message) = ask(&[address], ASKED) else {
            panic!("no answer");
        };
        assert_eq!((message[2] & 2, message[7]), (0, 100));
    }

    #[test]
    fn answers_to_other_questions_are_not_taken_and_failures_are_asked_elsewhere() {
        let (failing, _a) = server(|question| vec![answer(question, [0x81, 0x82], 0)]);
        let (answering, _b) = server(|question| {
            let mut forged = answer(question, [0x81, 0x80], 2);
            forged[0] ^= 1;
            let mut other = answer(question, [0x81, 0x80], 3);
            other[13] = b'f';
            let echo = question.to_vec();
            vec![forged, other, echo, answer(question, [0x81, 0x80], 1)]
        });
        let Answer::Message(message) = ask(&[failing, answering], ASKED) else {
            panic!("no answer");
        };
        assert_eq!(message[7], 1);
        let Answer::Message(message) = ask(&[failing], ASKED) else {
            panic!("its failure is an answer");
        };
        assert_eq!(message[3] & 15, 2);
    }
}
