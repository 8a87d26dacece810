//! Serves a guest with sockets of this host, on a thread that starts with the
//! first frame and sleeps in the operating system otherwise.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use crate::io::{FlowId, Frame, Offloads};
use crate::{BadState, Config, Counters, FlowRecord, Stack};

mod broker;
mod datagram;
mod echo;
mod forward;
mod reach;
mod resolver;
mod sockets;

pub use broker::{Broker, Handed, Outcome};
use resolver::Resolver;
use sockets::{Both, Sockets};

/// Frames taken from the guest before others have their turn.
const FRAMES_PER_TURN: usize = 256;
/// Events taken from the operating system in one go.
const EVENTS_PER_POLL: usize = 256;
/// The thread's own token: no flow has that number.
const WAKE: Token = Token(usize::MAX);

/// The guest's end of the cable.
pub trait Port: Send + Sync {
    /// Takes the next frame that the guest sent, in place of what is in `frame`;
    /// none if there is none now, and then [`Network::wake`] is called when there
    /// is. True if the frame's transport checksum was left to us.
    fn take(&self, frame: &mut Vec<u8>) -> Option<bool>;

    /// Gives the guest a frame; false if it has no room, and then
    /// [`Network::wake`] is called when it has.
    fn give(&self, frame: &Frame<'_>) -> bool;

    /// What the guest's driver takes over.
    fn offloads(&self) -> Offloads;

    /// Tells the guest of what was given and taken since the last call.
    fn flush(&self);
}

/// Where records of flows go. It is called on the network's thread, which stands
/// still meanwhile, with the network locked: it is not to wait, nor to ask the network.
/// Records of connections that were handed over come from whoever serves them, too.
pub trait Log: Send + Sync {
    /// A flow has ended, or was refused.
    fn record(&self, record: FlowRecord);
}

/// Most records between two turns; those beyond are counted.
const RECORDS_PER_TURN: usize = 1024;

/// The network of one guest.
pub struct Network {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    inner: Mutex<Inner>,
    port: OnceLock<Weak<dyn Port>>,
    waker: OnceLock<Waker>,
    /// Somebody has called since the thread last looked.
    is_called: AtomicBool,
    stop: AtomicBool,
    resolver: Resolver,
    log: Option<Arc<dyn Log>>,
    /// Serves connections to the hosts that the configuration names.
    broker: OnceLock<Arc<dyn Broker>>,
}

struct Inner {
    stack: Stack,
    sockets: Sockets,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    fn write_down(&self, records: VecDeque<FlowRecord>) {
        if let Some(log) = &self.log {
            records.into_iter().for_each(|record| log.record(record));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// A network that nobody has used yet: it has neither thread nor sockets.
    pub fn new(config: Config) -> Self {
        Self::of(config, None)
    }

    /// The same, whose flows are written down in `log`.
    pub fn logged(config: Config, log: Arc<dyn Log>) -> Self {
        Self::of(config, Some(log))
    }

    fn of(config: Config, log: Option<Arc<dyn Log>>) -> Self {
        let mut stack = Stack::new(config);
        if log.is_some() {
            stack.keep_records(RECORDS_PER_TURN);
        }
        Self {
            shared: Arc::new(Shared {
                inner: Mutex::new(Inner {
                    stack,
                    sockets: Sockets::default(),
                }),
                port: OnceLock::new(),
                waker: OnceLock::new(),
                is_called: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                resolver: Resolver::default(),
                log,
                broker: OnceLock::new(),
            }),
            thread: Mutex::default(),
        }
    }

    /// Has connections to the hosts of [`Config::brokered`] served. Only the first call
    /// does something; without one they are ended.
    pub fn serve_by(&self, broker: Arc<dyn Broker>) {
        let _ = self.shared.broker.set(broker);
    }

    /// Connects the guest. Only the first call does something.
    pub fn attach(&self, port: Weak<dyn Port>) {
        let _ = self.shared.port.set(port);
    }

    /// Wakes the thread, which looks at the guest's frames and at its room for others.
    /// This does not wait, and may be called on the thread of a vCPU.
    pub fn wake(&self) {
        if self.shared.is_called.swap(true, Ordering::SeqCst) {
            return;
        }
        match self.shared.waker.get() {
            // It fails only when the kernel's counter is full, and then the thread
            // is awake anyhow.
            Some(waker) => drop(waker.wake()),
            None => self.start(),
        }
    }

    /// Whether the thread runs, or would have something to do if it did.
    pub fn is_active(&self) -> bool {
        self.shared.waker.get().is_some() || self.shared.lock().stack.owes()
    }

    fn start(&self) {
        let mut thread = lock(&self.thread);
        // Another call has just started it, and it may have looked already.
        if let Some(waker) = self.shared.waker.get() {
            return drop(waker.wake());
        }
        match self.spawn() {
            Ok(started) => *thread = Some(started),
            // A host without a descriptor to give may have one for the next frame.
            Err(_) => self.shared.is_called.store(false, Ordering::SeqCst),
        }
    }

    fn spawn(&self) -> io::Result<JoinHandle<()>> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        self.shared
            .lock()
            .sockets
            .watch(poll.registry().try_clone()?);
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("vm-net".into())
            .spawn(move || run(poll, &shared))?;
        // Calls from now on reach the thread; the one that started it, it sees.
        let _ = self.shared.waker.set(waker);
        Ok(thread)
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.shared.lock().stack.counters()
    }

    /// What a copy of the guest has to be told, see [`Stack::save`].
    pub fn save(&self) -> Vec<u8> {
        self.shared.lock().stack.save()
    }

    /// Begins anew with a copy of a guest, see [`Stack::restore`].
    ///
    /// # Errors
    /// [`BadState`] for what [`Network::save`] cannot have given.
    pub fn restore(&self, saved: &[u8]) -> Result<(), BadState> {
        let mut inner = self.shared.lock();
        let Inner { stack, sockets } = &mut *inner;
        let mut both = Both::without_guest(sockets, &self.shared);
        let restored = stack.restore(saved, Instant::now(), &mut both);
        self.shared.write_down(stack.take_records());
        restored
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.resolver.end();
        if let Some(waker) = self.shared.waker.get() {
            let _ = waker.wake();
        }
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn run(mut poll: Poll, shared: &Arc<Shared>) {
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    let mut frame = Vec::new();
    let mut sleep = Some(Duration::ZERO);
    while !shared.stop.load(Ordering::SeqCst) {
        match poll.poll(&mut events, sleep) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The queue itself is gone; there is nothing left to wait for.
            Err(_) => return,
        }
        // A call from here on is not forgotten: what it was for is either
        // seen below, or the next poll ends at once.
        shared.is_called.store(false, Ordering::SeqCst);
        let Some(port) = shared.port.get().and_then(Weak::upgrade) else {
            sleep = None;
            continue;
        };
        sleep = turn(shared, &*port, &events, &mut frame);
    }
}

/// Does what there is to do; how long the thread may sleep.
fn turn(
    shared: &Arc<Shared>,
    port: &dyn Port,
    events: &Events,
    frame: &mut Vec<u8>,
) -> Option<Duration> {
    let now = Instant::now();
    let mut inner = shared.lock();
    let Inner { stack, sockets } = &mut *inner;
    let mut both = Both::new(sockets, shared, port);
    for event in events {
        let Ok(number) = u32::try_from(event.token().0) else {
            continue;
        };
        let failed = event.is_error();
        let readable = event.is_readable() || event.is_read_closed() || failed;
        let writable = event.is_writable() || event.is_write_closed() || failed;
        stack.ready(FlowId(number), readable, writable, now, &mut both);
    }
    for (ticket, answer) in shared.resolver.answers() {
        stack.answered(ticket, &answer, now, &mut both);
    }
    let mut frames = 0;
    while frames < FRAMES_PER_TURN
        && let Some(is_checked) = port.take(frame)
    {
        stack.frame(frame, is_checked, now, &mut both);
        frames += 1;
    }
    let more = stack.turn(now, &mut both) || frames == FRAMES_PER_TURN;
    let deadline = stack.deadline();
    // With the network locked: whoever asks it for its counters sees them written down.
    shared.write_down(stack.take_records());
    drop(inner);
    port.flush();
    match (more, deadline) {
        (true, _) => Some(Duration::ZERO),
        (false, Some(at)) => Some(at.saturating_duration_since(Instant::now())),
        (false, None) => None,
    }
}

#[cfg(test)]
mod tests;
