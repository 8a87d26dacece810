//! Counts the instructions that guests execute, for who measures what something costs
//! them ([`Tier::Count`]).
//!
//! Counting costs each block an addition, so other tiers do not count. Here a block is
//! one instruction, and the op in front of it, which stands in other tiers for compiled
//! code, counts it. An instruction counts each time it is begun: one that faults counts
//! again when it is repeated. Those that a debugger steps do not count.

use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::exec::tally::tally;
use crate::jit;
use crate::mode::Mode;
use crate::tier::{CodeMemory, Compiler, Heat, Place, Tier};
use crate::words::Words;
use std::sync::Arc;

/// What stands in front of the blocks of a new vCPU; `None` if nothing does.
pub(crate) fn compiler(tier: Tier, memory: &Arc<CodeMemory>) -> Option<Box<dyn Compiler>> {
    match tier {
        Tier::Count => Some(Box::new(Tally)),
        _ => jit::compiler(tier, memory),
    }
}

/// Compiles nothing: what it puts in front of a block counts it.
struct Tally;

impl Compiler for Tally {
    fn fresh(&self) -> Option<Box<dyn Compiler>> {
        Some(Box::new(Self))
    }

    fn clear(&mut self) {}

    fn part(&mut self) {}

    fn settle(&mut self, _: &Arc<CodeMemory>) {}

    fn bytes(&self) -> usize {
        0
    }

    fn header(&mut self, _: Mode, offset: u16, words: u32, count: u8) -> Op {
        let mut header = Op::new(tally);
        header.imm = Heat::pack(0, words);
        header.pc_offset = offset;
        header.rd = count;
        header
    }

    unsafe fn compile(&mut self, _: *mut Op, _: &Words, _: &mut Place<'_>, _: bool) -> usize {
        0
    }
}

impl Cpu {
    /// Adds what this vCPU has counted to what is told of its machine.
    pub fn tell_counted(&mut self) {
        let counted = std::mem::take(&mut self.counted);
        if counted != 0 {
            self.vm.work.begun(counted);
        }
    }
}
