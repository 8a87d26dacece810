//! What one vCPU does to another's translations and code: the invalidations of
//! one are visible to the other after the barriers that the architecture names.
//! One VM per process: the tests take turns.

use std::ptr::NonNull;
use std::sync::{Barrier, Mutex, PoisonError};

use hvf::sys::{MemoryFlags, Reg, SysReg};
use hvf::{ExceptionClass, Vm};
use supermachine_softhv::jit::IS_BUILT;
use supermachine_softhv::{Tier, api_with};

static TURN: Mutex<()> = Mutex::new(());

const RAM: u64 = 0x8000_0000;
const RAM_BYTES: usize = 0x4_0000;

/// X19 memory, X20 role, X21 rounds. Turns the MMU on. The writer (role 0) moves
/// a page between two frames, invalidates it and tells the number of the round;
/// the reader looks at the page all the time, and after each round must find
/// the right frame: the one that holds the lowest bit of the number.
const MOVE_PAGE: [u32; 49] = [
    0xd280_1fe0, // mov x0, #0xff
    0xd518_a200, // msr mair_el1, x0
    0xd286_a320, // mov x0, #0x3519
    0xf2a0_1000, // movk x0, #0x80, lsl #16
    0xf2c0_0040, // movk x0, #0x2, lsl #32
    0xd518_2040, // msr tcr_el1, x0
    0x9140_4260, // add x0, x19, #0x10, lsl #12
    0xd518_2000, // msr ttbr0_el1, x0
    0xd503_3fdf, // isb
    0xd538_1000, // mrs x0, sctlr_el1
    0xd282_00a1, // mov x1, #0x1005
    0xaa01_0000, // orr x0, x0, x1
    0xd518_1000, // msr sctlr_el1, x0
    0xd503_3fdf, // isb
    0x9148_0276, // add x22, x19, #0x200, lsl #12
    0x9140_5677, // add x23, x19, #0x15, lsl #12
    0x9101_02f8, // add x24, x23, #0x40
    0x9140_4a79, // add x25, x19, #0x12, lsl #12
    0xf940_033a, // ldr x26, [x25]
    0xd280_001b, // mov x27, #0x0
    0xd34c_fedc, // lsr x28, x22, #12
    0xb500_01d4, // cbnz x20, 8c
    0x9100_077b, // add x27, x27, #0x1
    0xd274_0b5a, // eor x26, x26, #0x7000
    0xf900_033a, // str x26, [x25]
    0xd503_3a9f, // dsb ishst
    0xd508_833c, // tlbi vae1is, x28
    0xd503_3b9f, // dsb ish
    0x889f_fefb, // stlr w27, [x23]
    0x88df_ff00, // ldar w0, [x24]
    0x6b1b_001f, // cmp w0, w27
    0x54ff_ffc1, // b.ne 74  // b.any
    0xeb15_037f, // cmp x27, x21
    0x54ff_fea1, // b.ne 58  // b.any
    0xd400_0022, // hvc #0x1
    0xf940_02c1, // ldr x1, [x22]
    0x88df_fee0, // ldar w0, [x23]
    0x6b1b_001f, // cmp w0, w27
    0x54ff_ffa0, // b.eq 8c  // b.none
    0xf940_02c1, // ldr x1, [x22]
    0x2a00_03fb, // mov w27, w0
    0x1200_0002, // and w2, w0, #0x1
    0xeb02_003f, // cmp x1, x2
    0x5400_00a1, // b.ne c0  // b.any
    0x889f_ff1b, // stlr w27, [x24]
    0xeb15_037f, // cmp x27, x21
    0x54ff_fea1, // b.ne 8c  // b.any
    0xd400_0022, // hvc #0x1
    0xd400_0042, // hvc #0x2
];

