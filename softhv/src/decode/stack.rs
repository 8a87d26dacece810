//! The stack pointer's alignment check (SCTLR_EL1.SA and SA0).
//!
//! Loads and stores check it without being slower for it: code is decoded for a
//! stack pointer that is aligned, or for one that is not, in which case the
//! accesses that use it are decoded as their faults. What may take the stack
//! pointer from one kind to the other is followed by an op that looks.

use super::{bit, bits, signed};
use crate::simd::ldst::{Writeback, decode_struct};

/// Whether the load or store `word` checks the stack pointer, its base.
pub fn is_checked(word: u32) -> bool {
    // Literal loads have no base, prefetches do not check.
    let literal = word & 0x3b00_0000 == 0x1800_0000;
    let prefetch = word & 0xffc0_0000 == 0xf980_0000
        || word & 0xffe0_0c00 == 0xf880_0000
        || word & 0xffe0_0c00 == 0xf8a0_0800;
    bits(word, 5, 5) == 31 && !literal && !prefetch
}

/// Whether `word`, which is defined, may change the stack pointer so that it is
/// aligned before and not behind it, or, if it `is_off` before, at all.
#[inline]
pub fn may_misalign(word: u32, is_off: bool) -> bool {
    // Register 31 is its destination, its base, or (MSR SPSel) part of its code.
    if bits(word, 0, 5) != 31 && bits(word, 5, 5) != 31 {
        return false;
    }
    match change(word) {
        Change::None => false,
        Change::By(bytes) => is_off || bytes & 15 != 0,
        Change::Any => true,
    }
}

/// What an instruction does to the stack pointer.
enum Change {
    None,
    By(u64),
    Any,
}

fn change(word: u32) -> Change {
    let (to_sp, from_sp) = (bits(word, 0, 5) == 31, bits(word, 5, 5) == 31);
    let sets_flags = bit(word, 29);
    match () {
        // ADD, SUB (immediate).
        () if word & 0x1f80_0000 == 0x1100_0000 && to_sp && !sets_flags => {
            let shift = if bit(word, 22) { 12 } else { 0 };
            // A W register cuts the upper half, and keeps the alignment.
            if from_sp {
                Change::By(u64::from(bits(word, 10, 12)) << shift)
            } else {
                Change::Any
            }
        }
        // AND, ORR, EOR (immediate); ADD, SUB (extended register).
        () if word & 0x1f80_0000 == 0x1200_0000 && to_sp && bits(word, 29, 2) != 3 => Change::Any,
        () if word & 0x1fe0_0000 == 0x0b20_0000 && to_sp && !sets_flags => Change::Any,
        // MSR SPSel.
        () if word & 0xffff_f0ff == 0xd500_40bf => Change::Any,
        () if !from_sp => Change::None,
        // Pre- and post-index.
        () if word & 0x3b20_0400 == 0x3800_0400 => Change::By(signed(word, 12, 9)),
        () if word & 0x3a80_0000 == 0x2880_0000 => {
            let scale = if bit(word, 26) {
                2 + bits(word, 30, 2)
            } else {
                2 + bits(word, 31, 1)
            };
            Change::By(signed(word, 15, 7) << scale)
        }
        () if word & 0xbe80_0000 == 0x0c80_0000 => match decode_struct(word).map(|s| s.writeback) {
            Some(Writeback::Bytes(bytes)) => Change::By(u64::from(bytes)),
            _ => Change::Any,
        },
        () => Change::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(!may_misalign(word, false), "{word:08x}");
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
            assert!(may_misalign(word, false), "{word:08x}");
        }
        assert!(
            may_misalign(0xd100_83ff, true),
            "from one misalignment to another"
        );
    }

    #[test]
    fn prefetches_and_literals_do_not_check() {
        // ldr x0, [sp]; prfm pldl1keep, [sp]; ldr xzr, label; ldr x0, [x1].
        let words = [0xf940_03e0, 0xf980_03e0, 0x5800_03ff, 0xf940_0020];
        assert_eq!(words.map(is_checked), [true, false, false, false]);
    }
}
