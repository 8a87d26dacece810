//! Following writes, and content the machine replaces.

use super::*;
use supermachine_vmm_core::memory::PageSet;

/// Where the guests of these cases have their data.
const DATA: u64 = RAM + 0x4_0000;

/// Where [`translated`] has its table.
const TABLE: u64 = RAM + 0x2_0000;

/// The start of a program that runs translated, each address to itself:
/// devices below 1 GiB, Normal memory from [`RAM`]. Only so does memory have
/// exclusives, and translations worth keeping.
pub(super) fn translated() -> Program {
    Program::new()
        // Attribute 0 is Device-nGnRnE, 1 is Normal write-back.
        .set(2, 0xff00)
        .msr(MAIR_EL1, 2)
        // T0SZ 32, cacheable inner shareable walks, EPD1, IPS 36 bits.
        .set(2, 1 << 32 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 32)
        .msr(TCR_EL1, 2)
        .set(2, TABLE)
        .msr(TTBR0_EL1, 2)
        .isb()
        // M, C and I over the bits that are one by definition.
        .set(2, 0x30d0_0800 | 1 << 12 | 1 << 2 | 1)
        .msr(SCTLR_EL1, 2)
        .isb()
        .set(2, 3 << 20)
        .msr(CPACR_EL1, 2)
        .isb()
}

/// A guest whose program started with [`translated`].
pub(super) fn translated_guest<H: Hypervisor>(
    engine: &H,
    vcpus: u32,
    program: &Program,
) -> Guest<H::Vm> {
    let guest = Guest::new(engine, vcpus, program);
    // Level 1 blocks of 1 GiB: valid, accessed, inner shareable.
    let block = 1 << 10 | 3 << 8 | 1;
    let no_execution = 3 << 53;
    for (index, entry) in [(0, no_execution | block), (RAM >> 30, RAM | 1 << 2 | block)] {
        let at = GuestAddress(TABLE + index * 8);
        guest.memory.ram().write_obj::<u64>(entry, at).unwrap();
    }
    guest
}

fn written<V: Vm>(guest: &Guest<V>) -> PageSet {
    let mut set = PageSet::new(RAM, RAM_BYTES);
    guest.vm.take_written(&mut set).unwrap();
    set
}

/// The pages of `addresses`, in the engine's unit.
fn pages<H: Hypervisor>(engine: &H, addresses: &[u64]) -> PageSet {
    let capabilities = engine.capabilities().unwrap();
    let unit = match capabilities.dirty_tracking {
        DirtyTracking::Log => 4096,
        DirtyTracking::WriteProtection => capabilities.page_bytes as u64,
    };
    let mut set = PageSet::new(RAM, RAM_BYTES);
    for address in addresses {
        set.insert(address & !(unit - 1), unit);
    }
    set
}

pub fn stores_of_every_kind_are_followed<H: Hypervisor>(engine: &H) {
    // Each store has pages of its own, and is done twice, the second time
    // with the page known to the processor.
    let at = |n: u64| DATA + n * 0x1_0000;
    let twice = |program: Program, n: u64, store: fn(Program) -> Program| {
        store(store(program.set(1, at(n))))
    };
    let mut program = translated();
    program = twice(program, 0, |p| p.strb(2, 1));
    program = twice(program, 1, |p| p.stp_x(2, 3, 1));
    program = twice(program, 2, |p| p.str_q(0, 1));
    program = twice(program, 3, |p| p.stlr_x(2, 1));
    program = twice(program, 4, |p| p.ldxr_x(3, 1).stxr_x(4, 2, 1).cbnz_w(4, -2));
    program = twice(program, 5, |p| p.ldadd_x(2, 3, 1));
    program = twice(program, 6, |p| p.set(3, 0).cas_x(3, 2, 1));
    // Half in the page before, which is of another unit.
    program = twice(program, 7, |p| p.stur_x_minus_4(2, 1));
    program = twice(program, 8, |p| p.dc_zva(1));
    let guest = translated_guest(engine, 1, &program.off());
    guest.vm.track_writes().unwrap();
    assert_eq!(run(&mut guest.boot()), Exit::Shutdown);
    let mut expected: Vec<u64> = (0..9).map(at).collect();
    expected.push(at(7) - 4);
    assert_eq!(written(&guest), pages(engine, &expected));
    let stored: u64 = guest.memory.ram().read_obj(GuestAddress(at(5))).unwrap();
    assert_eq!(stored, 2 * (3 << 20), "the access that was noticed is done");
}

