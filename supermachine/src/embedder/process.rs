//! The process of a worker: whether it lives, how it ended, and ending it.

use crate::host;
use crate::limits::{FIRST_END_PAUSE, LAST_END_PAUSE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A worker process, for those who may not wait for who talks to it.
#[derive(Debug)]
pub struct Process {
    kind: Mutex<Kind>,
    pid: u32,
}

#[derive(Debug)]
enum Kind {
    /// Started by this process.
    Child(Child),
    /// Forked from another worker: known by a descriptor, so that its number
    /// cannot come to mean another process.
    Other(OwnedFd),
}

impl Process {
    /// A process that this one has started.
    pub fn of_child(child: Child) -> Self {
        Self {
            pid: child.id(),
            kind: Mutex::new(Kind::Child(child)),
        }
    }

    /// A process that is no child of this one.
    pub fn other(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            kind: Mutex::new(Kind::Other(host::process_descriptor(pid)?)),
        })
    }

    fn kind(&self) -> MutexGuard<'_, Kind> {
        self.kind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it at once. Whoever waits for its answer learns so.
    pub fn kill(&self) {
        match &mut *self.kind() {
            Kind::Child(child) => {
                let _ = child.kill();
            }
            Kind::Other(process) => host::kill(process.as_fd()),
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        match &mut *self.kind() {
            Kind::Child(child) => matches!(child.try_wait(), Ok(None)),
            // The descriptor of a process is readable once it has ended.
            Kind::Other(process) => {
                let mut fds = [PollFd::new(process, PollFlags::IN)];
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                matches!(poll(&mut fds, Some(&now)), Ok(0))
            }
        }
    }

    /// Waits until it is gone, for as long as that; whether it is.
    pub fn ends_within(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let mut pause = FIRST_END_PAUSE;
        while self.is_alive() {
            if begun.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LAST_END_PAUSE);
        }
        true
    }

    /// Whether somebody has stopped it (SIGSTOP), so that it does nothing. Not
    /// told of processes that others started.
    pub fn is_stopped(&self) -> bool {
        let id = match &*self.kind() {
            Kind::Child(_) => i32::try_from(self.pid).ok().and_then(Pid::from_raw),
            Kind::Other(_) => None,
        };
        let Some(id) = id else { return false };
        // Left to be told again, and without waiting.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(id), options);
        matches!(status, Ok(Some(status)) if status.stopped())
    }

    /// How it ended, if that was not by its own will and becomes known within
    /// `patience`. Of processes that others started that cannot be known.
    pub fn fate(&self, patience: Duration) -> Option<String> {
        let begun = Instant::now();
        loop {
            let status = match &mut *self.kind() {
                Kind::Child(child) => child.try_wait().ok()?,
                Kind::Other(_) => return None,
            };
            match status {
                Some(status) => return status.signal().map(killed_by),
                None if begun.elapsed() > patience => return None,
                None => std::thread::sleep(FIRST_END_PAUSE),
            }
        }
    }

    /// Memory it has of its own, in bytes; 0 if the system does not tell.
    pub fn memory_bytes(&self) -> u64 {
        host::private_bytes(self.pid)
    }
}

/// What it means that a worker was ended by a signal.
fn killed_by(signal: i32) -> String {
    use rustix::process::Signal;
    let meaning = match Signal::from_named_raw(signal) {
        Some(Signal::BUS) => {
            ": a file it has mapped was cut short or cannot be read, or there is no memory left"
        }
        Some(Signal::KILL) => ": somebody ended it, or the system did for want of memory",
        _ => "",
    };
    format!("it was killed by signal {signal}{meaning}")
}
