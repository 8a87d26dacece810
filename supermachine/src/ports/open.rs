//! Which ports are open, and how they are closed.

use crate::sync::lock;
use crate::{Error, running};
use rustix::event::{PollFd, PollFlags};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Connections of a machine at a time, senders of datagrams included.
const MAX_CONNECTIONS: usize = 512;
/// Stack of a thread that moves bytes: its buffers are elsewhere.
const STACK_BYTES: usize = 256 * 1024;

/// One end of a pair of which the other is kept to be dropped: its end is the sign.
#[derive(Clone, Debug)]
pub struct Sign(Arc<UnixStream>);

impl Sign {
    /// A sign, and what gives it by being dropped.
    pub fn new() -> Result<(Self, UnixStream), Error> {
        let (sign, giver) = UnixStream::pair().map_err(Error::system("make a socket"))?;
        Ok((Self(Arc::new(sign)), giver))
    }

    /// For a poll, in which any event is the sign.
    pub fn watch(&self) -> PollFd<'_> {
        PollFd::new(&*self.0, PollFlags::IN)
    }
}

/// The ports of one machine.
#[derive(Debug, Default)]
pub struct Ports {
    /// Where the machine describes itself, if this process owns it.
    dir: Option<PathBuf>,
    state: Mutex<State>,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Arc<Port>>,
    /// Cuts the connections.
    sever: Option<(Sign, UnixStream)>,
}

/// A port that is open.
#[derive(Debug)]
struct Port {
    shown: String,
    running: Mutex<Option<(UnixStream, JoinHandle<()>)>>,
}

impl Port {
    /// Ends its thread, and with it its socket.
    fn end(&self) {
        let running = lock(&self.running).take();
        if let Some((giver, thread)) = running {
            drop(giver);
            // One that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// A place among the connections of a machine.
pub struct Connection(Arc<Ports>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ports {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Opens a port that a thread serves until its sign.
    pub fn open(
        self: &Arc<Self>,
        shown: String,
        serve: impl FnOnce(Sign) + Send + 'static,
    ) -> Result<Open, Error> {
        let (sign, giver) = Sign::new()?;
        let thread = spawn(move || serve(sign)).map_err(Error::system("start a thread"))?;
        let port = Arc::new(Port {
            shown,
            running: Mutex::new(Some((giver, thread))),
        });
        let mut state = self.lock();
        state.open.push(port.clone());
        self.describe(&state);
        Ok(Open {
            ports: self.clone(),
            port,
            is_kept: false,
        })
    }

    /// A place for one more connection, if there is one.
    pub fn enter(self: &Arc<Self>) -> Option<Connection> {
        let place = Connection(self.clone());
        (self.connections.fetch_add(1, Ordering::SeqCst) < MAX_CONNECTIONS).then_some(place)
    }

    /// Whether there is none.
    pub fn is_full(&self) -> bool {
        self.connections.load(Ordering::SeqCst) >= MAX_CONNECTIONS
    }

    /// What is given when connections are to be cut.
    pub fn severed(&self) -> Result<Sign, Error> {
        let mut state = self.lock();
        if let Some((sign, _)) = &state.sever {
            return Ok(sign.clone());
        }
        let (sign, giver) = Sign::new()?;
        state.sever = Some((sign.clone(), giver));
        Ok(sign)
    }

    fn stop(&self, port: &Arc<Port>) {
        port.end();
        let mut state = self.lock();
        let before = state.open.len();
        state.open.retain(|open| !Arc::ptr_eq(open, port));
        if state.open.len() != before {
            self.describe(&state);
        }
    }

    /// Closes all ports and cuts all connections.
    fn close(&self) {
        let State { open, sever } = std::mem::take(&mut *self.lock());
        drop(sever);
        if open.is_empty() {
            return;
        }
        open.iter().for_each(|port| port.end());
        self.describe(&self.lock());
    }

    /// Lets `ps` show the ports that are open.
    fn describe(&self, state: &State) {
        if let Some(dir) = &self.dir {
            let shown = state.open.iter().map(|port| port.shown.clone()).collect();
            // A machine that ends is not described any more.
            let _ = running::set_ports(dir, shown);
        }
    }
}

/// The ports of a machine that this process owns, which end with it.
#[derive(Debug)]
pub struct OwnPorts(Arc<Ports>);

impl OwnPorts {
    /// None yet, of the machine with this runtime directory.
    pub fn new(dir: PathBuf) -> Self {
        Self(Arc::new(Ports {
            dir: Some(dir),
            ..Ports::default()
        }))
    }

    pub fn ports(&self) -> &Arc<Ports> {
        &self.0
    }

    /// Closes them, and cuts their connections.
    pub fn close(&self) {
        self.0.close();
    }

    /// Closes them when it is dropped: whoever leases the machine next has none.
    pub fn lease(&self) -> Lease {
        Lease(self.0.clone())
    }
}

impl Drop for OwnPorts {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The time in which one user of a pool has the machine, with its ports.
#[derive(Debug)]
pub struct Lease(Arc<Ports>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A port that is open until this is dropped.
#[derive(Debug)]
pub struct Open {
    ports: Arc<Ports>,
    port: Arc<Port>,
    is_kept: bool,
}

impl Open {
    /// Closes it. Its connections go on.
    pub fn stop(&self) {
        self.ports.stop(&self.port);
    }

    /// Leaves it open until the machine ends.
    #[cfg(feature = "cli")]
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_kept {
            self.stop();
        }
    }
}

/// Starts a thread that serves a port or a connection.
pub fn spawn(run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("port".into());
    thread.stack_size(STACK_BYTES).spawn(run)
}
