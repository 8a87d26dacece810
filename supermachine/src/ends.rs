//! Hears of the end of a pool's workers, so that an idle one that died is
//! replaced when it dies, and not when somebody wants it.

use crate::embedder::process::Process;
use crate::limits::FATE_TIMEOUT;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// A worker: its process, and the connection that breaks when it ends.
pub type Watched = (Arc<Process>, Arc<UnixStream>);

/// Workers whose end is waited for.
#[derive(Debug)]
pub struct Ends {
    workers: Arc<Mutex<Vec<Watched>>>,
    /// A byte has the thread look at the list; closed, it ends.
    changed: UnixStream,
}

impl Ends {
    /// Waits for ends on a thread of its own, which calls `ended` after each,
    /// until that says that nobody is interested any more.
    pub fn watch(ended: impl Fn() -> bool + Send + 'static) -> io::Result<Self> {
        let (changed, changes) = UnixStream::pair()?;
        changed.set_nonblocking(true)?;
        changes.set_nonblocking(true)?;
        let workers = Arc::default();
        let watched = Arc::clone(&workers);
        Builder::new()
            .name("pool-ends".into())
            .spawn(move || while wait_for_end(&watched, &changes) && ended() {})?;
        Ok(Self { workers, changed })
    }

    /// Waits for the end of this one, too.
    pub fn add(&self, worker: Watched) {
        lock(&self.workers).push(worker);
        self.look_again();
    }

    /// Waits for it no longer.
    pub fn remove(&self, process: &Arc<Process>) {
        lock(&self.workers).retain(|(known, _)| !Arc::ptr_eq(known, process));
        self.look_again();
    }

    fn look_again(&self) {
        // If there is no room for a byte, the thread has plenty to wake for.
        let _ = io::Write::write(&mut &self.changed, &[1]);
    }
}

fn lock(workers: &Mutex<Vec<Watched>>) -> std::sync::MutexGuard<'_, Vec<Watched>> {
    workers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a worker has ended; false if nobody waits any more.
fn wait_for_end(workers: &Mutex<Vec<Watched>>, changes: &UnixStream) -> bool {
    loop {
        let watched = lock(workers).clone();
        // A broken connection is told unasked; what comes in is not for us.
        let streams = watched.iter().map(|(_, control)| &**control);
        let mut fds: Vec<PollFd<'_>> = streams
            .map(|stream| PollFd::new(stream, PollFlags::empty()))
            .collect();
        fds.push(PollFd::new(changes, PollFlags::IN));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
        let Some((last, fds)) = fds.split_last() else {
            return false;
        };
        if last.revents().contains(PollFlags::IN) {
            let mut bytes = [0; 64];
            while matches!(io::Read::read(&mut &*changes, &mut bytes), Ok(1..)) {}
        }
        if last.revents().contains(PollFlags::HUP) {
            return false;
        }
        let ended: Vec<&Watched> = watched
            .iter()
            .zip(fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(worker, _)| worker)
            .collect();
        for (process, _) in &ended {
            // A worker without its connection is of no use to anybody.
            process.ends_within(FATE_TIMEOUT);
            process.kill();
            lock(workers).retain(|(known, _)| !Arc::ptr_eq(known, process));
        }
        if !ended.is_empty() {
            return true;
        }
    }
}
