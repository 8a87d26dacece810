//! The console and the clock.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use devices::legacy::pl011::{Pl011, Pl011State};
use devices::legacy::pl031::{Pl031, Pl031State};
use devices::virtio::{DeviceState, RestoreError, SavedState, StateFormat};
use devices::{HostClock, MmioDevice};

use super::layout;
use crate::arch::{Board, Lines};

/// What states the devices take.
pub(super) static FORMATS: [StateFormat; 2] = [Pl011State::FORMAT, Pl031State::FORMAT];

/// Two PrimeCells.
pub(super) struct ArmBoard {
    uart: Arc<Pl011>,
    rtc: Arc<Pl031>,
}

impl ArmBoard {
    pub(super) fn new(lines: Lines<'_>, console: Box<dyn Write + Send>) -> Self {
        let uart = Pl011::new(lines(layout::UART_INTID), console);
        let rtc = Pl031::new(lines(layout::RTC_INTID), Arc::new(HostClock));
        Self {
            uart: Arc::new(uart),
            rtc: Arc::new(rtc),
        }
    }
}

impl Board for ArmBoard {
    fn windows(&self) -> Vec<(u64, u64, Arc<dyn MmioDevice>)> {
        let bytes = layout::PRIMECELL_BYTES;
        vec![
            (layout::UART, bytes, self.uart.clone()),
            (layout::RTC, bytes, self.rtc.clone()),
        ]
    }

    fn type_in(&self, bytes: &[u8]) -> usize {
        self.uart.enqueue(bytes)
    }

    fn flush(&self, timeout: Duration) {
        self.uart.flush(timeout);
    }

    fn save(&self) -> Vec<SavedState> {
        vec![
            SavedState::of(&self.uart.state()),
            SavedState::of(&self.rtc.state()),
        ]
    }

    fn reset_to(&self, states: &[SavedState]) -> Result<(), RestoreError> {
        let [uart, rtc] = states else {
            return Err(RestoreError::Invalid("number of devices"));
        };
        let (uart, rtc) = (uart.read()?, rtc.read()?);
        self.uart.reset_to(&uart);
        self.rtc.reset_to(rtc);
        Ok(())
    }
}
