//! Arm PL031 real-time clock (DDI 0224), around `vm-superio`'s.
//!
//! `vm-superio` keeps the registers; the time comes from a [`Clock`], so that
//! an embedder decides what the guest sees. As there, the alarm (match
//! register) holds its value but never fires.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::{Rtc, RtcState, rtc_pl031::NoEvents};

use super::{answer, register_value};
use crate::virtio::{DeviceState, StateFields, StateFormat};
use crate::{Clock, IrqLine, MmioDevice};

/// Length of the register window in bytes.
pub const WINDOW_BYTES: u64 = 0x1000;
/// Data register: seconds since the epoch, read only.
const RTCDR: u16 = 0x000;
/// Load register: sets the time.
const RTCLR: u16 = 0x008;

/// Saved state of a [`Pl031`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pl031State {
    /// Load register.
    pub load: u32,
    /// What the guest's time is ahead of the host's, in seconds.
    pub offset_seconds: i64,
    /// Match register.
    pub match_value: u32,
    /// Interrupt mask.
    pub mask: u32,
    /// Raw interrupt status.
    pub raw: u32,
}

impl DeviceState for Pl031State {
    const FORMAT: StateFormat = StateFormat {
        kind: "pl031",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.load.to_le_bytes().to_vec();
        bytes.extend(self.offset_seconds.to_le_bytes());
        let rest = [self.match_value, self.mask, self.raw];
        bytes.extend(rest.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        let state = Self {
            load: fields.u32()?,
            offset_seconds: fields.u64()?.cast_signed(),
            match_value: fields.u32()?,
            mask: fields.u32()?,
            raw: fields.u32()?,
        };
        fields.end().map(|()| state)
    }
}

/// A real-time clock.
pub struct Pl031 {
    irq: Arc<dyn IrqLine>,
    clock: Arc<dyn Clock>,
    rtc: Mutex<Rtc<NoEvents>>,
}

impl Pl031 {
    /// A clock that shows `clock`. `irq` is level-triggered.
    pub fn new(irq: Arc<dyn IrqLine>, clock: Arc<dyn Clock>) -> Self {
        Self::restore(Pl031State::default(), irq, clock)
    }

    /// A clock that continues from `state`; every value is a possible one.
    pub fn restore(state: Pl031State, irq: Arc<dyn IrqLine>, clock: Arc<dyn Clock>) -> Self {
        let rtc = Self {
            irq,
            clock,
            rtc: Mutex::new(registers(state)),
        };
        if state.raw & state.mask & 1 != 0 {
            rtc.irq.set_level(true);
        }
        rtc
    }

    /// Brings the clock back to `state`, whatever the guest has done since.
    /// The time goes on: only what the guest's is ahead of the host's is part
    /// of a state.
    pub fn reset_to(&self, state: Pl031State) {
        let mut rtc = self.lock();
        *rtc = registers(state);
        self.irq.set_level(state.raw & state.mask & 1 != 0);
    }

    /// The state to save.
    pub fn state(&self) -> Pl031State {
        let state = self.lock().state();
        Pl031State {
            load: state.lr,
            offset_seconds: state.offset,
            match_value: state.mr,
            mask: state.imsc,
            raw: state.ris,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rtc<NoEvents>> {
        self.rtc.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_seconds(&self) -> i64 {
        i64::try_from(self.clock.now_unix_seconds()).unwrap_or(i64::MAX)
    }
}

fn registers(state: Pl031State) -> Rtc<NoEvents> {
    let registers = RtcState {
        lr: state.load,
        offset: state.offset_seconds,
        mr: state.match_value,
        imsc: state.mask & 1,
        ris: state.raw & 1,
    };
    Rtc::from_state(&registers, NoEvents)
}

impl MmioDevice for Pl031 {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let Ok(offset) = u16::try_from(offset & !3) else {
            return data.fill(0);
        };
        let mut rtc = self.lock();
        if offset == RTCDR {
            let seconds = self.host_seconds().wrapping_add(rtc.state().offset);
            // The register has 32 bits and wraps in 2106, as on hardware.
            let [a, b, c, d, ..] = seconds.to_le_bytes();
            return answer(data, u32::from_le_bytes([a, b, c, d]));
        }
        let mut value = [0; 4];
        rtc.read(offset, &mut value);
        answer(data, u32::from_le_bytes(value));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Ok(offset) = u16::try_from(offset & !3) else {
            return;
        };
        let value = register_value(data);
        let mut rtc = self.lock();
        if offset == RTCLR {
            let state = RtcState {
                lr: value,
                offset: i64::from(value).wrapping_sub(self.host_seconds()),
                ..rtc.state()
            };
            *rtc = Rtc::from_state(&state, NoEvents);
            return;
        }
        rtc.write(offset, &value.to_le_bytes());
        let state = rtc.state();
        self.irq.set_level(state.ris & state.imsc & 1 != 0);
    }
}

#[cfg(test)]
#[path = "pl031_tests.rs"]
mod tests;
