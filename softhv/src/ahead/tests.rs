use super::helper;
use super::plan::Plan;
use super::shared::Counts;
use crate::cpu::{Cpu, RunExit};
use crate::phys::MemoryFlags;
use crate::tier::Tier;
use crate::vm::VmShared;
use std::sync::Arc;

const RAM: u64 = 0x4000_0000;
const BYTES: usize = 0x4000;
/// Blocks of the program, 64 bytes apart.
const BLOCKS: u64 = 200;
const BLOCK_BYTES: u64 = 64;
const HVC: u32 = 0xd400_0002;

/// Memory in the engine's pages.
#[repr(C, align(16384))]
struct Ram([u32; BYTES / 4]);

/// `ADD X0, X0, #1` and a branch to the next, [`BLOCKS`] times, then `HVC`.
fn program() -> Box<Ram> {
    let mut ram = Box::new(Ram([0; BYTES / 4]));
    for block in 0..BLOCKS {
        let at = (block * BLOCK_BYTES / 4) as usize;
        ram.0[at] = 0x9100_0400;
        ram.0[at + 1] = 0x1400_0000 | (BLOCK_BYTES / 4 - 1) as u32;
    }
    ram.0[(BLOCKS * BLOCK_BYTES / 4) as usize] = HVC;
    ram
}

/// Runs the program on a new machine, on its vCPU `index`, after `before`; what X0 is
/// then, and how the vCPU came by the blocks.
fn run(
    ram: &mut Ram,
    tier: Tier,
    index: usize,
    before: impl FnOnce(&Arc<VmShared>, &mut Ram),
) -> (u64, Counts, Vec<u64>) {
    let vm = Arc::new(VmShared::new(40, tier));
    let host = (&raw mut *ram).expose_provenance();
    vm.map(host, RAM, BYTES as u64, MemoryFlags::ALL).unwrap();
    let links: Vec<_> = (0..=index).map(|_| vm.add_vcpu().unwrap()).collect();
    before(&vm, ram);
    let mut cpu = Cpu::new(Arc::clone(&vm), Arc::clone(&links[index]));
    cpu.pc = RAM;
    assert!(matches!(cpu.run(), RunExit::Exception { .. }));
    let notes = vm.ahead.take_notes();
    vm.ahead.end();
    (cpu.regs.x[0], vm.ahead.counts(), notes)
}

/// What the program's run notes.
fn plan() -> Plan {
    let note = |vm: &Arc<VmShared>, _: &mut Ram| vm.note_code();
    let (sum, counts, notes) = run(&mut program(), Tier::Auto, 0, note);
    assert_eq!((sum, counts.taken), (BLOCKS, 0));
    assert_eq!(notes.len() as u64, BLOCKS + 1);
    Plan::decode(&Plan::of(notes, []).encode()).unwrap()
}

/// Decodes `plan` before anything runs.
fn decode(vm: &Arc<VmShared>, plan: &Plan) {
    assert!(helper::start(vm, plan.encode().into(), true));
    vm.ahead.finish();
}

#[test]
fn what_was_noted_is_decoded_ahead_and_not_again() {
    for tier in [Tier::Auto, Tier::Interpret, Tier::Restless] {
        let plan = plan();
        let (sum, counts, _) = run(&mut program(), tier, 0, |vm, _| decode(vm, &plan));
        assert_eq!(sum, BLOCKS);
        let taken = BLOCKS + 1;
        assert_eq!(counts, Counts { decoded: 0, taken });
    }
}

#[test]
fn code_that_is_another_by_now_is_decoded_as_it_is() {
    let plan = plan();
    let (sum, counts, _) = run(&mut program(), Tier::Auto, 0, |vm, ram| {
        decode(vm, &plan);
        // ADD X0, X0, #2
        ram.0[0] = 0x9100_0800;
    });
    assert_eq!(sum, BLOCKS + 1);
    assert_eq!((counts.decoded, counts.taken), (1, BLOCKS));
}

#[test]
fn one_vcpu_is_helped_and_the_others_decode() {
    let plan = plan();
    let (sum, counts, _) = run(&mut program(), Tier::Auto, 1, |vm, _| decode(vm, &plan));
    assert_eq!((sum, counts.taken), (BLOCKS, 0));
}

#[test]
fn plans_that_lead_nowhere_do_nothing() {
    // Beside memory, at its end, in data, and in the middle of blocks.
    let nowhere = [0, RAM - 4, RAM + BYTES as u64, 1 << 47];
    let data = [RAM + BYTES as u64 - 4, RAM + 4, RAM | 3, RAM | 1];
    let plan = Plan::of(
        nowhere.into_iter().chain(data).cycle().take(20_000),
        [
            0,
            1 << 40,
            RAM / 4096,
            RAM / 4096 + 1,
            RAM / 4096 + 3,
            RAM / 4096 + 4,
        ],
    );
    let (sum, counts, _) = run(&mut program(), Tier::Auto, 0, |vm, _| decode(vm, &plan));
    assert_eq!(sum, BLOCKS);
    assert!(counts.taken <= 1, "{counts:?}");
}

#[test]
fn memory_can_go_while_it_is_decoded_ahead() {
    let plan = Plan::of(
        (0..BYTES as u64 / 4)
            .map(|n| RAM + 4 * n)
            .cycle()
            .take(30_000),
        (0..4).map(|n| RAM / 4096 + n),
    );
    for _ in 0..50 {
        let mut ram = program();
        let vm = Arc::new(VmShared::new(40, Tier::Auto));
        let host = (&raw mut *ram).expose_provenance();
        vm.map(host, RAM, BYTES as u64, MemoryFlags::ALL).unwrap();
        assert!(helper::start(&vm, plan.encode().into(), true));
        vm.unmap(RAM, BYTES as u64).unwrap();
        drop(ram);
        assert!(vm.ahead.store().is_none());
    }
}

#[test]
fn a_vcpu_that_gave_its_code_back_is_helped_again() {
    let plan = plan();
    let mut ram = program();
    let vm = Arc::new(VmShared::new(40, Tier::Auto));
    let host = (&raw mut *ram).expose_provenance();
    vm.map(host, RAM, BYTES as u64, MemoryFlags::ALL).unwrap();
    let link = vm.add_vcpu().unwrap();
    decode(&vm, &plan);
    let mut cpu = Cpu::new(Arc::clone(&vm), link);
    for round in 1..=3 {
        cpu.pc = RAM;
        assert!(matches!(cpu.run(), RunExit::Exception { .. }));
        let taken = round * (BLOCKS + 1);
        assert_eq!(vm.ahead.counts(), Counts { decoded: 0, taken });
        cpu.release_caches();
        assert!(vm.ahead.store().is_none());
        assert!(helper::again(&vm));
        vm.ahead.finish();
    }
    vm.ahead.end();
}
