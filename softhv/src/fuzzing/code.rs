//! Arbitrary words as code.

use crate::cpu::op::ZERO;
use crate::cpu::{Cpu, RunExit};
use crate::link::attention;
use crate::phys::MemoryFlags;
use crate::tier::Tier;
use crate::vm::VmShared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 0x1_0000;
/// Where exceptions go: to an HVC each.
const VECTORS: u64 = RAM + 0x8000;
const HVC: u32 = 0xd400_0002;
/// Exits of one run at most.
const EXITS: usize = 16;
/// How long it may run: words may be a loop.
const PATIENCE: Duration = Duration::from_millis(2);

/// Memory of a machine, in the engine's pages.
#[repr(C, align(16384))]
struct Ram([u8; RAM_BYTES]);

fn ram(words: &[u8]) -> Box<Ram> {
    let mut ram = Box::new(Ram([0; RAM_BYTES]));
    let offset = (VECTORS - RAM) as usize;
    for vector in ram.0[offset..offset + 0x800].chunks_exact_mut(128) {
        vector[..4].copy_from_slice(&HVC.to_le_bytes());
    }
    let count = words.len().min(offset) & !3;
    ram.0[..count].copy_from_slice(&words[..count]);
    ram
}

/// Executes `data` as code, at EL1 and then at EL0: compiled before it runs,
/// compiled and dropped midway, and interpreted. Whatever it does, the machine goes
/// on, and what handlers and compiled code rely on holds.
pub fn fuzz_code(data: &[u8]) {
    for tier in [Tier::Compile, Tier::Restless, Tier::Interpret] {
        for el in [1, 0] {
            run(data, tier, el);
        }
    }
}

fn run(data: &[u8], tier: Tier, el: u8) {
    let ram = ram(data);
    let vm = Arc::new(VmShared::new(40, tier));
    let host = (&raw const *ram).addr();
    // The memory is there until the vCPU is not.
    if vm
        .map(host, RAM, RAM_BYTES as u64, MemoryFlags::ALL)
        .is_err()
    {
        return;
    }
    let Some(link) = vm.add_vcpu() else {
        return;
    };
    let mut cpu = Cpu::new(Arc::clone(&vm), Arc::clone(&link));
    cpu.pc = RAM;
    cpu.pstate.el = el;
    cpu.sys.vbar = VECTORS;
    cpu.sys.cpacr = 3 << 20;
    for (number, register) in (0u64..).zip(&mut cpu.regs.x[..32]) {
        *register = RAM + 0x4000 + 0x80 * number;
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            std::thread::park_timeout(PATIENCE);
            while !ended.load(Ordering::Acquire) {
                link.raise(attention::KICK);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        for _ in 0..EXITS {
            let exit = cpu.run();
            assert_eq!(cpu.regs.x[usize::from(ZERO)], 0);
            assert!(cpu.regs.cf <= 1, "{:#x}", cpu.regs.cf);
            if exit == RunExit::Canceled {
                break;
            }
        }
        ended.store(true, Ordering::Release);
        watch.thread().unpark();
    });
    vm.remove_vcpu(&link);
    drop(cpu);
}