/// The same game with a reader that has EL0's rights, which makes the page one of
/// its address space, and that uses another address space in between, with the
/// same tables. vCPUs beyond it (roles from 2) only look at the page.
const MOVE_USER_PAGE: [u32; 67] = [
    0xd280_1fe0, // mov x0, #0xff
    0xd518_a200, // msr mair_el1, x0
    0xd286_a320, // mov x0, #0x3519
    0xf2a0_1000, // movk x0, #0x80, lsl #16
    0xf2c0_0040, // movk x0, #0x2, lsl #32
    0xd518_2040, // msr tcr_el1, x0
    0x9140_427e, // add x30, x19, #0x10, lsl #12
    0xd518_201e, // msr ttbr0_el1, x30
    0xd280_003d, // mov x29, #0x1
    0xaa1d_c3dd, // orr x29, x30, x29, lsl #48
    0xd503_3fdf, // isb
    0xd538_1000, // mrs x0, sctlr_el1
    0xd282_00a1, // mov x1, #0x1005
    0xaa01_0000, // orr x0, x0, x1
    0xd518_1000, // msr sctlr_el1, x0
    0xd503_3fdf, // isb
    0x9148_0276, // add x22, x19, #0x200, lsl #12
    0x9140_5677, // add x23, x19, #0x15, lsl #12
    0x9101_02f8, // add x24, x23, #0x40
    0x9140_4a79, // add x25, x19, #0x12, lsl #12
    0xf940_033a, // ldr x26, [x25]
    0xd280_001b, // mov x27, #0x0
    0xd34c_fedc, // lsr x28, x22, #12
    0xb500_01d4, // cbnz x20, 94
    0x9100_077b, // add x27, x27, #0x1
    0xd274_0b5a, // eor x26, x26, #0x7000
    0xf900_033a, // str x26, [x25]
    0xd503_3a9f, // dsb ishst
    0xd508_833c, // tlbi vae1is, x28
    0xd503_3b9f, // dsb ish
    0x889f_fefb, // stlr w27, [x23]
    0x88df_ff00, // ldar w0, [x24]
    0x6b1b_001f, // cmp w0, w27
    0x54ff_ffc1, // b.ne 7c
    0xeb15_037f, // cmp x27, x21
    0x54ff_fea1, // b.ne 60
    0xd400_0022, // hvc #0x1
    0xf100_069f, // cmp x20, #0x1
    0x5400_02e1, // b.ne f4
    0xd518_201d, // msr ttbr0_el1, x29
    0xd503_3fdf, // isb
    0xd518_201e, // msr ttbr0_el1, x30
    0xd503_3fdf, // isb
    0xf840_0ac1, // ldtr x1, [x22]
    0x88df_fee0, // ldar w0, [x23]
    0x6b1b_001f, // cmp w0, w27
    0x54ff_ff20, // b.eq 9c
    0x3608_00a0, // tbz w0, #1, d0
    0xd518_201d, // msr ttbr0_el1, x29
    0xd503_3fdf, // isb
    0xd518_201e, // msr ttbr0_el1, x30
    0xd503_3fdf, // isb
    0xf840_0ac1, // ldtr x1, [x22]
    0x2a00_03fb, // mov w27, w0
    0x1200_0002, // and w2, w0, #0x1
    0xeb02_003f, // cmp x1, x2
    0x5400_0141, // b.ne 108
    0x889f_ff1b, // stlr w27, [x24]
    0xeb15_037f, // cmp x27, x21
    0x54ff_fd81, // b.ne 9c
    0xd400_0022, // hvc #0x1
    0xf840_0ac1, // ldtr x1, [x22]
    0x88df_fefb, // ldar w27, [x23]
    0xeb15_037f, // cmp x27, x21
    0x54ff_ffa1, // b.ne f4
    0xd400_0022, // hvc #0x1
    0xd400_0042, // hvc #0x2
];

/// The same game with an instruction: the reader calls a function that the
/// writer changes to return the lowest bit of the number of the round.
const CHANGE_CODE: [u32; 36] = [
    0x9140_0e76, // add x22, x19, #0x3, lsl #12
    0x9140_5677, // add x23, x19, #0x15, lsl #12
    0x9101_02f8, // add x24, x23, #0x40
    0xb940_02da, // ldr w26, [x22]
    0xd280_001b, // mov x27, #0x0
    0xb500_0214, // cbnz x20, 54
    0x9100_077b, // add x27, x27, #0x1
    0x521b_035a, // eor w26, w26, #0x20
    0xb900_02da, // str w26, [x22]
    0xd50b_7b36, // dc cvau, x22
    0xd503_3b9f, // dsb ish
    0xd50b_7536, // ic ivau, x22
    0xd503_3b9f, // dsb ish
    0xd503_3fdf, // isb
    0x889f_fefb, // stlr w27, [x23]
    0x88df_ff00, // ldar w0, [x24]
    0x6b1b_001f, // cmp w0, w27
    0x54ff_ffc1,
    0xeb15_037f, // cmp x27, x21
    0x54ff_fe61,
    0xd400_0022, // hvc #0x1
    0xd63f_02c0, // blr x22
    0x88df_fee0, // ldar w0, [x23]
    0x6b1b_001f, // cmp w0, w27
    0x54ff_ffa0,
    0xd503_3fdf, // isb
    0xd63f_02c0, // blr x22
    0x2a00_03fb, // mov w27, w0
    0x1200_0002, // and w2, w0, #0x1
    0x6b02_003f, // cmp w1, w2
    0x5400_00a1,
    0x889f_ff1b, // stlr w27, [x24]
    0xeb15_037f, // cmp x27, x21
    0x54ff_fe81,
    0xd400_0022, // hvc #0x1
    0xd400_0042, // hvc #0x2
];

