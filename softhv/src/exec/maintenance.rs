//! Cache, TLB and address-translation instructions.

use super::branch::{handler, pc_after, pc_of};
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::link::{CodeRange, TlbInvalidate};
use crate::next_op;

/// SCTLR_EL1.UCI: cache maintenance at EL0. DZE: DC ZVA at EL0.
const SCTLR_UCI: u64 = 1 << 26;
const SCTLR_DZE: u64 = 1 << 14;

handler!(
    /// DC by address, except ZVA; `aux` 1 may not run at EL0 at all.
    data_cache, |cpu, op| {
        let pc = pc_of(cpu, op);
        if (*cpu).pstate.el == 0 && ((*op).aux != 0 || (*cpu).sys.sctlr & SCTLR_UCI == 0) {
            return (*cpu).trap_sysreg(pc, (*op).imm as u32);
        }
        let va = (*cpu).regs.get((*op).rd);
        if (*cpu).cache_maintenance(pc, va).is_ok() {
            next_op!(cpu, op)
        }
    }
);

handler!(
    /// DC ZVA at EL0 where SCTLR_EL1.DZE may forbid it.
    zero_block_user, |cpu, op| {
        if (*cpu).sys.sctlr & SCTLR_DZE == 0 {
            return (*cpu).trap_sysreg(pc_of(cpu, op), (*op).imm as u32);
        }
        super::ldst::zero_block(cpu, op)
    }
);

handler!(
    /// IC IVAU. Ends its block, which may be what it invalidates.
    instruction_cache, |cpu, op| {
        let pc = pc_of(cpu, op);
        if (*cpu).pstate.el == 0 && (*cpu).sys.sctlr & SCTLR_UCI == 0 {
            return (*cpu).trap_sysreg(pc, (*op).imm as u32);
        }
        let va = (*cpu).regs.get((*op).rd);
        if let Ok(physical) = (*cpu).cache_maintenance(pc, va) {
            (*cpu).code_changed(CodeRange { pa: physical & !63, bytes: 64 });
            (*cpu).pc = pc_after(cpu, op);
        }
    }
);

handler!(
    /// IC IALLU and IALLUIS.
    instruction_cache_all, |cpu, op| {
        (*cpu).code_changed(CodeRange { pa: 0, bytes: u64::MAX });
        (*cpu).pc = pc_after(cpu, op);
    }
);

handler!(
    /// AT S1E0R and its kin; `aux` bit 0 writes, bit 1 is EL0.
    translate_address, |cpu, op| {
        let va = (*cpu).regs.get((*op).rd);
        let (write, user) = ((*op).aux & 1 != 0, (*op).aux & 2 != 0);
        (*cpu).sys.par = (*cpu).address_translate(va, write, user);
        next_op!(cpu, op)
    }
);

handler!(
    /// TLBI; `aux` is op1..op2 of the encoding, `imm` 1 if inner shareable.
    tlb_maintenance, |cpu, op| {
        let operand = (*cpu).regs.get((*op).rd);
        (*cpu).tlbi((*op).aux, operand, (*op).imm != 0);
        (*cpu).pc = pc_after(cpu, op);
    }
);

/// TLBI operations, by op2, and whether they name a range.
#[allow(missing_docs)]
pub mod tlbi {
    pub const ALL: u16 = 0;
    pub const VA: u16 = 1;
    pub const ASID: u16 = 2;
    pub const VA_ALL_ASIDS: u16 = 3;
    pub const RANGE: u16 = 8;
}

/// The virtual address of a TLBI operand: bits 55:12 in bits 43:0.
fn operand_address(operand: u64) -> u64 {
    ((operand << 20) as i64 >> 8) as u64 & !0xfff
}

/// First page and page count of a range operand (Arm ARM D8.14.5): BaseADDR
/// 36:0, NUM 43:39, SCALE 45:44, TG 47:46.
fn operand_range(operand: u64) -> (u64, u64) {
    let base = ((operand << 27) as i64 >> 27) as u64;
    let (num, scale) = (operand >> 39 & 31, operand >> 44 & 3);
    // TG = 0b01 is the 4 KiB granule; others have no translations here.
    (base << 12, (num + 1) << (5 * scale + 1))
}

impl Cpu {
    fn tlbi(&mut self, what: u16, operand: u64, shared: bool) {
        let asid = (operand >> 48) as u16;
        let message = match what {
            tlbi::ASID => TlbInvalidate::Asid(asid),
            tlbi::VA => TlbInvalidate::Va {
                va: operand_address(operand),
                asid,
                pages: 1,
            },
            tlbi::VA_ALL_ASIDS => TlbInvalidate::VaAllAsids {
                va: operand_address(operand),
                pages: 1,
            },
            _ if what & tlbi::RANGE != 0 => {
                let (va, pages) = operand_range(operand);
                if what & 7 == tlbi::VA {
                    TlbInvalidate::Va { va, asid, pages }
                } else {
                    TlbInvalidate::VaAllAsids { va, pages }
                }
            }
            _ => TlbInvalidate::All,
        };
        self.invalidate(message);
        if shared {
            self.vm.broadcast_tlb(self.index, message, &mut self.acks);
        }
    }

    /// Drops decoded code here, and on the other vCPUs until the next DSB.
    fn code_changed(&mut self, range: CodeRange) {
        self.code.invalidate(range);
        if self.vm.vcpu_count() > 1
            && let Some(other) = self.acks.defer_code(range)
        {
            self.vm.broadcast_code(self.index, other);
        }
    }

    /// Posts what is still to be posted of stale code.
    pub fn send_code(&mut self) {
        if let Some(range) = self.acks.take_unsent() {
            self.vm.broadcast_code(self.index, range);
        }
    }

    /// Waits until the other vCPUs have applied what was sent to them. No guest
    /// code is executed meanwhile, so nobody needs to wait for this one.
    pub(super) fn await_acks(&mut self) {
        self.send_code();
        if self.acks.poll() {
            return;
        }
        self.shared.pause();
        self.acks.wait();
        self.shared.resume();
        self.take_mail();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tlbi_operands_name_sign_extended_addresses_and_ranges() {
        assert_eq!(operand_address(0x0000_0000_0001_2345), 0x1234_5000);
        assert_eq!(
            operand_address(0x0000_0fff_ffc0_0010),
            0xffff_fffc_0001_0000
        );
        // NUM = 3, SCALE = 1: (3 + 1) * 2^6 pages from page 0x10.
        let operand = 0x10 | 3 << 39 | 1 << 44;
        assert_eq!(operand_range(operand), (0x10000, 256));
    }
}
