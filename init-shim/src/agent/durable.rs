//! Commands that are the agent's: they go on without a host, which can take their
//! streams up again from any place that is still kept.
//!
//! The thread that started such a command attends to it to its end. Its host is
//! whoever called last: a connection that asks for it is handed to that thread.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exec_proto::server::Parser;
use exec_proto::{
    Attached, ErrorKind, ExecInfo, Exited, Failure, MAX_DATA_BYTES, Offsets, Reply, StdinState,
};

use super::Stop;
use super::failure;
use super::link::{Link, OUTPUT_LIMIT};
use super::ring::Ring;
use super::stream::Stream;
use crate::sys;

/// Most that is kept of each of a command's streams.
const RING_BYTES: usize = 256 * 1024;
/// Commands at once, each of which has a thread.
const MAX_RUNNING: usize = 256;
/// Commands that have ended and are still known, the latest.
const KEPT_ENDED: usize = 32;
/// What is kept of the streams of all of these, the latest excepted.
const KEPT_ENDED_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of its arguments that a list repeats.
const ARGV_BYTES: usize = 1024;

/// A host that wants a command's streams.
pub(super) struct Caller {
    pub(super) socket: OwnedFd,
    pub(super) parser: Parser,
    pub(super) from: Offsets,
}

struct State {
    rings: [Ring; 2],
    pid: u32,
    attached: bool,
    caller: Option<Caller>,
    ended: Option<Exited>,
}

/// One command.
pub(super) struct Durable {
    pub(super) id: u64,
    argv: Vec<Vec<u8>>,
    tty: bool,
    started_ns: u64,
    /// Readable when somebody calls.
    bell: OwnedFd,
    state: Mutex<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// What a list repeats of a command's arguments.
fn shortened(argv: &[CString]) -> Vec<Vec<u8>> {
    let mut left = ARGV_BYTES;
    let words = argv.iter().map(|word| word.to_bytes());
    words
        .map_while(|word| {
            let kept = word.get(..word.len().min(left))?;
            left = left.checked_sub(kept.len().max(1))?;
            Some(kept.to_vec())
        })
        .collect()
}

impl Durable {
    /// Keeps bytes of a stream.
    pub(super) fn keep(&self, stream: Stream, data: &[u8]) {
        let State { rings, .. } = &mut *lock(&self.state);
        let [stdout, stderr] = rings;
        match stream {
            Stream::Stdout => stdout.push(data),
            Stream::Stderr => stderr.push(data),
        }
    }

    /// To be polled for a caller.
    pub(super) fn bell(&self) -> sys::Watch {
        super::watch(self.bell.as_fd(), sys::POLLIN)
    }

    /// The caller that came last. The connections of those before it are closed.
    pub(super) fn caller(&self) -> Option<Caller> {
        // It does not block: it was readable, or is not read.
        let _ = sys::read(self.bell.as_fd(), &mut [0; 8]);
        lock(&self.state).caller.take()
    }

    pub(super) fn set_attached(&self, attached: bool) {
        lock(&self.state).attached = attached;
    }

    pub(super) fn set_pid(&self, pid: u32) {
        lock(&self.state).pid = pid;
    }

    /// The command has ended and written all. Who calls from here on is served by
    /// the thread it came on; who called before is the caller's.
    fn end(&self, exited: Exited) -> Option<Caller> {
        let mut state = lock(&self.state);
        state.rings.iter_mut().for_each(Ring::shrink);
        state.ended = Some(exited);
        state.pid = 0;
        state.caller.take()
    }

    /// Both places, brought to the ends of what there is.
    fn clamp(&self, from: Offsets) -> Offsets {
        let [stdout, stderr] = &lock(&self.state).rings;
        Offsets {
            stdout: from.stdout.min(stdout.total()),
            stderr: from.stderr.min(stderr.total()),
        }
    }

