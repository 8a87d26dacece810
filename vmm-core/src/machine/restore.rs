//! Saving a paused machine, making one from a snapshot, and bringing a running
//! one back to where it began.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::virtio::blk::BlkState;
use devices::virtio::fs::FsState;
use devices::virtio::mmio::MmioState;
use devices::virtio::{DeviceState, StateFormat};
use snapshot::{
    GuestPages, OpenFiles, PageSource, PresentPages, RamMapping, Snapshot, WorkingSet, Written,
};
use tracing::debug;

use super::assembly;
use super::control::{Power, Task};
use super::error::MachineError;
use super::rewind::Rewound;
use super::saved::{Board, SavedMachine};
use super::{Parts, PreparedMachine, REST_TIMEOUT, RunningMachine};
use crate::hypervisor::CodeCounts;
use crate::memory::{GuestMemory, MemoryError};
use crate::spec::{HostFile, Network, Share, Volume};

/// What a machine is restored with: everything of the host that it uses comes
/// from here and nothing from the snapshot.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Read-only disks, in the order they had.
    pub disks: Vec<HostFile>,
    /// Writable disks, in the order they had.
    pub volumes: Vec<Volume>,
    /// What the network interface leads to, if and only if there was one.
    pub network: Option<Network>,
    /// Directories that the guest can mount, in the order they had and with the
    /// tags they had.
    pub shares: Vec<Share>,
    /// vCPUs that should be there: at least those that were. The guest has to
    /// turn further ones on.
    pub vcpus: u32,
    /// Bytes of memory there should be room for beside the machine's RAM, for
    /// [`RunningMachine::set_memory`].
    pub hot_bytes: u64,
    /// [`RunningMachine::take_code_notes`] of a machine with this memory; empty if there
    /// is none. What is in it changes nothing but how soon the machine is at work.
    pub code_notes: Vec<u8>,
    /// The machine may have nothing to do for long once it is there: it takes no memory
    /// ahead that only work needs.
    pub starts_idle: bool,
}

/// What a reset did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetReport {
    /// Pages of 4 KiB whose content was brought back, or `None` if all memory
    /// was mapped afresh.
    pub pages: Option<u64>,
    /// From the order to stop until the first vCPU could run again.
    pub took: Duration,
    /// The machine's new generation id.
    pub generation: [u8; 16],
}

impl PreparedMachine {
    /// Makes the machine of a snapshot, with a new generation id, which is
    /// given too. It is paused; [`RunningMachine::resume`] lets it go on.
    ///
    /// Everything the snapshot says is read and checked before the machine
    /// gets memory or devices.
    pub fn restore(
        self,
        snapshot: &Snapshot,
        saved: &SavedMachine,
        options: &RestoreOptions,
    ) -> Result<(RunningMachine, [u8; 16]), MachineError> {
        let bytes = snapshot.manifest().memory_bytes();
        self.restore_over(bytes, || Ok(snapshot.map_memory()?), saved, options)
    }

    /// As [`PreparedMachine::restore`], over so much memory, which is mapped
    /// when the rest has been found good.
    pub(super) fn restore_over(
        mut self,
        memory_bytes: u64,
        map: impl FnOnce() -> Result<RamMapping, MachineError>,
        saved: &SavedMachine,
        options: &RestoreOptions,
    ) -> Result<(RunningMachine, [u8; 16]), MachineError> {
        let board = &saved.board;
        let layout = self.arch().layout();
        let given = options.disks.len() + options.volumes.len();
        if given != board.disks as usize {
            return Err(MachineError::OtherDisks {
                saved: board.disks,
                given,
            });
        }
        if saved.has_network() != options.network.is_some() {
            return Err(MachineError::OtherNetwork {
                saved: saved.has_network(),
            });
        }
        if options.shares.len() != board.shares as usize {
            return Err(MachineError::OtherShares {
                saved: board.shares,
                given: options.shares.len(),
            });
        }
        if memory_bytes != board.ram_bytes
            || !(layout.min_ram_bytes..=layout.max_ram_bytes).contains(&board.ram_bytes)
        {
            return Err(MachineError::Damaged {
                what: "guest memory",
            });
        }
        if options.vcpus > board.possible_vcpus {
            return Err(MachineError::TooManyVcpus {
                vcpus: options.vcpus,
                max: board.possible_vcpus,
                engine: self.engine(),
            });
        }
        saved.check_devices(self.arch())?;
        self.create_vcpus(saved.vcpus().max(options.vcpus))?;
        let others = assembly::open_others(
            &options.disks,
            &options.volumes,
            &options.shares,
            options.network.as_ref(),
            self.windows(),
        )?;
        let mut memory = GuestMemory::over(layout.ram, map()?)?;
        if options.hot_bytes > 0 {
            let (start, room) = layout.hot_region(board.ram_bytes);
            let bytes = options.hot_bytes.div_ceil(layout.hot_unit_bytes);
            let bytes = bytes.saturating_mul(layout.hot_unit_bytes);
            if bytes > room {
                return Err(MemoryError::TooLarge {
                    bytes: options.hot_bytes,
                    max_bytes: room,
                }
                .into());
            }
            memory = memory.with_hot(start, bytes)?;
        }
        let machine = self.assemble(memory, others, board.possible_vcpus)?;
        let generation = match &*machine.parts() {
            Some(parts) => {
                parts.vm.track_writes()?;
                let generation = machine.load(parts, saved)?;
                // Last: its thread would take the processor from this one.
                let notes = &options.code_notes;
                if !notes.is_empty() && !parts.vm.decode_ahead(notes, !options.starts_idle) {
                    debug!("notes of code are of no use to this engine");
                }
                generation
            }
            None => return Err(MachineError::Gone),
        };
        debug!(memory_bytes, vcpus = saved.vcpus(), "machine restored");
        Ok((machine, generation))
    }
}

