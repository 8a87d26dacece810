//! The decoded code of one page.

/// Instructions of a page, by one bit each.
const WORDS: usize = 1024 / 64;

/// What is known of a page that code was decoded from.
#[derive(Clone, Debug, Default)]
pub struct PageCode {
    /// The block that was decoded last, by its number.
    pub last: Option<u32>,
    /// Instructions that some block has or had: whoever asks for another need not go
    /// through them.
    covered: [u64; WORDS],
}

impl PageCode {
    /// A block has the bytes from `start` to `end`.
    pub fn cover(&mut self, start: u16, end: u16) {
        for number in start / 4..end.div_ceil(4) {
            if let Some(word) = self.covered.get_mut(usize::from(number / 64)) {
                *word |= 1 << (number % 64);
            }
        }
    }

    /// Whether a block may have the instruction at byte `offset`.
    pub fn may_have(&self, offset: u16) -> bool {
        let number = offset / 4;
        let word = self.covered.get(usize::from(number / 64));
        word.is_some_and(|word| word & 1 << (number % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_blocks_are_covered_and_no_others() {
        let mut page = PageCode::default();
        page.cover(0xfc, 0x104);
        page.cover(0xffc, 0x1000);
        let found: Vec<u16> = (0..0x1000u16)
            .step_by(4)
            .filter(|at| page.may_have(*at))
            .collect();
        assert_eq!(found, [0xfc, 0x100, 0xffc]);
        assert!(!page.may_have(0x1000));
    }
}
