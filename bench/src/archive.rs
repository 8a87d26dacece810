//! A tar archive of made-up files, which is never in memory as a whole.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Files of one directory.
const DIRECTORY: usize = 500;
const WORDS: usize = 4096;
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

/// What an archive is to have in it.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// How many.
    pub count: usize,
    /// The length of each, but that every other is longer or shorter by a third.
    pub bytes: usize,
    /// Other files for another number.
    pub seed: u64,
}

/// Reads as a tar archive of such files. Their content compresses about as well as
/// what is in images: words in no order.
pub struct Archive {
    files: Files,
    words: Vec<Vec<u8>>,
    random: u64,
    next: usize,
    piece: Vec<u8>,
    read: usize,
}

impl Archive {
    pub fn new(files: Files) -> Self {
        let mut random = files.seed.wrapping_mul(2).wrapping_add(1);
        let words = (0..WORDS)
            .map(|_| {
                let length = 3 + pick(&mut random, 9);
                let mut word: Vec<u8> = (0..length)
                    .map(|_| LETTERS[pick(&mut random, LETTERS.len())])
                    .collect();
                word.push(b' ');
                word
            })
            .collect();
        Self {
            files,
            words,
            random,
            next: 0,
            piece: Vec::new(),
            read: 0,
        }
    }

    /// Makes the next member, or the end; whether there was one.
    fn fill(&mut self) -> bool {
        self.piece.clear();
        self.read = 0;
        let at = self.next;
        self.next += 1;
        if at == self.files.count {
            self.piece.resize(2 * BLOCK, 0);
        }
        if at >= self.files.count {
            return at == self.files.count;
        }
        let third = self.files.bytes / 3;
        let bytes = match at % 2 {
            0 => self.files.bytes - third,
            _ => self.files.bytes + third,
        };
        if at.is_multiple_of(DIRECTORY) {
            let name = format!("d{}/", at / DIRECTORY);
            self.piece.extend(header(&name, 0o755, 0, b'5'));
        }
        let name = format!("d{}/file-{at}", at / DIRECTORY);
        self.piece.extend(header(&name, 0o644, bytes, b'0'));
        let end = self.piece.len() + bytes;
        while self.piece.len() < end {
            let word = pick(&mut self.random, WORDS);
            self.piece.extend_from_slice(&self.words[word]);
        }
        self.piece.truncate(end);
        self.piece.resize(end.next_multiple_of(BLOCK), 0);
        true
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() && !self.fill() {
            return Ok(0);
        }
        let rest = &self.piece[self.read..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

/// One of so many numbers, by Marsaglia's xorshift: any quality will do.
fn pick(random: &mut u64, of: usize) -> usize {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    usize::try_from(*random >> 40).unwrap_or(0) % of
}

/// A header of POSIX.1-1988's format.
fn header(name: &str, mode: u32, bytes: usize, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{bytes:011o}"));
    put(136, "00000000000");
    // The sum counts its own field as spaces.
    put(148, "        ");
    put(257, "ustar\0");
    put(263, "00");
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_whole_blocks_and_the_same_again() {
        let files = Files {
            count: 3,
            bytes: 900,
            seed: 5,
        };
        let read = || {
            let mut bytes = Vec::new();
            Archive::new(files).read_to_end(&mut bytes).unwrap();
            bytes
        };
        let bytes = read();
        // A directory, files of 600, 1,200 and 600 bytes, and the end.
        assert_eq!(bytes.len(), (1 + 3 + 4 + 3 + 2) * BLOCK);
        assert_eq!(&bytes[BLOCK..BLOCK + 10], b"d0/file-0\0");
        assert_eq!(bytes, read());
    }
}