impl RunningMachine {
    /// The state of a paused machine. Requests its devices had begun are
    /// finished first.
    pub fn save(&self) -> Result<SavedMachine, MachineError> {
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        // Devices first: what they finish may raise interrupts.
        let virtio: Vec<MmioState> = parts.devices.virtio.iter().map(|d| d.state()).collect();
        let legacy = parts.devices.board.save();
        let power = self.control.power();
        let on = (0..).zip(&power).filter(|(_, power)| **power == Power::On);
        let tasks = on.map(|(index, _)| (index, Task::Save)).collect();
        let mut states = self.perform(tasks)?.into_iter().flatten();
        let vcpus = power.iter().map(|power| match power {
            Power::On => states.next().map(|state| Arc::new(*state)),
            Power::Off | Power::Starting(..) => None,
        });
        let vcpus: Vec<_> = vcpus.collect();
        // Last: taking a vCPU's registers may have told it something.
        let interrupts = parts.vm.save_interrupts()?;
        let of_kind = |format: StateFormat| {
            let count = virtio.iter().filter(|d| d.device.kind == format.kind);
            u32::try_from(count.count()).unwrap_or(u32::MAX)
        };
        let disks = of_kind(BlkState::FORMAT);
        let shares = of_kind(FsState::FORMAT);
        debug!(vcpus = vcpus.len(), "machine saved");
        Ok(SavedMachine {
            board: Board {
                ram_bytes: parts.memory.bytes(),
                legacy: u16::try_from(legacy.len()).unwrap_or(u16::MAX),
                possible_vcpus: parts.possible_vcpus,
                disks,
                shares,
                holds: parts.generation.obeys(),
                power,
                virtio: virtio.iter().map(|device| device.device_id).collect(),
            },
            vcpus,
            interrupts,
            legacy,
            virtio,
        })
    }

    /// Has `write` store the memory of a paused machine.
    ///
    /// A machine with memory beside its RAM cannot be stored: the copies would
    /// have no place for it.
    pub fn store_memory<T, E: From<MachineError>>(
        &self,
        write: impl FnOnce(&mut dyn PageSource) -> Result<T, E>,
    ) -> Result<T, E> {
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        if parts.balance().added_bytes > 0 {
            let what = "a snapshot of a machine with added memory";
            return Err(MachineError::Unsupported { what }.into());
        }
        let host = parts.memory.host();
        // Where the host does not tell what was touched, all of it is read.
        let populated = host.populated().ok();
        let slice = host.slice();
        write(&mut match populated {
            Some(runs) => GuestPages::of(&slice, runs),
            None => GuestPages::new(&slice),
        })
    }

    /// Puts what [`RunningMachine::store_memory`] wrote, in `files`, under the
    /// memory of this machine, paused since: what the two have in common
    /// is shared from now on, and [`RunningMachine::reset`] goes back to it.
    pub fn rebase(&self, files: &OpenFiles, written: &Written) -> Result<(), MachineError> {
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        written.map_over(files, Path::new(""), parts.memory.host())?;
        parts.take_written()?;
        *parts.rewound() = Rewound::new(&parts.memory);
        parts.vm.track_writes()?;
        debug!("memory put over what was written");
        Ok(())
    }

    /// Has the engine of a paused machine forget its decoded code and note what it
    /// decodes from now on.
    pub fn note_code(&self) -> Result<(), MachineError> {
        let parts = self.parts();
        Ok(parts.as_ref().ok_or(MachineError::Gone)?.vm.note_code()?)
    }

    /// What was noted since [`RunningMachine::note_code`], for
    /// [`RestoreOptions::code_notes`]; empty if the engine notes nothing.
    pub fn take_code_notes(&self) -> Result<Vec<u8>, MachineError> {
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        Ok(parts.vm.take_code_notes()?)
    }

    /// How its vCPUs came by the code that they executed; zeroes of a machine that was
    /// stopped.
    pub fn code_counts(&self) -> CodeCounts {
        let parts = self.parts();
        let counts = parts.as_ref().map(|parts| parts.vm.code_counts());
        counts.and_then(Result::ok).unwrap_or_default()
    }

    /// What its compiled code has executed, by lines, if its engine counts that.
    pub fn code_census(&self) -> String {
        let parts = self.parts();
        let census = parts.as_ref().map(|parts| parts.vm.code_census());
        census.and_then(Result::ok).unwrap_or_default()
    }

