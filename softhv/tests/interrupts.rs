//! Interrupts, timers, WFI and kicks of running guests. One VM per process:
//! the tests take turns.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hvf::sys::{ExitReason, GicDistributorReg, MemoryFlags, Reg, SysReg, VcpuExit};
use hvf::{ExceptionClass, Gic, GicAddresses, Vcpu, Vm};
use supermachine_softhv::abi::api;
use supermachine_softhv::faults::FAULTS;

static TURN: Mutex<()> = Mutex::new(());

const RAM: u64 = 0x8000_0000;
const RAM_BYTES: usize = 0x1_0000;
const ADDRESSES: GicAddresses = GicAddresses {
    distributor: 0x0800_0000,
    redistributors: 0x080a_0000,
};

/// Sets up exceptions and the interrupt controller (X2 distributor, X3
/// redistributor), arms the virtual timer by X6 ticks and sends SGI1R = X7
/// unless they are zero, then waits for interrupts, or spins if X9 is set.
const START: [u32; 23] = [
    0x1000_4001, // adr  x1, #0x800
    0xd518_c001, // msr  vbar_el1, x1
    0x5280_0244, // mov  w4, #0x12
    0xb900_0044, // str  w4, [x2]           GICD_CTLR
    0xb900_147f, // str  wzr, [x3, #0x14]   GICR_WAKER
    0x9140_4065, // add  x5, x3, #0x10000
    0x1280_0004, // mov  w4, #-1
    0xb901_00a4, // str  w4, [x5, #0x100]   GICR_ISENABLER0
    0xb901_0444, // str  w4, [x2, #0x104]   GICD_ISENABLER1
    0xd280_1e04, // mov  x4, #0xf0
    0xd518_4604, // msr  icc_pmr_el1, x4
    0xd280_0024, // mov  x4, #1
    0xd518_cce4, // msr  icc_igrpen1_el1, x4
    0xb400_0066, // cbz  x6, +12
    0xd51b_e306, // msr  cntv_tval_el0, x6
    0xd51b_e324, // msr  cntv_ctl_el0, x4
    0xb400_0047, // cbz  x7, +8
    0xd518_cba7, // msr  icc_sgi1r_el1, x7
    0xd503_42ff, // msr  daifclr, #2
    0xb500_0009, // cbnz x9, .
    0xd503_207f, // wfi
    0x17ff_ffff, // b    -4
    0xd400_0002, // hvc  #0
];

/// The IRQ vector: acknowledges, stops the timer if it was that, ends, and
/// reports the INTID in X0 by a hypercall.
const IRQ: [u32; 8] = [
    0xd538_cc00, // mrs  x0, icc_iar1_el1
    0xd538_4028, // mrs  x8, elr_el1
    0xf100_6c1f, // cmp  x0, #27
    0x5400_0041, // b.ne +8
    0xd51b_e33f, // msr  cntv_ctl_el0, xzr
    0xd518_cc20, // msr  icc_eoir1_el1, x0
    0xd400_00e2, // hvc  #7
    0xd69f_03e0, // eret
];
/// Another IRQ vector: arms the timer again by X6 ticks and counts in X10;
/// reports when that has reached X11.
const REARM: [u32; 8] = [
    0xd538_cc00, // mrs  x0, icc_iar1_el1
    0xd51b_e306, // msr  cntv_tval_el0, x6
    0xd518_cc20, // msr  icc_eoir1_el1, x0
    0x9100_054a, // add  x10, x10, #1
    0xeb0b_015f, // cmp  x10, x11
    0x5400_0043, // b.lo +8
    0xd400_00e2, // hvc  #7
    0xd69f_03e0, // eret
];
/// Another IRQ vector: passes the interrupt on by SGI1R = X12, after an
/// invalidation on all vCPUs if X13 is set; reports at the X11th.
const PASS_ON: [u32; 11] = [
    0xd538_cc00, // mrs  x0, icc_iar1_el1
    0xd518_cc20, // msr  icc_eoir1_el1, x0
    0x9100_054a, // add  x10, x10, #1
    0xb400_006d, // cbz  x13, +12
    0xd508_831f, // tlbi vmalle1is
    0xd503_3b9f, // dsb  ish
    0xd518_cbac, // msr  icc_sgi1r_el1, x12
    0xeb0b_015f, // cmp  x10, x11
    0x5400_0043, // b.lo +8
    0xd400_00e2, // hvc  #7
    0xd69f_03e0, // eret
];
/// The same with interrupts masked, which end a WFI all the same.
const PASS_ON_MASKED: [u32; 10] = [
    0xd503_207f, // wfi
    0xd538_cc00, // mrs  x0, icc_iar1_el1
    0xf10f_fc1f, // cmp  x0, #1023
    0x54ff_ffa0, // b.eq -12
    0xd518_cc20, // msr  icc_eoir1_el1, x0
    0x9100_054a, // add  x10, x10, #1
    0xd518_cbac, // msr  icc_sgi1r_el1, x12
    0xeb0b_015f, // cmp  x10, x11
    0x54ff_ff03, // b.lo -32
    0xd400_00e2, // hvc  #7
];
/// Offset of the IRQ vector of EL1 with its own stack.
const IRQ_AT: usize = 0x800 + 0x280;
/// Offset of the other one, with a copy of [`START`] before it.
const REARM_AT: usize = 0x4000 + IRQ_AT;

