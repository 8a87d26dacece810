//! From instruction words to ops. Pure: nothing here looks at a vCPU.
//!
//! Encodings are those of the Arm ARM, chapter C4. Whatever is not decoded is
//! undefined, which includes every extension that the ID registers do not
//! advertise.

mod branch;
mod dp_imm;
mod dp_reg;
mod fuse;
mod ldst;
mod simd;
mod stack;
mod system;

use crate::cpu::op::{Handler, Op};
use crate::exec;
use crate::mode::Mode;
use fuse::Candidate;

/// Where an instruction is and for whom it is decoded.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Level and trap settings.
    pub mode: Mode,
    /// Byte offset in the page.
    pub offset: u16,
}

/// One decoded instruction.
pub struct Decoded {
    /// The op.
    pub op: Op,
    /// It never continues to the next instruction by itself.
    pub ends: bool,
}

impl Decoded {
    fn new(run: Handler) -> Self {
        Self {
            op: Op::new(run),
            ends: false,
        }
    }

    fn end(run: Handler) -> Self {
        Self {
            op: Op::new(run),
            ends: true,
        }
    }

    fn rd(mut self, slot: u8) -> Self {
        self.op.rd = slot;
        self
    }

    fn rn(mut self, slot: u8) -> Self {
        self.op.rn = slot;
        self
    }

    fn rm(mut self, slot: u8) -> Self {
        self.op.rm = slot;
        self
    }

    fn ra(mut self, slot: u8) -> Self {
        self.op.ra = slot;
        self
    }

    fn imm(mut self, imm: u64) -> Self {
        self.op.imm = imm;
        self
    }

    fn aux(mut self, aux: u16) -> Self {
        self.op.aux = aux;
        self
    }
}

/// An undefined instruction.
fn undefined() -> Decoded {
    Decoded::end(exec::system::undefined)
}

/// Bits `low..low + count` of `word`.
fn bits(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

/// Bit `at` of `word`.
fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 != 0
}

/// Bits `low..low + count` of `word`, sign-extended.
fn signed(word: u32, low: u32, count: u32) -> u64 {
    let up = 32 - count;
    i64::from((bits(word, low, count) << up) as i32 >> up) as u64
}

/// Picks the handler of the operand width: `sf!(wide, add_imm)`.
macro_rules! sf {
    ($wide:expr, $($f:tt)+) => {
        if $wide {
            $crate::pure_op!($crate::exec::int::w64::$($f)+)
        } else {
            $crate::pure_op!($crate::exec::int::w32::$($f)+)
        }
    };
}
pub(crate) use sf;

/// Decodes one instruction.
pub fn instruction(word: u32, context: Context) -> Decoded {
    match bits(word, 25, 4) {
        0b1000 | 0b1001 => dp_imm::decode(word),
        0b1010 | 0b1011 => branch::decode(word, context),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => ldst::decode(word, context),
        0b0101 | 0b1101 => dp_reg::decode(word),
        0b0111 | 0b1111 => simd::decode(word, context),
        _ => undefined(),
    }
}

/// Decodes a block of at most `limit` instructions that starts at `offset` in
/// its page; `fetch` reads the nth word. Returns how many were decoded.
pub fn block(
    ops: &mut Vec<Op>,
    mode: Mode,
    offset: u16,
    limit: usize,
    fetch: impl Fn(usize) -> u32,
) -> usize {
    let mut at = offset;
    let mut before: Option<(Candidate, Context)> = None;
    for n in 0..limit {
        let context = Context { mode, offset: at };
        let word = fetch(n);
        let mut decoded = instruction(word, context);
        decoded.op.pc_offset = at;
        let candidate = Candidate::new(word);
        let fused = before.and_then(|(first, context)| fuse::pair(first, candidate, context));
        if let (Some(run), Some(first)) = (fused, ops.last_mut()) {
            first.run = run;
        }
        ops.push(decoded.op);
        if decoded.ends {
            return n + 1;
        }
        // An op that does not decode ends its block, so `word` did. A fault in
        // place of an access is no part of a pair.
        before = (!mode.sp_off).then_some((candidate, context));
        if stack::may_misalign(word, mode.sp_off) {
            let mut look = Op::new(exec::system::stack_moved);
            look.pc_offset = at;
            ops.push(look);
            before = None;
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
