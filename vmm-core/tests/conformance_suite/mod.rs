//! What every engine must do, said through the machine's seam only. Guests
//! are a few instructions, so that a failure points at the engine.

pub mod asm;
mod private;
mod reset;
mod unmap;
mod writes;

pub use private::*;
pub use reset::*;
pub use unmap::*;
pub use writes::*;

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use asm::*;
use supermachine_vmm_core::arch::aarch64::layout::{
    GIC_DISTRIBUTOR, GIC_REDISTRIBUTORS, RAM, UART,
};
use supermachine_vmm_core::arch::aarch64::registers;
use supermachine_vmm_core::hypervisor::{
    Access, DirtyTracking, DynVm, EngineError, Exit, ExitCount, GicKind, GuestFault, Hypervisor,
    Kick, PowerReply, Registers, Vcpu, VcpuState, Vm, VmSpec,
};
use supermachine_vmm_core::memory::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// Length of every guest's memory.
const RAM_BYTES: u64 = 1 << 20;
/// A device that no one models.
const DEVICE: u64 = UART;
/// Two shared interrupts.
const SPI: u32 = 40;
const OTHER_SPI: u32 = 41;

/// One machine at a time: engines have one to a process.
static ONE: Mutex<()> = Mutex::new(());

/// Runs `case` on an engine.
pub fn on<H: Hypervisor>(engine: &H, case: impl FnOnce(&H)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    case(engine);
}

struct Guest<V: Vm> {
    vm: Arc<V>,
    memory: GuestMemory,
}

impl<V: Vm> Guest<V> {
    fn new<H: Hypervisor<Vm = V>>(engine: &H, vcpus: u32, program: &Program) -> Self {
        let vm = engine
            .create_vm(&VmSpec {
                ipa_bits: None,
                vcpus,
                distributor: GIC_DISTRIBUTOR,
                redistributors: GIC_REDISTRIBUTORS,
            })
            .unwrap();
        let memory = GuestMemory::allocate(RAM, RAM_BYTES).unwrap();
        memory
            .ram()
            .write_slice(&program.bytes(), GuestAddress(RAM))
            .unwrap();
        vm.map(memory.leases().next().unwrap(), Access::ReadWriteExecute)
            .unwrap();
        Self {
            vm: Arc::new(vm),
            memory,
        }
    }

    /// The first vCPU, ready to run the program.
    fn boot(&self) -> V::Vcpu {
        let mut vcpu = self.vm.create_vcpu(0).unwrap();
        vcpu.reset(RAM, 0).unwrap();
        vcpu
    }
}

/// The registers of a saved vCPU.
fn arm(state: &VcpuState) -> &registers::Registers {
    let Registers::Aarch64(registers) = &state.registers;
    registers
}

/// Runs past kicks and waits that may come at any time.
fn run(vcpu: &mut impl Vcpu) -> Exit {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match vcpu.run().unwrap() {
            Exit::Kicked | Exit::VtimerFired | Exit::WaitForInterrupt => {
                assert!(Instant::now() < deadline, "the guest makes no progress");
            }
            exit => return exit,
        }
    }
}

/// Runs to the next write to [`DEVICE`] and gives its value.
fn report(vcpu: &mut impl Vcpu) -> u64 {
    match run(vcpu) {
        Exit::MmioWrite { address, value, .. } if address == DEVICE => value,
        other => panic!("the guest should report, not {other:x?}"),
    }
}

pub fn capabilities_are_plausible<H: Hypervisor>(engine: &H) {
    let capabilities = engine.capabilities().unwrap();
    assert!(capabilities.max_vcpus >= 1);
    assert!(capabilities.default_ipa_bits >= 36);
    assert!(capabilities.max_ipa_bits >= capabilities.default_ipa_bits);
    assert_eq!(capabilities.page_bytes, 16 << 10);
    let GicKind::V3 {
        first_spi,
        spi_count,
        distributor_bytes,
        redistributor_bytes,
    } = capabilities.gic;
    assert!(first_spi == 32 && spi_count >= 64);
    assert!(GIC_DISTRIBUTOR + distributor_bytes <= GIC_REDISTRIBUTORS);
    assert_eq!(redistributor_bytes, 0x2_0000);
}

