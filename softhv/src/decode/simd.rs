//! AdvSIMD data processing without floating-point arithmetic (C4.1.96).
// Patterns group digits by encoding field: opcode_U.
#![allow(clippy::unusual_byte_groupings)]

use super::simd_fields::{binary, halves, is_scalar, lanes, rd, rn, unary};
use super::simd_moves::{
    aes, copy, copy_scalar, extract, modified_imm, sha_three, sha_two, table, zip,
};
use super::{bit, bits};
use crate::insn::simd::{Arrangement, VecBinary, VecShift, VecUnary};
use crate::insn::{Insn, VReg};

/// An encoding class: instruction words with `word & mask == value`.
struct Class {
    mask: u32,
    value: u32,
    decode: fn(u32) -> Option<Insn>,
}

const fn class(mask: u32, value: u32, decode: fn(u32) -> Option<Insn>) -> Class {
    Class {
        mask,
        value,
        decode,
    }
}

/// The classes with members that do no floating-point arithmetic. The masks are
/// disjoint except that shifts and modified immediates share theirs (told apart by
/// immh), in this order.
static CLASSES: &[Class] = &[
    class(0x9f20_0400, 0x0e20_0400, three_same),
    class(0x9ff8_0400, 0x0f00_0400, modified_imm),
    class(0x9f80_0400, 0x0f00_0400, shift),
    class(0x9fe0_8400, 0x0e00_0400, copy),
    class(0x9f3e_0c00, 0x0e20_0800, two_registers),
    class(0x9f3e_0c00, 0x0e30_0800, across),
    class(0xbf20_8c00, 0x0e00_0800, zip),
    class(0xbf20_8400, 0x2e00_0000, extract),
    class(0xbf20_8c00, 0x0e00_0000, table),
    class(0x9f20_0c00, 0x0e20_0000, three_different),
    class(0x9f00_0400, 0x0f00_0000, by_element),
    class(0x9f20_8400, 0x0e00_8400, three_same_extra),
    class(0xfffe_0c00, 0x4e28_0800, aes),
    class(0xdf20_0400, 0x5e20_0400, three_same),
    class(0xdf80_0400, 0x5f00_0400, shift),
    class(0xdfe0_8400, 0x5e00_0400, copy_scalar),
    class(0xdf3e_0c00, 0x5e20_0800, two_registers),
    class(0xdf3e_0c00, 0x5e30_0800, pairwise),
    class(0xdf20_0c00, 0x5e20_0000, three_different),
    class(0xdf00_0400, 0x5f00_0000, by_element),
    class(0xdf20_8400, 0x5e00_8400, three_same_extra),
    class(0xffe0_8c00, 0x5e00_0000, sha_three),
    class(0xfffe_0c00, 0x5e28_0800, sha_two),
];

pub fn decode(word: u32) -> Option<Insn> {
    CLASSES
        .iter()
        .find(|class| word & class.mask == class.value)
        .and_then(|class| (class.decode)(word))
}

/// Opcode and U together, as `opcode << 1 | U`.
fn code(word: u32, low: u32, count: u32) -> u32 {
    bits(word, low, count) << 1 | bits(word, 29, 1)
}

/// The operation and the sizes of lanes it has, from and to.
type Allocated<Op> = Option<(Op, u32, u32)>;

/// `op` if it has lanes of this size.
fn of_size<Op>(allocated: Allocated<Op>, size: u32) -> Option<Op> {
    let (op, from, to) = allocated?;
    (from..=to).contains(&size).then_some(op)
}

fn three_same(word: u32) -> Option<Insn> {
    let (code, size) = (code(word, 11, 5), bits(word, 22, 2));
    if code >> 1 == 0b00011 && !is_scalar(word) {
        let op = VecBinary::LOGIC[(bits(word, 29, 1) << 2 | size) as usize];
        return Some(binary(word, op, Arrangement::vector(0, bit(word, 30))));
    }
    let op = of_size(three_same_op(code), size)?;
    if is_scalar(word) {
        let allocated = match code >> 1 {
            // SQADD, SQSUB, SQSHL, SQRSHL and unsigned; SQDMULH, SQRDMULH.
            0b00001 | 0b00101 | 0b01001 | 0b01011 | 0b10110 => true,
            // Compares, SSHL, SRSHL, ADD, SUB, CMTST, CMEQ.
            0b00110 | 0b00111 | 0b01000 | 0b01010 | 0b10000 | 0b10001 => size == 3,
            _ => false,
        };
        if !allocated {
            return None;
        }
    }
    Some(binary(word, op, lanes(word, size)?))
}

