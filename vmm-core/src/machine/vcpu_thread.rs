//! The loop of one vCPU's thread.

use std::sync::{Arc, OnceLock};

use devices::Bus;
use tracing::{debug, error};

use super::control::{Control, Next, Task};
use super::error::ExitReason;
use crate::hypervisor::{EngineError, Exit, Vcpu};

/// Runs a vCPU until its machine ends.
pub(super) fn run(mut vcpu: impl Vcpu, index: u32, control: &Arc<Control>, bus: &OnceLock<Bus>) {
    // Whatever happens here, the machine learns that this thread has ended.
    let mut leaving = Leaving {
        control: control.clone(),
        index,
        reason: Some(ExitReason::VcpuLost { index }),
    };
    leaving.reason = match until_end(&mut vcpu, index, control, bus) {
        Ok(reason) => reason,
        Err(error) => Some(ExitReason::EngineFailed(error)),
    };
    // The engine's vCPU goes before the machine hears that we are gone.
    drop(vcpu);
}

struct Leaving {
    control: Arc<Control>,
    index: u32,
    reason: Option<ExitReason>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(reason) = self.reason.take() {
            match &reason {
                ExitReason::VcpuLost { .. } => error!(vcpu = self.index, "vCPU thread panicked"),
                reason => debug!(vcpu = self.index, %reason, "vCPU ended the machine"),
            }
            self.control.end(reason);
        }
        self.control.gone(self.index);
    }
}

fn until_end(
    vcpu: &mut impl Vcpu,
    index: u32,
    control: &Control,
    bus: &OnceLock<Bus>,
) -> Result<Option<ExitReason>, EngineError> {
    loop {
        match control.next(index) {
            Next::Leave => return Ok(None),
            Next::Start(entry, argument) => vcpu.reset(entry, argument)?,
            Next::Run => {}
            Next::Do(task) => {
                let outcome = match task {
                    Task::Save => vcpu.save().map(Some),
                    Task::Load(state, counter, intid) => vcpu
                        .load(&state, counter)
                        .and_then(|()| vcpu.interrupt(intid))
                        .map(|()| None),
                    Task::Interrupt(intid) => vcpu.interrupt(intid).map(|()| None),
                    Task::Count(guest, counter) => vcpu.set_counter(guest, counter).map(|()| None),
                };
                control.finished(index, outcome);
                continue;
            }
        }
        // No vCPU runs before its machine has devices.
        let Some(bus) = bus.get() else {
            return Ok(None);
        };
        if let Some(reason) = until_attention(vcpu, index, control, bus)? {
            return Ok(Some(reason));
        }
    }
}

/// Runs until the machine wants something else of this vCPU, or has ended.
fn until_attention(
    vcpu: &mut impl Vcpu,
    index: u32,
    control: &Control,
    bus: &Bus,
) -> Result<Option<ExitReason>, EngineError> {
    while !control.wants_attention() {
        match vcpu.run()? {
            Exit::MmioRead { address, bytes } => {
                let mut data = [0; 8];
                // What nothing answers reads as zero.
                bus.read(address, &mut data[..usize::from(bytes.min(8))]);
                vcpu.complete(u64::from_le_bytes(data))?;
            }
            Exit::MmioWrite {
                address,
                bytes,
                value,
            } => {
                bus.write(address, &value.to_le_bytes()[..usize::from(bytes.min(8))]);
            }
            Exit::CpuOn {
                target,
                entry,
                argument,
            } => vcpu.complete(control.cpu_on(target, entry, argument).value())?,
            Exit::CpuStatus { target } => vcpu.complete(control.cpu_status(target).value())?,
            Exit::CpuOff => {
                control.cpu_off(index);
                return Ok(None);
            }
            Exit::WaitForInterrupt => control.idle(),
            Exit::Kicked | Exit::VtimerFired => {}
            Exit::Shutdown => return Ok(Some(ExitReason::PowerOff)),
            Exit::Reset => return Ok(Some(ExitReason::Reset)),
            Exit::GuestFault(fault) => return Ok(Some(ExitReason::GuestFault(fault))),
        }
    }
    Ok(None)
}
