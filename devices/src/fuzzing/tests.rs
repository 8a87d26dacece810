//! Replay of a corpus, and of what a mutator with a fixed seed makes of it,
//! for a bounded time.

use std::time::{Duration, Instant};

use super::*;

const BUDGET: Duration = Duration::from_millis(1200);
const MAX_INPUT: usize = 600;

/// SplitMix64, by Sebastiano Vigna (public domain): enough for mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(4) {
            0 if at < input.len() => input[at] = random.byte(),
            1 => input.insert(at, random.byte()),
            2 if at < input.len() => drop(input.remove(at)),
            _ => {
                let tail: Vec<u8> = (0..random.below(40)).map(|_| random.byte()).collect();
                input.extend(tail);
            }
        }
    }
    input.truncate(MAX_INPUT);
}

fn replay(target: fn(&[u8]), corpus: &[&[u8]], seed: u64) {
    for input in corpus {
        target(input);
    }
    let mut random = Random(seed);
    let mut pool: Vec<Vec<u8>> = corpus.iter().map(|input| input.to_vec()).collect();
    let start = Instant::now();
    let mut runs = 0;
    while start.elapsed() < BUDGET {
        let at = random.below(pool.len());
        let mut input = pool[at].clone();
        mutate(&mut random, &mut input);
        target(&input);
        runs += 1;
        // A slowly growing pool keeps inputs of several generations.
        if runs % 16 == 0 && pool.len() < 256 {
            pool.push(input);
        }
    }
    println!("{runs} runs");
    assert!(runs > 0);
}

#[test]
fn registers_keep_their_promises() {
    let corpus: [&[u8]; 4] = [
        b"",
        b"\x01\x06\x00\x00\x06\x01\x00\x07",
        b"\x01\x05\x00\x00\x02\x10\x20\x00\x00\x04\x40\x02\x00\x00\x00\x06\x00\x00",
        b"\x00\x00\x08\x03\x01\x00\x08\x03\x03\x00\x08\x03\x0b\x00\x08\x03\x0f\x07",
    ];
    replay(fuzz_mmio, &corpus, 1);
}

#[test]
fn block_requests_keep_their_promises() {
    let corpus: [&[u8]; 4] = [
        b"",
        b"\x01\x01\x01\x00\x01\x02\x01\x01\x01\x00\x01\x02\x02\x00\x40\x00\x00\x02\x01\x01\x01",
        b"\x01\x01\x01\x01\x01\x02\x01\x01\x01\x00\x01\x02\x02\x00\x40\x00\x00\x02\x01\x01\x01",
        b"\x00\x01\x01\x05\x01\x02\x01\x01\x04\x00\x00\x01\x01\x00\x00\x00",
    ];
    replay(fuzz_blk, &corpus, 2);
}

#[test]
fn socket_packets_keep_the_tables_sound() {
    let corpus: [&[u8]; 4] = [
        b"",
        b"\x10\x00\x40\x07\x04\x00\x02\x00\x40\x07\x03\x04\x01\x01\x03",
        b"\x10\x00\x01\x07\x03\x05\x01\x01\x01\x01\x09\x00\x03\x00\x2c\x01\x00\x01\x40\x00\x03",
        b"\x10\x00\x00\x01\x00\x00\x03\x05\x01\x40\x10\x00\x01\x04\x09\x00\x03\x00\x10",
    ];
    replay(fuzz_vsock, &corpus, 3);
}

#[test]
fn balloon_requests_discard_pages_of_ram_alone() {
    let corpus: [&[u8]; 4] = [
        b"",
        b"\x00\x03\x08\x01\x02\x03\x04\x05\x06\x07\x08\x00\x02\x08\x01\x01",
        b"\x02\x03\x00\x00\x01\x01\x00\x80\x00\x00\x10\x01\x01",
        b"\x00\x00\x10\x00\x00\x00\x00\x02\x00\x01\x04\x01\x02\x03\x04\x05\x06\x07\x08\x04",
    ];
    replay(fuzz_balloon, &corpus, 4);
}

#[test]
fn memory_requests_keep_the_owners_account() {
    let corpus: [&[u8]; 3] = [
        b"",
        b"\x4f\x00\x20\x03\x01\x00\x05\x04\x02\x01\x03\x01\x02\x06\x02\x02\x02",
        b"\x4f\x00\x40\x03\x01\x00\x01\x0b\x02\x03\x01\x04\x01\x01\x02\x03\x01\x05\x01\x01\x02",
    ];
    replay(fuzz_mem, &corpus, 5);
}

#[test]
fn frames_arrive_as_they_were_sent_and_nowhere_else() {
    let corpus: [&[u8]; 5] = [
        b"",
        // Two buffers on offer; a frame given, told of and read.
        b"\x01\x00\x03\x00\x04\x08\x01\x40\x10\x00\x10\x00\x0b\x0c",
        // One that takes three buffers.
        b"\x01\x00\x02\x00\x02\x00\x02\x08\x01\x8c\x10\x00\x10\x00\x0b\x0c",
        // Two frames sent, one in pieces, and taken; back to that moment in between.
        b"\x01\x03\x01\x00\x02\xff\x03\x0a\xff\x1f\xff\x0e\x06",
        // One sent, and a ring that is broken.
        b"\x00\x03\x01\x00\x02\xff\x0f\x01\x01\x02\x00\x10\x00\x00\x03\xff\x01\x00\x02\x00\x00\x00\x02\x00\x06",
    ];
    replay(fuzz_net, &corpus, 7);
}

#[test]
fn directory_requests_stay_in_the_directory() {
    // Each operation is a request, a node, some arguments and room for the answer.
    let corpus: [&[u8]; 6] = [
        b"",
        // LOOKUP a, SETUPMAPPING of it, a loss, REMOVEMAPPING.
        b"\x01\x00\x01\x01\x01\x02\x00\x00\x0f\
          \x30\x02\x05\x00\x08\x00\x08\x00\xff\x01\x00\x02\x00\xff\x01\x00\x0f\
          \x27\x02\x00\x00\x0f\x01\x31\x01\x03\x01\x01\x00\xff\x01\x00\xff\x01\x00\x0f",
        // LOOKUP a, OPEN it, READ it.
        b"\x01\x00\x01\x01\x01\x02\x00\x00\x0f\x0e\x02\x02\x01\x02\x01\x00\x00\x0f\
          \x0f\x01\x05\x00\x01\x00\x00\x01\x40\x00\x00\x00\x00\x00\x0f",
        // LOOKUP out, READLINK it, look below it.
        b"\x01\x00\x01\x01\x01\x02\x03\x00\x0f\x05\x02\x00\x00\x0f\x01\x02\x01\x02\x00\x00\x0f",
        // MKDIR new, SYMLINK b to .., RENAME new to b, UNLINK b.
        b"\x01\x00\x09\x01\x03\x01\xff\x01\x00\x02\x05\x00\x0f\x06\x01\x02\x02\x04\x02\x06\x00\x0f\
          \x0c\x01\x03\x00\x01\x02\x05\x02\x04\x00\x0f\x0a\x01\x01\x02\x04\x00\x0f",
        // OPENDIR and READDIRPLUS of the directory itself.
        b"\x01\x00\x1b\x01\x01\x00\x00\x00\x0f\x2c\x01\x05\x00\x01\x00\x00\x01\xff\x01\x00\x00\x00\x00\x0f",
    ];
    replay(fuzz_fs, &corpus, 6);
}