fn three_same_op(code: u32) -> Allocated<VecBinary> {
    Some(match code {
        0b00000_0 => (VecBinary::Shadd, 0, 2),
        0b00000_1 => (VecBinary::Uhadd, 0, 2),
        0b00001_0 => (VecBinary::Sqadd, 0, 3),
        0b00001_1 => (VecBinary::Uqadd, 0, 3),
        0b00010_0 => (VecBinary::Srhadd, 0, 2),
        0b00010_1 => (VecBinary::Urhadd, 0, 2),
        0b00100_0 => (VecBinary::Shsub, 0, 2),
        0b00100_1 => (VecBinary::Uhsub, 0, 2),
        0b00101_0 => (VecBinary::Sqsub, 0, 3),
        0b00101_1 => (VecBinary::Uqsub, 0, 3),
        0b00110_0 => (VecBinary::Cmgt, 0, 3),
        0b00110_1 => (VecBinary::Cmhi, 0, 3),
        0b00111_0 => (VecBinary::Cmge, 0, 3),
        0b00111_1 => (VecBinary::Cmhs, 0, 3),
        0b01000_0 => (VecBinary::Sshl, 0, 3),
        0b01000_1 => (VecBinary::Ushl, 0, 3),
        0b01001_0 => (VecBinary::Sqshl, 0, 3),
        0b01001_1 => (VecBinary::Uqshl, 0, 3),
        0b01010_0 => (VecBinary::Srshl, 0, 3),
        0b01010_1 => (VecBinary::Urshl, 0, 3),
        0b01011_0 => (VecBinary::Sqrshl, 0, 3),
        0b01011_1 => (VecBinary::Uqrshl, 0, 3),
        0b01100_0 => (VecBinary::Smax, 0, 2),
        0b01100_1 => (VecBinary::Umax, 0, 2),
        0b01101_0 => (VecBinary::Smin, 0, 2),
        0b01101_1 => (VecBinary::Umin, 0, 2),
        0b01110_0 => (VecBinary::Sabd, 0, 2),
        0b01110_1 => (VecBinary::Uabd, 0, 2),
        0b01111_0 => (VecBinary::Saba, 0, 2),
        0b01111_1 => (VecBinary::Uaba, 0, 2),
        0b10000_0 => (VecBinary::Add, 0, 3),
        0b10000_1 => (VecBinary::Sub, 0, 3),
        0b10001_0 => (VecBinary::Cmtst, 0, 3),
        0b10001_1 => (VecBinary::Cmeq, 0, 3),
        0b10010_0 => (VecBinary::Mla, 0, 2),
        0b10010_1 => (VecBinary::Mls, 0, 2),
        0b10011_0 => (VecBinary::Mul, 0, 2),
        0b10011_1 => (VecBinary::Pmul, 0, 0),
        0b10100_0 => (VecBinary::Smaxp, 0, 2),
        0b10100_1 => (VecBinary::Umaxp, 0, 2),
        0b10101_0 => (VecBinary::Sminp, 0, 2),
        0b10101_1 => (VecBinary::Uminp, 0, 2),
        0b10110_0 => (VecBinary::Sqdmulh, 1, 2),
        0b10110_1 => (VecBinary::Sqrdmulh, 1, 2),
        0b10111_0 => (VecBinary::Addp, 0, 3),
        _ => return None,
    })
}

/// SQRDMLAH, SQRDMLSH, and of vectors SDOT, UDOT.
fn three_same_extra(word: u32) -> Option<Insn> {
    let op = match code(word, 11, 4) {
        0b0000_1 => (VecBinary::Sqrdmlah, 1, 2),
        0b0001_1 => (VecBinary::Sqrdmlsh, 1, 2),
        0b0010_0 if !is_scalar(word) => (VecBinary::Sdot, 2, 2),
        0b0010_1 if !is_scalar(word) => (VecBinary::Udot, 2, 2),
        _ => return None,
    };
    let size = bits(word, 22, 2);
    Some(binary(word, of_size(Some(op), size)?, halves(word, size)))
}