    /// Whether it has ended, and how much of it is kept.
    fn remains(&self) -> Option<usize> {
        let state = lock(&self.state);
        let kept = state.rings.iter().map(Ring::kept).sum();
        state.ended.map(|_| kept)
    }

    fn info(&self) -> ExecInfo {
        let state = lock(&self.state);
        let [stdout, stderr] = &state.rings;
        ExecInfo {
            id: self.id,
            pid: state.pid,
            argv: self.argv.clone(),
            tty: self.tty,
            attached: state.attached && state.ended.is_none(),
            age_ns: sys::monotonic_ns().saturating_sub(self.started_ns),
            written: Offsets {
                stdout: stdout.total(),
                stderr: stderr.total(),
            },
            ended: state.ended,
        }
    }
}

/// A command whose streams its host, if it has one, gets from what is kept.
pub(super) struct Held {
    pub(super) durable: Arc<Durable>,
    /// What its host has got.
    sent: [u64; 2],
}

impl Held {
    pub(super) fn new(durable: Arc<Durable>, sent: Offsets) -> Self {
        Self {
            durable,
            sent: [sent.stdout, sent.stderr],
        }
    }

    pub(super) fn sent(&self) -> Offsets {
        let [stdout, stderr] = self.sent;
        Offsets { stdout, stderr }
    }

    /// Whether more of a stream can be kept before the host has got what is there.
    pub(super) fn has_room(&self, stream: Stream) -> bool {
        let total = lock(&self.durable.state)
            .rings
            .get(index(stream))
            .map_or(0, Ring::total);
        let sent = self.sent.get(index(stream)).copied().unwrap_or(total);
        total.saturating_sub(sent) <= (RING_BYTES - MAX_DATA_BYTES) as u64
    }

    /// Queues what the host has not got, as far as the link should hold.
    pub(super) fn deliver(&mut self, link: &mut Link<'_>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(sent) = self.sent.get_mut(index(stream)) else {
                continue;
            };
            while link.pending() < OUTPUT_LIMIT {
                let (lost, count) = match lock(&self.durable.state).rings.get(index(stream)) {
                    Some(ring) => ring.read(*sent, &mut link.buffers.chunk),
                    None => (0, 0),
                };
                if lost > 0 {
                    link.queue(&Reply::Gap {
                        stderr: stream == Stream::Stderr,
                        bytes: lost,
                    });
                }
                *sent = sent.saturating_add(lost).saturating_add(count as u64);
                if count == 0 {
                    break;
                }
                link.queue_chunk(count, |data| stream.reply(data));
            }
        }
    }

    /// Gives the link to whoever called, from the place that is asked for.
    pub(super) fn welcome(
        &mut self,
        link: &mut Link<'_>,
        caller: Caller,
        pid: u32,
        stdin: StdinState,
    ) {
        link.replace(caller.socket, caller.parser);
        let from = self.durable.clamp(caller.from);
        self.sent = [from.stdout, from.stderr];
        link.queue(&Reply::Attached(Attached {
            pid,
            tty: self.durable.tty,
            stdin,
            from,
        }));
    }

    /// Ends the command for its host, or for who called meanwhile, and for all that
    /// come later. `host` says whether the link is somebody's.
    pub(super) fn finish(
        mut self,
        link: &mut Link<'_>,
        exited: Exited,
        host: bool,
    ) -> Result<(), Stop> {
        if let Some(caller) = self.durable.end(exited) {
            if host {
                hang_up(link, taken_over());
            }
            self.welcome(link, caller, 0, StdinState::Closed);
        } else if !host {
            return Err(Stop::Gone);
        }
        self.send_rest(link, exited)
    }

    fn send_rest(&mut self, link: &mut Link<'_>, exited: Exited) -> Result<(), Stop> {
        loop {
            self.deliver(link);
            if link.pending() < OUTPUT_LIMIT {
                break;
            }
            link.flush()?;
        }
        link.queue(&Reply::Exited(exited));
        link.flush()?;
        Ok(())
    }
}

