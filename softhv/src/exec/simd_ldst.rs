//! LD1 to LD4 and ST1 to ST4: all memory is reached before any register or
//! byte changes, so a fault leaves no trace.

use super::branch::{handler, pc_of};
use crate::cpu::Cpu;
use crate::mem::{Request, probe_read, probe_write};
use crate::next_op;
use crate::op::Op;
use crate::simd::ldst::{MAX_BYTES, StructAccess, Writeback, decode_struct, load_from, store_to};
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
