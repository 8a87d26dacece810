//! What leaves guest execution, and how the monitor sees it.

use crate::machine::{Machine, PROGRAM, RAM, exit_of};
use hvf::sys::{MemoryFlags, Reg, SysReg, VcpuExit};

/// Nothing is mapped here.
const DEVICE: u64 = 0x1000_0000;

/// Exits of a straight line of instructions with X1 = `at`, stepped over by
/// the monitor, which puts `answer` into the register of each described load.
fn exits(source: &str, at: u64, prepare: impl FnOnce(&Machine)) -> Vec<VcpuExit> {
    let machine = Machine::with(&format!("{source}\nhvc #0x777"), &[]);
    prepare(&machine);
    let mut vcpu = machine.vcpu(0);
    vcpu.set_sys_reg(SysReg::CPACR_EL1, 3 << 20)
        .expect("CPACR_EL1");
    let mut seen = Vec::new();
    for n in 0..=source.lines().count() as u64 {
        vcpu.set_general(1, at).expect("X1");
        vcpu.set_reg(Reg::PC, PROGRAM + 4 * n).expect("PC");
        let exit = vcpu.run().expect("a run");
        if exit.exception.syndrome & 0xffff == 0x777 {
            return seen;
        }
        assert_eq!(
            vcpu.reg(Reg::PC).expect("PC"),
            PROGRAM + 4 * n,
            "at the instruction"
        );
        assert_eq!(vcpu.general(1).expect("X1"), at, "no writeback");
        seen.push(exit);
    }
    panic!("the program did not end: {seen:x?}");
}

/// Described accesses: text, then SAS, SSE, SRT, SF, AR, WnR of the syndrome.
const DESCRIBED: &[(&str, [u64; 6])] = &[
    ("ldrb w3, [x1]", [0, 0, 3, 0, 0, 0]),
    ("ldrh w30, [x1]", [1, 0, 30, 0, 0, 0]),
    ("ldr w0, [x1]", [2, 0, 0, 0, 0, 0]),
    ("ldr x17, [x1]", [3, 0, 17, 1, 0, 0]),
    ("ldrsb w3, [x1]", [0, 1, 3, 0, 0, 0]),
    ("ldrsb x3, [x1]", [0, 1, 3, 1, 0, 0]),
    ("ldrsh w3, [x1]", [1, 1, 3, 0, 0, 0]),
    ("ldrsh x3, [x1]", [1, 1, 3, 1, 0, 0]),
    ("ldrsw x3, [x1]", [2, 1, 3, 1, 0, 0]),
    ("strb w4, [x1]", [0, 0, 4, 0, 0, 1]),
    ("strh w4, [x1]", [1, 0, 4, 0, 0, 1]),
    ("str w4, [x1]", [2, 0, 4, 0, 0, 1]),
    ("str x4, [x1]", [3, 0, 4, 1, 0, 1]),
    ("str wzr, [x1]", [2, 0, 31, 0, 0, 1]),
    ("str xzr, [x1]", [3, 0, 31, 1, 0, 1]),
    ("ldr wzr, [x1]", [2, 0, 31, 0, 0, 0]),
    ("ldur x5, [x1, #0]", [3, 0, 5, 1, 0, 0]),
    ("ldr w6, [x1, xzr]", [2, 0, 6, 0, 0, 0]),
    ("ldtr w7, [x1]", [2, 0, 7, 0, 0, 0]),
    ("sttrb w7, [x1]", [0, 0, 7, 0, 0, 1]),
    ("ldar w8, [x1]", [2, 0, 8, 0, 1, 0]),
    ("ldar x8, [x1]", [3, 0, 8, 1, 1, 0]),
    ("ldarb w8, [x1]", [0, 0, 8, 0, 1, 0]),
    ("ldapr w8, [x1]", [2, 0, 8, 0, 1, 0]),
    ("stlr w9, [x1]", [2, 0, 9, 0, 1, 1]),
    ("stlrh w9, [x1]", [1, 0, 9, 0, 1, 1]),
    ("stlr xzr, [x1]", [3, 0, 31, 1, 1, 1]),
];

