//! Software step, as a debugger in the guest uses it.

use crate::machine::result_of;

/// A kernel that steps through `user` at EL0 and stores each exception's ESR
/// and ELR from X20 on; X21 counts them. Ends at the first SVC.
fn stepped(user: &str) -> Vec<(u64, u64, u64)> {
    let source = format!(
        "       adr     x0, vectors
                msr     vbar_el1, x0
                mov     x0, #1
                msr     mdscr_el1, x0
                adr     x20, log
                mov     x21, #0
                adr     x0, user
                msr     elr_el1, x0
                mov     x1, #1 << 21
                msr     spsr_el1, x1
                mov     x22, #5
                eret
        handler:
                mrs     x10, esr_el1
                mrs     x11, elr_el1
                adr     x12, user
                sub     x11, x11, x12
                mrs     x12, spsr_el1
                stp     x10, x11, [x20], #16
                str     x12, [x20], #8
                add     x21, x21, #1
                lsr     x13, x10, #26
                cmp     x13, #0x15
                b.eq    1f
                cmp     x21, #32
                b.hs    1f
                // Step on, over what faulted.
                cmp     x13, #0x32
                b.eq    2f
                mrs     x11, elr_el1
                add     x11, x11, #4
                msr     elr_el1, x11
        2:      orr     x12, x12, #1 << 21
                msr     spsr_el1, x12
                eret
        1:      adr     x0, log
                ldp     x1, x2, [x0]
                hvc     #0
                .balign 2048
        vectors:
                .org    vectors + 0x400
                b       handler
                .org    vectors + 0x1000
        user:   {user}
                .balign 16
        log:    .skip   1024"
    );
    let machine = crate::machine::Machine::with(&source, &[]);
    let mut vcpu = machine.vcpu(0);
    let exit = vcpu.run().expect("a run");
    assert_eq!(exit.exception.syndrome, 0x5a00_0000, "{exit:x?}");
    let count = vcpu.general(21).expect("X21");
    let log = vcpu.general(0).expect("X0");
    let word = |n: u64| machine.word(log + 8 * n);
    (0..count)
        .map(|n| (word(3 * n), word(3 * n + 1), word(3 * n + 2)))
        .collect()
}

/// Software step from EL0 with ISV and EX.
const STEP: u64 = 0xca00_0022 | 1 << 24;

#[test]
fn each_instruction_is_followed_by_a_step_exception() {
    let log = stepped("nop\nadd x1, x1, #1\nb 1f\nnop\n1: cbz x1, 1b\nsvc #3");
    let seen: Vec<_> = log.iter().map(|event| (event.0, event.1)).collect();
    let expected = [4, 8, 16, 20].map(|at| (STEP, at));
    assert_eq!(seen[..4], expected);
    // SVC counts as executed: its exception comes first, with SS used up.
    assert_eq!(seen[4], (0x5600_0003, 24));
    assert_eq!(log[4].2 & 1 << 21, 0);
    assert_eq!(log.len(), 5);
}

#[test]
fn loops_and_calls_are_stepped_through() {
    let log = stepped("mov x5, #3\n1: subs x5, x5, #1\nb.ne 1b\nbl 2f\nsvc #0\n2: ret");
    let seen: Vec<_> = log.iter().map(|event| event.1).collect();
    assert_eq!(seen, [4, 8, 4, 8, 4, 8, 12, 20, 16, 20]);
}

#[test]
fn a_stepped_load_exclusive_is_named_and_a_fault_keeps_the_step() {
    let log = stepped("adr x1, user\nldxr w2, [x1]\nudf #0\nnop\nsvc #0");
    let seen: Vec<_> = log.iter().map(|event| event.0).collect();
    assert_eq!(seen[..3], [STEP, STEP | 1 << 6, 0x0200_0000]);
    assert_ne!(log[2].2 & 1 << 21, 0, "the instruction was not executed");
    assert_eq!(seen[3], STEP);
}

#[test]
fn without_the_enable_bit_nothing_is_stepped() {
    let registers = result_of(
        "       adr     x0, vectors
                msr     vbar_el1, x0
                adr     x0, user
                msr     elr_el1, x0
                mov     x1, #1 << 21
                msr     spsr_el1, x1
                eret
                .balign 2048
        vectors:
                .org    vectors + 0x400
                mrs     x10, esr_el1
                mrs     x11, spsr_el1
                hvc     #0
                .org    vectors + 0x800
        user:   nop
                nop
                svc     #9",
        &[],
    );
    assert_eq!((registers[10], registers[11]), (0x5600_0009, 0));
}