/// Offsets of copies of [`START`] for [`PASS_ON`] and [`PASS_ON_MASKED`].
const PASS_ON_START: u64 = 0x8000;
const PASS_ON_MASKED_START: u64 = 0xc000;
/// To [`PASS_ON_MASKED`], from the place in [`START`] that unmasks interrupts.
const B_TO_PASS_ON_MASKED: u32 = 0x1400_028e;
const UNMASK_AT: usize = 4 * 18;

/// Memory with the program in it.
struct Ram(NonNull<u8>);

// SAFETY: a plain block of memory, written before any guest runs.
unsafe impl Sync for Ram {}

impl Ram {
    const LAYOUT: std::alloc::Layout = match std::alloc::Layout::from_size_align(RAM_BYTES, 0x4000)
    {
        Ok(layout) => layout,
        Err(_) => panic!("constant layout"),
    };

    fn new() -> Self {
        // SAFETY: the layout has a size.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::LAYOUT) }).unwrap();
        let put = |at: usize, words: &[u32]| {
            // SAFETY: the programs fit in the block.
            unsafe {
                let to = base.as_ptr().add(at);
                std::ptr::copy_nonoverlapping(words.as_ptr().cast(), to, words.len() * 4);
            }
        };
        put(0, &START);
        put(0x4000, &START);
        put(IRQ_AT, &IRQ);
        put(REARM_AT, &REARM);
        put(0x8000, &START);
        put(0x8000 + IRQ_AT, &PASS_ON);
        put(0xc000, &START);
        put(0xc000 + UNMASK_AT, &[B_TO_PASS_ON_MASKED]);
        put(0xc000 + IRQ_AT, &PASS_ON_MASKED);
        Self(base)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the VM is gone.
        unsafe { std::alloc::dealloc(self.0.as_ptr(), Self::LAYOUT) };
    }
}

/// Runs `test` on a fresh VM with memory and interrupt controller.
fn with_machine(test: impl FnOnce(&Vm, &Gic)) {
    with_vm(|vm| test(vm, &vm.create_gic(ADDRESSES).unwrap()));
}

/// Runs `test` on a fresh VM with memory.
fn with_vm(test: impl FnOnce(&Vm)) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let ram = Ram::new();
    let vm = Vm::new(api(), None).unwrap();
    // SAFETY: `ram` outlives the VM and is as long.
    unsafe { vm.map(ram.0, RAM, RAM_BYTES, MemoryFlags::RWX) }.unwrap();
    test(&vm);
    drop(vm);
    drop(ram);
}

/// A vCPU of this thread, ready to run [`START`].
fn boot(vm: &Vm, number: u64) -> Vcpu {
    let mut vcpu = vm.create_vcpu().unwrap();
    vcpu.set_sys_reg(SysReg::MPIDR_EL1, 1 << 31 | number)
        .unwrap();
    vcpu.set_reg(Reg::CPSR, 0x3c5).unwrap();
    vcpu.set_reg(Reg::PC, RAM).unwrap();
    vcpu.set_general(2, ADDRESSES.distributor).unwrap();
    vcpu.set_general(3, vcpu.redistributor_base().unwrap())
        .unwrap();
    for unused in [6, 7, 9] {
        vcpu.set_general(unused, 0).unwrap();
    }
    vcpu
}