pub fn device_accesses_have_every_width<H: Hypervisor>(engine: &H) {
    let program = Program::new()
        .set(1, DEVICE)
        .set(2, 0x8899_aabb_ccdd_eeff)
        .strb(2, 1)
        .strh(2, 1)
        .str_w(2, 1)
        .str_x(2, 1)
        .str_w(31, 1)
        .ldr_w(13, 1)
        .ldr_x(14, 1)
        .ldrsb_x(15, 1)
        .ldrsh_w(16, 1)
        .ldr_w(31, 1)
        .off();
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    for (bytes, value) in [
        (1, 0xff),
        (2, 0xeeff),
        (4, 0xccdd_eeff),
        (8, 0x8899_aabb_ccdd_eeff),
        (4, 0),
    ] {
        let address = DEVICE;
        let write = Exit::MmioWrite {
            address,
            bytes,
            value,
        };
        assert_eq!(run(&mut vcpu), write);
    }
    for bytes in [4, 8, 1, 2, 4] {
        let address = DEVICE;
        assert_eq!(run(&mut vcpu), Exit::MmioRead { address, bytes });
        assert_eq!(vcpu.run(), Err(EngineError::OutOfTurn));
        vcpu.complete(0xf1f2_f3f4_f5f6_f7f8).unwrap();
        assert_eq!(vcpu.complete(0), Err(EngineError::OutOfTurn));
    }
    assert_eq!(run(&mut vcpu), Exit::Shutdown);
    let state = vcpu.save().unwrap();
    assert_eq!(arm(&state).general[13], 0xf5f6_f7f8);
    assert_eq!(arm(&state).general[14], 0xf1f2_f3f4_f5f6_f7f8);
    assert_eq!(arm(&state).general[15], 0xffff_ffff_ffff_fff8);
    assert_eq!(arm(&state).general[16], 0xffff_f7f8);
    assert_eq!(vcpu.exits().get(ExitCount::MmioRead), 5);
    assert_eq!(vcpu.exits().get(ExitCount::MmioWrite), 5);
}

pub fn firmware_calls_work_by_either_instruction<H: Hypervisor>(engine: &H) {
    let program = Program::new()
        .firmware([0x8400_0000, 0, 0, 0])
        .set(1, DEVICE)
        .str_w(0, 1)
        .set(0, 0x8400_0000)
        .smc()
        .str_w(0, 1)
        .firmware([0xc400_0003, 1, 0x8000_8000, 7])
        .set(1, DEVICE)
        .str_x(0, 1)
        .firmware([0xc400_0004, 1, 0, 0])
        .firmware([0x8400_0002, 0, 0, 0])
        .firmware([0x8400_0009, 0, 0, 0]);
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 0x1_0001);
    assert_eq!(report(&mut vcpu), 0x1_0001);
    let on = Exit::CpuOn {
        target: 1,
        entry: 0x8000_8000,
        argument: 7,
    };
    assert_eq!(run(&mut vcpu), on);
    vcpu.complete(PowerReply::AlreadyOn.value()).unwrap();
    assert_eq!(report(&mut vcpu), (-4_i64).cast_unsigned());
    assert_eq!(run(&mut vcpu), Exit::CpuStatus { target: 1 });
    vcpu.complete(PowerReply::Done.value()).unwrap();
    assert_eq!(run(&mut vcpu), Exit::CpuOff);
    assert_eq!(run(&mut vcpu), Exit::Reset);
}

pub fn hidden_registers_read_as_zero<H: Hypervisor>(engine: &H) {
    let program = Program::new()
        .set(1, DEVICE)
        .msr(OSLAR_EL1, 31)
        .set(0, !0)
        .mrs(0, PMCR_EL0)
        .str_x(0, 1)
        .mrs(0, MPIDR_EL1)
        .str_x(0, 1);
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 0);
    assert_eq!(report(&mut vcpu), 0x8000_0000);
}

pub fn kicks_latch_and_interrupt_every_kind_of_guest<H: Hypervisor>(engine: &H) {
    for program in [Program::new().spin(), Program::new().sleep_forever()] {
        let guest = Guest::new(engine, 1, &program);
        let mut vcpu = guest.boot();
        vcpu.kick().kick();
        assert_eq!(until_kicked(&mut vcpu), Exit::Kicked);
        let kick = vcpu.kick();
        let kicker = std::thread::spawn(move || {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(2));
                kick.kick();
            }
        });
        assert_eq!(until_kicked(&mut vcpu), Exit::Kicked);
        kicker.join().unwrap();
    }
}

fn until_kicked(vcpu: &mut impl Vcpu) -> Exit {
    loop {
        match vcpu.run().unwrap() {
            Exit::WaitForInterrupt | Exit::VtimerFired => {}
            exit => return exit,
        }
    }
}

pub fn accesses_no_device_can_serve_are_faults<H: Hypervisor>(engine: &H) {
    let load_pair = Program::new().set(1, DEVICE).ldp_x(2, 3, 1);
    let write_back = Program::new().set(1, DEVICE).str_w_post(2, 1);
    let jump = Program::new().set(1, DEVICE).raw(0xd61f_0020);
    for (program, pc) in [
        (load_pair, RAM + 16),
        (write_back, RAM + 16),
        (jump, DEVICE),
    ] {
        let guest = Guest::new(engine, 1, &program);
        let mut vcpu = guest.boot();
        match run(&mut vcpu) {
            Exit::GuestFault(GuestFault::Access {
                address, pc: at, ..
            }) => assert_eq!((address, at), (DEVICE, pc)),
            other => panic!("{other:x?}"),
        }
    }
}

