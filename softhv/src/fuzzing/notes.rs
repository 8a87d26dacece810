//! Arbitrary notes of code, as a snapshot's file has them.

use crate::ahead::helper;
use crate::ahead::plan::Plan;
use crate::cpu::{Cpu, RunExit};
use crate::phys::MemoryFlags;
use crate::tier::Tier;
use crate::vm::VmShared;
use std::sync::Arc;

const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 0x4000;
const WORDS: usize = RAM_BYTES / 4;
/// Rounds of the program.
const ROUNDS: u64 = 5;

/// Memory of a machine, in the engine's pages.
#[repr(C, align(16384))]
struct Ram([u32; WORDS]);

/// Reads `data` as notes; what is accepted must be written as it was. Then takes it for
/// places in the memory of a machine, has these decoded ahead while it runs, and sees
/// that it computes what it should.
pub fn fuzz_code_notes(data: &[u8]) {
    if let Some(plan) = Plan::decode(data) {
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
    }
    let places = data.chunks_exact(3).map(|at| {
        let near = u64::from(u16::from_le_bytes([at[0], at[1]]));
        // Mostly in memory, and sometimes far away.
        (RAM + near % (RAM_BYTES as u64 + 8)) ^ (u64::from(at[2] >> 5) << 40)
    });
    let plan = Plan::of(places.clone(), places.map(|at| at >> 12));
    assert_eq!(Plan::decode(&plan.encode()), Some(plan.clone()));
    assert_eq!(run(plan), ROUNDS * 8);
}

/// X0 after the program, with `plan` decoded ahead.
fn run(plan: Plan) -> u64 {
    // ADD X0, X0, #1 eight times; SUBS X1, X1, #1; B.NE to the first; HVC. The rest of
    // the memory is full of branches to themselves.
    let mut ram = Box::new(Ram([0x1400_0000; WORDS]));
    ram.0[..8].fill(0x9100_0400);
    ram.0[8..11].copy_from_slice(&[0xf100_0421, 0x54ff_fee1, 0xd400_0002]);
    let vm = Arc::new(VmShared::new(40, Tier::Restless));
    let host = (&raw const *ram).addr();
    // The memory is there until the thread is not.
    if vm
        .map(host, RAM, RAM_BYTES as u64, MemoryFlags::ALL)
        .is_err()
    {
        return 0;
    }
    let Some(link) = vm.add_vcpu() else {
        return 0;
    };
    let mut cpu = Cpu::new(Arc::clone(&vm), Arc::clone(&link));
    cpu.pc = RAM;
    cpu.regs.x[1] = ROUNDS;
    assert!(helper::start(&vm, plan.encode().into(), true));
    assert!(matches!(cpu.run(), RunExit::Exception { .. }));
    vm.ahead.end();
    vm.remove_vcpu(&link);
    cpu.regs.x[0]
}