/// Where the function of [`CHANGE_CODE`] is.
const FUNCTION_AT: usize = 0x3000;
/// `movz w1, #0` and `ret`.
const FUNCTION: [u32; 2] = [0x5280_0001, 0xd65f_03c0];

/// Translation tables of [`MOVE_PAGE`] with their offsets: the first level maps
/// the gigabyte of the memory, the second the program at its own address
/// and, 2 MiB above it, the third with the page that moves.
const TABLES: [(usize, u64); 5] = [
    (0x1_0000 + 8 * 2, RAM + 0x1_1000 + 3),
    // Access flag, inner shareable, block.
    (0x1_1000, RAM + 0x701),
    (0x1_1008, RAM + 0x1_2000 + 3),
    // EL0 may use it too, and it is of one address space.
    (0x1_2000, RAM + 0x1_3000 + 0xf43),
    // What the second frame holds; the first holds 0.
    (0x1_4000, 1),
];

fn put<T: Copy>(base: NonNull<u8>, at: usize, values: &[T]) {
    assert!(at + size_of_val(values) <= RAM_BYTES);
    // SAFETY: inside the block, which no guest uses yet.
    unsafe {
        let to = base.as_ptr().add(at);
        std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), to, size_of_val(values));
    }
}

/// Runs `program` on `vcpus` vCPUs until all report success: interpreted, compiled,
/// and compiled and dropped midway.
fn play(program: &[u32], vcpus: usize, rounds: u64) {
    for tier in [Tier::Interpret, Tier::Compile, Tier::Restless] {
        // Without a compiler there are no machines that compile everything.
        if tier != Tier::Compile || IS_BUILT {
            play_compiled(tier, program, vcpus, rounds);
        }
    }
}

fn play_compiled(tier: Tier, program: &[u32], vcpus: usize, rounds: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let layout = std::alloc::Layout::from_size_align(RAM_BYTES, 0x4000).unwrap();
    // SAFETY: the layout has a size.
    let ram = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
    put(ram, 0, program);
    put(ram, FUNCTION_AT, &FUNCTION);
    for (at, value) in TABLES {
        put(ram, at, &[value]);
    }
    let vm = Vm::new(api_with(tier), None).unwrap();
    // SAFETY: the memory outlives the VM and is as long.
    unsafe { vm.map(ram, RAM, RAM_BYTES, MemoryFlags::RWX) }.unwrap();
    let ready = Barrier::new(vcpus);
    std::thread::scope(|scope| {
        let (vm, ready) = (&vm, &ready);
        let player = |role| {
            scope.spawn(move || {
                let mut vcpu = vm.create_vcpu().unwrap();
                vcpu.set_sys_reg(SysReg::MPIDR_EL1, 1 << 31 | role).unwrap();
                vcpu.set_reg(Reg::CPSR, 0x3c5).unwrap();
                vcpu.set_reg(Reg::PC, RAM).unwrap();
                vcpu.set_general(19, RAM).unwrap();
                vcpu.set_general(20, role).unwrap();
                vcpu.set_general(21, rounds).unwrap();
                ready.wait();
                let exit = vcpu.run().unwrap();
                assert_eq!(
                    exit.exception_class(),
                    Some(ExceptionClass::HVC),
                    "{exit:?}"
                );
                (exit.exception.syndrome & 0xffff, vcpu.general(27).unwrap())
            })
        };
        let players: Vec<_> = (0..vcpus as u64).map(player).collect();
        for player in players {
            assert_eq!(player.join().unwrap(), (1, rounds));
        }
    });
    drop(vm);
    // SAFETY: allocated with this layout; no guest is left.
    unsafe { std::alloc::dealloc(ram.as_ptr(), layout) };
}

#[test]
fn a_page_moved_by_one_vcpu_is_never_seen_at_its_old_place_by_another() {
    play(&MOVE_PAGE, 2, 500);
}

#[test]
fn code_changed_by_one_vcpu_is_never_run_in_its_old_form_by_another() {
    play(&CHANGE_CODE, 2, 500);
}

#[test]
fn a_page_is_not_seen_at_its_old_place_after_a_switch_to_its_address_space() {
    play(&MOVE_USER_PAGE, 2, 500);
}

#[test]
fn more_vcpus_than_the_host_has_cores_all_see_a_page_move() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    play(&MOVE_USER_PAGE, (2 * cores + 1).min(16), 40);
}
