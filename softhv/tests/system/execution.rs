//! Code that changes, and how much stack running code takes.

use crate::machine::{Machine, PROGRAM, result_of};
use hvf::sys::Reg;

#[test]
fn code_changed_in_its_own_block_runs_after_maintenance() {
    // Patches "mov x5, #1" behind it to "mov x5, #2".
    let registers = result_of(
        "       adr     x0, 1f
                ldr     w1, [x0]
                eor     w1, w1, #(3 << 5)
                str     w1, [x0]
                dc      cvau, x0
                dsb     ish
                ic      ivau, x0
                dsb     ish
                isb
        1:      mov     x5, #1
                hvc     #0",
        &[],
    );
    assert_eq!(registers[5], 2);
}

#[test]
fn a_loop_changed_while_it_runs_takes_its_new_form() {
    // Ten rounds add 1, then the add becomes one of 2.
    let registers = result_of(
        "       adr     x0, 1f
                ldr     w1, [x0]
                eor     w1, w1, #(3 << 10)
                mov     x2, #20
                mov     x5, #0
        0:      nop
        1:      add     x5, x5, #1
                cmp     x2, #11
                b.ne    2f
                str     w1, [x0]
                dc      cvau, x0
                dsb     ish
                ic      ivau, x0
                dsb     ish
                isb
        2:      subs    x2, x2, #1
                b.ne    0b
                hvc     #0",
        &[],
    );
    assert_eq!(registers[5], 10 + 2 * 10);
}

#[test]
fn code_changed_on_another_page_and_called_again_is_new() {
    // Two pages away: movz w5, #7; ret, then movz w5, #9.
    let registers = result_of(
        "       .equ    CODE, 0x2000
                adr     x0, _start + CODE
                movz    w1, #0x00e5
                movk    w1, #0x5280, lsl #16
                movz    w2, #0x03c0
                movk    w2, #0xd65f, lsl #16
                stp     w1, w2, [x0]
                bl      flush
                blr     x0
                mov     x6, x5
                movz    w1, #0x0125
                movk    w1, #0x5280, lsl #16
                str     w1, [x0]
                bl      flush
                blr     x0
                hvc     #0
        flush:  dc      cvau, x0
                dsb     ish
                ic      ivau, x0
                dsb     ish
                isb
                ret
                .global _start
                .set    _start, .text",
        &[],
    );
    assert_eq!((registers[6], registers[5]), (7, 9));
}

/// Host stack that the thread has left untouched below the current frame:
/// fills a part of it with a pattern, runs, and looks how far down it went.
#[test]
fn ten_million_instructions_take_no_host_stack() {
    const STACK: usize = 512 << 10;
    // 1,000 rounds of 10,000 instructions in a straight line, among them
    // loads, stores, branches not taken and vector operations.
    let source = "
                mov     x0, #1000
                adr     x1, 2f
        1:      .rept   1000
                add     x2, x2, #1
                eor     x3, x3, x2
                ldr     x4, [x1]
                str     x4, [x1, #8]
                cmp     x2, x3
                csel    x5, x2, x3, lo
                add     v0.4s, v0.4s, v1.4s
                cbnz    xzr, 1b
                madd    x6, x2, x3, x6
                ldp     x7, x8, [x1]
                .endr
                subs    x0, x0, #1
                cbz     x0, 3f
                b       1b
        3:      hvc     #0
                .balign 16
        2:      .quad   1, 2
    ";
    // Tail calls that are none would take 10 million frames, and this thread
    // has room for a few thousand.
    let thread = std::thread::Builder::new().stack_size(STACK);
    let run = move || {
        let machine = Machine::with(source, &[]);
        let mut vcpu = machine.vcpu(0);
        vcpu.set_sys_reg(hvf::sys::SysReg::CPACR_EL1, 3 << 20)
            .expect("CPACR_EL1");
        let exit = vcpu.run().expect("a run");
        (
            exit.exception.syndrome,
            vcpu.general(2).expect("X2"),
            vcpu.reg(Reg::PC).expect("PC"),
        )
    };
    let (syndrome, rounds, pc) = thread
        .spawn(run)
        .expect("a thread")
        .join()
        .expect("no overflow");
    assert_eq!((syndrome, rounds), (0x5a00_0000, 1_000_000));
    assert!(pc > PROGRAM);
}
