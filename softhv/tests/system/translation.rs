//! Translation that QEMU's CPU does not have.

use crate::layout::{SYMBOLS, TABLES, tables};
use crate::machine::{Machine, PROGRAM};

/// TCR_EL1.E0PD0.
const E0PD0: u64 = 1 << 55;

/// Turns the MMU on with `TCR | extra`, then runs `body`; the vectors leave
/// with ESR_EL1 in X10.
fn syndrome(extra: u64, body: &str) -> Option<u64> {
    let source = format!(
        "       .macro  address reg, value
                movz    \\reg, #((\\value) & 0xffff)
                movk    \\reg, #((\\value) >> 16 & 0xffff), lsl #16
                movk    \\reg, #((\\value) >> 32 & 0xffff), lsl #32
                movk    \\reg, #((\\value) >> 48 & 0xffff), lsl #48
                .endm
                adr     x0, vectors
                msr     vbar_el1, x0
                mov     x0, #0xff
                msr     mair_el1, x0
                address x0, TCR
                orr     x0, x0, x1
                msr     tcr_el1, x0
                address x0, TABLES
                msr     ttbr0_el1, x0
                address x0, SCTLR
                msr     sctlr_el1, x0
                isb
                {body}
                hvc     #1
                .balign 2048
        vectors:
                .org    vectors + 0x200
                mrs     x10, esr_el1
                hvc     #2
                .org    vectors + 0x400
                mrs     x10, esr_el1
                hvc     #2
                .org    USER_OFFSET
                svc     #0"
    );
    let machine = Machine::with(&source, &SYMBOLS);
    machine.put(TABLES, &tables());
    let mut vcpu = machine.vcpu(0);
    vcpu.set_general(1, extra).expect("X1");
    let exit = vcpu.run().expect("a run");
    let number = exit.exception.syndrome & 0xffff;
    assert!(
        exit.exception.syndrome >> 26 == 0x16,
        "{exit:x?} from {PROGRAM:x}"
    );
    (number == 2).then(|| vcpu.general(10).expect("X10"))
}

const TO_EL0: &str = "address x0, USER_CODE\nmsr elr_el1, x0\nmsr spsr_el1, xzr\neret";

#[test]
fn e0pd_keeps_el0_out_of_a_half_with_level_0_faults() {
    assert_eq!(syndrome(0, TO_EL0), Some(0x5600_0000), "SVC");
    assert_eq!(syndrome(E0PD0, TO_EL0), Some(0x8200_0004));
}

#[test]
fn e0pd_is_for_unprivileged_accesses_only() {
    let privileged = "address x0, USER_DATA\nldr x2, [x0]\nstr x2, [x0]";
    assert_eq!(syndrome(E0PD0, privileged), None);
    let unprivileged = "address x0, USER_DATA\nldtr x2, [x0]";
    assert_eq!(syndrome(0, unprivileged), None);
    assert_eq!(syndrome(E0PD0, unprivileged), Some(0x9600_0004));
}

/// What is done by pairs of LDTR or STTR, which are compiled as one access.
#[test]
fn rows_of_unprivileged_accesses_do_what_each_would() {
    // Both halves, and a base that the first of two loads overwrites.
    let body = "address x0, USER_DATA
        address x1, 0x1122334455667788
        mvn     x2, x1
        sttr    x1, [x0, #16]
        sttr    x2, [x0, #24]
        str     x0, [x0]
        ldtr    x3, [x0, #16]
        ldtr    x4, [x0, #24]
        eor     x3, x3, x1
        eor     x4, x4, x2
        orr     x3, x3, x4
        mov     x5, x0
        str     x1, [x0, #8]
        ldtr    x5, [x5]
        ldtr    x6, [x5, #8]
        eor     x5, x5, x0
        eor     x6, x6, x1
        orr     x3, x3, x5
        orr     x3, x3, x6
        sttr    xzr, [x0, #16]
        sttr    x0, [x0, #24]
        ldr     x4, [x0, #16]
        orr     x3, x3, x4
        ldr     x4, [x0, #24]
        eor     x4, x4, x0
        orr     x3, x3, x4
        cbz     x3, 1f
        brk     #7
1:";
    assert_eq!(syndrome(0, body), None);
}

#[test]
fn second_of_two_unprivileged_accesses_faults_alone() {
    // EL0 may read the page behind USER_DATA, and not write it.
    let across = |what: &str| {
        format!(
            "address x0, USER_READ
            mov     x1, #5
            mov     x2, #6
            sub     x3, x0, #8
            str     xzr, [x3]
            {what}
            ldr     x4, [x3]
            cmp     x4, #5
            b.eq    1f
            brk     #7
1:"
        )
    };
    let write = across("sttr x1, [x3]\nsttr x2, [x3, #8]");
    assert_eq!(syndrome(0, &write), Some(0x9600_004f));
    let read = across("sttr x1, [x3]\nldtr x5, [x3]\nldtr x6, [x3, #8]");
    assert_eq!(syndrome(0, &read), None);
}
