//! Exceptions: what each reports, by case, and the same from QEMU.

use crate::assembler::{assemble, scratch};
use crate::layout::{SYMBOLS, TABLES, UART, tables};
use crate::machine::{Machine, PROGRAM};
use hvf::ExceptionClass;
use hvf::sys::Reg;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

/// One event of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Offset in the vector table divided by 0x80; 0xff for a value.
    pub vector: u64,
    /// ESR_EL1, or the value.
    pub esr: u64,
    pub elr: u64,
    /// FAR_EL1, zero where the class of exception leaves it alone.
    pub far: u64,
    pub spsr: u64,
}

const VALUE: u64 = 0xff;

/// Events by case, in order.
type Log = BTreeMap<u64, Vec<Event>>;

fn parse(bytes: &[u8]) -> Log {
    let mut log = Log::new();
    for record in bytes.as_chunks::<40>().0 {
        let word = |n: usize| u64::from_le_bytes(record.as_chunks::<8>().0[n]);
        let (vector, esr) = (word(0) & 0xff, word(1));
        // Aborts and program counter alignment.
        let has_far = vector != VALUE && matches!(esr >> 26, 0x20..=0x25);
        log.entry(word(0) >> 8).or_default().push(Event {
            vector,
            esr,
            elr: word(2),
            far: if has_far { word(3) } else { 0 },
            spsr: word(4),
        });
    }
    log
}

/// The program and, behind it, its tables.
fn image() -> Vec<u8> {
    let mut image = assemble(include_str!("exceptions.s"), PROGRAM, &SYMBOLS);
    image.resize((TABLES - PROGRAM) as usize, 0);
    image.extend(tables());
    image
}

/// What the engine does; the console is the monitor's.
fn ours() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let machine = Machine::new(false);
        machine.put(PROGRAM, &image());
        let mut vcpu = machine.vcpu(0);
        let mut output = Vec::new();
        loop {
            let exit = vcpu.run().expect("a run");
            let syndrome = exit.exception.syndrome;
            match exit.exception_class() {
                Some(ExceptionClass::HVC) => break,
                Some(ExceptionClass::DATA_ABORT) if exit.exception.physical_address == UART => {
                    // strb w3, [x2]: ISV, byte, register 3, write.
                    assert_eq!(
                        syndrome,
                        0x24 << 26 | 1 << 25 | 1 << 24 | 3 << 16 | 1 << 6 | 7
                    );
                    output.push(vcpu.general(3).expect("X3") as u8);
                    let pc = vcpu.reg(Reg::PC).expect("PC");
                    vcpu.set_reg(Reg::PC, pc + 4).expect("PC");
                }
                _ => panic!("{exit:x?} at {:x?}", vcpu.reg(Reg::PC)),
            }
        }
        parse(&output)
    })
}

/// What QEMU's virt machine does.
fn theirs() -> Log {
    let (program, output) = (scratch(".bin"), scratch(".out"));
    std::fs::write(&program, image()).expect("write the program");
    let status = Command::new("timeout")
        .args([
            "60",
            "qemu-system-aarch64",
            "-machine",
            "virt,gic-version=3",
        ])
        .args([
            "-cpu",
            "cortex-a76",
            "-m",
            "16",
            "-display",
            "none",
            "-monitor",
            "none",
            // Its boot ROM is in a package that nothing here needs.
            "-nic",
            "none",
        ])
        .arg("-serial")
        .arg(format!("file:{}", output.display()))
        .arg("-device")
        .arg(format!(
            "loader,file={},addr={PROGRAM:#x},cpu-num=0,force-raw=on",
            program.display()
        ))
        .status()
        .expect("qemu-system-aarch64 runs (package qemu-system-arm)");
    assert!(status.success(), "{status}");
    let log = parse(&std::fs::read(&output).expect("its output"));
    let _ = (std::fs::remove_file(program), std::fs::remove_file(output));
    log
}