/// Accesses that the syndrome cannot describe, with WnR.
const UNDESCRIBED: &[(&str, u64)] = &[
    ("ldp x2, x3, [x1]", 0),
    ("stp w2, w3, [x1]", 1),
    ("ldr x2, [x1], #8", 0),
    ("str x2, [x1, #0]!", 1),
    ("ldr q0, [x1]", 0),
    ("str s0, [x1]", 1),
    ("ld1 {v0.16b}, [x1]", 0),
    ("st4 {v0.4s-v3.4s}, [x1]", 1),
    ("ldxr w2, [x1]", 0),
    ("ldadd w2, w3, [x1]", 1),
    ("dc zva, x1", 1),
];

fn lines<T>(cases: &[(&str, T)]) -> String {
    cases
        .iter()
        .map(|case| case.0)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn accesses_outside_memory_are_described_to_the_monitor() {
    let seen = exits(&lines(DESCRIBED), DEVICE, |_| ());
    assert_eq!(seen.len(), DESCRIBED.len());
    for (exit, (text, [sas, sse, srt, sf, ar, wnr])) in seen.iter().zip(DESCRIBED) {
        let iss = 1 << 24 | sas << 22 | sse << 21 | srt << 16 | sf << 15 | ar << 14 | wnr << 6 | 7;
        let seen = exit.exception;
        assert_eq!(seen.syndrome, 0x24 << 26 | 1 << 25 | iss, "{text}");
        assert_eq!(
            (seen.virtual_address, seen.physical_address),
            (DEVICE, DEVICE),
            "{text}"
        );
    }
}

#[test]
fn pairs_vectors_writeback_and_atomics_are_not_described() {
    let seen = exits(&lines(UNDESCRIBED), DEVICE, |_| ());
    assert_eq!(seen.len(), UNDESCRIBED.len());
    for (exit, (text, wnr)) in seen.iter().zip(UNDESCRIBED) {
        assert_eq!(
            exit.exception.syndrome,
            0x24 << 26 | 1 << 25 | wnr << 6 | 7,
            "{text}"
        );
        assert_eq!(exit.exception.physical_address, DEVICE, "{text}");
    }
}

#[test]
fn writes_to_memory_mapped_read_only_are_permission_faults() {
    let page = RAM + 0x8000;
    let protect = |machine: &Machine| {
        machine
            .vm()
            .protect(page, 0x4000, MemoryFlags::READ)
            .expect("protected");
    };
    let seen = exits(
        "str x2, [x1]\nstp x2, x3, [x1]\nldadd x2, x3, [x1]",
        page + 8,
        protect,
    );
    let described = 1 << 24 | 3 << 22 | 2 << 16 | 1 << 15;
    let expected = [described, 0, 0].map(|iss| 0x9200_0000 | iss | 1 << 6 | 0xf);
    let syndromes: Vec<u64> = seen.iter().map(|exit| exit.exception.syndrome).collect();
    assert_eq!(syndromes, expected);
    assert!(
        seen.iter()
            .all(|exit| exit.exception.physical_address == page + 8)
    );
}

#[test]
fn hypercalls_leave_behind_themselves_and_secure_calls_at_themselves() {
    let (exit, registers) = exit_of("nop\nhvc #0x1234", &[]);
    assert_eq!(exit.exception.syndrome, 0x5a00_1234);
    assert_eq!(registers[31], PROGRAM + 8);
    let (exit, registers) = exit_of("nop\nsmc #0x4321", &[]);
    assert_eq!(exit.exception.syndrome, 0x5e00_4321);
    assert_eq!(registers[31], PROGRAM + 4);
}

#[test]
fn unknown_system_registers_leave_with_their_encoding() {
    // s3_1_c15_c2_0, implementation defined.
    let (exit, registers) = exit_of("msr s3_1_c15_c2_0, x7", &[]);
    let iss = 3 << 20 | 1 << 14 | 15 << 10 | 7 << 5 | 2 << 1;
    assert_eq!(exit.exception.syndrome, 0x6200_0000 | iss);
    assert_eq!(registers[31], PROGRAM);
    let (exit, _) = exit_of("mrs x9, s3_1_c15_c2_0", &[]);
    let iss = 3 << 20 | 1 << 14 | 15 << 10 | 9 << 5 | 2 << 1 | 1;
    assert_eq!(exit.exception.syndrome, 0x6200_0000 | iss);
}

#[test]
fn a_fetch_from_no_memory_leaves_as_an_instruction_abort() {
    let (exit, registers) = exit_of("mov x0, #0x10000000\nbr x0", &[]);
    assert_eq!(exit.exception.syndrome, 0x8200_0007);
    assert_eq!(exit.exception.physical_address, DEVICE);
    assert_eq!(registers[31], DEVICE);
}
