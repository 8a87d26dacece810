//! A running machine is written down as it is at one moment, and goes on.

use super::instance::Instance;
use super::personalise::{Personality, await_done, resume_guest};
use crate::Error;
use crate::clock::Reading;
use crate::deadline::Deadline;
use crate::limits::{ANSWER_TIMEOUT, CAPTURE_TIMEOUT};
use crate::link::passing::{descriptors, in_parts};
use crate::link::protocol::{FromWorker, ToWorker};
use exec_proto::Resumed;
use exec_proto::client::Session;
use snapshot::{OpenFiles, Written};
use std::fs::File;
use std::path::Path;

/// What a machine did since it was put over what was written of it.
#[derive(Debug)]
pub struct Touched {
    /// Which pages of its memory it touched.
    pub runs: Vec<std::ops::Range<u64>>,
    /// What its engine noted of the code that it executed.
    pub code_notes: Vec<u8>,
}

impl Instance {
    /// Orders copies. If the guest's kernel would not hold their programs, they are
    /// ordered again once its agent has said that there are no programs.
    pub(super) fn copied(
        &self,
        order: impl Fn(bool) -> Result<FromWorker, Error>,
        deadline: Deadline,
    ) -> Result<FromWorker, Error> {
        match order(false)? {
            FromWorker::Unheld => {}
            answer => return Ok(answer),
        }
        let channel = self.open_session(deadline, &Session::alone)?;
        channel.limit(deadline);
        await_done(&channel)?;
        self.keep(channel);
        order(true)
    }

    /// Pauses the machine and writes it into the directory of a draft. It
    /// stays paused until [`Instance::go_on`]. What the first of its volumes hold goes
    /// to files of their own, but for those that hold what they began with: the numbers
    /// of these come back, too.
    pub fn capture(
        &self,
        directory: &Path,
        volumes: &[File],
    ) -> Result<(Written, Vec<usize>), Error> {
        let (files, mut open) = in_parts(OpenFiles::to_write(directory)?);
        for file in volumes {
            let file = file.try_clone();
            open.push(file.map_err(Error::system("duplicate a descriptor"))?);
        }
        let order = |unheld| {
            let order = ToWorker::Capture {
                files: files.clone(),
                volumes: volumes.len(),
                unheld,
            };
            self.worker().order_with(
                &order,
                &descriptors(&open),
                Deadline::within(CAPTURE_TIMEOUT),
            )
        };
        match self.copied(order, Deadline::within(ANSWER_TIMEOUT))? {
            FromWorker::Captured {
                written, unwritten, ..
            } => Ok((*written, unwritten)),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// Lets a captured machine go on as it was.
    pub fn go_on(&self) -> Result<(), Error> {
        self.continue_with(OpenFiles::default()).map(drop)
    }

    /// Lets a captured machine go on as another one than was captured, on the
    /// memory that was written to `directory`.
    pub fn go_on_from(&self, directory: &Path, identity: &Personality) -> Result<Resumed, Error> {
        let generation = self.continue_with(OpenFiles::to_map(directory)?)?;
        let generation = generation.unwrap_or_default();
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let channel = self.open_session(deadline, &|_| Ok(()))?;
        let time = Reading::of(&identity.clock);
        let resumed = resume_guest(&channel, generation, identity, time, false, deadline)?;
        self.clock_set.note(time);
        self.keep(channel);
        Ok(resumed)
    }

    fn continue_with(&self, files: OpenFiles) -> Result<Option<[u8; 16]>, Error> {
        let (rebase, open) = in_parts(files);
        let order = ToWorker::Continue { rebase };
        let deadline = Deadline::within(ANSWER_TIMEOUT);
        let answer = self
            .worker()
            .order_with(&order, &descriptors(&open), deadline)?;
        match answer {
            FromWorker::Continued { generation } => Ok(generation),
            other => Err(self.worker().unexpected(&other)),
        }
    }

    /// What the machine did since it was put over what was written.
    pub fn touched(&self) -> Result<Touched, Error> {
        let answer = self
            .worker()
            .order(&ToWorker::Touched, Deadline::within(ANSWER_TIMEOUT))?;
        match answer {
            FromWorker::Touched { runs, code_notes } => Ok(Touched { runs, code_notes }),
            other => Err(self.worker().unexpected(&other)),
        }
    }
}
