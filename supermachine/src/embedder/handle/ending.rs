//! How a worker's end is noticed, told and brought about.

use super::Worker;
use crate::Error;
use crate::deadline::{Deadline, Timed};
use crate::limits::{DROP_TIMEOUT, END_TIMEOUT, GLANCE_TIMEOUT, KILL_TIMEOUT};
use crate::link::protocol;
use crate::link::protocol::ToWorker;
use rustix::event::PollFlags;
use std::os::fd::AsFd;
use std::time::Duration;
use tracing::{debug, warn};

impl Worker {
    /// The end of the console of a guest that has ended.
    pub fn ended_console(&self) -> Option<String> {
        self.ended.as_ref().map(|ended| ended.console.clone())
    }

    /// How the machine or its worker ended, if it has or does within
    /// `patience`.
    pub fn end_within(&mut self, patience: Duration) -> Option<Error> {
        let deadline = Deadline::within(patience);
        if self.ended.is_none() {
            deadline.wait_for(&self.control, PollFlags::IN).ok()?;
        }
        self.inspect(Deadline::within(
            deadline.left_of(patience).max(GLANCE_TIMEOUT),
        ))
        .err()
    }

    /// Ends the worker and its machine without a word.
    pub fn kill(&mut self) {
        self.process.kill();
        self.process.ends_within(KILL_TIMEOUT);
    }

    /// Tells the worker to stop and waits until it is gone. Safe to call twice.
    pub fn end(&mut self) {
        let is_killed = self.is_lost || !self.ends_in_order(END_TIMEOUT);
        if is_killed {
            self.kill();
        }
        self.is_over(is_killed);
    }

    /// Tells once how it ended.
    fn is_over(&mut self, is_killed: bool) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let pid = self.process.pid();
        if is_killed {
            warn!(pid, "worker killed");
        } else {
            debug!(pid, "worker ended");
        }
    }

    /// Ends the worker as [`Worker::end`] does, for callers that cannot wait: a worker
    /// that takes its time is killed, and one that the system takes its time to end is
    /// left to a thread.
    pub fn end_soon(&mut self) {
        if self.is_left {
            return;
        }
        if !self.is_lost && self.ends_in_order(DROP_TIMEOUT) {
            return self.is_over(false);
        }
        self.is_over(true);
        self.is_lost = true;
        self.process.kill();
        if !self.process.ends_within(DROP_TIMEOUT) {
            self.is_left = true;
            let process = self.process();
            // Without a thread it is collected when this process ends.
            let _ = std::thread::Builder::new()
                .name("reaper".into())
                .spawn(move || process.ends_within(Duration::MAX));
        }
    }

    /// Tells the worker to stop; whether it is gone within `patience`.
    fn ends_in_order(&self, patience: Duration) -> bool {
        let deadline = Deadline::within(patience);
        let told = protocol::send(Timed::new(&self.control, deadline), &ToWorker::Stop);
        let _ = rustix::net::shutdown(self.control.as_fd(), rustix::net::Shutdown::Write);
        let is_gone = told.is_err() && !self.process.is_alive();
        is_gone || self.process.ends_within(deadline.left_of(patience))
    }
}
