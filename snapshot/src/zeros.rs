//! CRC32C over zeros, of which a machine's memory has many.

/// The polynomial of CRC32C, its bits in reverse (RFC 3720, section 12.1).
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// A run of zeros is taken in steps of powers of two, from this one on.
const FIRST_POWER: u32 = 12;
/// The last step is as long as a chunk of memory.
const POWERS: usize = 10;

/// What zeros make of each bit of a checksum.
type Step = [u32; 32];

/// One step for each power of two from [`FIRST_POWER`] on, in bytes.
static STEPS: [Step; POWERS] = steps();

const fn take(step: &Step, state: u32) -> u32 {
    let mut after = 0;
    let mut bit = 0;
    while bit < 32 {
        // All bits, or none.
        after ^= step[bit] & 0u32.wrapping_sub((state >> bit) & 1);
        bit += 1;
    }
    after
}

const fn twice(step: &Step) -> Step {
    let mut both = [0; 32];
    let mut bit = 0;
    while bit < 32 {
        both[bit] = take(step, step[bit]);
        bit += 1;
    }
    both
}

const fn steps() -> [Step; POWERS] {
    // One bit of zero.
    let mut step = [0; 32];
    step[0] = POLYNOMIAL;
    let mut bit = 1;
    while bit < 32 {
        step[bit] = 1 << (bit - 1);
        bit += 1;
    }
    // Eight bits are a byte.
    let mut power = 0;
    while power < 3 + FIRST_POWER {
        step = twice(&step);
        power += 1;
    }
    let mut all = [step; POWERS];
    let mut power = 1;
    while power < POWERS {
        all[power] = twice(&all[power - 1]);
        power += 1;
    }
    all
}

/// The checksum of what has the checksum `crc`, and so many zeros behind it.
pub(crate) fn append_zeros(crc: u32, bytes: u64) -> u32 {
    const ZEROS: [u8; 1 << FIRST_POWER] = [0; 1 << FIRST_POWER];
    let first = ZEROS.len() as u64;
    let few = usize::try_from(bytes % first).unwrap_or(0);
    let crc = crc32c::crc32c_append(crc, &ZEROS[..few]);
    let mut steps = bytes / first;
    let mut state = !crc;
    for step in &STEPS {
        if steps & 1 != 0 {
            state = take(step, state);
        }
        steps >>= 1;
    }
    // What is longer than all steps together, which no caller has.
    for _ in 0..steps.saturating_mul(2) {
        state = take(&STEPS[POWERS - 1], state);
    }
    !state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_appended_as_if_they_were_there() {
        let zeros = vec![0; 9 << 20];
        for start in [&b""[..], b"\0", b"123456789", &[0xff; 100]] {
            let crc = crc32c::crc32c(start);
            for bytes in [
                0,
                1,
                4095,
                4096,
                4097,
                12 << 10,
                0x1f_f000,
                2 << 20,
                9 << 20,
            ] {
                let expected = crc32c::crc32c_append(crc, &zeros[..bytes]);
                assert_eq!(append_zeros(crc, bytes as u64), expected, "{bytes}");
            }
        }
        // The checksum of 32 zeros of RFC 3720, section B.4.
        assert_eq!(append_zeros(0, 32), 0x8a91_36aa);
    }
}