pub fn protected_memory_faults_until_it_is_given_back<H: Hypervisor>(engine: &H) {
    let page = RAM + 0x8_0000;
    let program = Program::new()
        .set(1, page)
        .ldr_w(3, 1)
        .set(2, 5)
        .str_w(2, 1)
        .off();
    let guest = Guest::new(engine, 1, &program);
    let bytes = 16 << 10;
    guest.vm.protect(page, bytes, Access::ReadExecute).unwrap();
    let mut vcpu = guest.boot();
    match run(&mut vcpu) {
        Exit::GuestFault(GuestFault::Access { address, .. }) => assert_eq!(address, page),
        other => panic!("{other:x?}"),
    }
    let writable = Access::ReadWriteExecute;
    guest.vm.protect(page, bytes, writable).unwrap();
    assert_eq!(run(&mut vcpu), Exit::Shutdown);
    let written: u32 = guest.memory.ram().read_obj(GuestAddress(page)).unwrap();
    assert_eq!(written, 5);
}

pub fn mappings_neither_overlap_nor_vanish_twice<H: Hypervisor>(engine: &H) {
    let guest = Guest::new(engine, 1, &Program::new().off());
    let more = GuestMemory::allocate(RAM + RAM_BYTES / 2, RAM_BYTES).unwrap();
    let access = Access::ReadWriteExecute;
    assert!(guest.vm.map(more.leases().next().unwrap(), access).is_err());
    let beside = GuestMemory::allocate(RAM + RAM_BYTES, RAM_BYTES).unwrap();
    guest
        .vm
        .map(beside.leases().next().unwrap(), access)
        .unwrap();
    guest.vm.unmap(RAM + RAM_BYTES).unwrap();
    assert!(guest.vm.unmap(RAM + RAM_BYTES).is_err());
    guest
        .vm
        .map(beside.leases().next().unwrap(), access)
        .unwrap();
    assert_eq!(run(&mut guest.boot()), Exit::Shutdown);
}

/// Sets up the interrupt controller for the shared interrupts of this suite,
/// edge-triggered, and the virtual timer, all to vCPU 0.
fn with_interrupts() -> Program {
    let sgi = GIC_REDISTRIBUTORS + 0x1_0000;
    let word = u64::from(SPI / 32) * 4;
    let bits = 1 << (SPI % 32) | 1 << (OTHER_SPI % 32);
    let edges = 0b10 << (SPI % 16 * 2) | 0b10 << (OTHER_SPI % 16 * 2);
    Program::new()
        .set(2, 7)
        .msr(ICC_SRE_EL1, 2)
        .isb()
        // Both groups with affinity routing.
        .poke(GIC_DISTRIBUTOR, 0x12)
        .poke(GIC_DISTRIBUTOR + 0x80 + word, bits)
        .poke(GIC_DISTRIBUTOR + 0xc00 + u64::from(SPI / 16) * 4, edges)
        .poke(GIC_DISTRIBUTOR + 0x100 + word, bits)
        // Awake, then the timer's private interrupt.
        .poke(GIC_REDISTRIBUTORS + 0x14, 0)
        .poke(sgi + 0x80, !0)
        .poke(sgi + 0x100, 1 << 27)
        .set(2, 0xf0)
        .msr(ICC_PMR_EL1, 2)
        .set(2, 1)
        .msr(ICC_IGRPEN1_EL1, 2)
        .isb()
        .set(1, DEVICE)
}

pub fn interrupts_wake_a_waiting_guest<H: Hypervisor>(engine: &H) {
    let program = with_interrupts()
        .str_w(31, 1)
        .wfi()
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .msr(ICC_EOIR1_EL1, 0)
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .off();
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 0, "set up");
    let (start, started) = channel();
    let device = std::thread::spawn({
        let vm = guest.vm.clone();
        move || {
            started.recv().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            vm.set_irq(SPI, true).unwrap();
        }
    });
    start.send(()).unwrap();
    assert_eq!(report(&mut vcpu), u64::from(SPI));
    assert_eq!(report(&mut vcpu), 1023, "an edge is one interrupt");
    assert_eq!(run(&mut vcpu), Exit::Shutdown);
    device.join().unwrap();
    assert!(guest.vm.set_irq(31, true).is_err(), "private, not shared");
}

