//! Loads and stores: the inline probe of the TLB. What it does not cover is left
//! to the interpreter, which goes on from there.

use super::asm::host::{RAX, RCX, RDI, RDX};
use super::asm::{Cc, Jump, at, emit, indexed, sized};
use super::state::{Cold, State, regs_field};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::insn::{Address, Extend, Insn, Load, PairLoad, Reg, Size, VReg, VSize, Width};
use crate::page::PAGE_MASK;
use crate::tlb::{ENTRIES, Entry};
use std::mem::offset_of;

/// Entries are found by bits of the address above the page offset: this many bits
/// of shift less are the size of an entry.
const INDEX_SHIFT: u8 = 12 - size_of::<Entry>().trailing_zeros() as u8;
const INDEX_MASK: u32 = ((ENTRIES - 1) * size_of::<Entry>()) as u32;

/// From the first entry of a pair to the second.
const SECOND: i32 = (ENTRIES * size_of::<Entry>()) as i32;
const ADDEND: i32 = offset_of!(Entry, addend) as i32;

/// Where the vCPU has the entries for its own accesses, and for those with the rights
/// of EL0 at EL1.
const OWN: i32 = offset_of!(Cpu, tlb) as i32;
const USER: i32 = offset_of!(Cpu, tlb_user) as i32;

/// Host vector registers for one instruction.
pub(super) const XMM0: u8 = 0;
pub(super) const XMM1: u8 = 1;
pub(super) const XMM2: u8 = 2;

/// Whether doublewords at both places are sixteen bytes in a row.
fn adjoin(first: Address, second: Address) -> bool {
    match (first, second) {
        (
            Address::Offset { base, offset },
            Address::Offset {
                base: other,
                offset: next,
            },
        ) => base == other && offset.checked_add(8) == Some(next),
        _ => false,
    }
}

impl State {
    /// Emits `insn`, whose op is `op`; false if it is none of these. At EL0 if
    /// `user`.
    pub fn memory(&mut self, insn: &Insn, op: *const Op, offset: u16, user: bool) -> bool {
        match *insn {
            Insn::Load { what, rt, address } => self.load(what, rt, address, op, offset, OWN),
            Insn::LoadUser { what, rt, address } => {
                let bank = if user { OWN } else { USER };
                self.load(what, rt, address, op, offset, bank);
            }
            Insn::Store { size, rt, address } => self.store(size, rt, address, op, offset, OWN),
            Insn::StoreUser { size, rt, address } => {
                let bank = if user { OWN } else { USER };
                self.store(size, rt, address, op, offset, bank);
            }
            Insn::Prefetch { .. } => {}
            Insn::LoadPair {
                what,
                rt,
                rt2,
                address,
                ..
            } => self.load_pair(what, [rt, rt2], address, op),
            Insn::StorePair {
                width,
                rt,
                rt2,
                address,
                ..
            } => self.store_pair(width, [rt, rt2], address, op),
            Insn::Structure(ref access) => return self.structure(access, op),
            _ => return self.vector_memory(insn, op, offset) || self.atomic(insn, op),
        }
        true
    }

    fn vector_memory(&mut self, insn: &Insn, op: *const Op, offset: u16) -> bool {
        match *insn {
            Insn::LoadVec { size, rt, address } => {
                self.place(address, offset);
                self.probe(offset_of!(Entry, read), 1 << size.log2(), op);
                self.load_vector(size, rt, 0);
                self.writeback(address);
            }
            Insn::StoreVec { size, rt, address } => {
                self.place(address, offset);
                self.probe(offset_of!(Entry, write), 1 << size.log2(), op);
                self.store_vector(size, rt, 0);
                self.writeback(address);
            }
            Insn::LoadVecPair {
                size,
                rt,
                rt2,
                address,
                ..
            } if size >= VSize::S => {
                let bytes = 1 << size.log2();
                self.place(address, offset);
                self.probe(offset_of!(Entry, read), 2 * bytes, op);
                self.load_vector(size, rt, 0);
                self.load_vector(size, rt2, bytes);
                self.writeback(address);
            }
            Insn::StoreVecPair {
                size,
                rt,
                rt2,
                address,
                ..
            } if size >= VSize::S => {
                let bytes = 1 << size.log2();
                self.place(address, offset);
                self.probe(offset_of!(Entry, write), 2 * bytes, op);
                self.store_vector(size, rt, 0);
                self.store_vector(size, rt2, bytes);
                self.writeback(address);
            }
            _ => return false,
        }
        true
    }

