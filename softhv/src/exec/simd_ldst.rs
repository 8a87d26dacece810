//! LD1 to LD4 and ST1 to ST4: all memory is reached before any register or
//! byte changes, so a fault leaves no trace.

use super::branch::{handler, pc_of};
use crate::cpu::Cpu;
use crate::cpu::op::{Op, source};
use crate::insn::structure::{Lanes, MAX_BYTES, StructAccess, Writeback};
use crate::insn::{Reg, VReg};
use crate::mem::{Request, probe_read, probe_write};
use crate::next_op;
use crate::regs::V;
use crate::simd::ldst::{load_from, store_to};
use crate::walk::Access;

handler!(
    /// LD1 to LD4; `imm` as [`pack`] says.
    load, |cpu, op| {
        if transfer(cpu, op, Access::Read) {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// ST1 to ST4; `imm` as [`pack`] says.
    store, |cpu, op| {
        if transfer(cpu, op, Access::Write) {
            next_op!(cpu, op)
        }
    }
);

/// What an op has of `structure` in `imm`, besides the registers `rd` and `rn`:
/// from bit 0 up load, q, size (2), rpt (3), selem (3), the lanes' kind (2) and index
/// (4), the writeback's kind (2) and value.
pub fn pack(structure: &StructAccess) -> u64 {
    let (lanes, index) = match structure.lanes {
        Lanes::All => (0, 0),
        Lanes::One(index) => (1, u64::from(index & 15)),
        Lanes::Replicate => (2, 0),
    };
    let (writeback, value) = match structure.writeback {
        Writeback::None => (0, 0),
        Writeback::Bytes(bytes) => (1, u64::from(bytes)),
        Writeback::Register(register) => (2, u64::from(register.field())),
    };
    u64::from(structure.load)
        | u64::from(structure.q) << 1
        | u64::from(structure.size & 3) << 2
        | u64::from(structure.rpt & 7) << 4
        | u64::from(structure.selem & 7) << 7
        | lanes << 10
        | index << 12
        | writeback << 16
        | value << 18
}

fn unpack(op: &Op) -> StructAccess {
    let bits = |low: u32, count: u32| (op.imm >> low) as u8 & ((1u16 << count) - 1) as u8;
    StructAccess {
        load: bits(0, 1) != 0,
        q: bits(1, 1) != 0,
        size: bits(2, 2),
        rpt: bits(4, 3),
        selem: bits(7, 3),
        lanes: match bits(10, 2) {
            0 => Lanes::All,
            1 => Lanes::One(bits(12, 4)),
            _ => Lanes::Replicate,
        },
        rt: VReg::new(u32::from(op.rd)),
        base: Reg::or_sp(u32::from(op.rn)),
        writeback: match bits(16, 2) {
            0 => Writeback::None,
            1 => Writeback::Bytes(bits(18, 8)),
            _ => Writeback::Register(Reg::or_zr(u32::from(bits(18, 5)))),
        },
    }
}

/// Bit of `aux` that says "advance the base by what was transferred".
const ADVANCE: u16 = 1 << 8;

/// The `aux` of [`load_whole`] and [`store_whole`] for `structure`, if that is
/// LD1 or ST1 of whole registers that follow each other.
pub fn whole_registers(structure: &StructAccess) -> Option<u16> {
    let plain = structure.q && structure.selem == 1 && structure.lanes == Lanes::All;
    let advance = match structure.writeback {
        Writeback::None => 0,
        Writeback::Bytes(_) => ADVANCE,
        Writeback::Register(_) => return None,
    };
    plain.then_some(u16::from(structure.rpt) | advance)
}

handler!(
    /// LD1 of whole registers: `rd` the first, `aux` as [`whole_registers`]
    /// says, `imm` as [`pack`].
    load_whole, |cpu, op| {
        let (va, count) = ((*cpu).regs.get((*op).rn), u64::from((*op).aux & 0xff));
        match probe_read((*cpu).tlb, va, 16 * count) {
            Some(host) => {
                for n in 0..count {
                    let register = (u64::from((*op).rd) + n) as usize & 31;
                    (*cpu).regs.v[register] = V(crate::mem::read(host + 16 * n));
                }
                if (*op).aux & ADVANCE != 0 {
                    (*cpu).regs.set((*op).rn, va.wrapping_add(16 * count));
                }
                next_op!(cpu, op)
            }
            None => load(cpu, op),
        }
    }
);

handler!(
    /// ST1 of whole registers, as [`load_whole`].
    store_whole, |cpu, op| {
        let (va, count) = ((*cpu).regs.get((*op).rn), u64::from((*op).aux & 0xff));
        match probe_write((*cpu).tlb, va, 16 * count) {
            Some(host) => {
                for n in 0..count {
                    let register = (u64::from((*op).rd) + n) as usize & 31;
                    crate::mem::write(host + 16 * n, (*cpu).regs.v[register].0);
                }
                if (*op).aux & ADVANCE != 0 {
                    (*cpu).regs.set((*op).rn, va.wrapping_add(16 * count));
                }
                next_op!(cpu, op)
            }
            None => store(cpu, op),
        }
    }
);

/// # Safety
/// As for a handler.
#[inline(never)]
unsafe fn transfer(cpu: *mut Cpu, op: *const Op, access: Access) -> bool {
    // SAFETY: by the contract.
    unsafe {
        let (cpu, pc) = (&mut *cpu, pc_of(cpu, op));
        let structure = unpack(&*op);
        let va = cpu.regs.get((*op).rn);
        let total = structure.total_bytes();
        let request = Request {
            pc,
            va,
            bytes: total as u32,
            access,
            user: cpu.pstate.el == 0,
            aligned: false,
            transfer: None,
        };
        let mut buffer = [0; MAX_BYTES];
        if access == Access::Write {
            store_to(&cpu.regs, &structure, &mut buffer);
            match probe_write(cpu.tlb, va, total as u64) {
                Some(host) => copy(buffer.as_ptr() as u64, host, total),
                None if cpu.store(&request, &buffer[..total]).is_err() => return false,
                None => (),
            }
        } else {
            match probe_read(cpu.tlb, va, total as u64) {
                Some(host) => copy(host, buffer.as_mut_ptr() as u64, total),
                None if cpu.load(&request, &mut buffer[..total]).is_err() => return false,
                None => (),
            }
            load_from(&mut cpu.regs, &structure, &buffer[..total]);
        }
        write_back(cpu, &structure);
        true
    }
}

/// # Safety
/// Both ranges are valid for `bytes`; one of them is guest memory.
unsafe fn copy(from: u64, to: u64, bytes: usize) {
    // SAFETY: by the contract. Guest memory may change meanwhile, which vector
    // accesses do not promise anything about.
    unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) }
}

