//! AdvSIMD that only moves bytes: structures of one register each, and orders of lanes.

use super::asm::host::RAX;
use super::asm::{at, by_size, emit, indexed};
use super::memory::{XMM0, XMM1};
use super::state::{State, constant};
use crate::constants::Order;
use crate::cpu::op::Op;
use crate::insn::structure::{Lanes, StructAccess, Writeback};
use crate::insn::{Address, Arrangement, Insn, VReg, VSize, VecBinary, VecUnary};
use crate::tlb::Entry;
use std::mem::offset_of;

/// Lanes 0 and 2 of both, and 1 and 3.
const EVEN: u8 = 0b10_00_10_00;
const ODD: u8 = 0b11_01_11_01;
/// Of such four, each of the second half behind one of the first.
const WOVEN: u8 = 0b11_01_10_00;

impl State {
    /// LD1 and ST1 of whole registers, and LD1R; false for all others.
    pub fn structure(&mut self, access: &StructAccess, op: *const Op) -> bool {
        let StructAccess {
            load,
            q,
            size,
            rpt,
            selem: 1,
            lanes,
            rt,
            base,
            writeback,
        } = *access
        else {
            return false;
        };
        let tag = match (lanes, load) {
            (Lanes::All | Lanes::Replicate, true) => offset_of!(Entry, read),
            (Lanes::All, false) => offset_of!(Entry, write),
            _ => return false,
        };
        let address = match writeback {
            Writeback::Bytes(by) => Address::PostIndex {
                base,
                offset: by.into(),
            },
            Writeback::None | Writeback::Register(_) => Address::Offset { base, offset: 0 },
        };
        self.place(address, 0);
        self.probe(tag, access.total_bytes() as i32, op);
        if lanes == Lanes::All {
            let kind = if q { VSize::Q } else { VSize::D };
            for index in 0..usize::from(rpt) {
                let register = VReg::new(access.register(index) as u32);
                let by = (access.register_bytes() * index) as i32;
                if load {
                    self.load_vector(kind, register, by);
                } else {
                    self.store_vector(kind, register, by);
                }
            }
        } else {
            by_size!(
                self.asm,
                size,
                [movzbl_rm, movzwl_rm, movl_rm, movq_rm],
                RAX,
                at(RAX, 0)
            );
            self.spread(Arrangement::vector(size.into(), q), rt);
        }
        self.writeback(address);
        if let Writeback::Register(by) = writeback {
            let (old, by) = (self.read(base), self.read(by));
            emit!(self.asm, leaq_rm, RAX, indexed(old, by, 0));
            self.set(base, RAX);
        }
        true
    }

    /// Emits `insn`; false if it is none of these, or not on this host.
    pub fn moves(&mut self, insn: &Insn) -> bool {
        match *insn {
            Insn::VecExtract {
                full,
                rd,
                rn,
                rm,
                position,
            } if self.host.ssse3 => {
                let [n, m] = [rn, rm].map(|reg| self.v_read(reg));
                if full {
                    emit!(self.asm, movaps_a, XMM0, m);
                    emit!(self.asm, palignr_a, XMM0, n, position);
                } else {
                    emit!(self.asm, movaps_a, XMM1, n);
                    emit!(self.asm, punpcklqdq_a, XMM1, m);
                    emit!(self.asm, pxor_a, XMM0, XMM0);
                    emit!(self.asm, palignr_a, XMM0, XMM1, position);
                }
                self.put_vector(rd, full);
                true
            }
            Insn::VecUnary {
                op,
                arrangement,
                rd,
                rn,
            } if !arrangement.is_scalar() => self.reverse(op, arrangement, rd, rn),
            Insn::VecBinary {
                op,
                arrangement,
                rd,
                rn,
                rm,
            } if arrangement.is_full() => {
                if !self.weave(op, arrangement.size(), rn, rm) {
                    return false;
                }
                self.put_vector(rd, true);
                true
            }
            _ => false,
        }
    }

