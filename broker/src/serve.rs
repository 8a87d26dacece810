//! The thread that serves a machine's connections to hosts of secrets. It starts with the
//! first of them, and sleeps in the operating system otherwise.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustls::ClientConfig;

use crate::BrokerError;
use crate::authority::Certificates;
use crate::keep::Orders;
use crate::session::{Parts, Refusal, Report, Session, Turn};
use crate::trust;

/// Most connections at a time.
const MAX_SESSIONS: usize = 256;
/// Most events taken from the operating system in one go.
const EVENTS_PER_POLL: usize = 256;
/// How long both handshakes together may take.
const HANDSHAKES: Duration = Duration::from_secs(30);
/// The thread's own token: no connection has that number.
const WAKE: Token = Token(usize::MAX);

/// A guest's connection to a host of a secret.
pub struct Connection {
    /// Where the guest's bytes come from.
    pub guest: UnixStream,
    /// A connection to an address of the host's.
    pub host: TcpStream,
    /// The name that the guest's TLS asks for.
    pub name: String,
    /// The port that it is connected to.
    pub port: u16,
    /// What the guest has sent already: all of the hello of its TLS.
    pub begun: Vec<u8>,
    /// Called when it is over, with what became of its secrets.
    pub done: Box<dyn FnOnce(Report) + Send>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("name", &self.name)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Serves the connections of one machine to hosts of its secrets.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    thread: Mutex<Option<(Arc<Waker>, JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Shared {
    orders: Arc<Orders>,
    certificates: Mutex<Certificates>,
    waiting: Mutex<Vec<Connection>>,
    stop: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker {
    /// For a machine with these orders. It has no thread yet.
    ///
    /// # Errors
    /// Where there is no cryptography, or the orders' key is none.
    pub fn new(orders: Orders) -> Result<Self, BrokerError> {
        let certificates = Certificates::of(&orders.authority)?;
        Ok(Self {
            shared: Arc::new(Shared {
                orders: Arc::new(orders),
                certificates: Mutex::new(certificates),
                waiting: Mutex::default(),
                stop: AtomicBool::new(false),
            }),
            thread: Mutex::default(),
        })
    }

    /// What it was made with.
    pub fn orders(&self) -> &Orders {
        &self.shared.orders
    }

    /// Takes a connection over. It does not wait.
    pub fn serve(&self, connection: Connection) {
        lock(&self.shared.waiting).push(connection);
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            *thread = self.start().ok();
        }
        match &*thread {
            // It fails only when the kernel's counter is full, and then the thread is
            // awake anyhow.
            Some((waker, _)) => drop(waker.wake()),
            // A host without a descriptor to give has none for connections either.
            None => self.shared.refuse_waiting(),
        }
    }

    fn start(&self) -> io::Result<(Arc<Waker>, JoinHandle<()>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("vm-secrets".into())
            .spawn(move || Serving::new(&shared).run(poll))?;
        Ok((waker, thread))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some((waker, thread)) = lock(&self.thread).take() {
            let _ = waker.wake();
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn refuse_waiting(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting
            .into_iter()
            .for_each(|connection| refuse(connection.done, Refusal::Limit));
    }
}

fn refuse(done: Done, refusal: Refusal) {
    done(Report {
        refusal: Some(refusal),
        ..Report::default()
    });
}

type Done = Box<dyn FnOnce(Report) + Send>;

struct Serving<'a> {
    shared: &'a Shared,
    sessions: HashMap<usize, (Session, Done)>,
    /// Those that have more to do at once.
    queue: VecDeque<usize>,
    /// How hosts are asked, by name and port.
    asking: HashMap<(String, u16), Arc<ClientConfig>>,
    next: usize,
}

impl<'a> Serving<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            sessions: HashMap::new(),
            queue: VecDeque::new(),
            asking: HashMap::new(),
            next: 0,
        }
    }