/// Tells a host why it is hung up on, without waiting for it.
pub(super) fn hang_up(link: &mut Link<'_>, failure: Failure) {
    link.queue(&Reply::Error(failure));
    // It is gone, or slow: then the end of the connection has to do.
    let _ = link.send_some();
    sys::shutdown_write(link.socket());
}

pub(super) fn taken_over() -> Failure {
    Failure {
        kind: ErrorKind::TakenOver,
        errno: 0,
        message: "another host has taken the command's streams".to_owned(),
    }
}

#[derive(Default)]
struct Known {
    last_id: u64,
    commands: BTreeMap<u64, Arc<Durable>>,
}

impl Known {
    /// Forgets commands that ended long ago.
    fn trim(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        let ended = self.commands.iter().rev();
        let forgotten: Vec<u64> = ended
            .filter_map(|(id, command)| {
                count += 1;
                bytes += command.remains()?;
                let is_kept = count == 1 || (count <= KEPT_ENDED && bytes <= KEPT_ENDED_BYTES);
                (!is_kept).then_some(*id)
            })
            .collect();
        for id in forgotten {
            self.commands.remove(&id);
        }
    }
}

/// All durable commands of the agent.
#[derive(Default)]
pub(super) struct Commands {
    known: Mutex<Known>,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}

impl Commands {
    /// Makes a running command durable, of whose streams `before` has been sent.
    pub(super) fn add(
        &self,
        argv: &[CString],
        tty: bool,
        started_ns: u64,
        before: Offsets,
    ) -> Result<Arc<Durable>, Failure> {
        let bell = sys::event_counter().map_err(|error| failure::resources(&error, "command"))?;
        let mut known = lock(&self.known);
        known.trim();
        let running = known.commands.values();
        if running.filter(|one| one.remains().is_none()).count() >= MAX_RUNNING {
            let full = io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(failure::resources(&full, "command: too many are durable"));
        }
        known.last_id += 1;
        let durable = Arc::new(Durable {
            id: known.last_id,
            argv: shortened(argv),
            tty,
            started_ns,
            bell,
            state: Mutex::new(State {
                rings: [before.stdout, before.stderr].map(|sent| Ring::new(RING_BYTES, sent)),
                pid: 0,
                attached: true,
                caller: None,
                ended: None,
            }),
        });
        known.commands.insert(durable.id, Arc::clone(&durable));
        Ok(durable)
    }

    /// Forgets a command that will never have an end to tell.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.known).commands.remove(&id);
    }

    pub(super) fn list(&self) -> Vec<ExecInfo> {
        let mut known = lock(&self.known);
        known.trim();
        known.commands.values().map(|one| one.info()).collect()
    }

    /// Takes a command's streams up for the host of a link: hands the link over, or
    /// serves it here if the command has ended.
    pub(super) fn attach(&self, link: &mut Link<'_>, id: u64, from: Offsets) -> Result<(), Stop> {
        let found = lock(&self.known).commands.get(&id).cloned();
        let durable = found.ok_or_else(|| Failure {
            kind: ErrorKind::NoSuchExec,
            errno: 0,
            message: format!("no durable command has id {id}, or it ended long ago"),
        })?;
        // The greeting goes before the thread that attends to the command speaks.
        link.flush()?;
        let socket = link.socket().try_clone_to_owned()?;
        let parser = std::mem::take(&mut link.parser);
        let caller = Caller {
            socket,
            parser,
            from,
        };
        let mut state = lock(&durable.state);
        let Some(exited) = state.ended else {
            state.caller = Some(caller);
            // It cannot be full: it counts to 2^64.
            let _ = sys::write(durable.bell.as_fd(), &1_u64.to_ne_bytes());
            return Err(Stop::Gone);
        };
        drop(state);
        let mut held = Held::new(durable, Offsets::default());
        held.welcome(link, caller, 0, StdinState::Closed);
        held.send_rest(link, exited)
    }
}