fn is_hypercall(exit: &VcpuExit) -> bool {
    exit.exception_class() == Some(ExceptionClass::HVC)
}

/// Runs until the interrupt handler reports; the INTID it got.
fn next_interrupt(vcpu: &mut Vcpu) -> u64 {
    let exit = vcpu.run().unwrap();
    assert!(is_hypercall(&exit), "{exit:?}");
    vcpu.general(0).unwrap()
}

#[test]
fn a_timer_wakes_a_waiting_guest_at_its_time() {
    with_machine(|vm, _| {
        let mut vcpu = boot(vm, 0);
        let ticks = 24_000 * 20;
        vcpu.set_general(6, ticks).unwrap();
        let start = Instant::now();
        assert_eq!(next_interrupt(&mut vcpu), 27);
        assert!(start.elapsed() >= Duration::from_millis(20));
        // Interrupted in the WFI, to go on after it.
        assert_eq!(vcpu.general(8).unwrap(), RAM + 4 * 21);
    });
}

#[test]
fn waiting_is_no_time_in_the_guest() {
    with_machine(|vm, _| {
        // Until the thread gets to the WFI while most of the time is left.
        let is_told = (0..7).any(|doublings| {
            let mut vcpu = boot(vm, 0);
            vcpu.set_general(6, (24_000 * 20) << doublings).unwrap();
            let start = Instant::now();
            assert_eq!(next_interrupt(&mut vcpu), 27);
            let elapsed = start.elapsed();
            let ran = Duration::from_secs(vcpu.exec_time().unwrap()) / 24_000_000;
            // To a tick.
            assert!(ran <= elapsed + Duration::from_micros(1), "{ran:?}");
            ran < elapsed / 2
        });
        assert!(is_told);
    });
}

#[test]
fn a_timer_interrupts_a_guest_that_never_exits() {
    with_machine(|vm, _| {
        let mut vcpu = boot(vm, 0);
        vcpu.set_general(6, 24_000 * 5).unwrap();
        vcpu.set_general(9, 1).unwrap();
        assert_eq!(next_interrupt(&mut vcpu), 27);
        assert_eq!(vcpu.general(8).unwrap(), RAM + 4 * 19);
    });
}

