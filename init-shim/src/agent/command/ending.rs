//! How a command ends: the rest of its output, and what is told of it.

use exec_proto::{Exited, Failure, Reply};

use super::super::Stop;
use super::super::launch::exit_status;
use super::super::link::{Link, OUTPUT_LIMIT};
use super::super::output::To;
use super::super::stream::Stream;
use super::{Command, KILL_WAIT, hosts, to};
use crate::sys::{self, Outcome, Waited};

impl Command<'_> {
    /// The next program cannot be executed: as in a shell, that is a status and a
    /// line on standard error, whether commands ran before it or not.
    pub(super) fn not_executed(&mut self, link: &mut Link<'_>, failure: &Failure) {
        // A terminal has one stream, and ends its lines so.
        let (stream, line_end) = match self.tty {
            true => (Stream::Stdout, "\r\n"),
            false => (Stream::Stderr, "\n"),
        };
        let line = format!("{failure}{line_end}");
        match to(&self.held) {
            To::Host => link.queue(&stream.reply(line.as_bytes())),
            To::Keep(durable) => durable.keep(stream, line.as_bytes()),
        }
        self.last.outcome = Outcome::Code(failure.kind.exit_status());
        self.executed = false;
    }

    /// No further command will write: takes the output that is there.
    pub(super) fn wind_up(&mut self, link: &mut Link<'_>) {
        self.ends = None;
        let (held, host_gone) = (&self.held, self.host_gone);
        for output in &mut self.outputs {
            output.limit_to_pending();
            // What is there can be read without waiting; a host too slow for
            // it gets the rest from the loop.
            while output.is_open()
                && link.pending() < OUTPUT_LIMIT
                && hosts::has_room(held, host_gone, output.stream())
            {
                if output.read(link, to(held)) == 0 {
                    break;
                }
            }
        }
    }

    pub(super) fn finish(&mut self, link: &mut Link<'_>) -> Result<(), Stop> {
        if self.timed_out
            && let Some(group) = &self.group
        {
            group.wait_until_empty(KILL_WAIT);
        }
        let exited = self.exited(self.last, self.started_ns);
        if let Some(held) = self.held.take() {
            self.release_group();
            return held.finish(link, exited, !self.host_gone);
        }
        link.queue(&Reply::Exited(exited));
        link.flush()?;
        self.release_group();
        Ok(())
    }

    /// How what began then has ended.
    pub(super) fn exited(&self, waited: Waited, since_ns: u64) -> Exited {
        Exited {
            status: exit_status(waited.outcome),
            duration_ns: sys::monotonic_ns().saturating_sub(since_ns),
            peak_rss_kib: waited.peak_rss_kib,
            timed_out: self.timed_out,
            oom: self
                .group
                .as_ref()
                .is_some_and(|group| group.is_limited() && group.was_out_of_memory()),
            step: self.step,
            executed: self.executed,
        }
    }
}
