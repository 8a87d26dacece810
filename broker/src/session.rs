//! One connection: the guest's TLS at one side, the host's at the other, and requests in
//! between.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UnixStream};
use rustls::pki_types::ServerName;
use rustls::server::{Accepted, Acceptor};
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use zeroize::Zeroize;

use crate::find::Replacer;
use crate::http::{Malformed, Requests, Responses};
use crate::keep::HostSecrets;
use crate::pipe::{Got, Side};

/// Most bytes on their way in one direction, beyond which nothing more is read.
const MAX_WAITING_BYTES: usize = 64 << 10;
/// How long a guest may take to hear why it is refused.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Pieces of one connection before others have their turn.
const PIECES_PER_TURN: usize = 16;

/// Why a connection carried no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// There are as many connections to hosts of secrets as may be.
    Limit,
    /// What the guest began with is no TLS for this host.
    Guest,
    /// The host could not be verified, or speaks another TLS.
    Host,
    /// A handshake took too long.
    Late,
    /// A request or an answer was not understood in one way only.
    Malformed(Malformed),
}

impl Refusal {
    /// The word for it in a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Guest => "guest_tls",
            Self::Host => "host_unverified",
            Self::Late => "late",
            Self::Malformed(Malformed::Host) => "other_host",
            Self::Malformed(Malformed::Response) => "malformed_response",
            Self::Malformed(Malformed::Method) => "method",
            Self::Malformed(_) => "malformed_request",
        }
    }
}

/// What became of the secrets of a connection: their names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Those that were put into requests.
    pub used: Vec<String>,
    /// Those whose placeholder was where none is replaced: an address, a body, or a request
    /// to a host that it is not for.
    pub misplaced: Vec<String>,
    /// Why it ended early, if so.
    pub refusal: Option<Refusal>,
}

enum Stage {
    /// The host shows who it is.
    Host(Box<Accepted>, Vec<u8>),
    /// The guest is answered.
    Guest,
    Open,
    /// The guest is told why, and nothing more is passed on.
    Refusing,
}

/// What a session's turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits for one of its ends.
    Waits,
    /// It has more to do at once.
    Again,
    /// It is over.
    Over,
}

/// What a session is made of.
pub(crate) struct Parts {
    pub(crate) guest: UnixStream,
    pub(crate) host: TcpStream,
    pub(crate) secrets: Arc<HostSecrets>,
    /// How the guest is answered.
    pub(crate) answer: Arc<ServerConfig>,
    /// How the host is asked.
    pub(crate) ask: Arc<ClientConfig>,
    /// What the guest has sent: the hello of its TLS.
    pub(crate) begun: Vec<u8>,
}

pub(crate) struct Session {
    stage: Stage,
    answer: Arc<ServerConfig>,
    pub(crate) guest: Side<UnixStream>,
    pub(crate) host: Side<TcpStream>,
    requests: Requests,
    responses: Responses,
    /// Puts placeholders back where a host sends a value.
    back: Replacer,
    secrets: Arc<HostSecrets>,
    /// What the guest sent and waits for answers.
    unread: Vec<u8>,
    to_host: Vec<u8>,
    to_guest: Vec<u8>,
    refusal: Option<Refusal>,
    /// When its handshakes, or its last words, have to be over.
    pub(crate) due: Option<Instant>,
}