    fn run(mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        while !self.shared.stop.load(Ordering::SeqCst) {
            match poll.poll(&mut events, self.sleep()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The queue itself is gone; there is nothing left to wait for.
                Err(_) => break,
            }
            for event in &events {
                let id = event.token().0 / 2;
                let Some((session, _)) = self.sessions.get_mut(&id) else {
                    continue;
                };
                let failed = event.is_error();
                let readable = event.is_readable() || event.is_read_closed() || failed;
                let writable = event.is_writable() || event.is_write_closed() || failed;
                match event.token().0 % 2 {
                    0 => session.guest.ready(readable, writable),
                    _ => session.host.ready(readable, writable),
                }
                if !self.queue.contains(&id) {
                    self.queue.push_back(id);
                }
            }
            self.begin(poll.registry());
            self.turn();
        }
        for (_, (session, done)) in self.sessions.drain() {
            done(session.report());
        }
    }

    /// How long nothing has to be done.
    fn sleep(&self) -> Option<Duration> {
        if !self.queue.is_empty() {
            return Some(Duration::ZERO);
        }
        let sessions = self.sessions.values();
        let due = sessions.filter_map(|(session, _)| session.due).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Begins with connections that have come.
    fn begin(&mut self, registry: &Registry) {
        let waiting = std::mem::take(&mut *lock(&self.shared.waiting));
        for mut connection in waiting {
            let done = std::mem::replace(&mut connection.done, Box::new(drop));
            match self.session(connection, registry) {
                Ok((id, session)) => {
                    self.sessions.insert(id, (session, done));
                    self.queue.push_back(id);
                }
                Err(refusal) => refuse(done, refusal),
            }
        }
    }

    fn session(
        &mut self,
        connection: Connection,
        registry: &Registry,
    ) -> Result<(usize, Session), Refusal> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Err(Refusal::Limit);
        }
        let Connection {
            guest,
            host,
            name,
            port,
            begun,
            ..
        } = connection;
        let secrets = self
            .shared
            .orders
            .of_host(&name, port)
            .ok_or(Refusal::Guest)?;
        let place = (name.clone(), port);
        let ask = match self.asking.get(&place) {
            Some(ask) => ask.clone(),
            None => {
                let ask = trust::config_for(secrets.roots()).ok_or(Refusal::Host)?;
                self.asking.insert(place, ask.clone());
                ask
            }
        };
        let mut certificates = lock(&self.shared.certificates);
        let answer = certificates.answer_as(&name, SystemTime::now());
        let answer = answer.map_err(|_| Refusal::Guest)?;
        drop(certificates);
        let nonblocking = guest
            .set_nonblocking(true)
            .and_then(|()| host.set_nonblocking(true));
        nonblocking.map_err(|_| Refusal::Limit)?;
        let mut guest = mio::net::UnixStream::from_std(guest);
        let mut host = mio::net::TcpStream::from_std(host);
        let id = self.next;
        self.next += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry
            .register(&mut guest, Token(id * 2), both)
            .and_then(|()| registry.register(&mut host, Token(id * 2 + 1), both))
            .map_err(|_| Refusal::Limit)?;
        let parts = Parts {
            guest,
            host,
            secrets,
            answer,
            ask,
            begun,
        };
        Ok((id, Session::new(parts, Instant::now() + HANDSHAKES)?))
    }

    /// Has everyone who has something to do do some of it.
    fn turn(&mut self) {
        let now = Instant::now();
        let late = self
            .sessions
            .iter()
            .filter(|(_, (session, _))| session.due.is_some_and(|due| due <= now));
        let late: Vec<usize> = late.map(|(id, _)| *id).collect();
        self.queue.extend(late);
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else {
                break;
            };
            let Some((session, _)) = self.sessions.get_mut(&id) else {
                continue;
            };
            match session.turn(now) {
                Turn::Waits => {}
                Turn::Again => self.queue.push_back(id),
                Turn::Over => {
                    if let Some((session, done)) = self.sessions.remove(&id) {
                        // Whoever sees it end has been told why.
                        done(session.report());
                    }
                }
            }
        }
    }
}