    /// REV16, REV32 and REV64.
    fn reverse(&mut self, op: VecUnary, kind: Arrangement, rd: VReg, rn: VReg) -> bool {
        let order = match (op, kind.size()) {
            (VecUnary::Rev16, 0) => Order::BytesOf2,
            (VecUnary::Rev32, 0) => Order::BytesOf4,
            (VecUnary::Rev64, 0) => Order::BytesOf8,
            (VecUnary::Rev32, 1) => Order::HalvesOf4,
            (VecUnary::Rev64, 1) => Order::HalvesOf8,
            (VecUnary::Rev64, 2) => {
                let n = self.v_read(rn);
                emit!(self.asm, pshufd_a, XMM0, n, 0b10_11_00_01u8);
                self.put_vector(rd, kind.is_full());
                return true;
            }
            _ => return false,
        };
        if !self.host.ssse3 {
            return false;
        }
        let n = self.v_read(rn);
        emit!(self.asm, movaps_a, XMM0, n);
        emit!(self.asm, pshufb_a, XMM0, constant(order.place()));
        self.put_vector(rd, kind.is_full());
        true
    }

    /// XMM0 = lanes of `rn` and `rm` in another order; false if there is no such
    /// operation.
    fn weave(&mut self, op: VecBinary, size: u32, rn: VReg, rm: VReg) -> bool {
        match (op, size) {
            (VecBinary::Zip1 | VecBinary::Zip2, _)
            | (VecBinary::Uzp1 | VecBinary::Uzp2, _)
            | (VecBinary::Trn1 | VecBinary::Trn2, 2..) => {}
            _ => return false,
        }
        let [n, m] = [rn, rm].map(|reg| self.v_read(reg));
        emit!(self.asm, movaps_a, XMM0, n);
        let asm = &mut self.asm;
        let even = matches!(op, VecBinary::Uzp1 | VecBinary::Trn1);
        match (op, size) {
            (VecBinary::Zip1, 0) => emit!(*asm, punpcklbw_a, XMM0, m),
            (VecBinary::Zip1, 1) => emit!(*asm, punpcklwd_a, XMM0, m),
            (VecBinary::Zip1, 2) => emit!(*asm, punpckldq_a, XMM0, m),
            (VecBinary::Zip1 | VecBinary::Uzp1 | VecBinary::Trn1, 3) => {
                emit!(*asm, punpcklqdq_a, XMM0, m);
            }
            (VecBinary::Zip2, 0) => emit!(*asm, punpckhbw_a, XMM0, m),
            (VecBinary::Zip2, 1) => emit!(*asm, punpckhwd_a, XMM0, m),
            (VecBinary::Zip2, 2) => emit!(*asm, punpckhdq_a, XMM0, m),
            (_, 3) => emit!(*asm, punpckhqdq_a, XMM0, m),
            (_, 2) => {
                emit!(*asm, shufps_a, XMM0, m, if even { EVEN } else { ODD });
                if matches!(op, VecBinary::Trn1 | VecBinary::Trn2) {
                    emit!(*asm, pshufd_a, XMM0, XMM0, WOVEN);
                }
            }
            // What is kept of each pair becomes a number of twice its size that fits.
            (_, 1) => {
                emit!(*asm, movaps_a, XMM1, m);
                for half in [XMM0, XMM1] {
                    if even {
                        emit!(*asm, pslld_b, half, 16u8);
                    }
                    emit!(*asm, psrad_b, half, 16u8);
                }
                emit!(*asm, packssdw_a, XMM0, XMM1);
            }
            _ => {
                emit!(*asm, movaps_a, XMM1, m);
                for half in [XMM0, XMM1] {
                    if even {
                        emit!(*asm, psllw_b, half, 8u8);
                    }
                    emit!(*asm, psrlw_b, half, 8u8);
                }
                emit!(*asm, packuswb_a, XMM0, XMM1);
            }
        }
        true
    }
}