#[test]
fn short_timers_set_again_and_again_are_never_lost() {
    with_machine(|vm, gic| {
        // Device interrupts disturb both kinds of guest at random moments.
        gic.set_distributor_reg(GicDistributorReg(0xc08), 0xaaaa_aaaa)
            .unwrap();
        let ready = Barrier::new(2);
        std::thread::scope(|scope| {
            for busy in [0, 1] {
                let ready = &ready;
                scope.spawn(move || {
                    let mut vcpu = boot(vm, busy);
                    vcpu.set_reg(Reg::PC, RAM + 0x4000).unwrap();
                    vcpu.set_general(6, 100 + 900 * busy).unwrap();
                    vcpu.set_general(9, busy).unwrap();
                    vcpu.set_general(10, 0).unwrap();
                    vcpu.set_general(11, 3000).unwrap();
                    ready.wait();
                    next_interrupt(&mut vcpu);
                    assert_eq!(vcpu.general(10).unwrap(), 3000);
                    ready.wait();
                });
            }
            for round in 0..200 {
                gic.set_spi(40 + round % 8, true).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
    });
}

/// Resets the injected faults even if the test fails.
struct EagerRelease;

impl EagerRelease {
    fn begin() -> Self {
        FAULTS.eager_release.store(true, Ordering::Relaxed);
        Self
    }
}

impl Drop for EagerRelease {
    fn drop(&mut self) {
        FAULTS.clear();
    }
}

#[test]
fn a_guest_without_decoded_code_after_every_wait_goes_on_correctly() {
    with_machine(|vm, _| {
        let _eager = EagerRelease::begin();
        let mut vcpu = boot(vm, 0);
        vcpu.set_reg(Reg::PC, RAM + 0x4000).unwrap();
        vcpu.set_general(6, 24_000 / 2).unwrap();
        vcpu.set_general(10, 0).unwrap();
        vcpu.set_general(11, 200).unwrap();
        assert_eq!(next_interrupt(&mut vcpu), 27);
        assert_eq!(vcpu.general(10).unwrap(), 200);
    });
}

#[test]
fn a_sleeping_guest_costs_next_to_no_processor_time() {
    with_machine(|vm, _| {
        let mut vcpu = boot(vm, 0);
        vcpu.set_general(6, 24_000 * 300).unwrap();
        let before = thread_time();
        assert_eq!(next_interrupt(&mut vcpu), 27);
        let used = thread_time() - before;
        assert!(used < Duration::from_millis(30), "{used:?} of 300 ms");
    });
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place to write to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    let seconds = u64::try_from(time.tv_sec).unwrap();
    let nanos = u64::try_from(time.tv_nsec).unwrap();
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

#[test]
fn device_interrupts_from_another_thread_reach_a_waiting_and_a_busy_guest() {
    for busy in [0, 1] {
        with_machine(|vm, gic| {
            let mut vcpu = boot(vm, 0);
            vcpu.set_general(9, busy).unwrap();
            gic.set_distributor_reg(GicDistributorReg(0xc08), 0xaaaa_aaaa)
                .unwrap();
            std::thread::scope(|scope| {
                let (send, receive) = std::sync::mpsc::channel();
                scope.spawn(move || {
                    for intid in receive {
                        std::thread::sleep(Duration::from_millis(2));
                        gic.set_spi(intid, true).unwrap();
                    }
                });
                for intid in 33..43 {
                    send.send(intid).unwrap();
                    assert_eq!(next_interrupt(&mut vcpu), u64::from(intid));
                }
            });
        });
    }
}

#[test]
fn a_kick_ends_a_wait_and_an_endless_loop() {
    for busy in [0, 1] {
        with_machine(|vm, _| {
            let mut vcpu = boot(vm, 0);
            vcpu.set_general(9, busy).unwrap();
            let kicker = vcpu.kicker();
            // Kicks that come while the vCPU is out count as one, however many
            // they are: on a busy host no fixed number would do.
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                        kicker.kick().unwrap();
                    }
                });
                for _ in 0..3 {
                    assert_eq!(vcpu.run().unwrap().reason, ExitReason::CANCELED);
                }
                done.store(true, Ordering::Relaxed);
            });
        });
    }
}

#[test]
fn vcpus_wake_each_other_by_software_interrupts() {
    const VCPUS: u32 = 4;
    with_machine(|vm, _| {
        let ready = Barrier::new(VCPUS.try_into().unwrap());
        std::thread::scope(|scope| {
            for number in 0..VCPUS {
                let ready = &ready;
                scope.spawn(move || {
                    let mut vcpu = boot(vm, number.into());
                    // Everyone exists before anyone sends: SGI 3 to the next.
                    let next = (number + 1) % VCPUS;
                    vcpu.set_general(7, 3 << 24 | 1 << next).unwrap();
                    ready.wait();
                    assert_eq!(next_interrupt(&mut vcpu), 3);
                    ready.wait();
                });
            }
        });
    });
}

/// Passes one software interrupt around between sleeping vCPUs, `rounds` times.
/// No timer runs: a wake-up lost once is lost for good, and fails the test.
fn pass_around(vcpus: u32, rounds: u64, start: u64, invalidate: bool) {
    with_machine(|vm, _| {
        let ready = Barrier::new(vcpus.try_into().unwrap());
        let (done, all_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for number in 0..vcpus {
                let (ready, done) = (&ready, done.clone());
                scope.spawn(move || {
                    let mut vcpu = boot(vm, number.into());
                    let to_next = 3 << 24 | 1 << ((number + 1) % vcpus);
                    vcpu.set_reg(Reg::PC, RAM + start).unwrap();
                    vcpu.set_general(7, if number == 0 { to_next } else { 0 })
                        .unwrap();
                    vcpu.set_general(10, 0).unwrap();
                    vcpu.set_general(11, rounds).unwrap();
                    vcpu.set_general(12, to_next).unwrap();
                    vcpu.set_general(13, invalidate.into()).unwrap();
                    done.send(Err(vcpu.kicker())).unwrap();
                    ready.wait();
                    let exit = vcpu.run().unwrap();
                    let passed = vcpu.general(10).unwrap();
                    done.send(Ok((exit.reason, passed))).unwrap();
                    ready.wait();
                });
            }
            let (mut kickers, mut passed) = (Vec::new(), Vec::new());
            while passed.len() < vcpus.try_into().unwrap() {
                match all_done.recv_timeout(Duration::from_secs(60)) {
                    Ok(Err(kicker)) => kickers.push(kicker),
                    Ok(Ok(end)) => passed.push(end),
                    Err(_) => kickers.iter().for_each(|kicker| kicker.kick().unwrap()),
                }
            }
            for end in passed {
                assert_eq!(end, (ExitReason::EXCEPTION, rounds));
            }
        });
    });
}

