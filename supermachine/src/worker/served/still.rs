//! Orders that make the machine stand still: captures and forks.

use super::super::{Refusal, files, memory_mib, micros};
use super::{Served, be_born};
use crate::error::with_causes;
use crate::link::protocol::{FromWorker, RestoreStages, Setup, files_of_a_birth};
use snapshot::Written;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;
use tracing::warn;
use vmm_core::machine::{ForkedMachine, RunningMachine};

impl Served {
    pub(super) fn capture(
        &mut self,
        names: &[String],
        mut files: Vec<OwnedFd>,
        unheld: bool,
    ) -> Result<FromWorker, Refusal> {
        let machine = self.machine("capture")?;
        let for_volumes = files.split_off(names.len().min(files.len()));
        if !unheld && !machine.holds_programs() {
            return Ok(FromWorker::Unheld);
        }
        let begun = Instant::now();
        machine.pause()?;
        let saved = machine.save()?;
        let state = saved.encode()?;
        let unwritten = match files::keep_volumes(&self.given.volumes, &for_volumes) {
            Ok(unwritten) => unwritten,
            Err(error) => {
                machine.resume();
                let reason = format!("the host cannot copy a volume into it: {error}");
                return Ok(FromWorker::NotWritten { reason });
            }
        };
        let files = files::named(names, files);
        let written = machine.store_memory(|memory| {
            Written::write(&files, Path::new(""), memory, &state).map_err(Refusal::from)
        })?;
        self.captured = Some((saved, written.clone()));
        Ok(FromWorker::Captured {
            written: Box::new(written),
            unwritten,
            paused_us: micros(begun.elapsed()),
        })
    }

    pub(super) fn go_on(
        &mut self,
        rebase: &[String],
        files: Vec<OwnedFd>,
    ) -> Result<FromWorker, Refusal> {
        let untimely = Refusal::Untimely("continue");
        let (saved, written) = self.captured.take().ok_or(untimely)?;
        let machine = self.machine("continue")?.clone();
        let mut generation = None;
        if !rebase.is_empty() {
            machine.rebase(&files::named(rebase, files), &written)?;
            generation = Some(machine.renew_generation()?);
            self.baseline = Some(saved);
            // For copies of what was written, which take the same steps. Without it they
            // decode their code themselves.
            if let Err(error) = machine.note_code() {
                warn!(reason = with_causes(&error), "code is not noted");
            }
        }
        machine.resume();
        Ok(FromWorker::Continued { generation })
    }

    /// Makes all children that were named, of one moment.
    pub(super) fn fork(&mut self, unheld: bool) -> Result<FromWorker, Refusal> {
        let births = std::mem::take(&mut self.births);
        let machine = self.machine("fork")?;
        if !unheld && !machine.holds_programs() {
            return Ok(FromWorker::Unheld);
        }
        let begun = Instant::now();
        if let Some(message) = self.copy_volumes(machine, &births)? {
            return Ok(FromWorker::Refused { message });
        }
        let copied = begun.elapsed();
        let mut given = self.given.clone();
        let keep = |number: usize| {
            let own = births.get(number).into_iter().flat_map(|(_, files)| files);
            own.map(AsFd::as_fd)
                .chain(self.given.descriptors())
                .collect()
        };
        let paused = machine.fork(births.len(), keep, |number, forked| {
            match births.get(number) {
                Some((setup, files)) => {
                    given.give_own_volumes(files);
                    be_born(setup, files, given, forked)
                }
                None => 0,
            }
        })?;
        Ok(FromWorker::Forked {
            paused_us: micros(copied + paused),
        })
    }

    /// Pauses the machine and puts what its volumes hold into the children's. The
    /// machine goes on if that fails, and what is returned says why.
    fn copy_volumes(
        &self,
        machine: &RunningMachine,
        births: &[(Setup, Vec<OwnedFd>)],
    ) -> Result<Option<String>, Refusal> {
        if self.given.volumes.is_empty() {
            return Ok(None);
        }
        machine.pause()?;
        let copies = births
            .iter()
            .map(|(_, files)| files.get(files_of_a_birth(0)..));
        let copied = copies
            .flatten()
            .try_for_each(|copies| files::copy_volumes(&self.given.volumes, copies));
        Ok(copied.err().map(|error| {
            machine.resume();
            format!("the host cannot copy its volumes: {error}")
        }))
    }

    /// Makes a machine of what a fork left.
    pub(super) fn adopt(&mut self, forked: ForkedMachine) -> Result<FromWorker, Refusal> {
        let prepared = self.prepared.take().ok_or(Refusal::Untimely("adopt"))?;
        let begun = Instant::now();
        let (machine, generation) = prepared.adopt(forked, &self.given.options())?;
        let memory_mib = memory_mib(&machine);
        machine.resume();
        let load = begun.elapsed();
        self.started(machine)?;
        Ok(FromWorker::Restored(RestoreStages {
            read_us: 0,
            load_us: micros(load),
            generation,
            pages: None,
            memory_mib,
        }))
    }
}
