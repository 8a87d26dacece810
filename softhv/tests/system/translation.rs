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