    /// RAX = the address, before any writeback.
    pub(super) fn place(&mut self, address: Address, here: u16) {
        match address {
            Address::Offset { base, offset } | Address::PreIndex { base, offset } => {
                let base = self.read(base);
                emit!(self.asm, leaq_rm, RAX, at(base, offset));
            }
            Address::PostIndex { base, .. } => {
                let base = self.read(base);
                self.asm.copy(RAX, base);
            }
            Address::Index {
                base,
                index,
                extend,
                amount,
            } => {
                let base = self.read(base);
                if amount <= 3 && matches!(extend, Extend::Uxtx | Extend::Sxtx) {
                    let index = self.read(index);
                    emit!(self.asm, leaq_rm, RAX, indexed(base, index, amount));
                } else {
                    self.extended(index, extend, amount);
                    emit!(self.asm, addq_rm, RAX, base);
                }
            }
            Address::Literal { offset } => {
                emit!(self.asm, movq_rm, RAX, at(RDI, regs_field!(page)));
                self.add_constant(true, RAX, i32::from(here).wrapping_add(offset));
            }
        }
    }

    /// RAX = the host address of the guest address in it, if the TLB allows
    /// `bytes` from there by the tag at `tag` of an entry; else `op` does it.
    pub(super) fn probe(&mut self, tag: usize, bytes: i32, op: *const Op) {
        self.probe_in(OWN, tag, bytes, op);
    }

    /// The same by the entries that the field at `bank` of the vCPU leads to.
    fn probe_in(&mut self, bank: i32, tag: usize, bytes: i32, op: *const Op) {
        emit!(self.asm, movl_rm, RCX, RAX);
        emit!(self.asm, shrl_mi, RCX, INDEX_SHIFT);
        emit!(self.asm, andl_mi, RCX, INDEX_MASK);
        emit!(self.asm, addq_rm, RCX, at(RDI, bank));
        if bytes == 1 {
            self.asm.copy(RDX, RAX);
        } else {
            emit!(self.asm, leaq_rm, RDX, at(RAX, bytes - 1));
        }
        emit!(self.asm, andq_mi_sxl, RDX, PAGE_MASK as i32);
        emit!(self.asm, cmpq_rm, RDX, at(RCX, tag as i32));
        let miss = self.asm.jump_if(Cc::Ne);
        emit!(self.asm, addq_rm, RAX, at(RCX, ADDEND));
        let found = self.asm.code.len();
        let spill = self.spill();
        self.cold.push(Cold::Second(miss, tag, found, op, spill));
    }

    /// The probe of the second entry of a pair, whose first one is at RCX and has not
    /// the page that RDX has: as [`State::probe_in`], from where the code goes on at
    /// `found` if it has. The jump leads away if not.
    pub(super) fn probe_second(&mut self, tag: usize, found: usize) -> Jump {
        emit!(self.asm, cmpq_rm, RDX, at(RCX, SECOND + tag as i32));
        let miss = self.asm.jump_if(Cc::Ne);
        emit!(self.asm, addq_rm, RAX, at(RCX, SECOND + ADDEND));
        let back = self.asm.jump();
        self.asm.aim(back, found as i32);
        miss
    }

    /// Moves the base by the same rule whatever was loaded.
    pub(super) fn writeback(&mut self, address: Address) {
        if let (Some(base), Some(by)) = (address.base(), address.writeback()) {
            let old = self.read(base);
            let d = self.destination(base, &[]);
            emit!(self.asm, leaq_rm, d, at(old, by));
            self.done(base, d);
        }
    }

    fn load(
        &mut self,
        what: Load,
        rt: Reg,
        address: Address,
        op: *const Op,
        offset: u16,
        bank: i32,
    ) {
        self.place(address, offset);
        self.probe_in(bank, offset_of!(Entry, read), 1 << what.size().log2(), op);
        let d = self.destination(rt, &[]);
        let from = at(RAX, 0);
        match what {
            Load::B => emit!(self.asm, movzbl_rm, d, from),
            Load::H => emit!(self.asm, movzwl_rm, d, from),
            Load::W => emit!(self.asm, movl_rm, d, from),
            Load::X => emit!(self.asm, movq_rm, d, from),
            Load::SbW => emit!(self.asm, movsbl_rm, d, from),
            Load::SbX => emit!(self.asm, movsbq_rm, d, from),
            Load::ShW => emit!(self.asm, movswl_rm, d, from),
            Load::ShX => emit!(self.asm, movswq_rm, d, from),
            Load::SwX => emit!(self.asm, movslq_rm, d, from),
        }
        self.done(rt, d);
        self.writeback(address);
    }

