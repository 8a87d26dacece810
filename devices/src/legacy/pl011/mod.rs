//! Arm PL011 serial port (DDI 0183), as Linux's `amba-pl011` driver uses it.
//!
//! Characters leave at once as far as the guest can tell: they go to a
//! bounded buffer whose own thread does the writing, so a slow reader
//! never holds up a vCPU. What does not fit pushes out the oldest.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::output::Output;
use self::registers::Registers;
use super::{answer, register_value};
use crate::{IrqLine, MmioDevice};

mod output;
mod registers;

pub use output::OUTPUT_BYTES;
pub use registers::{INPUT_BYTES, Pl011State};

/// Length of the register window in bytes.
pub const WINDOW_BYTES: u64 = 0x1000;

/// What happens in the device beyond its registers, in the way of
/// `vm-superio`'s event traits; all methods do nothing unless implemented.
pub trait Pl011Events: Send + Sync {
    /// The guest sent a character.
    fn output_byte(&self) {}
    /// This many characters of the guest were dropped for a slow reader.
    fn output_dropped(&self, _count: usize) {}
    /// The guest touched a register that is not there.
    fn invalid_access(&self, _offset: u64) {}
}

/// Ignores all events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl Pl011Events for NoEvents {}

/// A serial port.
pub struct Pl011<E: Pl011Events = NoEvents> {
    irq: Arc<dyn IrqLine>,
    output: Output,
    events: E,
    inner: Mutex<Inner>,
}

struct Inner {
    registers: Registers,
    /// Level the line was last set to.
    level: bool,
}

impl Pl011 {
    /// A port that writes to `out`. `irq` is level-triggered.
    pub fn new(irq: Arc<dyn IrqLine>, out: Box<dyn Write + Send>) -> Self {
        Self::restore(&Pl011State::default(), irq, out, NoEvents)
    }
}

impl<E: Pl011Events> Pl011<E> {
    /// A port that continues from `state`. Saved state is not trusted: bits
    /// that do not exist are cleared, and input beyond [`INPUT_BYTES`] is
    /// dropped.
    pub fn restore(
        state: &Pl011State,
        irq: Arc<dyn IrqLine>,
        out: Box<dyn Write + Send>,
        events: E,
    ) -> Self {
        let port = Self {
            irq,
            output: Output::new(out),
            events,
            inner: Mutex::new(Inner {
                registers: Registers::from_state(state),
                level: false,
            }),
        };
        port.update_line(&mut port.lock());
        port
    }

    /// Brings the port back to `state`, whatever the guest has done since; the
    /// state is taken as by [`Pl011::restore`]. The line is driven even if its
    /// level stays: the interrupt controller may have been put back too.
    pub fn reset_to(&self, state: &Pl011State) {
        let mut inner = self.lock();
        inner.registers = Registers::from_state(state);
        inner.level = inner.registers.interrupt();
        self.irq.set_level(inner.level);
    }

    /// The state to save.
    pub fn state(&self) -> Pl011State {
        self.lock().registers.state()
    }

    /// Gives the guest input; returns how many bytes there was room for.
    pub fn enqueue(&self, bytes: &[u8]) -> usize {
        let mut inner = self.lock();
        let taken = inner.registers.enqueue(bytes);
        self.update_line(&mut inner);
        taken
    }

    /// Waits until everything the guest sent so far is written, but not
    /// longer than `timeout`; true if it is.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.output.flush(timeout)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called under the lock, so that levels reach the line in order.
    fn update_line(&self, inner: &mut Inner) {
        let level = inner.registers.interrupt();
        if level != inner.level {
            inner.level = level;
            self.irq.set_level(level);
        }
    }
}

impl<E: Pl011Events> MmioDevice for Pl011<E> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut inner = self.lock();
        let value = inner.registers.read(offset & !3);
        self.update_line(&mut inner);
        drop(inner);
        if value.is_none() {
            self.events.invalid_access(offset);
        }
        answer(data, value.unwrap_or(0));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let value = register_value(data);
        let mut inner = self.lock();
        let offset = offset & !3;
        let known = inner.registers.write(offset, value);
        if offset == registers::DR {
            // Under the lock, so that characters of two vCPUs keep the order
            // in which they were written.
            let [byte, ..] = value.to_le_bytes();
            let dropped = self.output.push(byte);
            self.events.output_byte();
            if dropped > 0 {
                self.events.output_dropped(dropped);
            }
        }
        self.update_line(&mut inner);
        drop(inner);
        if !known {
            self.events.invalid_access(offset);
        }
    }
}

#[cfg(test)]
mod tests;
