//! The stack pointer's alignment check.

use crate::machine::{Machine, PROGRAM, result_of};
use hvf::ExceptionClass;
use hvf::sys::SysReg;

/// Runs `body` at EL1 with SCTLR_EL1.SA as given, SP in memory and a multiple
/// of 16, and vectors; returns ESR_EL1 and the offset in `body` of ELR_EL1, or
/// `None` if it reached its end.
fn fault(body: &str, checked: bool) -> Option<(u64, u64)> {
    let source = format!(
        "       adr     x0, vectors
                msr     vbar_el1, x0
                mov     x0, #3 << 20
                msr     cpacr_el1, x0
                mrs     x0, sctlr_el1
                bfi     x0, x1, #3, #1
                msr     sctlr_el1, x0
                isb
                adr     x0, stack
                mov     sp, x0
                adr     x9, 1f
        1:      {body}
                hvc     #1
                .balign 2048
        vectors:
                .org    vectors + 0x200
                mrs     x10, esr_el1
                mrs     x11, elr_el1
                sub     x11, x11, x9
                hvc     #2
                .org    vectors + 0x800
        stack:  .skip   256"
    );
    let machine = Machine::with(&source, &[]);
    let mut vcpu = machine.vcpu(0);
    vcpu.set_general(1, u64::from(checked)).expect("X1");
    let exit = vcpu.run().expect("a run");
    assert_eq!(
        exit.exception_class(),
        Some(ExceptionClass::HVC),
        "{exit:x?}"
    );
    let general = |n| vcpu.general(n).expect("a register");
    (exit.exception.syndrome & 0xffff == 2).then(|| (general(10), general(11)))
}

/// SP alignment fault, IL set, no ISS.
const SP_ALIGNMENT: u64 = 0x9a00_0000;

#[test]
fn accesses_by_a_misaligned_stack_pointer_fault() {
    let accesses = [
        "ldr x0, [sp]",
        "strb w0, [sp, #1]",
        "ldur x0, [sp, #-8]",
        "stp x0, x1, [sp, #-16]!",
        "ldp x0, x1, [sp], #16",
        "ldr x0, [sp, x2]",
        "ldr q0, [sp]",
        "st1 {v0.16b}, [sp]",
        "ldxr x0, [sp]",
        "ldadd x0, x1, [sp]",
        "ldar x0, [sp]",
        "ldtr x0, [sp]",
    ];
    for access in accesses {
        let body = format!("mov x2, #0\nadd sp, sp, #8\n{access}");
        assert_eq!(fault(&body, true), Some((SP_ALIGNMENT, 8)), "{access}");
    }
}

#[test]
fn every_way_to_move_the_stack_pointer_is_noticed() {
    let moves = [
        "sub sp, sp, #4",
        "add x0, sp, #1\nmov sp, x0",
        "mov x0, #8\nadd sp, sp, x0",
        "mov x0, sp\norr x0, x0, #2\nand sp, x0, #0x7fffffffffffffff",
        "ldr x0, [sp], #8",
        "stp w0, w1, [sp, #-8]!",
        "ld1 {v0.8b}, [sp], #8",
        "mov x0, #24\nld1 {v0.8b}, [sp], x0",
    ];
    for text in moves {
        let count = 1 + text.lines().count() as u64;
        let body = format!("nop\n{text}\nldr x3, [sp]");
        assert_eq!(
            fault(&body, true),
            Some((SP_ALIGNMENT, 4 * count)),
            "{text}"
        );
    }
}

#[test]
fn an_aligned_stack_pointer_or_an_unchecked_one_is_free_to_use() {
    let off = "add sp, sp, #8\nldr x0, [sp]\nstp x0, x1, [sp, #8]";
    assert_eq!(fault(off, false), None);
    let back =
        "add sp, sp, #8\nadd x0, x0, #1\nsub sp, sp, #8\nldr x0, [sp]\nldp x0, x1, [sp], #16";
    assert_eq!(fault(back, true), None);
    let unused = "add sp, sp, #8\nprfm pldl1keep, [sp]\nadr x2, stack\nldr x0, [x2]\nmov x3, sp";
    assert_eq!(fault(unused, true), None);
}

#[test]
fn a_loop_runs_by_an_aligned_and_a_misaligned_stack_pointer_in_turn() {
    // The fourth round finds SP off; three loads went through.
    let body =
        "mov x4, #0\n2: ldr x0, [sp]\nadd x4, x4, #1\ncmp x4, #3\nb.ne 2b\nadd sp, sp, #8\nb 2b";
    assert_eq!(fault(body, true), Some((SP_ALIGNMENT, 4)));
}

#[test]
fn the_exception_level_has_its_own_check() {
    // EL0 with SA0 clear, SA set: nothing. Then SA0 set.
    let source = "
                adr     x0, vectors
                msr     vbar_el1, x0
                mrs     x0, sctlr_el1
                orr     x0, x0, #8
                msr     sctlr_el1, x0
                adr     x1, stack + 8
                msr     sp_el0, x1
                adr     x2, user
        1:      msr     elr_el1, x2
                msr     spsr_el1, xzr
                mov     x20, #0
                eret
        user:   ldr     x3, [sp]
                svc     #0
                .balign 2048
        vectors:
                .org    vectors + 0x400
                mrs     x10, esr_el1
                cbnz    x21, 2f
                mov     x11, x10
                mov     x21, #1
                mrs     x0, sctlr_el1
                orr     x0, x0, #16
                msr     sctlr_el1, x0
                b       1b
        2:      hvc     #0
                .org    vectors + 0x800
                .balign 16
        stack:  .skip   256";
    let registers = result_of(source, &[]);
    assert_eq!((registers[11], registers[10]), (0x5600_0000, SP_ALIGNMENT));
}

#[test]
fn a_stack_pointer_set_by_the_monitor_counts() {
    let machine = Machine::with("hvc #0\nldr x0, [sp]\nhvc #1\nldr x0, [sp]\nhvc #2", &[]);
    let mut vcpu = machine.vcpu(0);
    let sctlr = vcpu.sys_reg(SysReg::SCTLR_EL1).expect("SCTLR_EL1");
    vcpu.set_sys_reg(SysReg::SCTLR_EL1, sctlr | 8)
        .expect("SCTLR_EL1");
    vcpu.set_sys_reg(SysReg::VBAR_EL1, PROGRAM)
        .expect("VBAR_EL1");
    vcpu.set_sys_reg(SysReg::SP_EL1, PROGRAM + 0x100)
        .expect("SP_EL1");
    for number in [0, 1] {
        let exit = vcpu.run().expect("a run");
        assert_eq!(exit.exception.syndrome & 0xffff, number);
    }
    vcpu.set_sys_reg(SysReg::SP_EL1, PROGRAM + 0x108)
        .expect("SP_EL1");
    machine.put(PROGRAM + 0x200, &0xd400_00e2u32.to_le_bytes());
    let exit = vcpu.run().expect("a run");
    assert_eq!(exit.exception.syndrome & 0xffff, 7, "in the vector");
    assert_eq!(
        vcpu.sys_reg(SysReg::ESR_EL1).expect("ESR_EL1"),
        SP_ALIGNMENT
    );
}
