//! Memory that is taken away while vCPUs use it.

use std::sync::Barrier;

use super::*;

/// Memory beside the guest's RAM.
const BESIDE: u64 = RAM + RAM_BYTES;
/// Where each vCPU counts its rounds, on lines of their own.
const ROUNDS: u64 = RAM + 0x4_0000;
const LINE: u64 = 0x80;

/// Reads and writes a word of the memory that will go, counts in its own line,
/// and begins again.
fn busy(program: Program) -> Program {
    program
        .set(1, BESIDE + 0x8000)
        .ldr_x(3, 1)
        .raw(0x9100_0463) // add x3, x3, #1
        .str_x(3, 1)
        .raw(0x9100_0484) // add x4, x4, #1
        .str_x(4, 0)
        .b(-5)
}

pub fn memory_is_taken_away_under_running_vcpus<H: Hypervisor>(engine: &H) {
    let plain = Guest::new(engine, 2, &busy(Program::new()));
    take_away(&plain);
    drop(plain);
    take_away(&translated_guest(engine, 2, &busy(translated())));
}

fn take_away<V: Vm>(guest: &Guest<V>) {
    let beside = GuestMemory::allocate(BESIDE, 1 << 20).unwrap();
    let lease = beside.leases().next().unwrap();
    guest.vm.map(lease, Access::ReadWriteExecute).unwrap();
    let (exits, exit) = channel();
    let created = Arc::new(Barrier::new(2));
    let threads = [0, 1].map(|index| {
        let (vm, exits, created) = (guest.vm.clone(), exits.clone(), created.clone());
        std::thread::spawn(move || {
            let mut vcpu = vm.create_vcpu(index).unwrap();
            vcpu.reset(RAM, ROUNDS + u64::from(index) * LINE).unwrap();
            created.wait();
            loop {
                match vcpu.run().unwrap() {
                    Exit::Kicked | Exit::VtimerFired => {}
                    other => break exits.send(other).unwrap(),
                }
            }
        })
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let rounds = |index: u64| -> u64 {
        let at = GuestAddress(ROUNDS + index * LINE);
        guest.memory.ram().read_obj(at).unwrap()
    };
    while rounds(0) < 1000 || rounds(1) < 1000 {
        assert!(Instant::now() < deadline, "the guest makes no progress");
        std::thread::yield_now();
    }
    guest.vm.unmap(BESIDE).unwrap();
    // Nobody may touch it any more: the host takes it back.
    drop(beside);
    for _ in 0..2 {
        let exit = exit.recv_timeout(Duration::from_secs(20));
        match exit.expect("a vCPU goes on in memory that is gone") {
            Exit::MmioRead { address, .. } | Exit::MmioWrite { address, .. } => {
                assert_eq!(address, BESIDE + 0x8000);
            }
            other => panic!("{other:x?}"),
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
}
