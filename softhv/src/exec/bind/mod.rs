//! From instructions to ops: chooses the handler of each, and packs its operands.
//!
//! What depends on where an instruction is and for whom it is executed is settled
//! here: what EL0 may not do, what traps, how a branch reaches its target, and
//! which neighbours one handler serves.

mod atomics;
mod branch;
mod fuse;
mod integer;
mod memory;
mod stack;
mod system;

use crate::cpu::op::{self, Handler, Op};
use crate::decode;
use crate::insn::Insn;
use crate::mode::Mode;
use crate::{exec, fp, simd};
use fuse::Part;

/// Where an instruction is and for whom it is executed.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Level and trap settings.
    pub mode: Mode,
    /// Byte offset in the page.
    pub offset: u16,
}

/// An instruction with its handler.
pub struct Bound {
    /// The op.
    pub op: Op,
    /// It never continues to the next instruction by itself.
    pub ends: bool,
    /// What it can be in a pair that one handler serves.
    part: Part,
}

impl Bound {
    #[inline(always)]
    fn new(run: Handler) -> Self {
        Self {
            op: Op::new(run),
            ends: false,
            part: Part::Alone,
        }
    }

    #[inline(always)]
    fn end(run: Handler) -> Self {
        Self {
            op: Op::new(run),
            ends: true,
            part: Part::Alone,
        }
    }

    #[inline(always)]
    fn rd(mut self, slot: u8) -> Self {
        self.op.rd = slot;
        self
    }

    #[inline(always)]
    fn rn(mut self, slot: u8) -> Self {
        self.op.rn = slot;
        self
    }

    #[inline(always)]
    fn rm(mut self, slot: u8) -> Self {
        self.op.rm = slot;
        self
    }

    #[inline(always)]
    fn ra(mut self, slot: u8) -> Self {
        self.op.ra = slot;
        self
    }

    #[inline(always)]
    fn imm(mut self, imm: u64) -> Self {
        self.op.imm = imm;
        self
    }

    #[inline(always)]
    fn part(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    #[inline(always)]
    fn aux(mut self, aux: u16) -> Self {
        self.op.aux = aux;
        self
    }
}

/// An undefined instruction.
fn undefined() -> Bound {
    Bound::end(exec::system::undefined)
}

/// The op that executes `insn`.
#[must_use]
pub fn bind(insn: &Insn, context: Context) -> Bound {
    match *insn {
        Insn::Undefined => undefined(),
        Insn::Branch { .. }
        | Insn::BranchCond { .. }
        | Insn::CompareBranch { .. }
        | Insn::TestBranch { .. }
        | Insn::BranchReg { .. }
        | Insn::ExceptionReturn
        | Insn::Call { .. } => branch::bind(insn, context),
        Insn::Hint { .. }
        | Insn::ClearExclusive
        | Insn::Barrier { .. }
        | Insn::WritePstate { .. }
        | Insn::ReadSys { .. }
        | Insn::WriteSys { .. }
        | Insn::Sys { .. } => system::bind(insn, context),
        _ if insn.is_memory() => memory::bind(insn, context),
        _ if insn.is_vector() => vector(insn, context),
        _ => integer::bind(insn),
    }
}

/// The op of an instruction on vector registers that does not touch memory.
fn vector(insn: &Insn, context: Context) -> Bound {
    if context.mode.fp_traps {
        return Bound::end(exec::system::fp_trap);
    }
    let op = if insn.is_simd() {
        simd::bind(insn).or_else(|| fp::bind_simd(insn))
    } else {
        fp::bind(insn)
    };
    op.map_or_else(undefined, |op| Bound {
        op,
        ends: false,
        part: Part::Alone,
    })
}

/// Decodes a block of at most `limit` instructions that starts at `offset` in
/// its page; `fetch` reads the nth word. Returns how many were decoded.
pub fn block(
    ops: &mut Vec<Op>,
    mode: Mode,
    offset: u16,
    limit: usize,
    mut fetch: impl FnMut(usize) -> u32,
) -> usize {
    let mut at = offset;
    // What the op before is, if it can be one of a pair.
    let mut before = Part::Alone;
    for n in 0..limit {
        let insn = decode::instruction(fetch(n));
        let mut bound = bind(&insn, Context { mode, offset: at });
        bound.op.pc_offset = at;
        if before != Part::Alone
            && let Some(first) = ops.last_mut()
            && let Some(run) = fuse::pair(first, before, &bound)
        {
            first.run = run;
        }
        let on_stack = bound.op.rd == op::SP || bound.op.rn == op::SP;
        // A fault in place of an access is no part of a pair.
        before = if mode.sp_off { Part::Alone } else { bound.part };
        ops.push(bound.op);
        if bound.ends {
            return n + 1;
        }
        if on_stack && stack::may_misalign(&insn, mode.sp_off) {
            let mut look = Op::new(exec::system::stack_moved);
            look.pc_offset = at;
            ops.push(look);
            before = Part::Alone;
        }
        at += 4;
    }
    let next = if at < 4096 {
        exec::branch::fall_through::<{ exec::branch::NEAR }> as Handler
    } else {
        exec::branch::fall_through::<{ exec::branch::FAR }>
    };
    let mut op = Op::new(next);
    op.pc_offset = at - 4;
    op.imm = 4;
    ops.push(op);
    limit
}
