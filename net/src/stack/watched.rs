//! Connections whose first bytes show a name that matters: what they show is looked at
//! before the host gets any of it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use crate::config::Config;
use crate::io::{FlowId, Io};
use crate::policy::{Protocol, Verdict};
use crate::shown::{self, MAX_SHOWN_BYTES, Shown};

/// Most bytes that are held, of all connections: a guest that has many begin and none
/// go on has some of them ended.
const MAX_HELD_BYTES: usize = 8 << 20;

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// What it shows is not known: it is looked at again when so many bytes are there.
    Looking { wanted: usize },
    /// The host gets what was held, and then the rest directly.
    Passing,
    /// Somebody else serves it.
    Handed,
    /// It showed a name that it may not reach here.
    Denied(Option<String>),
}

/// A connection that is looked at.
#[derive(Debug)]
struct Watch {
    /// Where the guest wanted to.
    remote: SocketAddr,
    /// The names that the guest was told the address for.
    names: Vec<String>,
    /// Rules about names decide.
    by_name: bool,
    state: State,
    held: Vec<u8>,
    /// Bytes of it that were looked at.
    known: usize,
    /// The guest has finished.
    is_finished: bool,
}

/// The connections that are looked at.
#[derive(Debug, Default)]
pub(super) struct Watches {
    by_flow: HashMap<FlowId, Watch>,
    /// What they hold together.
    held_bytes: usize,
}

/// What became of a connection that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// The host had it all.
    Passed,
    /// Somebody else served it.
    Handed,
    /// It was ended for the name that it showed.
    Denied(Option<String>),
}

impl Watches {
    /// Looks at a connection from its first byte on.
    pub(super) fn begin(
        &mut self,
        flow: FlowId,
        remote: SocketAddr,
        names: Vec<String>,
        by_name: bool,
    ) {
        let watch = Watch {
            remote,
            names,
            by_name,
            state: State::Looking { wanted: 1 },
            held: Vec::new(),
            known: 0,
            is_finished: false,
        };
        self.by_flow.insert(flow, watch);
    }

    /// Forgets a connection that has ended.
    pub(super) fn end(&mut self, flow: FlowId) -> Watched {
        if self.by_flow.is_empty() {
            return Watched::Passed;
        }
        let watch = self.by_flow.remove(&flow);
        self.held_bytes -= watch.as_ref().map_or(0, |watch| watch.held.len());
        match watch.map(|watch| watch.state) {
            Some(State::Handed) => Watched::Handed,
            Some(State::Denied(name)) => Watched::Denied(name),
            _ => Watched::Passed,
        }
    }

    fn get(&self, flow: FlowId) -> Option<&Watch> {
        match self.by_flow.is_empty() {
            true => None,
            false => self.by_flow.get(&flow),
        }
    }

    /// Has a connection do something, and counts what it holds then.
    fn with<T>(&mut self, flow: FlowId, what: impl FnOnce(&mut Watch, usize) -> T) -> Option<T> {
        if self.by_flow.is_empty() {
            return None;
        }
        let watch = self.by_flow.get_mut(&flow)?;
        let others = self.held_bytes - watch.held.len();
        let done = what(watch, others);
        self.held_bytes = others + watch.held.len();
        Some(done)
    }

    /// Sends what there is room for; none if nothing about the connection matters any
    /// more.
    pub(super) fn send(
        &mut self,
        flow: FlowId,
        bytes: &[u8],
        config: &Config,
        io: &mut impl Io,
    ) -> Option<io::Result<usize>> {
        let sent = self.with(flow, |watch, others| {
            watch.send(flow, bytes, others, config, io)
        })?;
        if let Ok(Sent::Directly) = sent
            && self.get(flow)?.state == State::Passing
        {
            // It has nothing left to do.
            self.by_flow.remove(&flow);
        }
        match sent {
            Ok(Sent::Directly) => None,
            Ok(Sent::Taken(bytes)) => Some(Ok(bytes)),
            Err(error) => Some(Err(error)),
        }
    }

    /// The guest has finished; false if the host is to be told.
    pub(super) fn finish(&mut self, flow: FlowId, config: &Config, io: &mut impl Io) -> bool {
        let finished = self.with(flow, |watch, _| {
            if let State::Handed = watch.state {
                return false;
            }
            watch.is_finished = true;
            // What is wrong with it is noticed when the flow is read.
            let _ = match watch.state {
                State::Looking { .. } => watch.look(flow, config, io, true),
                _ => watch.flush(flow, io),
            };
            true
        });
        finished.unwrap_or(false)
    }

    /// The host's socket takes more.
    pub(super) fn writable(&mut self, flow: FlowId, io: &mut impl Io) {
        // What is wrong with it is noticed when the flow is read.
        let _ = self.with(flow, |watch, _| watch.flush(flow, io));
    }