fn three_different(word: u32) -> Option<Insn> {
    let (code, size) = (code(word, 12, 4), bits(word, 22, 2));
    let op = match code {
        // PMULL has bytes and doublewords.
        0b1110_0 if size == 3 => VecBinary::Pmull,
        _ => of_size(three_different_op(code), size)?,
    };
    let saturates = matches!(
        op,
        VecBinary::Sqdmlal | VecBinary::Sqdmlsl | VecBinary::Sqdmull
    );
    (saturates || !is_scalar(word)).then(|| binary(word, op, halves(word, size)))
}

fn three_different_op(code: u32) -> Allocated<VecBinary> {
    Some(match code {
        0b0000_0 => (VecBinary::Saddl, 0, 2),
        0b0000_1 => (VecBinary::Uaddl, 0, 2),
        0b0001_0 => (VecBinary::Saddw, 0, 2),
        0b0001_1 => (VecBinary::Uaddw, 0, 2),
        0b0010_0 => (VecBinary::Ssubl, 0, 2),
        0b0010_1 => (VecBinary::Usubl, 0, 2),
        0b0011_0 => (VecBinary::Ssubw, 0, 2),
        0b0011_1 => (VecBinary::Usubw, 0, 2),
        0b0100_0 => (VecBinary::Addhn, 0, 2),
        0b0100_1 => (VecBinary::Raddhn, 0, 2),
        0b0110_0 => (VecBinary::Subhn, 0, 2),
        0b0110_1 => (VecBinary::Rsubhn, 0, 2),
        0b0101_0 => (VecBinary::Sabal, 0, 2),
        0b0101_1 => (VecBinary::Uabal, 0, 2),
        0b0111_0 => (VecBinary::Sabdl, 0, 2),
        0b0111_1 => (VecBinary::Uabdl, 0, 2),
        0b1000_0 => (VecBinary::Smlal, 0, 2),
        0b1000_1 => (VecBinary::Umlal, 0, 2),
        0b1010_0 => (VecBinary::Smlsl, 0, 2),
        0b1010_1 => (VecBinary::Umlsl, 0, 2),
        0b1100_0 => (VecBinary::Smull, 0, 2),
        0b1100_1 => (VecBinary::Umull, 0, 2),
        0b1001_0 => (VecBinary::Sqdmlal, 1, 2),
        0b1011_0 => (VecBinary::Sqdmlsl, 1, 2),
        0b1101_0 => (VecBinary::Sqdmull, 1, 2),
        0b1110_0 => (VecBinary::Pmull, 0, 0),
        _ => return None,
    })
}

/// Vectors and scalars times one element. Halfwords are indexed by H:L:M and come
/// from V0 to V15, words by H:L and come from any register.
fn by_element(word: u32) -> Option<Insn> {
    let (h, l, m) = (bits(word, 11, 1), bits(word, 21, 1), bits(word, 20, 1));
    let size = bits(word, 22, 2);
    let (index, rm) = match size {
        1 => (h << 2 | l << 1 | m, bits(word, 16, 4)),
        2 => (h << 1 | l, bits(word, 16, 5)),
        _ => return None,
    };
    let op = by_element_op(code(word, 12, 4))?;
    let allocated = match op {
        VecBinary::Sdot | VecBinary::Udot => size == 2 && !is_scalar(word),
        VecBinary::Sqdmulh
        | VecBinary::Sqrdmulh
        | VecBinary::Sqrdmlah
        | VecBinary::Sqrdmlsh
        | VecBinary::Sqdmlal
        | VecBinary::Sqdmlsl
        | VecBinary::Sqdmull => true,
        _ => !is_scalar(word),
    };
    allocated.then(|| Insn::VecElement {
        op,
        arrangement: halves(word, size),
        rd: rd(word),
        rn: rn(word),
        rm: VReg::new(rm),
        index: index as u8,
    })
}

