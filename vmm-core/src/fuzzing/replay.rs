//! Seeds, and a mutator with a fixed seed, for the stable toolchain.

use std::time::{Duration, Instant};

use super::{fuzz_fdt, fuzz_kernel_image, fuzz_psci, fuzz_spec, fuzz_syndrome};

/// Time for one target. The number of runs depends on the machine, the
/// inputs and their order do not.
const BUDGET: Duration = Duration::from_millis(700);
const MAX_INPUT: usize = 5000;

/// xorshift64*: small, and good enough to pick bytes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(7) {
            0 if at < input.len() => input[at] = random.byte(),
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 => input.insert(at, random.byte()),
            3 if at < input.len() => drop(input.remove(at)),
            4 => input.truncate(at),
            5 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ => {
                let tail = random.below(48);
                input.extend((0..tail).map(|_| random.byte()));
            }
        }
    }
    input.truncate(MAX_INPUT);
}

fn replay(target: fn(&[u8]), seeds: &[Vec<u8>], seed: u64) {
    let mut pool = seeds.to_vec();
    pool.push(Vec::new());
    for input in &pool {
        target(input);
    }
    let mut random = Random(seed);
    let start = Instant::now();
    let mut runs = 0_u64;
    while start.elapsed() < BUDGET {
        let mut input = pool[random.below(pool.len())].clone();
        mutate(&mut random, &mut input);
        target(&input);
        runs += 1;
        // A slowly growing pool keeps inputs of several generations.
        if runs.is_multiple_of(16) && pool.len() < 256 {
            pool.push(input);
        }
    }
    println!("{runs} runs");
    assert!(runs > 0);
}

/// Sizes of RAM and the files as small numbers, then a header.
fn kernel(text_offset: u64, image_bytes: u64) -> Vec<u8> {
    let mut input = vec![1, 0, 0x10, 0, 0, 1, 0, 0, 0x80, 0, 1, 0, 0, 0x20, 0];
    let start = input.len();
    input.resize(start + 64, 0);
    input[start + 8..start + 16].copy_from_slice(&text_offset.to_le_bytes());
    input[start + 16..start + 24].copy_from_slice(&image_bytes.to_le_bytes());
    input[start + 56..start + 60].copy_from_slice(b"ARM\x64");
    input
}

#[test]
fn kernels_are_placed_in_ram_or_nowhere() {
    let seeds = [
        kernel(0, 32 << 20),
        kernel(0x8_0000, 0),
        kernel(u64::MAX - 8, u64::MAX),
    ];
    replay(fuzz_kernel_image, &seeds, 1);
}

/// One exit: syndrome, any address, value of the register, answer.
fn exit(syndrome: u64, address: u64) -> Vec<u8> {
    let mut input = syndrome.to_le_bytes().to_vec();
    input.push(0);
    for value in [address, 0x8182_8384_8586_8788, 0xf1f2_f3f4_f5f6_f7f8] {
        input.extend(value.to_le_bytes());
    }
    input
}

#[test]
fn every_syndrome_has_its_meaning() {
    let mut seeds: Vec<Vec<u8>> = (0..16)
        .map(|n: u64| {
            let flags = (n & 1) << 6 | (n >> 1 & 1) << 21 | (n >> 2 & 1) << 15;
            let syndrome = 0x93 << 24 | (n & 3) << 22 | flags | (n + 16) << 16;
            exit(syndrome, 0x0c10_01f8 + n)
        })
        .collect();
    // MSR OSLAR_EL1, XZR and MRS X3, PMCR_EL0.
    seeds.push(exit(0x6228_07e0, 0));
    seeds.push(exit(0x6230_e479, u64::MAX));
    replay(fuzz_syndrome, &seeds, 2);
}

#[test]
fn every_firmware_call_has_its_answer() {
    let seeds: Vec<Vec<u8>> = (0..12)
        .map(|n| {
            let mut input = vec![n, 2, 0];
            input.extend([0xde; 24]);
            input
        })
        .collect();
    replay(fuzz_psci, &seeds, 3);
}

#[test]
fn every_device_tree_can_be_read() {
    let mut machine = vec![7, 17, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0x10];
    machine.extend([1, 1, 0, 0, 0, 0x88, 1, 0, 0, 0x10, 0x88]);
    machine.extend([0, 1, 0, 0, 1, 0, 1, 0, 0, 2, 0, 15, 0]);
    machine.extend(b"console=ttyAMA0");
    replay(fuzz_fdt, &[machine, vec![0xff; 64]], 4);
}

#[test]
fn descriptions_are_accepted_if_they_say_enough() {
    // An engine of 16 vCPUs and 2,000 interrupts; a machine of 2 vCPUs and 4
    // possible ones, 256 MiB, two disks and a volume.
    let mut machine = vec![16, 0, 0, 0, 0xd0, 7, 0, 0, 2, 0, 0];
    machine.extend([2, 0, 0, 0, 4, 0, 0, 0, 3, 28, 128, 2, 1, 15, 0]);
    machine.extend(b"console=ttyAMA0");
    machine.extend([7, 0]);
    machine.extend(b"panic=1");
    let mut long = vec![0xff; 12];
    long.resize(MAX_INPUT, b'a');
    replay(fuzz_spec, &[machine, long], 5);
}

/// Panics of threads that machines have, whoever waits for them.
#[cfg(feature = "softhv")]
fn panics_of_machines() -> u32 {
    use std::sync::Once;
    use std::sync::atomic::{AtomicU32, Ordering};

    static PANICS: AtomicU32 = AtomicU32::new(0);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with("vm-")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            usual(panic);
        }));
    });
    PANICS.load(Ordering::Relaxed)
}

#[cfg(feature = "softhv")]
#[test]
fn damaged_machines_are_refused_or_run() {
    let one = crate::machine::ONE_MACHINE.lock();
    let _one = one.unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = panics_of_machines();
    // One change each: section, place, kind of change, value.
    let change = |section: u8, at: u16, operation: u8, value: u64| {
        let [low, high] = at.to_le_bytes();
        let mut input = vec![0, section, low, high, operation, 0];
        input.extend(value.to_le_bytes());
        input
    };
    let mut seeds = Vec::new();
    for section in 0..12 {
        for at in [0, 1, 2, 5, 9, 17, 30, 64, 200, 700] {
            seeds.push(change(section, at, 2, u64::MAX));
            seeds.push(change(section, at, 3, 0x7fff_ffff_ffff));
        }
    }
    replay(super::fuzz_saved_machine, &seeds, 6);
    assert_eq!(panics_of_machines(), before);
}