    /// Whether it was ended for what it showed.
    pub(super) fn is_denied(&self, flow: FlowId) -> bool {
        let watch = self.get(flow);
        watch.is_some_and(|watch| matches!(watch.state, State::Denied(_)))
    }
}

/// What became of bytes that were to be sent.
enum Sent {
    /// So many were taken.
    Taken(usize),
    /// They are the host's.
    Directly,
}

impl Watch {
    /// Takes what there is room for, while others hold so many bytes.
    fn send(
        &mut self,
        flow: FlowId,
        bytes: &[u8],
        others: usize,
        config: &Config,
        io: &mut impl Io,
    ) -> io::Result<Sent> {
        match self.state {
            State::Handed => return Ok(Sent::Directly),
            State::Denied(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            State::Passing => {
                self.flush(flow, io)?;
                return match self.held.is_empty() {
                    true => Ok(Sent::Directly),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                };
            }
            State::Looking { .. } => {}
        }
        // One byte beyond what is looked at settles it.
        let room = (MAX_SHOWN_BYTES + 1).saturating_sub(self.held.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        if others + self.held.len() + taken.len() > MAX_HELD_BYTES {
            self.state = State::Denied(None);
            self.held = Vec::new();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.held.extend_from_slice(taken);
        self.look(flow, config, io, false)?;
        Ok(Sent::Taken(taken.len()))
    }

    /// Looks at what is there, and does what follows; `is_all` says that no more comes.
    fn look(
        &mut self,
        flow: FlowId,
        config: &Config,
        io: &mut impl Io,
        is_all: bool,
    ) -> io::Result<()> {
        let State::Looking { wanted } = self.state else {
            return Ok(());
        };
        if self.held.len() < wanted && !is_all {
            return Ok(());
        }
        let shown = shown::look(&self.held, self.known);
        self.known = self.held.len();
        let shown = match shown {
            Shown::More(wanted) if !is_all => {
                self.state = State::Looking { wanted };
                return Ok(());
            }
            // What the host would wait for will not come.
            Shown::More(_) if self.held.is_empty() => Shown::Other,
            Shown::More(_) => Shown::Unclear,
            shown => shown,
        };
        if let Some(denied) = self.denied(&shown, config) {
            self.state = State::Denied(denied);
            self.held = Vec::new();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let port = self.remote.port();
        if let Shown::Tls(Some(name)) = &shown
            && self.names.contains(name)
            && config.is_brokered(name, port)
        {
            let begun = std::mem::take(&mut self.held);
            io.hand_over(flow, name, port, begun)?;
            self.state = State::Handed;
            if self.is_finished {
                io.finish_sending(flow);
            }
            return Ok(());
        }
        self.state = State::Passing;
        self.flush(flow, io)
    }

    /// The name for which it is ended, if it is.
    fn denied(&self, shown: &Shown, config: &Config) -> Option<Option<String>> {
        if !self.by_name {
            return None;
        }
        let may = |names: &[&str]| {
            let mut names = names.iter().copied();
            let (address, port) = (self.remote.ip(), self.remote.port());
            let decision = config
                .policy
                .decide(Protocol::Tcp, address, port, &mut names);
            decision.verdict == Verdict::Allow
        };
        let names = match shown {
            // The address has decided.
            Shown::Other | Shown::More(_) => return None,
            Shown::Tls(Some(name)) => std::slice::from_ref(name),
            Shown::Http(names) => names,
            Shown::Tls(None) | Shown::Unclear => &[],
        };
        if names.is_empty() {
            return (!may(&[])).then_some(None);
        }
        let refused = names.iter().find(|name| {
            let shown = name.as_str();
            // A name that the guest was not told this address for opens nothing, and may
            // still be one that is refused.
            let told: &[&str] = match self.names.contains(name) {
                true => &[shown],
                false => &[],
            };
            !may(told) || !may(&[shown])
        });
        refused.map(|name| Some(name.clone()))
    }

    /// Sends what is held, as far as the host takes it.
    fn flush(&mut self, flow: FlowId, io: &mut impl Io) -> io::Result<()> {
        if self.state != State::Passing {
            return Ok(());
        }
        while !self.held.is_empty() {
            match io.send(flow, &self.held) {
                Ok(0) => return Ok(()),
                Ok(sent) => drop(self.held.drain(..sent)),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Ok(()),
                    _ => {
                        self.held = Vec::new();
                        return Err(error);
                    }
                },
            }
        }
        if self.is_finished {
            io.finish_sending(flow);
            self.is_finished = false;
        }
        Ok(())
    }
}
