//! Our kernel loader behind linux-loader's trait, and against its own loader
//! where that exists.

use std::io::Cursor;

use linux_loader::loader::{Error, KernelLoader, KernelLoaderResult};
use supermachine_vmm_core::arch::aarch64::boot::ArmImage;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const BASE: GuestAddress = GuestAddress(0x8000_0000);
const RAM_BYTES: usize = 8 << 20;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(BASE, RAM_BYTES)]).unwrap()
}

/// An `Image` of `file_bytes` bytes (Linux,
/// Documentation/arch/arm64/booting.rst §4).
fn kernel(text_offset: u64, image_bytes: u64, file_bytes: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..file_bytes).map(|at| at.to_le_bytes()[0]).collect();
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_bytes.to_le_bytes());
    image[24..32].copy_from_slice(&0b1010_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

type Outcome = Result<(KernelLoaderResult, Vec<u8>), Error>;

/// What a loader says and what is in memory then.
fn outcome<L: KernelLoader>(image: &[u8], base: GuestAddress) -> Outcome {
    let memory = memory();
    let result = L::load(&memory, Some(base), &mut Cursor::new(image), None)?;
    let mut ram = vec![0; RAM_BYTES];
    memory.read_slice(&mut ram, BASE).unwrap();
    Ok((result, ram))
}

#[test]
fn a_kernel_is_loaded_through_the_trait_with_room_for_what_it_clears() {
    let image = kernel(0x1000, 1 << 20, 5000);
    let (result, ram) = outcome::<ArmImage>(&image, BASE).unwrap();
    assert_eq!(result.kernel_load, GuestAddress(BASE.0 + 0x1000));
    assert_eq!(result.kernel_end, BASE.0 + 0x1000 + (1 << 20));
    assert_eq!(ram[0x1000..0x1000 + 5000], image);
}

#[test]
fn what_is_no_kernel_or_has_no_room_is_refused_through_the_trait() {
    let refused = |image: &[u8]| outcome::<ArmImage>(image, BASE).unwrap_err();
    assert_eq!(refused(b"#!/bin/sh"), Error::InvalidKernelStartAddress);
    assert_eq!(refused(&kernel(0, 9 << 20, 64)), Error::MemoryOverflow);
    let absurd = kernel(u64::MAX - 8, u64::MAX, 64);
    assert_eq!(refused(&absurd), Error::MemoryOverflow);
}

/// linux-loader compiles its own loader for arm64 hosts only; see
/// docs/decisions/0020-kernel-loading.md for how this runs on others.
#[cfg(target_arch = "aarch64")]
mod against_linux_loader {
    use super::*;
    use linux_loader::loader::pe::PE;

    /// Both load alike, or ours refuses what theirs does. `stricter` says that
    /// only ours does.
    fn compare(image: &[u8], base: GuestAddress, stricter: bool) {
        match (outcome::<ArmImage>(image, base), outcome::<PE>(image, base)) {
            (Ok((ours, our_ram)), Ok((theirs, their_ram))) => {
                assert!(!stricter);
                assert_eq!(ours.kernel_load, theirs.kernel_load);
                // Theirs ends with the file, ours with what the kernel clears.
                assert!(ours.kernel_end >= theirs.kernel_end);
                assert!(our_ram == their_ram);
            }
            (Err(_), theirs) => assert_eq!(theirs.is_ok(), stricter),
            (Ok(_), Err(error)) => panic!("only ours loads: {error}"),
        }
    }

    #[test]
    fn whatever_the_header_asks_for_both_do_the_same() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..80 {
            let file_bytes = 64 + usize::try_from(random(200_000)).unwrap();
            // No larger than the file: theirs does not look at what is cleared.
            let declared = random(file_bytes as u64 + 1);
            let image = kernel(random(10 << 20), declared, file_bytes);
            compare(&image, BASE, false);
            compare(&image, GuestAddress(BASE.0 + (2 << 20)), false);
        }
    }

    #[test]
    fn a_kernel_too_old_to_say_gets_the_same_place() {
        compare(&kernel(0x1234_5678, 0, 4096), BASE, false);
    }

    #[test]
    fn what_is_no_kernel_is_refused_by_both() {
        let mut foreign = kernel(0, 4096, 4096);
        foreign[56] ^= 1;
        compare(&foreign, BASE, false);
        compare(&kernel(0, 64, 64)[..63], BASE, false);
        compare(b"", BASE, false);
    }

    #[test]
    fn ours_also_refuses_memory_and_byte_orders_that_cannot_work() {
        compare(&kernel(0, 9 << 20, 4096), BASE, true);
        let mut big_endian = kernel(0, 4096, 4096);
        big_endian[24] |= 1;
        compare(&big_endian, BASE, true);
    }
}