fn write_back(cpu: &mut Cpu, structure: &StructAccess) {
    let by = match structure.writeback {
        Writeback::None => return,
        Writeback::Bytes(bytes) => u64::from(bytes),
        Writeback::Register(register) => cpu.regs.get(source(register)),
    };
    let slot = source(structure.base);
    let base = cpu.regs.get(slot).wrapping_add(by);
    cpu.regs.set(slot, base);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::instruction;
    use crate::insn::Insn;

    #[test]
    fn an_op_has_all_of_a_structure_access() {
        let mut found = 0;
        // Bits 30 and 23 to 10, all registers that differ.
        for high in 0..1u32 << 15 {
            let word = 0x0c00_0000
                | (high >> 14 & 1) << 30
                | (high & 0x3fff) << 10
                | (high & 1) << 24
                | ((high * 7) & 0x3ff);
            for word in [word, word ^ 1 << 24, word | 31 << 16] {
                let Insn::Structure(access) = instruction(word) else {
                    continue;
                };
                let mut op = Op::new(load);
                op.rd = access.rt.number();
                op.rn = source(access.base);
                op.imm = pack(&access);
                assert_eq!(unpack(&op), access, "{word:08x}");
                found += 1;
            }
        }
        assert!(found > 1000, "only {found} of them are allocated");
    }
}