/// Cases in which QEMU 7.2 differs, with the reason and what the architecture
/// says: vector, ESR_EL1, FAR_EL1.
const QEMU_DIFFERS: &[(u64, &str, [u64; 3])] = &[
    (
        35,
        "fetches before it looks at the program counter's alignment",
        [4, 0x8a00_0000, 0x40_0002],
    ),
    (
        36,
        "fetches before it looks at the program counter's alignment",
        [4, 0x8a00_0000, 0x40_0001],
    ),
    (
        140,
        "fetches before it looks at the program counter's alignment",
        [8, 0x8a00_0000, 0x40_3006],
    ),
    (61, "has AArch32 at EL0", [4, 0x3a00_0000, 0]),
    (
        90,
        "does not translate for cache maintenance",
        [4, 0x9600_0147, 0x40_3024],
    ),
    (
        93,
        "does not translate for cache maintenance",
        [4, 0x9600_0146, 0x100_0000],
    ),
    (
        178,
        "does not translate for cache maintenance",
        [8, 0x9200_0147, 0x40_3010],
    ),
    (
        179,
        "does not translate for cache maintenance",
        [8, 0x9200_0147, 0x40_3010],
    ),
    (
        106,
        "sets PAR_EL1.NS, which is unknown here",
        [VALUE, 0xff00_0000_4005_0980, 0],
    ),
    (
        110,
        "sets PAR_EL1.NS, which is unknown here",
        [VALUE, 0xff00_0000_4005_0980, 0],
    ),
    (155, "does not trap WFE", [8, 0x07e0_0001, 0]),
    (
        158,
        "swaps op1 and op2 in the syndrome",
        [8, 0x620c_d3e4, 0],
    ),
];

