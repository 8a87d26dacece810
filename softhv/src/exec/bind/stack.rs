//! The stack pointer's alignment check (SCTLR_EL1.SA and SA0).
//!
//! Loads and stores check it without being slower for it: code is decoded for a
//! stack pointer that is aligned, or for one that is not, in which case the
//! accesses that use it become their faults. What may take the stack pointer from
//! one kind to the other is followed by an op that looks.

use crate::insn::structure::{StructAccess, Writeback};
use crate::insn::{AddSub, Insn, PstateField, Reg};

/// Whether the load or store `insn` checks the stack pointer, its base.
pub fn is_checked(insn: &Insn) -> bool {
    !matches!(insn, Insn::Prefetch { .. }) && insn.base() == Some(Reg::SP)
}

/// Whether `insn` may change the stack pointer so that it is aligned before and
/// not behind it, or, if it `is_off` before, at all.
pub fn may_misalign(insn: &Insn, is_off: bool) -> bool {
    match change(insn) {
        Change::None => false,
        Change::By(bytes) => is_off || bytes & 15 != 0,
        Change::Any => true,
    }
}

/// What an instruction does to the stack pointer.
enum Change {
    None,
    By(i32),
    Any,
}

fn change(insn: &Insn) -> Change {
    match *insn {
        // A W register cuts the upper half, and keeps the alignment.
        Insn::AddSubImm {
            op: AddSub::Add | AddSub::Sub,
            rd: Reg::SP,
            rn: Reg::SP,
            imm,
            ..
        } => Change::By(imm as i32),
        Insn::AddSubImm { rd: Reg::SP, .. }
        | Insn::LogicImm { rd: Reg::SP, .. }
        | Insn::AddSubExtended { rd: Reg::SP, .. }
        | Insn::WritePstate {
            field: PstateField::SpSel,
            ..
        } => Change::Any,
        Insn::Structure(StructAccess {
            base: Reg::SP,
            writeback,
            ..
        }) => match writeback {
            Writeback::Bytes(bytes) => Change::By(i32::from(bytes)),
            Writeback::Register(_) => Change::Any,
            Writeback::None => Change::None,
        },
        _ => match insn.address() {
            Some(address) if address.base() == Some(Reg::SP) => {
                address.writeback().map_or(Change::None, Change::By)
            }
            _ => Change::None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::instruction;

    #[test]
    fn only_what_moves_the_stack_pointer_off_is_looked_at() {
        let kept = [
            0xd100_83ff, // sub sp, sp, #0x20
            0xa9bf_7bfd, // stp x29, x30, [sp, #-16]!
            0xa8c2_7bfd, // ldp x29, x30, [sp], #32
            0xf81f_0fe0, // str x0, [sp, #-16]!
            0x4c9f_73e0, // st1 {v0.16b}, [sp], #16
            0xf940_07e0, // ldr x0, [sp, #8]
            0xf100_43ff, // cmp sp, #16
            0xeb3f_63ff, // cmp sp, xzr
        ];
        for word in kept {
            assert!(!may_misalign(&instruction(word), false), "{word:08x}");
        }
        let moved = [
            0xd100_23ff, // sub sp, sp, #8
            0x9100_03bf, // mov sp, x29
            0x927c_ec1f, // and sp, x0, #-16
            0xcb20_63ff, // sub sp, sp, x0
            0xf840_87e0, // ldr x0, [sp], #8
            0xa8c0_87e0, // ldp x0, x1, [sp], #8
            0x4cc0_73e0, // ld1 {v0.16b}, [sp], x0
            0xd500_40bf, // msr spsel, #0
        ];
        for word in moved {
            assert!(may_misalign(&instruction(word), false), "{word:08x}");
        }
        assert!(
            may_misalign(&instruction(0xd100_83ff), true),
            "from one misalignment to another"
        );
    }

    #[test]
    fn prefetches_and_literals_do_not_check() {
        // ldr x0, [sp]; prfm pldl1keep, [sp]; ldr xzr, label; ldr x0, [x1].
        let words = [0xf940_03e0, 0xf980_03e0, 0x5800_03ff, 0xf940_0020];
        let checked = words.map(|word| is_checked(&instruction(word)));
        assert_eq!(checked, [true, false, false, false]);
    }
}
