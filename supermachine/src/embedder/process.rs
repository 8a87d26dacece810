//! The process of a worker: whether it lives, how it ended, and ending it.

use crate::host;
use crate::limits::{FIRST_END_PAUSE, LAST_END_PAUSE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
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
    /// Started by this process. Its number is its own until its end was heard.
    Child { child: Child, has_ended: bool },
    /// Forked from another worker: known by a descriptor, so that its number
    /// cannot come to mean another process.
    Other(OwnedFd),
}

impl Process {
    /// A process that this one has started.
    pub fn of_child(child: Child) -> Self {
        Self {
            pid: child.id(),
            kind: Mutex::new(Kind::Child {
                child,
                has_ended: false,
            }),
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
            Kind::Child { child, .. } => {
                let _ = child.kill();
            }
            Kind::Other(process) => host::kill(process.as_fd()),
        }
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        match &mut *self.kind() {
            Kind::Child { child, has_ended } => matches!(status(child, has_ended), Ok(None)),
            Kind::Other(process) => goes_on(process),
        }
    }

    /// Whether it lives and does something: one that somebody has stopped (SIGSTOP)
    /// does not, which is not told of processes that others started. One call to
    /// the system, for those who ask often.
    pub fn is_well(&self) -> bool {
        let kind = self.kind();
        match &*kind {
            Kind::Other(process) => return goes_on(process),
            Kind::Child { has_ended, .. } if *has_ended => return false,
            Kind::Child { .. } => {}
        }
        let id = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // Left to be told again, and without waiting.
        let options = WaitIdOptions::EXITED
            | WaitIdOptions::STOPPED
            | WaitIdOptions::NOHANG
            | WaitIdOptions::NOWAIT;
        id.is_some_and(|id| matches!(waitid(WaitId::Pid(id), options), Ok(None)))
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

    /// How it ended, if that was not by its own will and becomes known within
    /// `patience`. Of processes that others started that cannot be known.
    pub fn fate(&self, patience: Duration) -> Option<String> {
        let begun = Instant::now();
        loop {
            let status = match &mut *self.kind() {
                Kind::Child { child, has_ended } => status(child, has_ended).ok()?,
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

/// How a child ended, if it has.
fn status(child: &mut Child, has_ended: &mut bool) -> io::Result<Option<ExitStatus>> {
    let status = child.try_wait();
    *has_ended |= !matches!(status, Ok(None));
    status
}

/// Whether the process of a descriptor has not ended: then it is readable.
fn goes_on(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(0))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn process_that_was_stopped_or_has_ended_is_not_well() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_child(&child);
        let process = Process::of_child(child);
        let until = |well: bool| {
            let begun = Instant::now();
            while process.is_well() != well {
                assert!(begun.elapsed() < Duration::from_secs(20), "{well}");
                std::thread::sleep(FIRST_END_PAUSE);
            }
        };
        until(true);
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
        until(false);
        // It is asked more than once, and lives.
        assert!(!process.is_well() && process.is_alive());
        rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
        until(true);
        process.kill();
        until(false);
        // Its end is not taken away from who wants to know how.
        assert!(
            process
                .fate(Duration::from_secs(20))
                .unwrap()
                .contains("signal 9")
        );
        assert!(!process.is_well() && !process.is_alive());
    }
}