#[test]
fn exceptions_are_reported_as_by_qemu() {
    let (ours, theirs) = (ours(), theirs());
    let mut wrong = Vec::new();
    let cases: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for case in cases {
        let (a, b) = (ours.get(case), theirs.get(case));
        let differs = QEMU_DIFFERS.iter().any(|known| known.0 == *case);
        if (a == b) == differs {
            wrong.push(format!("case {case}:\n  ours   {a:x?}\n  theirs {b:x?}"));
        }
    }
    assert!(ours.len() > 120, "the program ran: {}", ours.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn where_qemu_differs_the_architecture_is_followed() {
    for (case, reason, expected) in QEMU_DIFFERS {
        let event = one(*case);
        assert_eq!(
            [event.vector, event.esr, event.far],
            *expected,
            "case {case}: QEMU {reason}"
        );
    }
}

/// The only event of `case`.
fn one(case: u64) -> Event {
    let events = ours().get(&case).map_or(&[][..], Vec::as_slice);
    assert_eq!(events.len(), 1, "case {case}: {events:x?}");
    events[0]
}

/// Class and ISS of the only event of `case`.
fn syndrome(case: u64) -> (u64, u64) {
    let esr = one(case).esr;
    assert_ne!(esr & 1 << 25, 0, "IL is set");
    (esr >> 26, esr & 0x1ff_ffff)
}

#[test]
fn walks_report_the_level_at_which_they_fail() {
    let expected = [
        // Translation, read and write.
        (1, 0x04),
        (2, 0x05),
        (3, 0x06),
        (4, 0x07),
        (5, 0x44),
        (6, 0x47),
        // Access flag.
        (7, 0x09),
        (8, 0x0a),
        (9, 0x0b),
        (10, 0x4b),
        // Permission.
        (11, 0x4d),
        (12, 0x4e),
        (13, 0x4f),
        // Address size of leaves and of tables.
        (14, 0x01),
        (15, 0x02),
        (16, 0x03),
        (17, 0x00),
        (18, 0x01),
        (19, 0x02),
    ];
    for (case, iss) in expected {
        assert_eq!(syndrome(case), (0x25, iss), "case {case}");
    }
    for (case, iss) in [(21, 0x07), (22, 0x06), (23, 0x0b)] {
        assert_eq!(syndrome(case), (0x21, iss), "case {case}");
    }
}

#[test]
fn table_attributes_restrict_what_is_below() {
    assert_eq!(syndrome(20), (0x25, 0x4d), "APTable");
    assert_eq!(syndrome(27), (0x21, 0x0d), "PXNTable");
}

#[test]
fn code_writable_at_el0_or_marked_pxn_does_not_run_at_el1() {
    for case in [24, 25, 26] {
        assert_eq!(syndrome(case), (0x21, 0x0f), "case {case}");
    }
}

#[test]
fn data_faults_keep_the_tag_and_fetch_faults_do_not() {
    assert_eq!(one(32).far, 0xab00_0000_0040_3000);
    assert_eq!(one(34).far, 0x40_3000);
    assert_eq!(one(34).elr, 0x40_3000);
    assert_eq!(one(142).far, 0xcd00_0000_0040_3002);
}

#[test]
fn pan_stops_privileged_accesses_but_not_unprivileged_ones() {
    assert_eq!(syndrome(40), (0x25, 0x0f));
    assert_eq!(syndrome(41), (0x25, 0x4f));
    assert!(!ours().contains_key(&42), "LDTR and STTR have EL0's rights");
    assert_eq!(syndrome(43), (0x25, 0x4f), "a page read-only at EL0");
    assert_eq!(syndrome(44), (0x25, 0x0f), "a page not EL0's");
    assert!(!ours().contains_key(&46), "without PAN the kernel may");
    // SCTLR_EL1.SPAN = 0: the exception sets PAN, SPSR has what was.
    assert_eq!(one(55).spsr, 0x4040_03c5);
}

#[test]
fn deliberate_exceptions_carry_their_immediate_and_return_address() {
    assert_eq!(syndrome(50), (0x15, 0x1234));
    assert_eq!(syndrome(51), (0x3c, 0xfff1));
    assert_eq!(syndrome(52), (0, 0));
    assert_eq!(syndrome(130), (0x15, 0xffff));
    assert_eq!(syndrome(131), (0x3c, 1));
    // SVC returns after itself, BRK and UDF to themselves.
    assert_eq!(one(130).elr, 0x40_0004);
    assert_eq!(one(131).elr, 0x40_0004);
    assert_eq!(one(132).elr, 0x40_0008);
    // EL1t, EL1h and EL0 have vectors of their own.
    assert_eq!([50, 53, 130].map(|case| one(case).vector), [4, 0, 8]);
}

#[test]
fn what_el0_may_not_do_is_undefined_or_trapped() {
    for case in [132, 133, 134, 143, 144, 145, 161] {
        assert_eq!(syndrome(case), (0, 0), "case {case}");
    }
    // System instructions under SCTLR_EL1 and CNTKCTL_EL1.
    for case in [150, 151, 152, 153, 156, 157, 158] {
        assert_eq!(syndrome(case).0, 0x18, "case {case}");
    }
    assert_eq!(syndrome(154), (0x01, 0x1e0_0000), "WFI");
    for case in [170, 171, 172, 173, 174, 175, 176] {
        assert_eq!(syndrome(case).0, 0x15, "case {case} reaches its SVC");
    }
}

#[test]
fn fp_instructions_trap_as_cpacr_says() {
    for case in [120, 121, 122, 123, 125] {
        assert_eq!(syndrome(case), (0x07, 0x1e0_0000), "case {case}");
    }
    assert!(!ours().contains_key(&124), "FPEN = 1 is for EL0 only");
}

#[test]
fn illegal_returns_fault_at_their_target() {
    for case in [60, 61, 62, 63] {
        let event = one(case);
        assert_eq!(event.esr, 0x3a00_0000, "case {case}");
        assert_ne!(event.spsr & 1 << 20, 0, "SPSR.IL");
        assert_eq!(event.spsr & 0x1f, 5, "the level stays");
    }
}

#[test]
fn ordered_and_atomic_accesses_must_be_aligned() {
    for (case, iss) in [
        (70, 0x21),
        (71, 0x21),
        (72, 0x61),
        (73, 0x21),
        (74, 0x21),
        (75, 0x21),
    ] {
        assert_eq!(syndrome(case), (0x25, iss), "case {case}");
    }
    assert_eq!(syndrome(141), (0x24, 0x21));
}

#[test]
fn atomics_need_write_rights_even_when_they_do_not_write() {
    for case in [80, 81, 82, 83] {
        assert_eq!(syndrome(case), (0x25, 0x4f), "case {case}");
    }
}

#[test]
fn an_access_across_pages_faults_at_the_second_one() {
    for (case, iss) in [(84, 0x07), (85, 0x47), (86, 0x07), (87, 0x47)] {
        assert_eq!(syndrome(case), (0x25, iss), "case {case}");
        assert_eq!(one(case).far, 0x40_9000, "case {case}");
    }
}

#[test]
fn dc_zva_is_a_write_and_reports_the_address_given() {
    assert_eq!((syndrome(91), one(91).far), ((0x25, 0x47), 0x40_3024));
    assert_eq!((syndrome(92), one(92).far), ((0x25, 0x4f), 0x40_5024));
    assert_eq!(syndrome(177), (0x24, 0x4f & !3 | 2), "a level 2 block");
}

#[test]
fn address_translation_reports_faults_in_par() {
    // F, and FST at bits 6:1.
    let expected = [
        (100, 0x04),
        (101, 0x05),
        (102, 0x06),
        (103, 0x07),
        (104, 0x0f),
        (105, 0x0a),
        (107, 0x0f),
        (108, 0x0f),
        (109, 0x03),
    ];
    for (case, status) in expected {
        let par = one(case).esr;
        assert_eq!(par & 0x7f, status << 1 | 1, "case {case}: {par:x}");
    }
    assert_eq!(one(106).esr >> 12 & 0xf_ffff, 0x4_0050);
}

#[test]
fn exceptions_and_clrex_clear_the_exclusive_monitor() {
    let statuses = [191, 192, 193, 194].map(|case| one(case).esr);
    assert_eq!(statuses, [1, 0, 1, 1]);
}

#[test]
fn a_translation_changes_with_its_invalidation() {
    assert_eq!((one(200).esr, one(201).esr), (0x11, 0x22));
    assert_eq!(syndrome(202), (0x25, 0x07));
}
