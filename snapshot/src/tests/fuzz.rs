//! Replays the fuzz targets with mutations of valid files, fixed seed, bounded
//! time.

use super::*;
use crate::fuzzing::{fuzz_fields, fuzz_manifest, fuzz_state, fuzz_working_set};
use std::time::Instant;

/// Longest run of one target, and the mutations it gets if it is quick.
const LIMIT: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 100_000;

struct Mutator(u64);

impl Mutator {
    fn next(&mut self) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                2 => bytes.truncate(at),
                3 => bytes.extend(self.next().to_le_bytes()),
                4 if at + 4 <= bytes.len() => {
                    let edge = [0, 1, u32::MAX, 1 << 31][self.below(4)];
                    bytes[at..at + 4].copy_from_slice(&edge.to_le_bytes());
                }
                _ => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let copy = bytes[at.min(end)..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
            }
        }
        bytes
    }
}

fn replay(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    for seed in seeds {
        target(seed);
    }
    let mut mutator = Mutator(0x5eed);
    let end = Instant::now() + LIMIT;
    for round in 0..ROUNDS {
        let seed = mutator.below(seeds.len());
        target(&mutator.mutate(&seeds[seed]));
        if round % 256 == 0 && Instant::now() > end {
            break;
        }
    }
}

#[test]
fn state_files() {
    let empty = StateWriter::new();
    let empty = empty.finish().unwrap();
    replay(fuzz_state, &[state(1), empty, Vec::new()]);
}

#[test]
fn manifests() {
    let inner = serde_json::to_vec(&manifest()).unwrap();
    replay(fuzz_manifest, &[manifest().encode().unwrap(), inner]);
}

#[test]
fn working_sets() {
    let sets = [vec![], vec![1, 2, 9], (0..300).step_by(3).collect()];
    let seeds = sets.map(|pages| WorkingSet::from_pages(pages).encode());
    replay(fuzz_working_set, &seeds);
}

#[test]
fn fields() {
    let plan: Vec<u8> = (0..16).collect();
    replay(fuzz_fields, &[[plan, vec![1; 64]].concat(), vec![7; 100]]);
}