fn by_element_op(code: u32) -> Option<VecBinary> {
    Some(match code {
        0b1100_0 => VecBinary::Sqdmulh,
        0b1101_0 => VecBinary::Sqrdmulh,
        0b1101_1 => VecBinary::Sqrdmlah,
        0b1111_1 => VecBinary::Sqrdmlsh,
        0b0011_0 => VecBinary::Sqdmlal,
        0b0111_0 => VecBinary::Sqdmlsl,
        0b1011_0 => VecBinary::Sqdmull,
        0b0000_1 => VecBinary::Mla,
        0b0100_1 => VecBinary::Mls,
        0b1000_0 => VecBinary::Mul,
        0b0010_0 => VecBinary::Smlal,
        0b0010_1 => VecBinary::Umlal,
        0b0110_0 => VecBinary::Smlsl,
        0b0110_1 => VecBinary::Umlsl,
        0b1010_0 => VecBinary::Smull,
        0b1010_1 => VecBinary::Umull,
        0b1110_0 => VecBinary::Sdot,
        0b1110_1 => VecBinary::Udot,
        _ => return None,
    })
}

fn two_registers(word: u32) -> Option<Insn> {
    let (code, size) = (code(word, 12, 5), bits(word, 22, 2));
    let scalar = is_scalar(word);
    let op = match code {
        // Of vectors alone.
        0b10011_1 | 0b00101_1 | 0b10010_0 if scalar => return None,
        0b10011_1 => of_size(Some((VecUnary::Shll, 0, 2)), size)?,
        0b00101_1 => match size {
            0 => VecUnary::Not,
            1 => VecUnary::Rbit,
            _ => return None,
        },
        _ => of_size(two_registers_op(code), size)?,
    };
    if let VecUnary::Shll | VecUnary::Xtn | VecUnary::Sqxtun | VecUnary::Sqxtn | VecUnary::Uqxtn =
        op
    {
        return Some(unary(word, op, halves(word, size)));
    }
    let bytes = matches!(op, VecUnary::Not | VecUnary::Rbit);
    if scalar {
        let allocated = match code >> 1 {
            // SUQADD, USQADD, SQABS, SQNEG.
            0b00011 | 0b00111 => true,
            // Comparisons with zero, ABS, NEG.
            0b01000..=0b01011 => size == 3,
            _ => false,
        };
        if !allocated {
            return None;
        }
    }
    let arrangement = lanes(word, if bytes { 0 } else { size })?;
    Some(unary(word, op, arrangement))
}

fn two_registers_op(code: u32) -> Allocated<VecUnary> {
    Some(match code {
        0b00011_0 => (VecUnary::Suqadd, 0, 3),
        0b00011_1 => (VecUnary::Usqadd, 0, 3),
        0b00111_0 => (VecUnary::Sqabs, 0, 3),
        0b00111_1 => (VecUnary::Sqneg, 0, 3),
        0b01000_0 => (VecUnary::CmgtZero, 0, 3),
        0b01000_1 => (VecUnary::CmgeZero, 0, 3),
        0b01001_0 => (VecUnary::CmeqZero, 0, 3),
        0b01001_1 => (VecUnary::CmleZero, 0, 3),
        0b01010_0 => (VecUnary::CmltZero, 0, 3),
        0b01011_0 => (VecUnary::Abs, 0, 3),
        0b01011_1 => (VecUnary::Neg, 0, 3),
        0b00000_0 => (VecUnary::Rev64, 0, 2),
        0b00000_1 => (VecUnary::Rev32, 0, 1),
        0b00001_0 => (VecUnary::Rev16, 0, 0),
        0b00010_0 => (VecUnary::Saddlp, 0, 2),
        0b00010_1 => (VecUnary::Uaddlp, 0, 2),
        0b00100_0 => (VecUnary::Cls, 0, 2),
        0b00100_1 => (VecUnary::Clz, 0, 2),
        0b00101_0 => (VecUnary::Cnt, 0, 0),
        0b00110_0 => (VecUnary::Sadalp, 0, 2),
        0b00110_1 => (VecUnary::Uadalp, 0, 2),
        0b10010_0 => (VecUnary::Xtn, 0, 2),
        0b10010_1 => (VecUnary::Sqxtun, 0, 2),
        0b10100_0 => (VecUnary::Sqxtn, 0, 2),
        0b10100_1 => (VecUnary::Uqxtn, 0, 2),
        _ => return None,
    })
}

