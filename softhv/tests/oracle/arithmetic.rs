//! Arithmetic on fields and registers, as the Arm ARM's shared functions
//! (J1.3) define it.

/// Bits `high` to `low` of an instruction.
pub fn bits(word: u32, high: u32, low: u32) -> u32 {
    word >> low & (u32::MAX >> (31 - (high - low)))
}

/// Bit `at` of an instruction.
pub fn bit(word: u32, at: u32) -> bool {
    word >> at & 1 == 1
}

/// The lowest `count` bits set.
pub fn ones(count: u32) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// `value`, a signed number of `width` bits, with 64.
pub fn sign_extend(value: u64, width: u32) -> u64 {
    let above = 64 - width;
    ((value << above) as i64 >> above) as u64
}

/// Bits `high` to `low` of an instruction as a signed number.
pub fn signed_bits(word: u32, high: u32, low: u32) -> u64 {
    sign_extend(u64::from(bits(word, high, low)), high - low + 1)
}

/// Rotates the lowest `width` bits right.
pub fn rotate_right(value: u64, by: u32, width: u32) -> u64 {
    let (value, by) = (value & ones(width), by % width);
    if by == 0 {
        return value;
    }
    (value >> by | value << (width - by)) & ones(width)
}

/// `element` of `size` bits, as often as 64 bits hold it.
pub fn replicate(element: u64, size: u32) -> u64 {
    (0..64 / size).fold(0, |all, i| all | element << (i * size))
}

/// The masks of logical immediates and of bitfield moves (DecodeBitMasks), of
/// 64 bits; none for reserved values.
pub fn bit_masks(n: u32, imms: u32, immr: u32, is_logical: bool) -> Option<(u64, u64)> {
    let length = (n << 6 | !imms & 0x3f).checked_ilog2()?;
    if length < 1 {
        return None;
    }
    let levels = (1 << length) - 1;
    if is_logical && imms & levels == levels {
        return None;
    }
    let (s, r) = (imms & levels, immr & levels);
    let size = 1 << length;
    let difference = s.wrapping_sub(r) & levels;
    let first = rotate_right(ones(s + 1), r, size);
    Some((
        replicate(first, size),
        replicate(ones(difference + 1), size),
    ))
}

/// `a + b + carry` of `width` bits, with N, Z, C and V.
pub fn add_with_carry(a: u64, b: u64, carry: bool, width: u32) -> (u64, u8) {
    let (a, b) = (a & ones(width), b & ones(width));
    let unsigned = u128::from(a) + u128::from(b) + u128::from(carry);
    let signed = |value| i128::from(sign_extend(value, width) as i64);
    let signed_sum = signed(a) + signed(b) + i128::from(carry);
    let result = unsigned as u64 & ones(width);
    let c = u128::from(result) != unsigned;
    let v = signed(result) != signed_sum;
    let flags = negative_zero(result, width) | u8::from(c) << 1 | u8::from(v);
    (result, flags)
}

/// N and Z of a result of `width` bits, with C and V clear.
pub fn negative_zero(result: u64, width: u32) -> u8 {
    let n = result >> (width - 1) & 1;
    let z = u8::from(result & ones(width) == 0);
    (n as u8) << 3 | z << 2
}

/// Shifts of registers: LSL, LSR, ASR, ROR.
pub fn shift(value: u64, how: u32, by: u32, width: u32) -> u64 {
    let value = value & ones(width);
    let result = match how {
        0 => value << by,
        1 => value >> by,
        2 => (sign_extend(value, width) as i64 >> by) as u64,
        _ => rotate_right(value, by, width),
    };
    result & ones(width)
}

/// Extends as `option` says (UXTB to SXTX), then shifts left.
pub fn extend(value: u64, option: u32, by: u32) -> u64 {
    let width = 8 << (option & 3);
    let extended = if option & 4 == 0 {
        value & ones(width)
    } else {
        sign_extend(value, width)
    };
    extended << by
}

/// Whether the condition holds (ConditionHolds).
pub fn holds(condition: u32, flags: u8) -> bool {
    let [n, z, c, v] = [8, 4, 2, 1].map(|mask| flags & mask != 0);
    let base = match condition >> 1 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => true,
    };
    base != (condition & 1 == 1 && condition != 15)
}

/// A CRC of `bytes` bytes bit by bit, lowest first, with the reflected
/// polynomial.
pub fn crc(sum: u32, value: u64, bytes: u32, polynomial: u32) -> u32 {
    (0..8 * bytes).fold(sum, |sum, at| {
        let odd = (u64::from(sum) ^ value >> at) & 1 == 1;
        sum >> 1 ^ if odd { polynomial } else { 0 }
    })
}
