//! The threads that accept and serve.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use exec_proto::{ErrorKind, Failure};

use super::connection;
use super::dialer::{Dialer, Greeting, Post};
use super::link::Buffers;
use super::{Agent, serve};
use crate::sys;

/// Connections served at once; each has a thread.
const MAX_WORKERS: usize = 1024;
/// Idle threads kept for the next connections.
const KEPT_IDLE: usize = 8;
/// Threads started at once, so that two commands in a row start none.
const STARTED: usize = 2;
/// A worker's stack. Its deepest user formats one message; the rest is on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// Pause before trying again what has no chance to work at once.
const PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from, and how to open it again: a guest's root can
/// break a socket of ours (with `pidfd_getfd` and `shutdown`, for one).
pub struct Doorway {
    listener: Mutex<Arc<OwnedFd>>,
    open: Box<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>,
}

impl Doorway {
    /// Opens the listening socket.
    ///
    /// # Errors
    /// As `open`.
    pub fn new(open: impl Fn() -> io::Result<OwnedFd> + Send + Sync + 'static) -> io::Result<Self> {
        Ok(Self {
            listener: Mutex::new(Arc::new(open()?)),
            open: Box::new(open),
        })
    }

    fn current(&self) -> Arc<OwnedFd> {
        let listener = self.listener.lock();
        Arc::clone(&listener.unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces `broken` unless another thread already has.
    fn reopen(&self, broken: &Arc<OwnedFd>) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&listener, broken)
            && let Ok(fresh) = (self.open)()
        {
            *listener = Arc::new(fresh);
        }
    }

    /// Waits for a connection, whatever happens to the socket. Over vsock it is
    /// the host's: any user of the guest can dial the agent's port too, and
    /// must not get the agent's rights.
    fn next(&self) -> OwnedFd {
        loop {
            let listener = self.current();
            match sys::accept(listener.as_fd()) {
                Ok((_, sys::Peer::Stranger)) => {}
                Ok((socket, sys::Peer::Host | sys::Peer::NotVsock)) => return socket,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EAGAIN) => {}
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        thread::sleep(PAUSE);
                    }
                    _ => {
                        self.reopen(&listener);
                        thread::sleep(PAUSE);
                    }
                },
            }
        }
    }
}

/// The pool of serving threads.
pub struct Workers {
    agent: Agent,
    doorway: Doorway,
    total: AtomicUsize,
    idle: AtomicUsize,
}

impl Workers {
    /// Starts serving in the background.
    ///
    /// # Errors
    /// If not a single thread can be started.
    pub fn start(agent: Agent, doorway: Doorway) -> io::Result<Arc<Self>> {
        let workers = Arc::new(Self {
            agent,
            doorway,
            total: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
        });
        let first = workers.add();
        for _ in 1..STARTED {
            // One is enough to live with.
            let _ = workers.add();
        }
        first.map(|()| workers)
    }

    /// A connection from within the process, for the self-test.
    ///
    /// # Errors
    /// As the socket calls, or if no thread can be started.
    pub fn connect(self: &Arc<Self>) -> io::Result<OwnedFd> {
        let (near, far) = UnixStream::pair()?;
        let workers = Arc::clone(self);
        self.spawn(move || {
            let mut buffers = Buffers::default();
            workers.guarded(|| {
                serve(&workers.agent, far.into(), &Greeting::Hello, &mut buffers);
            });
            workers.total.fetch_sub(1, Ordering::SeqCst);
        })?;
        Ok(near.into())
    }

    /// Keeps one connection to the host open in the background: as soon as the
    /// host uses it, or it ends, the next is dialed.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn keep_dialed(self: &Arc<Self>, dialer: Dialer) -> io::Result<()> {
        let dialer = Arc::new(dialer);
        let (workers, relieved) = (Arc::downgrade(self), Arc::clone(&dialer));
        self.agent.standby.set_relief(move || {
            if let Some(workers) = workers.upgrade() {
                workers.pass_on(&relieved, relieved.relieve());
            }
        });
        self.add_dialing(&dialer)
    }

    /// After the post was given up, while so many threads waited for it.
    fn pass_on(self: &Arc<Self>, dialer: &Arc<Dialer>, waiting: Option<usize>) {
        if waiting == Some(0) {
            // Without another thread the one that gave it up goes on when it is
            // free.
            let _ = self.add_dialing(dialer);
        }
    }

    fn add_dialing(self: &Arc<Self>, dialer: &Arc<Dialer>) -> io::Result<()> {
        let (workers, dialer) = (Arc::clone(self), Arc::clone(dialer));
        self.spawn(move || workers.keep_dialing(&dialer))
    }

    /// A thread that holds the dialer's post, or serves the connection with
    /// which it held it, or waits to hold it again.
    fn keep_dialing(self: Arc<Self>, dialer: &Arc<Dialer>) {
        let mut buffers = Buffers::default();
        while let Some(tenure) = dialer.await_post() {
            loop {
                let socket = dialer.connect(&self.agent.standby);
                let begun = sys::monotonic_ns();
                let pass_on = || self.pass_on(dialer, dialer.vacate(tenure));
                let post = Post::new(&self.agent.standby, &pass_on);
                let greeting = dialer.greeting();
                let served = self.guarded(|| {
                    connection::serve_at(&self.agent, socket, greeting, &mut buffers, &post);
                });
                if served.is_none() {
                    buffers = Buffers::default();
                }
                if !post.is_held() || !dialer.is_held_by(tenure) {
                    break;
                }
                dialer.ended_unused(sys::monotonic_ns().saturating_sub(begun));
            }
        }
        self.total.fetch_sub(1, Ordering::SeqCst);
    }

    fn add(self: &Arc<Self>) -> io::Result<()> {
        // Counted as idle from here on, or two connections in a row would both
        // find nobody and start a thread each.
        self.idle.fetch_add(1, Ordering::SeqCst);
        let workers = Arc::clone(self);
        let spawned = self.spawn(move || workers.work());
        if spawned.is_err() {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
        spawned
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        if self.total.fetch_add(1, Ordering::SeqCst) >= MAX_WORKERS {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
        if spawned.is_err() {
            self.total.fetch_sub(1, Ordering::SeqCst);
        }
        spawned.map(drop)
    }

    fn work(self: Arc<Self>) {
        let mut buffers = Buffers::default();
        loop {
            let socket = self.doorway.next();
            let was_last = self.idle.fetch_sub(1, Ordering::SeqCst) == 1;
            if was_last && let Err(error) = self.add() {
                self.turn_away(socket, &error, &mut buffers);
                self.idle.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let served =
                self.guarded(|| serve(&self.agent, socket, &Greeting::Hello, &mut buffers));
            if served.is_none() {
                // A panic may have left anything in there.
                buffers = Buffers::default();
            }
            if self.idle.fetch_add(1, Ordering::SeqCst) >= KEPT_IDLE {
                self.idle.fetch_sub(1, Ordering::SeqCst);
                self.total.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }

    /// A panic ends one connection, never PID 1.
    fn guarded<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(run)).ok()
    }

    fn turn_away(&self, socket: OwnedFd, error: &io::Error, buffers: &mut Buffers) {
        let full = self.total.load(Ordering::SeqCst) >= MAX_WORKERS;
        let failure = Failure {
            kind: if full {
                ErrorKind::Busy
            } else {
                ErrorKind::Resources
            },
            errno: error.raw_os_error().unwrap_or(0),
            message: if full {
                "the agent serves as many connections as it can".to_owned()
            } else {
                format!("cannot start a thread: {error}")
            },
        };
        self.guarded(|| connection::refuse(socket, failure, buffers));
    }
}
