//! Acquire and release, LSE atomics and DMB: the host's locked instructions, which
//! are sequentially consistent whatever the guest asks for. What is not aligned or
//! not in the TLB is left to the interpreter.

use super::asm::host::{RAX, RCX, RDX, RSI, RSP};
use super::asm::{Cc, at, emit};
use super::state::State;
use crate::cpu::op::Op;
use crate::insn::{Atomic, Insn, Reg, Size};
use crate::tlb::Entry;
use std::mem::offset_of;

/// One instruction by the size of the operand.
macro_rules! by_size {
    ($asm:expr, $size:expr, [$b:ident, $h:ident, $w:ident, $x:ident], $($operand:expr),+) => {
        match $size {
            Size::B => emit!($asm, $b, $($operand),+),
            Size::H => emit!($asm, $h, $($operand),+),
            Size::W => emit!($asm, $w, $($operand),+),
            Size::X => emit!($asm, $x, $($operand),+),
        }
    };
}

impl State {
    /// Emits `insn`, whose op is `op`; false if it is none of these.
    pub fn atomic(&mut self, insn: &Insn, op: *const Op) -> bool {
        match *insn {
            Insn::LoadAcquire { size, rt, base, .. } => {
                self.aligned(base, size, offset_of!(Entry, read), op);
                let d = self.destination(rt, &[]);
                let from = at(RAX, 0);
                by_size!(
                    self.asm,
                    size,
                    [movzbl_rm, movzwl_rm, movl_rm, movq_rm],
                    d,
                    from
                );
                self.done(rt, d);
            }
            Insn::StoreRelease { size, rt, base } => {
                let value = self.read(rt);
                self.aligned(base, size, offset_of!(Entry, write), op);
                self.asm.copy(RCX, value);
                // Also a fence behind it.
                let to = at(RAX, 0);
                by_size!(
                    self.asm,
                    size,
                    [xchgb_rm, xchgw_rm, xchgl_rm, xchgq_rm],
                    RCX,
                    to
                );
            }
            Insn::CompareSwap {
                size, rs, rt, base, ..
            } => {
                let (old, new) = (self.read(rs), self.read(rt));
                self.aligned(base, size, offset_of!(Entry, write), op);
                self.asm.copy(RSI, RAX);
                self.asm.copy(RAX, old);
                self.compare_swap(size, new);
                self.put_old(rs, size);
            }
            Insn::Update {
                op: what,
                size,
                rs,
                rt,
                base,
                ..
            } => return self.update(what, size, [rs, rt], base, op),
            _ => return false,
        }
        true
    }

    /// A full fence. No exception is due at what is on the host's stack.
    pub fn fence(&mut self) {
        emit!(self.asm, lock_orl_mi_sxb, at(RSP, 0), 0i8);
    }

    /// RAX = the host address of the operand at `base`, if it is aligned and the TLB
    /// allows it by the tag at `tag`.
    fn aligned(&mut self, base: Reg, size: Size, tag: usize, op: *const Op) {
        let base = self.read(base);
        self.asm.copy(RAX, base);
        let bytes = 1i32 << size.log2();
        if bytes > 1 {
            emit!(self.asm, testl_mi, RAX, bytes as u32 - 1);
            let misaligned = self.asm.jump_if(Cc::Ne);
            self.leave_at(misaligned, op);
        }
        self.probe(tag, bytes, op);
    }

    /// Swaps what is at RSI for host register `new` if it is what RAX has; RAX = what
    /// was there, in the operand's bits.
    fn compare_swap(&mut self, size: Size, new: u8) {
        let place = at(RSI, 0);
        match size {
            Size::B => emit!(self.asm, lock_cmpxchgb_mr, place, new, RAX),
            Size::H => emit!(self.asm, lock_cmpxchgw_mr, place, new, RAX),
            Size::W => emit!(self.asm, lock_cmpxchgl_mr, place, new, RAX),
            Size::X => emit!(self.asm, lock_cmpxchgq_mr, place, new, RAX),
        }
    }

    /// `reg` = what RAX has in the operand's bits.
    fn put_old(&mut self, reg: Reg, size: Size) {
        match size {
            Size::B => emit!(self.asm, movzbl_rm, RAX, RAX),
            Size::H => emit!(self.asm, movzwl_rm, RAX, RAX),
            Size::W => emit!(self.asm, movl_rm, RAX, RAX),
            Size::X => {}
        }
        self.set(reg, RAX);
    }

    fn update(
        &mut self,
        what: Atomic,
        size: Size,
        [rs, rt]: [Reg; 2],
        base: Reg,
        op: *const Op,
    ) -> bool {
        let is_logic = matches!(what, Atomic::Clr | Atomic::Eor | Atomic::Set);
        if !is_logic && !matches!(what, Atomic::Add | Atomic::Swp) {
            return false;
        }
        let operand = self.read(rs);
        self.aligned(base, size, offset_of!(Entry, write), op);
        self.asm.copy(RSI, RAX);
        let place = at(RSI, 0);
        if is_logic {
            self.asm.copy(RCX, operand);
            if what == Atomic::Clr {
                emit!(self.asm, notq_m, RCX);
            }
            by_size!(
                self.asm,
                size,
                [movzbl_rm, movzwl_rm, movl_rm, movq_rm],
                RAX,
                place
            );
            // What another has written meanwhile is in RAX then.
            let again = self.asm.code.len() as i32;
            self.asm.copy(RDX, RAX);
            match what {
                Atomic::Clr => emit!(self.asm, andq_rm, RDX, RCX),
                Atomic::Eor => emit!(self.asm, xorq_rm, RDX, RCX),
                _ => emit!(self.asm, orq_rm, RDX, RCX),
            }
            self.compare_swap(size, RDX);
            let changed = self.asm.jump_if(Cc::Ne);
            self.asm.aim(changed, again);
        } else {
            self.asm.copy(RAX, operand);
            match (what, size) {
                (Atomic::Add, Size::B) => emit!(self.asm, lock_xaddb_mr, place, RAX),
                (Atomic::Add, Size::H) => emit!(self.asm, lock_xaddw_mr, place, RAX),
                (Atomic::Add, Size::W) => emit!(self.asm, lock_xaddl_mr, place, RAX),
                (Atomic::Add, Size::X) => emit!(self.asm, lock_xaddq_mr, place, RAX),
                (_, Size::B) => emit!(self.asm, xchgb_rm, RAX, place),
                (_, Size::H) => emit!(self.asm, xchgw_rm, RAX, place),
                (_, Size::W) => emit!(self.asm, xchgl_rm, RAX, place),
                (_, Size::X) => emit!(self.asm, xchgq_rm, RAX, place),
            }
        }
        self.put_old(rt, size);
        true
    }
}
