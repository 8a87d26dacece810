//! Programs that write their own code, as translators in the guest do: each must
//! leave what `qemu-aarch64` leaves, whatever the engine had compiled by then.

use crate::TIER;
use crate::assembler::executable;
use crate::layout::{SYMBOLS, TABLES, tables};
use crate::machine::{Machine, result_of_machine};
use std::process::Command;
use supermachine_softhv::Tier;

/// More rounds than it takes for the loop to be compiled, and to be dropped again.
const ROUNDS: u64 = 5_000;

/// How the program ends with its result in X5: on the engine, and under Linux, where
/// it writes the eight bytes.
const TO_MONITOR: &str = "hvc #0";
const TO_OUTPUT: &str = "
        adr     x1, output
        str     x5, [x1]
        mov     x0, #1
        mov     x2, #8
        mov     x8, #64
        svc     #0
        mov     x0, #0
        mov     x8, #93
        svc     #0
        .balign 8
output: .quad   0";

/// Loops over an instruction that it writes anew in each round, and over a function
/// on another page that it writes anew in every seventh.
fn rewriter(end: &str) -> String {
    format!(
        "       .global _start
        _start: adr     x0, patched
                adr     x10, function
                movz    w11, #0x0004
                movk    w11, #0xd280, lsl #16
                movz    w12, #0x0006
                movk    w12, #0xd280, lsl #16
                mov     x2, #0
                mov     x5, #0
        again:  and     w3, w2, #0x7fff
                orr     w3, w11, w3, lsl #5
                str     w3, [x0]
                dc      cvau, x0
                dsb     ish
                ic      ivau, x0
                dsb     ish
                isb
        patched: movz   x4, #0
                add     x5, x5, x5, lsl #1
                add     x5, x5, x4
                add     x7, x7, #1
                cmp     x7, #7
                b.lo    1f
                mov     x7, #0
                and     w3, w2, #0x3fff
                orr     w3, w12, w3, lsl #5
                str     w3, [x10]
                dc      cvau, x10
                dsb     ish
                ic      ivau, x10
                dsb     ish
                isb
        1:      bl      function
                eor     x5, x5, x6
                add     x2, x2, #1
                mov     x3, #ROUNDS
                cmp     x2, x3
                b.ne    again
                {end}
                .balign 4096
        function: movz  x6, #1
                ret"
    )
}

#[test]
fn a_loop_that_rewrites_itself_leaves_what_qemu_leaves() {
    let symbols = [("ROUNDS", ROUNDS)];
    let program = executable(&rewriter(TO_OUTPUT), &symbols);
    let ran = Command::new("qemu-aarch64")
        .arg(&program)
        .output()
        .expect("qemu-aarch64 runs (package qemu-user)");
    let _ = std::fs::remove_file(&program);
    assert!(ran.status.success(), "{ran:?}");
    let theirs = u64::from_le_bytes(ran.stdout.try_into().expect("eight bytes"));
    for tier in [TIER, Tier::Auto, Tier::Restless] {
        let machine = Machine::of(tier, &rewriter(TO_MONITOR), &symbols);
        assert_eq!(result_of_machine(&machine)[5], theirs, "{tier:?}");
    }
}

/// Code is written at one address, with its maintenance, and executed at another of
/// the same page.
const DOUBLE: &str = "
                .macro  address reg, value
                movz    \\reg, #((\\value) & 0xffff)
                movk    \\reg, #((\\value) >> 16 & 0xffff), lsl #16
                movk    \\reg, #((\\value) >> 32 & 0xffff), lsl #32
                movk    \\reg, #((\\value) >> 48 & 0xffff), lsl #48
                .endm
                mov     x0, #0xff
                msr     mair_el1, x0
                address x0, TCR
                msr     tcr_el1, x0
                address x0, TABLES
                msr     ttbr0_el1, x0
                address x0, SCTLR
                msr     sctlr_el1, x0
                isb
                address x0, FRAMES
                address x10, MOVING
                movz    w11, #0x0004
                movk    w11, #0xd280, lsl #16
                movz    w12, #0x03c0
                movk    w12, #0xd65f, lsl #16
                str     w12, [x0, #4]
                mov     x2, #0
                mov     x5, #0
        again:  and     w3, w2, #0x7fff
                orr     w3, w11, w3, lsl #5
                str     w3, [x0]
                dc      cvau, x0
                dsb     ish
                ic      ivau, x0
                dsb     ish
                isb
                mov     x6, #600
        many:   blr     x10
                add     x5, x5, x4
                subs    x6, x6, #1
                b.ne    many
                blr     x0
                add     x5, x5, x4
                add     x2, x2, #1
                cmp     x2, #40
                b.ne    again
                hvc     #0";

#[test]
fn code_written_at_one_address_is_new_at_the_other_of_its_page() {
    for tier in [TIER, Tier::Auto, Tier::Restless] {
        let machine = Machine::of(tier, DOUBLE, &SYMBOLS);
        machine.put(TABLES, &tables());
        let sum: u64 = (0..40).map(|round| round * 601).sum();
        assert_eq!(result_of_machine(&machine)[5], sum, "{tier:?}");
    }
}
