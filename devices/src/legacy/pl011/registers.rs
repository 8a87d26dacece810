//! The register file, free of I/O.

use std::collections::VecDeque;

use crate::virtio::{DeviceState, StateFields, StateFormat};

/// Data register (DDI 0183 §3.3 for this and the following offsets).
pub(super) const DR: u64 = 0x000;
const RSR: u64 = 0x004;
const FR: u64 = 0x018;
const ILPR: u64 = 0x020;
const IBRD: u64 = 0x024;
const FBRD: u64 = 0x028;
const LCR_H: u64 = 0x02c;
const CR: u64 = 0x030;
const IFLS: u64 = 0x034;
const IMSC: u64 = 0x038;
const RIS: u64 = 0x03c;
const MIS: u64 = 0x040;
const ICR: u64 = 0x044;
const DMACR: u64 = 0x048;
const PERIPH_ID: u64 = 0xfe0;
const LAST_ID: u64 = 0xffc;

/// PeriphID0-3 and PCellID0-3: PL011 revision 1, with 16-byte FIFOs.
const IDS: [u8; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// Flags: receive FIFO empty.
const FR_RXFE: u32 = 1 << 4;
/// Flags: receive FIFO full.
const FR_RXFF: u32 = 1 << 6;
/// Flags: transmit FIFO empty, which it always is.
const FR_TXFE: u32 = 1 << 7;
/// Flags: clear to send, data set ready, carrier detect: all wires present.
const FR_MODEM: u32 = 0b111;

/// Interrupt: there is input.
const INT_RX: u32 = 1 << 4;
/// Interrupt: there is room for output.
const INT_TX: u32 = 1 << 5;
/// Every interrupt the hardware has.
const INT_ALL: u32 = 0x7ff;

/// Input kept for a guest that does not read. The port's own FIFO is 16 bytes
/// deep; this stands for the wire before it.
pub const INPUT_BYTES: usize = 4096;

/// Saved state of a [`Pl011`](super::Pl011). Output not yet written is not
/// part of it: it belongs to the host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pl011State {
    /// IrDA low-power counter.
    pub ilpr: u32,
    /// Integer baud rate divisor.
    pub ibrd: u32,
    /// Fractional baud rate divisor.
    pub fbrd: u32,
    /// Line control.
    pub lcr_h: u32,
    /// Control.
    pub cr: u32,
    /// FIFO level select.
    pub ifls: u32,
    /// Interrupt mask.
    pub imsc: u32,
    /// Raw interrupt status, without the bit that follows from `input`.
    pub ris: u32,
    /// DMA control.
    pub dmacr: u32,
    /// Input the guest has not read.
    pub input: Vec<u8>,
}

impl Default for Pl011State {
    /// The values after a hardware reset (DDI 0183 table 3-1).
    fn default() -> Self {
        Self {
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: 0x300,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
            input: Vec::new(),
        }
    }
}

impl DeviceState for Pl011State {
    const FORMAT: StateFormat = StateFormat {
        kind: "pl011",
        version: 1,
    };

