//! Children of a running machine, which share its memory until either writes.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use tracing::debug;

use super::error::MachineError;
use super::restore::RestoreOptions;
use super::saved::SavedMachine;
use super::{PreparedMachine, RunningMachine, assembly};
use crate::memory::GuestMemory;
use crate::memory::fork;

/// A machine's state and memory in a process forked from its own, to be made
/// a machine again.
#[derive(Debug)]
pub struct ForkedMachine {
    memory: GuestMemory,
    saved: SavedMachine,
}

impl RunningMachine {
    /// Forks this process `count` times and has each child run `child` with
    /// its number and a copy of the machine; what that returns is the child's
    /// exit status. Not every engine can do it, see
    /// [`Hypervisor::after_fork`](crate::hypervisor::Hypervisor::after_fork).
    ///
    /// The machine pauses only while its device and vCPU state is copied and
    /// the process forks once: the first child forks the others. Gives the
    /// time it paused.
    ///
    /// Children have the calling thread, and of the parent's files standard error
    /// and what `keep` names for their number.
    pub fn fork<'a>(
        &self,
        count: usize,
        keep: impl FnOnce(usize) -> Vec<BorrowedFd<'a>>,
        child: impl FnOnce(usize, ForkedMachine) -> u8,
    ) -> Result<Duration, MachineError> {
        let Some(after_fork) = self.after_fork else {
            return Err(MachineError::Unsupported {
                what: "forking a machine of this engine",
            });
        };
        let begun = Instant::now();
        self.pause()?;
        let halves = self.state_and_memory().and_then(|(saved, memory)| {
            let is_child = fork::split().map_err(|source| MachineError::Host {
                what: "a fork",
                source,
            })?;
            Ok((is_child, saved, memory))
        });
        let (saved, memory) = match halves {
            Ok((true, saved, memory)) => (saved, memory),
            Ok((false, saved, memory)) => {
                self.resume();
                drop((saved, memory));
                let paused = begun.elapsed();
                debug!(children = count, ?paused, "machine forked");
                return Ok(paused);
            }
            Err(error) => {
                self.resume();
                return Err(error);
            }
        };
        // From here on this is the only thread, and it does not return.
        after_fork();
        memory.host().forget_base();
        fork::leave_windows();
        let mut number = 0;
        for sibling in 1..count {
            if let Ok(true) = fork::split() {
                number = sibling;
                break;
            }
        }
        if fork::leave_parent(&keep(number)).is_err() {
            fork::end(1);
        }
        // A panic must not run the parent's destructors.
        let run = std::panic::AssertUnwindSafe(|| child(number, ForkedMachine { memory, saved }));
        fork::end(std::panic::catch_unwind(run).unwrap_or(101))
    }

    fn state_and_memory(&self) -> Result<(SavedMachine, GuestMemory), MachineError> {
        let saved = self.save()?;
        let memory = match &*self.parts() {
            Some(parts) => parts.memory.clone(),
            None => return Err(MachineError::Gone),
        };
        Ok((saved, memory))
    }
}

impl PreparedMachine {
    /// Makes a forked machine run here. It is paused, and given with its new
    /// generation id.
    pub fn adopt(
        mut self,
        forked: ForkedMachine,
        options: &RestoreOptions,
    ) -> Result<(RunningMachine, [u8; 16]), MachineError> {
        let ForkedMachine { memory, saved } = forked;
        self.create_vcpus(saved.vcpus())?;
        let others = assembly::open_others(
            &options.disks,
            &options.volumes,
            &options.shares,
            options.network.as_ref(),
            self.windows(),
        )?;
        let machine = self.assemble(memory, others, saved.possible_vcpus())?;
        let generation = match &*machine.parts() {
            Some(parts) => machine.load(parts, &saved)?,
            None => return Err(MachineError::Gone),
        };
        debug!(vcpus = saved.vcpus(), "forked machine adopted");
        Ok((machine, generation))
    }
}