#[test]
fn no_wake_up_between_sleeping_vcpus_is_lost() {
    pass_around(2, 2000, PASS_ON_START, false);
    pass_around(4, 1000, PASS_ON_START, false);
}

#[test]
fn no_wake_up_between_sleeping_vcpus_is_lost_while_interrupts_are_masked() {
    pass_around(2, 2000, PASS_ON_MASKED_START, false);
    pass_around(4, 1000, PASS_ON_MASKED_START, false);
}

#[test]
fn no_wake_up_is_lost_between_invalidations_on_all_vcpus() {
    pass_around(2, 2000, PASS_ON_START, true);
    pass_around(4, 1000, PASS_ON_START, true);
}

#[test]
fn without_an_interrupt_controller_waiting_and_the_timer_are_the_monitors() {
    with_vm(|vm| {
        let mut vcpu = vm.create_vcpu().unwrap();
        vcpu.set_reg(Reg::CPSR, 0x3c5).unwrap();
        vcpu.set_reg(Reg::PC, RAM + 4 * 20).unwrap();
        for _ in 0..3 {
            let exit = vcpu.run().unwrap();
            assert_eq!(exit.exception_class(), Some(ExceptionClass::WFX));
            assert_eq!(exit.exception.syndrome & 3, 0, "WFI, not WFE");
            assert_eq!(vcpu.reg(Reg::PC).unwrap(), RAM + 4 * 20);
            vcpu.skip_instruction(ExceptionClass::WFX).unwrap();
        }
        // A timer in the past exits once, and again when unmasked.
        vcpu.set_sys_reg(SysReg::CNTV_CVAL_EL0, 0).unwrap();
        vcpu.set_sys_reg(SysReg::CNTV_CTL_EL0, 1).unwrap();
        for _ in 0..2 {
            assert_eq!(vcpu.run().unwrap().reason, ExitReason::VTIMER_ACTIVATED);
            assert!(vcpu.vtimer_mask().unwrap());
            let exit = vcpu.run().unwrap();
            assert_eq!(exit.exception_class(), Some(ExceptionClass::WFX));
            vcpu.set_vtimer_mask(false).unwrap();
        }
        // The timer interrupt itself is the monitor's to assert.
        vcpu.set_sys_reg(SysReg::CNTV_CTL_EL0, 0).unwrap();
        vcpu.set_sys_reg(SysReg::VBAR_EL1, RAM + 0x800).unwrap();
        vcpu.set_reg(Reg::CPSR, 0x345).unwrap();
        vcpu.set_pending_interrupt(hvf::sys::InterruptType::IRQ, true)
            .unwrap();
        let exit = vcpu.run().unwrap();
        // The handler reads ICC_IAR1_EL1, which is the monitor's too.
        assert_ne!(exit.exception_class(), Some(ExceptionClass::WFX));
        assert_eq!(vcpu.reg(Reg::PC).unwrap(), RAM + 0x800 + 0x280);
    });
}

#[test]
fn memory_can_be_taken_from_a_running_guest() {
    with_machine(|vm, _| {
        let mut vcpu = boot(vm, 0);
        vcpu.set_general(9, 1).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                vm.unmap(RAM, RAM_BYTES).unwrap();
            });
            let exit = vcpu.run().unwrap();
            assert_eq!(exit.exception.syndrome >> 26, 0x20, "{exit:?}");
            assert_eq!(exit.exception.physical_address, RAM + 4 * 19);
        });
    });
}