    /// Gives a paused machine a new generation id: it goes on as another one, its
    /// programs held until its init lets them go on.
    pub fn renew_generation(&self) -> Result<[u8; 16], MachineError> {
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        let interrupt = Task::Interrupt(parts.arch.layout().hold_line);
        let power = self.control.power();
        let on = (0..).zip(power).filter(|(_, power)| *power == Power::On);
        self.perform(on.map(|(index, _)| (index, interrupt.clone())).collect())?;
        let generation = &parts.generation;
        generation.renew(&*parts.vm, generation.obeys())
    }

    /// Whether the guest's kernel keeps programs from running in copies of the
    /// machine until each has been made one of its own.
    pub fn holds_programs(&self) -> bool {
        match &*self.parts() {
            Some(parts) => parts.generation.obeys(),
            None => false,
        }
    }

    /// Pages of 4 KiB of its memory that were touched since it was mapped, as
    /// far as the host tells.
    pub fn touched_pages(&self) -> Result<WorkingSet, MachineError> {
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        let pages = parts.memory.host().present_pages();
        Ok(WorkingSet::from_pages(pages.map_err(|source| {
            MachineError::Host {
                what: "the list of touched pages",
                source,
            }
        })?))
    }

    /// Pages of 4 KiB of its RAM that are in the host's memory for it, and how many of
    /// them are in `set`; `None` where the host does not tell, or the machine was
    /// stopped.
    pub fn present_pages_among(&self, set: &WorkingSet) -> Option<PresentPages> {
        let parts = self.parts();
        let host = parts.as_ref()?.memory.host();
        host.count_present(set).ok().flatten()
    }

    /// Gives the host back what resets have copied and the guest of a paused
    /// machine has not written to since: it is the snapshot's again, and need
    /// not be there twice. For machines that nobody uses for a while: those
    /// that are used would have it copied again. Gives the number of pages.
    pub fn give_back(&self) -> Result<u64, MachineError> {
        match &*self.parts() {
            Some(parts) => parts.give_back(),
            None => Err(MachineError::Gone),
        }
    }

    /// Brings the machine back to `saved`, the state it was restored from.
    /// After an error it is of no use any more. It is paused afterwards, with
    /// a new generation id.
    pub fn reset(&self, saved: &SavedMachine) -> Result<ResetReport, MachineError> {
        let begun = Instant::now();
        // Devices stop touching memory, too, before it changes.
        self.pause()?;
        let parts = self.parts();
        let parts = parts.as_ref().ok_or(MachineError::Gone)?;
        let pages = parts.rewind_memory()?;
        let generation = self.load(parts, saved)?;
        let took = begun.elapsed();
        debug!(pages, ?took, "machine reset");
        Ok(ResetReport {
            generation,
            pages,
            took,
        })
    }

    /// Gives a machine with the right memory and idle devices its state, and a
    /// generation id of its own. Its devices are paused until
    /// [`RunningMachine::resume`], as its vCPUs are: sockets of the host must
    /// not write to memory that is being compared, stored or given back.
    pub(super) fn load(
        &self,
        parts: &Parts,
        saved: &SavedMachine,
    ) -> Result<[u8; 16], MachineError> {
        if saved.virtio.len() != parts.devices.virtio.len() {
            return Err(MachineError::Damaged { what: "the board" });
        }
        parts.devices.virtio.iter().for_each(|d| d.pause());
        self.control.set_power(&saved.board.power);
        // Mostly it is as it was, and some engines take long to restore it.
        if parts.vm.save_interrupts()? != saved.interrupts {
            parts.vm.restore_interrupts(&saved.interrupts)?;
        }
        let legacy = parts.devices.board.reset_to(&saved.legacy);
        legacy.map_err(|source| MachineError::Board { source })?;
        for (slot, (device, state)) in (0..).zip(parts.devices.virtio.iter().zip(&saved.virtio)) {
            device
                .reset_to(state)
                .map_err(|source| MachineError::Device { slot, source })?;
        }
        // One moment for all, those that are off included: a guest that reads
        // a counter behind one it has read before takes time to have jumped.
        // Each was saved at a moment of its own, the latest of which is no
        // earlier than what any of them has shown.
        let counter = parts.vm.counter();
        let guest = saved.latest_counter();
        let hold = parts.arch.layout().hold_line;
        let tasks = (0..)
            .zip(&self.control.power())
            .map(|(index, _)| match saved.vcpu(index) {
                Some(state) => {
                    let behind = guest.wrapping_sub(state.counter);
                    let then = counter.wrapping_sub(behind);
                    (index, Task::Load(state.clone(), then, hold))
                }
                None => (index, Task::Count(guest, counter)),
            })
            .collect();
        self.perform(tasks)?;
        parts.generation.renew(&*parts.vm, saved.board.holds)
    }

    pub(super) fn perform(
        &self,
        tasks: Vec<(u32, Task)>,
    ) -> Result<Vec<Option<Box<crate::hypervisor::VcpuState>>>, MachineError> {
        match self.control.perform(tasks, REST_TIMEOUT) {
            Some(outcome) => Ok(outcome?),
            None => Err(MachineError::NotPaused),
        }
    }
}