/// Reductions over all lanes.
fn across(word: u32) -> Option<Insn> {
    let size = bits(word, 22, 2);
    let full = bit(word, 30);
    if size == 3 || size == 2 && !full {
        return None;
    }
    let op = match code(word, 12, 5) {
        0b00011_0 => VecUnary::Saddlv,
        0b00011_1 => VecUnary::Uaddlv,
        0b01010_0 => VecUnary::Smaxv,
        0b01010_1 => VecUnary::Umaxv,
        0b11010_0 => VecUnary::Sminv,
        0b11010_1 => VecUnary::Uminv,
        0b11011_0 => VecUnary::Addv,
        _ => return None,
    };
    Some(unary(word, op, Arrangement::vector(size, full)))
}

/// ADDP of the two doublewords of Vn.
fn pairwise(word: u32) -> Option<Insn> {
    let is_addp = code(word, 12, 5) == 0b11011_0 && bits(word, 22, 2) == 3;
    is_addp.then(|| unary(word, VecUnary::AddPair, Arrangement::D2))
}

/// Shifts by immediate. Counts share immh:immb with the element size: left shifts
/// count up from the element's bits, right shifts down from twice that. The
/// fixed-point conversions of the same class are floating-point instructions.
fn shift(word: u32) -> Option<Insn> {
    // The position of the highest set bit of immh.
    let size = bits(word, 19, 4).checked_ilog2()?;
    let op = of_size(shift_op(code(word, 11, 5)), size)?;
    let amount = match op {
        VecShift::Shl
        | VecShift::Sli
        | VecShift::Sqshlu
        | VecShift::Sqshl
        | VecShift::Uqshl
        | VecShift::Sshll
        | VecShift::Ushll => bits(word, 16, 7) - (8 << size),
        _ => (16 << size) - bits(word, 16, 7),
    };
    let arrangement = match op {
        VecShift::Sshll | VecShift::Ushll | VecShift::Shrn | VecShift::Rshrn if is_scalar(word) => {
            return None;
        }
        _ if op.changes_size() => halves(word, size),
        VecShift::Sqshlu | VecShift::Sqshl | VecShift::Uqshl => lanes(word, size)?,
        _ if is_scalar(word) && size != 3 => return None,
        _ => lanes(word, size)?,
    };
    Some(Insn::VecShift {
        op,
        arrangement,
        rd: rd(word),
        rn: rn(word),
        amount: amount as u8,
    })
}

fn shift_op(code: u32) -> Allocated<VecShift> {
    Some(match code {
        0b00000_0 => (VecShift::Sshr, 0, 3),
        0b00000_1 => (VecShift::Ushr, 0, 3),
        0b00010_0 => (VecShift::Ssra, 0, 3),
        0b00010_1 => (VecShift::Usra, 0, 3),
        0b00100_0 => (VecShift::Srshr, 0, 3),
        0b00100_1 => (VecShift::Urshr, 0, 3),
        0b00110_0 => (VecShift::Srsra, 0, 3),
        0b00110_1 => (VecShift::Ursra, 0, 3),
        0b01000_1 => (VecShift::Sri, 0, 3),
        0b01010_0 => (VecShift::Shl, 0, 3),
        0b01010_1 => (VecShift::Sli, 0, 3),
        0b01100_1 => (VecShift::Sqshlu, 0, 3),
        0b01110_0 => (VecShift::Sqshl, 0, 3),
        0b01110_1 => (VecShift::Uqshl, 0, 3),
        0b10100_0 => (VecShift::Sshll, 0, 2),
        0b10100_1 => (VecShift::Ushll, 0, 2),
        0b10000_0 => (VecShift::Shrn, 0, 2),
        0b10001_0 => (VecShift::Rshrn, 0, 2),
        0b10000_1 => (VecShift::Sqshrun, 0, 2),
        0b10001_1 => (VecShift::Sqrshrun, 0, 2),
        0b10010_0 => (VecShift::Sqshrn, 0, 2),
        0b10010_1 => (VecShift::Uqshrn, 0, 2),
        0b10011_0 => (VecShift::Sqrshrn, 0, 2),
        0b10011_1 => (VecShift::Uqrshrn, 0, 2),
        _ => return None,
    })
}
