//! The questions for Macs, asked of this engine: what it is documented to answer.

use hvf::probe::{Patience, ask};
use std::time::Duration;

const ANSWERS: [(&str, &str); 20] = [
    ("limits", "64 vCPUs, 36 bits of addresses, at most 40"),
    (
        "TYPER of two redistributors (bit 4: last)",
        "0: 0x0 at +0x0, 1: 0x100000110 at +0x20000",
    ),
    ("a second machine", "HV_BUSY"),
    ("a vCPU without a machine", "HV_NO_DEVICE"),
    ("a second vCPU of one thread", "HV_BUSY"),
    ("ending a machine that has a vCPU", "HV_BUSY"),
    ("a register, asked from another thread", "HV_BAD_ARGUMENT"),
    (
        "a system register that there is not",
        "read: HV_BAD_ARGUMENT, written: HV_BAD_ARGUMENT",
    ),
    ("addresses wider than the host has", "HV_UNSUPPORTED"),
    ("an interrupt line beside a controller", "HV_UNSUPPORTED"),
    ("state of the controller, set after a run", "HV_DENIED"),
    (
        "state of the controller, cut short",
        "half of it: HV_BAD_ARGUMENT, another first byte: HV_BAD_ARGUMENT",
    ),
    ("mapping over a mapping", "HV_ERROR"),
    ("unmapping a hole", "HV_ERROR"),
    ("mapping 4 KiB", "HV_BAD_ARGUMENT"),
    (
        "mapping 4 KiB in a machine with that granule",
        "there is no call to choose it, which macOS 26 has",
    ),
    ("WFI with a controller", "stays until it is made to leave"),
    (
        "WFI with a timer that is due, without a controller",
        "leaves with VTIMER_ACTIVATED",
    ),
    (
        "WFI with a timer that is due, with a controller",
        "stays until it is made to leave",
    ),
    (
        "memory taken away from a running guest",
        "accepted; the guest leaves with an exception: syndrome 0x93810007, class 0x24, \
         guest physical 0x90000000",
    ),
];

#[test]
fn the_engine_answers_every_question_about_macs() {
    let patience = Patience {
        // A guest that has to leave and does not makes the test fail, late.
        leaves: Duration::from_secs(300),
        may_stay: Duration::from_millis(200),
    };
    let report = ask(&supermachine_softhv::abi::api(), patience);
    let shown = report.to_string();
    for (question, answer) in ANSWERS {
        assert_eq!(report.answer(question), Some(answer), "{question}\n{shown}");
    }
    for answer in &report.answers {
        assert!(!answer.answer.contains("panicked"), "{shown}");
    }
}