    fn store(
        &mut self,
        size: Size,
        rt: Reg,
        address: Address,
        op: *const Op,
        offset: u16,
        bank: i32,
    ) {
        let value = self.read(rt);
        self.place(address, offset);
        self.probe_in(bank, offset_of!(Entry, write), 1 << size.log2(), op);
        let to = at(RAX, 0);
        match size {
            Size::B => emit!(self.asm, movb_mr, to, value),
            Size::H => emit!(self.asm, movw_mr, to, value),
            Size::W => emit!(self.asm, movl_mr, to, value),
            Size::X => emit!(self.asm, movq_mr, to, value),
        }
        self.writeback(address);
    }

    /// Emits `insn` and the one behind it at once, if both load or both store a
    /// doubleword with the rights of EL0, the second right behind the first: what a
    /// kernel's copies from and to its programs are made of. False if they are not.
    pub fn user_pair(&mut self, insn: &Insn, behind: &Insn, op: *const Op) -> bool {
        match (*insn, *behind) {
            (
                Insn::LoadUser {
                    what: Load::X,
                    rt,
                    address,
                },
                Insn::LoadUser {
                    what: Load::X,
                    rt: rt2,
                    address: next,
                },
            ) if adjoin(address, next) && address.base() != Some(rt) => {
                self.place(address, 0);
                self.probe_in(USER, offset_of!(Entry, read), 16, op);
                // The address goes last.
                emit!(self.asm, movq_rm, RCX, at(RAX, 8));
                emit!(self.asm, movq_rm, RAX, at(RAX, 0));
                self.set(rt, RAX);
                self.set(rt2, RCX);
            }
            (
                Insn::StoreUser {
                    size: Size::X,
                    rt,
                    address,
                },
                Insn::StoreUser {
                    size: Size::X,
                    rt: rt2,
                    address: next,
                },
            ) if adjoin(address, next) => {
                let values = [self.read(rt), self.read(rt2)];
                self.place(address, 0);
                self.probe_in(USER, offset_of!(Entry, write), 16, op);
                emit!(self.asm, movq_mr, at(RAX, 0), values[0]);
                emit!(self.asm, movq_mr, at(RAX, 8), values[1]);
            }
            _ => return false,
        }
        true
    }

    fn load_pair(&mut self, what: PairLoad, regs: [Reg; 2], address: Address, op: *const Op) {
        let bytes = if what == PairLoad::X { 8 } else { 4 };
        self.place(address, 0);
        self.probe(offset_of!(Entry, read), 2 * bytes, op);
        // The second stays if both are one.
        for (reg, by) in [(regs[0], 0), (regs[1], bytes)] {
            // The address is needed yet.
            let to = if reg.is_zr() {
                RCX
            } else {
                self.destination(reg, &[])
            };
            match what {
                PairLoad::W => emit!(self.asm, movl_rm, to, at(RAX, by)),
                PairLoad::SwX => emit!(self.asm, movslq_rm, to, at(RAX, by)),
                PairLoad::X => emit!(self.asm, movq_rm, to, at(RAX, by)),
            }
            self.done(reg, to);
        }
        self.writeback(address);
    }

    fn store_pair(&mut self, width: Width, regs: [Reg; 2], address: Address, op: *const Op) {
        let bytes = if width.is_x() { 8 } else { 4 };
        let values = regs.map(|reg| self.read(reg));
        self.place(address, 0);
        self.probe(offset_of!(Entry, write), 2 * bytes, op);
        for (value, by) in [(values[0], 0), (values[1], bytes)] {
            sized!(self.asm, width.is_x(), movq_mr, movl_mr, at(RAX, by), value);
        }
        self.writeback(address);
    }

    /// Loads from RAX on to `rt`, whose rest becomes zero.
    pub(super) fn load_vector(&mut self, size: VSize, rt: VReg, by: i32) {
        let from = at(RAX, by);
        let to = self.v_set(rt);
        match size {
            VSize::B => emit!(self.asm, movzbl_rm, RCX, from),
            VSize::H => emit!(self.asm, movzwl_rm, RCX, from),
            VSize::S => return emit!(self.asm, movd_a, to, from),
            VSize::D => return emit!(self.asm, movq_a, to, from),
            VSize::Q => return emit!(self.asm, movups_a, to, from),
        }
        emit!(self.asm, movd_a, to, RCX);
    }

    /// Stores of `rt` from RAX on.
    pub(super) fn store_vector(&mut self, size: VSize, rt: VReg, by: i32) {
        let (from, to) = (self.v_read(rt), at(RAX, by));
        match size {
            VSize::B | VSize::H => emit!(self.asm, movd_b, RCX, from),
            VSize::S => return emit!(self.asm, movd_b, to, from),
            VSize::D => return emit!(self.asm, movq_b, to, from),
            VSize::Q => return emit!(self.asm, movups_b, to, from),
        }
        if size == VSize::B {
            emit!(self.asm, movb_mr, to, RCX);
        } else {
            emit!(self.asm, movw_mr, to, RCX);
        }
    }
}