impl Session {
    /// Begins with the guest's hello; refused if that is not for this host.
    pub(crate) fn new(parts: Parts, due: Instant) -> Result<Self, Refusal> {
        let secrets = parts.secrets;
        let mut acceptor = Acceptor::default();
        let mut begun = parts.begun.as_slice();
        let accepted = loop {
            match acceptor.accept() {
                Ok(Some(accepted)) => break accepted,
                Ok(None) if !begun.is_empty() => {
                    acceptor.read_tls(&mut begun).map_err(|_| Refusal::Guest)?;
                }
                _ => return Err(Refusal::Guest),
            }
        };
        let name = accepted
            .client_hello()
            .server_name()
            .map(str::to_ascii_lowercase);
        if name.as_deref() != Some(secrets.host()) {
            return Err(Refusal::Guest);
        }
        let name = ServerName::try_from(secrets.host().to_owned()).map_err(|_| Refusal::Host)?;
        let mut tls = ClientConnection::new(parts.ask, name).map_err(|_| Refusal::Host)?;
        tls.set_buffer_limit(Some(MAX_WAITING_BYTES));
        Ok(Self {
            stage: Stage::Host(Box::new(accepted), begun.to_vec()),
            answer: parts.answer,
            guest: Side::new(parts.guest, None),
            host: Side::new(parts.host, Some(tls.into())),
            requests: Requests::new(secrets.clone()),
            responses: Responses::default(),
            back: Replacer::new(secrets.back()),
            secrets,
            unread: Vec::new(),
            to_host: Vec::new(),
            to_guest: Vec::new(),
            refusal: None,
            due: Some(due),
        })
    }

    /// Does what there is to do, as far as a turn goes.
    pub(crate) fn turn(&mut self, now: Instant) -> Turn {
        if self.due.is_some_and(|due| due <= now) {
            self.refusal.get_or_insert(Refusal::Late);
            return Turn::Over;
        }
        for _ in 0..PIECES_PER_TURN {
            let done = match &self.stage {
                Stage::Host(..) => self.meet_host(),
                Stage::Guest => self.meet_guest(),
                Stage::Open => self.pass(now),
                Stage::Refusing => Ok(self.guest.flush()),
            };
            match done {
                Err(refusal) => {
                    self.refuse(refusal, now);
                    if !matches!(self.stage, Stage::Refusing) {
                        return Turn::Over;
                    }
                }
                Ok(_) if self.is_over() => return Turn::Over,
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
            }
        }
        Turn::Again
    }

    fn is_over(&self) -> bool {
        match self.stage {
            Stage::Host(..) | Stage::Guest => false,
            Stage::Refusing => self.guest.is_shut(),
            // HTTP has no use for a guest's direction alone.
            Stage::Open => self.guest.is_deaf || self.host.is_over() && self.guest.is_shut(),
        }
    }

    fn meet_host(&mut self) -> Result<bool, Refusal> {
        let mut early = Vec::new();
        let got = self.host.receive(&mut early);
        // An alert of ours may be on its way to it.
        let flushed = self.host.flush();
        let got = got.map_err(|_| Refusal::Host)?;
        if got == Got::End || self.host.is_deaf || !early.is_empty() {
            return Err(Refusal::Host);
        }
        if self.host.is_handshaking() {
            return Ok(flushed || got == Got::Some);
        }
        let Stage::Host(accepted, rest) = mem::replace(&mut self.stage, Stage::Guest) else {
            return Err(Refusal::Host);
        };
        match accepted.into_connection(self.answer.clone()) {
            Ok(mut tls) => {
                tls.set_buffer_limit(Some(MAX_WAITING_BYTES));
                self.guest.tls = Some(tls.into());
                let received = self.guest.receive_from(&rest, &mut self.unread);
                self.guest.flush();
                received.map_err(|_| Refusal::Guest)?;
                Ok(true)
            }
            Err((_, mut alert)) => {
                // One that is not taken is not waited for.
                let _ = alert.write_all(&mut self.guest.socket);
                Err(Refusal::Guest)
            }
        }
    }

    fn meet_guest(&mut self) -> Result<bool, Refusal> {
        let got = self.guest.receive(&mut self.unread);
        let flushed = self.guest.flush();
        let got = got.map_err(|_| Refusal::Guest)?;
        if !self.guest.is_handshaking() {
            self.stage = Stage::Open;
            self.due = None;
            return Ok(true);
        }
        if got == Got::End || self.guest.is_deaf {
            return Err(Refusal::Guest);
        }
        Ok(flushed || got == Got::Some)
    }

