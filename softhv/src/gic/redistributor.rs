//! The register frames of one redistributor: 64 KiB of control, then 64 KiB of
//! SGI and PPI state (IHI 0069, 12.10 and 12.11). No LPIs.

use super::bank::BankReg;
use super::cpu_interface::Slot;
use super::distributor::PIDR2;

/// Start of the SGI frame.
const SGI_FRAME: u64 = 0x1_0000;
/// GICR_WAKER.ProcessorSleep and ChildrenAsleep.
const WAKER_SLEEP: u32 = 1 << 1;
const WAKER_ASLEEP: u32 = 1 << 2;
/// GICR_TYPER.Last.
const TYPER_LAST: u64 = 1 << 4;

/// What a frame cannot know by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// Index of the vCPU.
    pub(super) number: usize,
    /// No redistributor follows.
    pub(super) last: bool,
}

/// The register at `offset`, a multiple of 4.
pub(super) fn read(slot: &Slot, position: Position, offset: u64) -> u32 {
    match offset {
        0x8 | 0xc => {
            let typer = slot.affinity() << 32
                | (position.number as u64) << 8
                | if position.last { TYPER_LAST } else { 0 };
            (typer >> (8 * (offset & 4))) as u32
        }
        0x14 if slot.lock().asleep => WAKER_SLEEP | WAKER_ASLEEP,
        0xffe8 => PIDR2,
        0x1_0400..0x1_0420 => (0..4).fold(0, |word, byte| {
            word | u32::from(read_priority(slot, offset + byte)) << (8 * byte)
        }),
        _ => bank_reg(offset).map_or(0, |reg| slot.lock().bank.read(reg)),
    }
}

/// Writes the register at `offset`, a multiple of 4.
pub(super) fn write(slot: &Slot, offset: u64, value: u32) {
    match offset {
        0x14 => slot.update(|i| i.asleep = value & WAKER_SLEEP != 0),
        0x1_0400..0x1_0420 => {
            for byte in 0..4 {
                write_priority(slot, offset + byte, (value >> (8 * byte)) as u8);
            }
        }
        _ => {
            if let Some(reg) = bank_reg(offset) {
                slot.update(|i| i.bank.write(reg, value, 0));
            }
        }
    }
}

/// The priority byte at `offset` in `0x1_0400..0x1_0420`.
pub(super) fn read_priority(slot: &Slot, offset: u64) -> u8 {
    slot.lock().bank.priority[(offset & 0x1f) as usize]
}

/// Writes the priority byte at `offset` in `0x1_0400..0x1_0420`.
pub(super) fn write_priority(slot: &Slot, offset: u64, value: u8) {
    slot.update(|i| i.bank.set_priority((offset & 0x1f) as usize, value));
}

fn bank_reg(offset: u64) -> Option<BankReg> {
    match BankReg::at(offset.checked_sub(SGI_FRAME)?)? {
        (reg, 0) => Some(reg),
        _ => None,
    }
}