pub fn pages_only_read_count_as_unwritten<H: Hypervisor>(engine: &H) {
    let program = translated()
        .set(1, DATA)
        .ldr_x(2, 1)
        .ldp_x(2, 3, 1)
        .ldr_w(2, 1)
        .off();
    let guest = translated_guest(engine, 1, &program);
    assert!(written(&guest).is_empty(), "nothing is followed");
    guest.vm.track_writes().unwrap();
    assert_eq!(run(&mut guest.boot()), Exit::Shutdown);
    assert!(written(&guest).is_empty());
}

pub fn taking_the_written_pages_starts_over<H: Hypervisor>(engine: &H) {
    let other = DATA + 0x2_0000;
    let program = translated()
        .set(3, DEVICE)
        .set(1, DATA)
        .set(4, other)
        .str_x(1, 1)
        .str_x(4, 4)
        .str_w(31, 3)
        .ldr_x(5, 4)
        .str_x(1, 1)
        .str_x(1, 1)
        .str_w(31, 3)
        .str_w(31, 3)
        .str_x(4, 4)
        .str_w(31, 3);
    let guest = translated_guest(engine, 1, &program);
    let mut vcpu = guest.boot();
    guest.vm.track_writes().unwrap();
    report(&mut vcpu);
    assert_eq!(written(&guest), pages(engine, &[DATA, other]));
    assert!(written(&guest).is_empty());
    report(&mut vcpu);
    assert_eq!(written(&guest), pages(engine, &[DATA]));
    report(&mut vcpu);
    assert!(written(&guest).is_empty());
    report(&mut vcpu);
    guest.vm.track_writes().unwrap();
    assert!(written(&guest).is_empty(), "tracking anew forgets");
}

pub fn writes_of_all_vcpus_are_followed<H: Hypervisor>(engine: &H) {
    // Both write a page of their own and one they share.
    let shared = DATA + 0x8_0000;
    let program = translated()
        .set(1, shared)
        .str_x(0, 1)
        .str_x(0, 0)
        .set(1, DEVICE)
        .str_x(0, 1);
    let guest = translated_guest(engine, 2, &program);
    guest.vm.track_writes().unwrap();
    let own = |index: u32| DATA + u64::from(index) * 0x1_0000;
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let threads = [0, 1].map(|index| {
        let (vm, barrier) = (guest.vm.clone(), barrier.clone());
        std::thread::spawn(move || {
            // In order, and all of them before the first runs.
            if index == 1 {
                barrier.wait();
            }
            let mut vcpu = vm.create_vcpu(index).unwrap();
            if index == 0 {
                barrier.wait();
            }
            barrier.wait();
            vcpu.reset(RAM, own(index)).unwrap();
            for round in 0..50 {
                if round > 0 {
                    vcpu.reset(RAM, own(index)).unwrap();
                }
                assert_eq!(report(&mut vcpu), own(index));
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(written(&guest), pages(engine, &[own(0), own(1), shared]));
}

pub fn replaced_code_is_executed_anew<H: Hypervisor>(engine: &H) {
    let function = |value: u64| Program::new().set(0, value).ret().bytes();
    let (changed, kept) = (DATA, DATA + 0x1_0000);
    let mut program = translated().set(1, DEVICE).set(2, changed).set(3, kept);
    let start = program.len();
    program = program.blr(2).str_w(0, 1).blr(3).str_w(0, 1);
    let back = start - program.len();
    let guest = translated_guest(engine, 1, &program.b(back));
    let ram = guest.memory.ram();
    for at in [changed, kept] {
        ram.write_slice(&function(5), GuestAddress(at)).unwrap();
    }
    let mut vcpu = guest.boot();
    for round in 0..40_u64 {
        for _ in 0..3 {
            let value = if round == 0 { 5 } else { round };
            assert_eq!(report(&mut vcpu), value);
            assert_eq!(report(&mut vcpu), 5, "what did not change stays");
        }
        let next = function(round + 1);
        guest.memory.take_device_written(&mut PageSet::new(RAM, 0));
        ram.write_slice(&next, GuestAddress(changed)).unwrap();
        let mut replaced = PageSet::new(RAM, RAM_BYTES);
        guest.memory.take_device_written(&mut replaced);
        assert_eq!(replaced.count(), 1, "the machine's own write is known");
        guest.vm.content_replaced(&replaced).unwrap();
    }
}