pub fn the_virtual_timer_wakes_a_waiting_guest<H: Hypervisor>(engine: &H) {
    let program = with_interrupts()
        .mrs(4, CNTVCT_EL0)
        .set(2, 240_000)
        .msr(CNTV_TVAL_EL0, 2)
        .set(2, 1)
        .msr(CNTV_CTL_EL0, 2)
        .isb()
        .wfi()
        .mrs(0, ICC_IAR1_EL1)
        .mrs(5, CNTVCT_EL0)
        .str_w(0, 1)
        .str_x(4, 1)
        .str_x(5, 1);
    let guest = Guest::new(engine, 1, &program);
    let mut vcpu = guest.boot();
    assert_eq!(report(&mut vcpu), 27);
    let (before, after) = (report(&mut vcpu), report(&mut vcpu));
    assert!(after - before >= 240_000, "it fired early");
    let minute = guest.vm.counter_hz() * 60;
    assert!(before < minute, "guests count from their start");
}

pub fn secondary_vcpus_run_on_their_own_threads<H: Hypervisor>(engine: &H) {
    let program = Program::new()
        .set(1, DEVICE)
        .mrs(2, MPIDR_EL1)
        .str_x(2, 1)
        .str_x(0, 1);
    let guest = Guest::new(engine, 3, &program);
    let vcpu = guest.vm.create_vcpu(0).unwrap();
    assert!(
        guest.vm.create_vcpu(1).is_err(),
        "one vCPU to a thread, whatever its number"
    );
    let threads = [1, 2].map(|index| {
        let vm = guest.vm.clone();
        std::thread::spawn(move || {
            let mut vcpu = vm.create_vcpu(index).unwrap();
            vcpu.reset(RAM, u64::from(index) + 100).unwrap();
            [report(&mut vcpu), report(&mut vcpu)]
        })
    });
    let reports = threads.map(|thread| thread.join().unwrap());
    assert_eq!(reports, [[0x8000_0001, 101], [0x8000_0002, 102]]);
    drop(vcpu);
}

pub fn a_saved_vcpu_goes_on_in_a_new_machine<H: Hypervisor>(engine: &H) {
    let program = with_interrupts()
        .set(2, 3 << 20)
        .msr(CPACR_EL1, 2)
        .isb()
        .set(9, 0x1234_5678_9abc_def0)
        .ins_d0(7, 9)
        .str_w(31, 1)
        .str_x(9, 1)
        .mrs(0, ICC_IAR1_EL1)
        .str_w(0, 1)
        .mrs(0, CNTVCT_EL0)
        .str_x(0, 1)
        .off();
    let first = Guest::new(engine, 1, &program);
    let mut vcpu = first.boot();
    assert_eq!(report(&mut vcpu), 0, "set up");
    first.vm.set_irq(OTHER_SPI, true).unwrap();
    let state = vcpu.save().unwrap();
    let interrupts = first.vm.save_interrupts().unwrap();
    assert_eq!(
        arm(&state).simd[7][..8],
        0x1234_5678_9abc_def0_u64.to_le_bytes()
    );
    drop((vcpu, first));

    let second = Guest::new(engine, 1, &program);
    let mut vcpu = second.vm.create_vcpu(0).unwrap();
    assert!(second.vm.restore_interrupts(b"foreign").is_err());
    second.vm.restore_interrupts(&interrupts).unwrap();
    vcpu.load(&state, second.vm.counter()).unwrap();
    let mut again = vcpu.save().unwrap();
    assert!(again.counter >= state.counter);
    again.counter = state.counter;
    assert_eq!(again, state);
    assert_eq!(report(&mut vcpu), 0x1234_5678_9abc_def0);
    assert_eq!(report(&mut vcpu), u64::from(OTHER_SPI));
    let counter = report(&mut vcpu);
    let second_long = second.vm.counter_hz() * 20;
    assert!((state.counter..state.counter + second_long).contains(&counter));
    assert_eq!(run(&mut vcpu), Exit::Shutdown);
}

pub fn a_vcpu_of_another_processor_is_refused<H: Hypervisor>(engine: &H) {
    let guest = Guest::new(engine, 1, &Program::new().off());
    let mut vcpu = guest.boot();
    let mut state = vcpu.save().unwrap();
    let Registers::Aarch64(registers) = &mut state.registers;
    registers.identity[0].1 ^= 1;
    let error = vcpu.load(&state, guest.vm.counter()).unwrap_err();
    assert!(error.to_string().contains("MIDR_EL1"), "{error}");
}

pub fn machines_follow_each_other_and_are_one_at_a_time<H: Hypervisor>(engine: &H) {
    for _ in 0..3 {
        let guest = Guest::new(engine, 1, &Program::new().off());
        let spec = VmSpec {
            ipa_bits: None,
            vcpus: 1,
            distributor: GIC_DISTRIBUTOR,
            redistributors: GIC_REDISTRIBUTORS,
        };
        assert!(engine.create_vm(&spec).is_err());
        assert_eq!(run(&mut guest.boot()), Exit::Shutdown);
    }
}
