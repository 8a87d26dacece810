//! What a worker does because somebody asked it to who is not its owner.

use super::monitor::Visitor;
use super::served::Served;
use super::{Refusal, files, memory_mib};
use crate::error::with_causes;
use crate::host;
use crate::link::monitor::{Answer, Question, paused_mark};
use crate::{DiskStats, ExitStats, FaultStats, MemoryStats, RestoreStats, VmEventKind, VmStats};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use vmm_core::hypervisor::ExitCount;
use vmm_core::machine::{DeviceCounters, RunningMachine};

impl Served {
    pub(super) fn answer(&mut self, visitor: Visitor, question: Question) {
        // It is about to be told how it ended, and there is nothing else to say.
        if let Some(machine) = &self.machine
            && machine.has_ended()
        {
            return;
        }
        let answer = match question {
            Question::Stats => self.stats(),
            Question::Console => self.console(),
            Question::Flows { from } => Ok(Answer::Flows(self.given.flows.since(from))),
            Question::Pause => self.pause(),
            Question::Resume => self.resume(),
            Question::GrowVolume { number, mib } => self.grow_volume(number, mib),
            Question::Watch => {
                self.news().add(visitor);
                return;
            }
        };
        visitor.answer(&answer.unwrap_or_else(|error| Answer::Refused {
            message: with_causes(&error),
        }));
    }

    fn console(&self) -> Result<Answer, Refusal> {
        let console = self.machine("show its console")?.console().text();
        Ok(Answer::Console(console))
    }

    fn pause(&mut self) -> Result<Answer, Refusal> {
        let machine = self.machine("pause")?;
        if self.captured.is_some() {
            return Err(Refusal::Untimely("pause, because it is being captured,"));
        }
        if self.still.is_some() {
            return Ok(Answer::Done { changed: false });
        }
        let still = machine.stand_still()?;
        // Before anybody is told.
        if let Err(error) = std::fs::write(paused_mark(&self.runtime_dir), []) {
            machine.go_on(&still)?;
            return Err(error.into());
        }
        self.still = Some(still);
        self.news().tell(VmEventKind::Paused);
        Ok(Answer::Done { changed: true })
    }

    fn resume(&mut self) -> Result<Answer, Refusal> {
        let machine = self.machine("go on")?;
        let Some(still) = &self.still else {
            return Ok(Answer::Done { changed: false });
        };
        machine.go_on(still)?;
        self.is_running_again();
        self.news().tell(VmEventKind::Resumed);
        Ok(Answer::Done { changed: true })
    }

    fn grow_volume(&self, number: u8, mib: u64) -> Result<Answer, Refusal> {
        let machine = self.machine("grow a volume")?;
        if self.still.is_some() || self.captured.is_some() {
            return Err(Refusal::Untimely("grow a volume while it is paused,"));
        }
        let number = usize::from(number);
        let volume = self.given.volumes.get(number);
        let volume = volume.ok_or(Refusal::Untimely("grow a volume that it has not"))?;
        let changed = files::grow(volume, mib)?;
        machine.look_at_disk(self.given.layers.len() + number);
        Ok(Answer::Done { changed })
    }

    /// The machine is not paused any more.
    pub(super) fn is_running_again(&mut self) {
        if self.still.take().is_some() {
            let _ = std::fs::remove_file(paused_mark(&self.runtime_dir));
        }
    }

    fn stats(&self) -> Result<Answer, Refusal> {
        let machine = self.machine("tell what it uses")?;
        let balance = machine.memory_balance();
        let present = machine.present_pages_among(&self.prefetched);
        let own = host::private_bytes(std::process::id());
        let instructions = machine.code_counts().instructions_begun;
        let stats = VmStats {
            uptime: machine.uptime(),
            cpu: processor_time(),
            guest: machine.guest_time_now(),
            instructions: (instructions > 0).then_some(instructions),
            is_paused: self.still.is_some(),
            vcpus: u32::try_from(machine.exits().len()).unwrap_or(u32::MAX),
            memory: MemoryStats {
                guest_bytes: memory_mib(machine) << 20,
                ballooned_bytes: balance.ballooned_bytes,
                added_bytes: balance.added_bytes,
                touched_bytes: present.map(|present| present.pages << 12),
                host_bytes: (own > 0).then_some(own),
            },
            faults: host::page_faults().map(|(minor, major)| FaultStats { minor, major }),
            exits: exits(machine),
            disks: machine.device_counters().iter().filter_map(disk).collect(),
            network: self.given.flows.stats(),
            restore: RestoreStats {
                resets: self.resets,
                pages_restored: self.pages_restored,
                pages_prefetched: self.prefetched.pages(),
                prefetch_hits: present.map(|present| present.among),
            },
        };
        Ok(Answer::Stats(Box::new(stats)))
    }
}

/// Processor time of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn exits(machine: &RunningMachine) -> ExitStats {
    ExitStats {
        total: machine.total_exits(),
        mmio_reads: machine.exit_count(ExitCount::MmioRead),
        mmio_writes: machine.exit_count(ExitCount::MmioWrite),
        firmware: machine.exit_count(ExitCount::Firmware),
        waits: machine.exit_count(ExitCount::WaitForInterrupt),
        kicks: machine.exit_count(ExitCount::Kicked),
    }
}

fn disk(device: &DeviceCounters) -> Option<DiskStats> {
    let moved = device.traffic.filter(|_| device.kind == "blk")?;
    Some(DiskStats {
        reads: moved.reads,
        read_bytes: moved.read_bytes,
        writes: moved.writes,
        written_bytes: moved.written_bytes,
    })
}