    fn to_bytes(&self) -> Vec<u8> {
        let registers = [
            self.ilpr, self.ibrd, self.fbrd, self.lcr_h, self.cr, self.ifls, self.imsc, self.ris,
            self.dmacr,
        ];
        let bytes = registers.iter().flat_map(|value| value.to_le_bytes());
        bytes.chain(self.input.iter().copied()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = StateFields::new(bytes);
        Some(Self {
            ilpr: fields.u32()?,
            ibrd: fields.u32()?,
            fbrd: fields.u32()?,
            lcr_h: fields.u32()?,
            cr: fields.u32()?,
            ifls: fields.u32()?,
            imsc: fields.u32()?,
            ris: fields.u32()?,
            dmacr: fields.u32()?,
            input: fields.rest().to_vec(),
        })
    }
}

pub(super) struct Registers {
    /// All but the input, which lives in the queue below.
    plain: Pl011State,
    input: VecDeque<u8>,
}

impl Registers {
    pub(super) fn from_state(state: &Pl011State) -> Self {
        let mut registers = Self {
            plain: Pl011State::default(),
            input: state.input.iter().copied().take(INPUT_BYTES).collect(),
        };
        for (offset, value) in [
            (ILPR, state.ilpr),
            (IBRD, state.ibrd),
            (FBRD, state.fbrd),
            (LCR_H, state.lcr_h),
            (CR, state.cr),
            (IFLS, state.ifls),
            (IMSC, state.imsc),
            (DMACR, state.dmacr),
        ] {
            registers.write(offset, value);
        }
        registers.plain.ris = state.ris & INT_ALL & !INT_RX;
        if registers.plain.imsc & INT_TX != 0 {
            // A driver that waits for room waits for an edge that the old
            // machine may have seen to already; there is room, so it hears so
            // again. If it has nothing to send it just masks the interrupt.
            registers.plain.ris |= INT_TX;
        }
        registers
    }

    pub(super) fn state(&self) -> Pl011State {
        Pl011State {
            input: self.input.iter().copied().collect(),
            ..self.plain.clone()
        }
    }

    pub(super) fn enqueue(&mut self, bytes: &[u8]) -> usize {
        let room = INPUT_BYTES - self.input.len();
        let taken = bytes.len().min(room);
        self.input.extend(&bytes[..taken]);
        taken
    }

    /// Level of the interrupt line.
    pub(super) fn interrupt(&self) -> bool {
        self.raw() & self.plain.imsc != 0
    }

    fn raw(&self) -> u32 {
        // Input interrupts for as long as there is input: a guest that
        // clears the bit before it has read everything misses nothing.
        let rx = if self.input.is_empty() { 0 } else { INT_RX };
        self.plain.ris | rx
    }

    fn flags(&self) -> u32 {
        let mut flags = FR_TXFE | FR_MODEM;
        if self.input.is_empty() {
            flags |= FR_RXFE;
        }
        if self.input.len() >= INPUT_BYTES {
            flags |= FR_RXFF;
        }
        flags
    }

    /// The register at `offset`, a multiple of 4; `None` if there is none.
    pub(super) fn read(&mut self, offset: u64) -> Option<u32> {
        let value = match offset {
            DR => self.input.pop_front().map_or(0, u32::from),
            RSR => 0,
            FR => self.flags(),
            ILPR => self.plain.ilpr,
            IBRD => self.plain.ibrd,
            FBRD => self.plain.fbrd,
            LCR_H => self.plain.lcr_h,
            CR => self.plain.cr,
            IFLS => self.plain.ifls,
            IMSC => self.plain.imsc,
            RIS => self.raw(),
            MIS => self.raw() & self.plain.imsc,
            DMACR => self.plain.dmacr,
            PERIPH_ID..=LAST_ID => {
                let index = usize::try_from((offset - PERIPH_ID) / 4).ok()?;
                u32::from(*IDS.get(index)?)
            }
            _ => return None,
        };
        Some(value)
    }

    /// Writes the register at `offset`, a multiple of 4; false if there is
    /// none that can be written.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> bool {
        let plain = &mut self.plain;
        match offset {
            // Sent at once, so there is room again right after.
            DR => plain.ris |= INT_TX,
            RSR => {}
            ILPR => plain.ilpr = value & 0xff,
            IBRD => plain.ibrd = value & 0xffff,
            FBRD => plain.fbrd = value & 0x3f,
            LCR_H => plain.lcr_h = value & 0xff,
            CR => plain.cr = value & 0xff87,
            IFLS => plain.ifls = value & 0x3f,
            IMSC => plain.imsc = value & INT_ALL,
            ICR => plain.ris &= !value,
            DMACR => plain.dmacr = value & 0x7,
            _ => return false,
        }
        true
    }
}