    /// Passes a piece on in both directions; whether there was one.
    fn pass(&mut self, _now: Instant) -> Result<bool, Refusal> {
        let out = self.pass_out()?;
        let back = self.pass_back()?;
        Ok(out || back)
    }

    fn pass_out(&mut self) -> Result<bool, Refusal> {
        let mut any = false;
        if self.unread.len() < MAX_WAITING_BYTES && self.to_host.is_empty() {
            let got = self.guest.receive(&mut self.unread);
            any |= got.map_err(|_| Refusal::Guest)? != Got::Nothing;
        }
        if self.to_host.is_empty() && !self.unread.is_empty() {
            let taken = self.requests.feed(&self.unread, &mut self.to_host);
            let taken = taken.map_err(Refusal::Malformed)?;
            self.unread.drain(..taken);
            any |= taken > 0;
        }
        if !self.to_host.is_empty() {
            let taken = self.host.write(&self.to_host);
            any |= taken > 0;
            if taken == self.to_host.len() {
                // It may have had a secret in it.
                self.to_host.zeroize();
            } else {
                self.to_host.drain(..taken);
            }
        }
        any |= self.host.flush();
        let is_all = self.unread.is_empty() && self.to_host.is_empty() && self.host.is_flushed();
        if self.guest.is_over() && is_all {
            self.host.finish(self.guest.is_clean);
        }
        Ok(any)
    }

    fn pass_back(&mut self) -> Result<bool, Refusal> {
        let mut any = false;
        if self.to_guest.is_empty() {
            let mut plain = Vec::new();
            let got = self.host.receive(&mut plain).map_err(|_| Refusal::Host)?;
            any |= got != Got::Nothing;
            if !plain.is_empty() {
                self.read_answers(&plain).map_err(Refusal::Malformed)?;
                self.back.feed(&plain, &mut self.to_guest, |_| {});
                plain.zeroize();
            }
            // The guest waits for the end of an answer, and for all that is none.
            if got == Got::End || self.responses.may_pause() {
                self.back.flush(&mut self.to_guest);
            }
        }
        if !self.to_guest.is_empty() {
            let taken = self.guest.write(&self.to_guest);
            any |= taken > 0;
            self.to_guest.drain(..taken);
        }
        any |= self.guest.flush();
        if self.host.is_over() && self.to_guest.is_empty() && self.guest.is_flushed() {
            self.guest.finish(self.host.is_clean);
        }
        Ok(any)
    }

    fn read_answers(&mut self, plain: &[u8]) -> Result<(), Malformed> {
        let mut last = None;
        let unanswered = &mut self.requests.unanswered;
        self.responses
            .feed(plain, unanswered, |answer| last = Some(answer))?;
        if let Some(answer) = last
            && self.requests.unanswered.is_empty()
        {
            self.requests.answered(answer)?;
        }
        Ok(())
    }

    /// Ends it, after a word to a guest that waits for an answer.
    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.refusal.get_or_insert(refusal);
        let Refusal::Malformed(malformed) = refusal else {
            return;
        };
        let is_between = self.responses.is_between() && self.requests.unanswered.is_empty();
        if matches!(self.stage, Stage::Open) && is_between && self.to_guest.is_empty() {
            let text = format!("supermachine: {malformed}\n");
            let answer = format!(
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{text}",
                text.len()
            );
            self.guest.write(answer.as_bytes());
            self.stage = Stage::Refusing;
            self.due = Some(now + LAST_WORDS);
            self.guest.finish(true);
        }
    }

    /// What became of its secrets.
    pub(crate) fn report(&self) -> Report {
        let names = |numbers: &mut dyn Iterator<Item = &usize>| {
            let names = numbers.filter_map(|number| self.secrets.name(*number));
            names.map(str::to_owned).collect()
        };
        Report {
            used: names(&mut self.requests.used.iter()),
            misplaced: names(&mut self.requests.misplaced.iter()),
            refusal: self.refusal,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.to_host.zeroize();
    }
}
