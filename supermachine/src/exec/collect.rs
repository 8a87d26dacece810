//! Collecting what a command writes.

use super::{Channel, Command, ExecOutcome, ExecStatus, Sinks};
use crate::Error;
use std::time::Duration;

/// Default limit of collected output, per stream.
const MAX_OUTPUT_BYTES: usize = 256 << 20;

impl Command {
    /// Collects what a command of which this was asked for writes.
    pub(crate) fn collect(&self, channel: &Channel) -> Result<ExecOutcome, Error> {
        let mut collect = Collect {
            stdout: Vec::new(),
            stderr: Vec::new(),
            limit: self.max_output_bytes.unwrap_or(MAX_OUTPUT_BYTES),
            truncates: self.truncates,
            truncated: false,
            steps: Vec::new(),
        };
        let status = std::thread::scope(|scope| {
            if let Some(stdin) = &self.stdin {
                let feed = move || {
                    // Failures show on the reading side too.
                    let _ = channel
                        .write_stdin(stdin)
                        .and_then(|_| channel.close_stdin());
                };
                std::thread::Builder::new()
                    .name("exec-stdin".into())
                    .spawn_scoped(scope, feed)
                    .map_err(Error::system("start a thread"))?;
            }
            channel.read_to_end(&mut collect)
        })?;
        let before: Duration = collect.steps.iter().map(|step| step.duration).sum();
        let mut steps = collect.steps;
        steps.push(ExecStatus {
            duration: status.duration.saturating_sub(before),
            ..status
        });
        Ok(ExecOutcome {
            status,
            stdout: collect.stdout,
            stderr: collect.stderr,
            duration: status.duration,
            timed_out: status.timed_out,
            peak_rss_kib: status.peak_rss_kib,
            truncated: collect.truncated,
            steps,
        })
    }
}

struct Collect {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    limit: usize,
    truncates: bool,
    truncated: bool,
    /// Those before the last.
    steps: Vec<ExecStatus>,
}

impl Collect {
    /// As much of new bytes as there is room for beside so many.
    fn fitting<'a>(&mut self, kept: usize, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let limit = self.limit;
        let room = limit.saturating_sub(kept);
        match bytes.get(..room) {
            Some(fitting) if fitting.len() < bytes.len() => {
                self.truncated = true;
                match self.truncates {
                    true => Ok(fitting),
                    false => Err(Error::OutputTooLarge { limit }),
                }
            }
            _ => Ok(bytes),
        }
    }
}

impl Sinks for Collect {
    fn stdout(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let fitting = self.fitting(self.stdout.len(), bytes)?;
        self.stdout.extend_from_slice(fitting);
        Ok(())
    }

    fn stderr(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let fitting = self.fitting(self.stderr.len(), bytes)?;
        self.stderr.extend_from_slice(fitting);
        Ok(())
    }

    fn step(&mut self, status: ExecStatus) {
        self.steps.push(status);
    }
}
