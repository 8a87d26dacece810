//! The words that blocks were decoded from, for a tier that compiles them.

/// Words per chunk: 256 KiB. A power of two.
const CHUNK_WORDS: usize = 1 << 16;

/// Words, each block's one behind the other.
#[derive(Debug, Default)]
pub struct Words {
    /// None is ever grown beyond its room.
    chunks: Vec<Vec<u32>>,
}

impl Words {
    /// Keeps the words of a block; where they are.
    pub fn keep(&mut self, words: &[u32]) -> u32 {
        let last = self.chunks.last();
        if last.is_none_or(|chunk| chunk.len() + words.len() > CHUNK_WORDS) {
            self.chunks.push(Vec::with_capacity(CHUNK_WORDS));
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let place = number * CHUNK_WORDS + chunk.len();
        chunk.extend_from_slice(words);
        place as u32
    }

    /// The `count` words at `place`, where a block has them.
    pub fn get(&self, place: u32, count: usize) -> Option<&[u32]> {
        let chunk = self.chunks.get(place as usize / CHUNK_WORDS)?;
        let from = place as usize % CHUNK_WORDS;
        chunk.get(from..from.checked_add(count)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_block_stay_together() {
        let mut words = Words::default();
        let places: Vec<u32> = (0..2000).map(|n| words.keep(&[n; 63])).collect();
        for (n, place) in (0..).zip(places) {
            assert_eq!(words.get(place, 63), Some(&[n; 63][..]));
            assert_eq!(words.get(place + 60, 3), Some(&[n; 3][..]));
        }
        assert_eq!(words.get(u32::MAX, 1), None);
    }
}
