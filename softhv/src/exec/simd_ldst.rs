//! LD1 to LD4 and ST1 to ST4: all memory is reached before any register or
//! byte changes, so a fault leaves no trace.

use super::branch::{handler, pc_of};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::mem::{Request, probe_read, probe_write};
use crate::next_op;
use crate::regs::V;
use crate::simd::ldst::{
    Lanes, MAX_BYTES, StructAccess, Writeback, decode_struct, load_from, store_to,
};
use crate::walk::Access;

handler!(
    /// LD1 to LD4; `imm` is the instruction.
    load, |cpu, op| {
        if transfer(cpu, op, Access::Read) {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// ST1 to ST4; `imm` is the instruction.
    store, |cpu, op| {
        if transfer(cpu, op, Access::Write) {
            next_op!(cpu, op)
        }
    }
);

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
    /// says, `imm` the instruction.
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
        let Some(structure) = decode_struct((*op).imm as u32) else {
            // Decoded once already.
            return true;
        };
        let va = cpu.regs.get(structure.rn);
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
        Writeback::Register(slot) => cpu.regs.get(slot),
    };
    let base = cpu.regs.get(structure.rn).wrapping_add(by);
    cpu.regs.set(structure.rn, base);
}
