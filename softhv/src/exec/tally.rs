//! The op in front of a block that is counted, whether or not anything can be compiled
//! here.

use super::branch::handler;
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::dispatch::go_on;

handler!(
    /// Goes on to the block, which is one instruction, and counts it.
    tally, |cpu, op| {
        (*cpu).counted = (*cpu).counted.wrapping_add(1);
        go_on(cpu, (*op).link.get())
    }
);
