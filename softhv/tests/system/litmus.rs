//! Memory ordering between vCPUs: outcomes that the architecture forbids.

use crate::machine::{Machine, RAM};
use hvf::ExceptionClass;

/// Rounds of each test.
const ROUNDS: u64 = 20_000;
/// Where X, Y and the round barrier are: pages apart.
const X: u64 = RAM + 0x1_0000;
const Y: u64 = RAM + 0x2_0000;
const BARRIER: u64 = RAM + 0x3_0000;
/// Records of the vCPUs, one word per round.
const RECORDS: u64 = RAM + 0x10_0000;
const RECORD_BYTES: u64 = 0x4_0000;

/// Runs `body` on `count` vCPUs in lockstep rounds, in which X0 is the number
/// of the vCPU, X1 and X2 the addresses of X and Y, X3 the round, the first
/// being 1. Returns what X9 was after each round, for each vCPU. X10 to X15 belong to
/// the barrier.
fn play(count: u64, body: &str) -> Vec<Vec<u64>> {
    let source = format!(
        "       ldr     x1, =X
                ldr     x2, =Y
                ldr     x10, =BARRIER
                ldr     x11, =RECORDS
                ldr     x12, =RECORD_BYTES
                madd    x11, x0, x12, x11
                ldr     x12, =ROUNDS
                mov     x3, #1
                mov     x14, #0
                mov     x15, #1
        1:      add     x14, x14, #COUNT
                ldaddal x15, x13, [x10]
        2:      ldar    x13, [x10]
                cmp     x13, x14
                b.hs    3f
                wfe
                b       2b
        3:
                {body}
                str     x9, [x11], #8
                add     x3, x3, #1
                cmp     x3, x12
                b.ls    1b
                hvc     #0
                .ltorg"
    );
    let symbols = [
        ("X", X),
        ("Y", Y),
        ("BARRIER", BARRIER),
        ("RECORDS", RECORDS),
        ("RECORD_BYTES", RECORD_BYTES),
        ("COUNT", count),
        ("ROUNDS", ROUNDS),
    ];
    let machine = Machine::with(&source, &symbols);
    let run = |index: u64| {
        let mut vcpu = machine.vcpu(index);
        let exit = vcpu.run().expect("a run");
        assert_eq!(
            exit.exception_class(),
            Some(ExceptionClass::HVC),
            "{exit:x?}"
        );
    };
    let run = &run;
    std::thread::scope(|scope| {
        for index in 0..count {
            scope.spawn(move || run(index));
        }
    });
    let records = |index: u64| (0..ROUNDS).map(move |n| RECORDS + index * RECORD_BYTES + 8 * n);
    let read = |index: u64| records(index).map(|at| machine.word(at)).collect();
    (0..count).map(read).collect()
}

/// Message passing: vCPU 0 stores X, then Y; vCPU 1 must not see the new Y and
/// then the old X.
fn message_passing(store: &str, load: &str) {
    let body = format!(
        "       mov     x9, #0
                cbnz    x0, 4f
                str     x3, [x1]
                {store}
                b       5f
        4:      {load}
                ldr     x5, [x1]
                cmp     x4, x3
                ccmp    x5, x3, #4, eq
                cset    x9, ne
        5:"
    );
    let records = play(2, &body);
    let broken = records[1].iter().filter(|seen| **seen != 0).count();
    assert_eq!(broken, 0, "{store} / {load}");
}

#[test]
fn messages_arrive_in_order_through_barriers() {
    message_passing("dmb ish\nstr x3, [x2]", "ldr x4, [x2]\ndmb ish");
    message_passing("dmb ishst\nstr x3, [x2]", "ldr x4, [x2]\ndmb ishld");
}

#[test]
fn messages_arrive_in_order_through_release_and_acquire() {
    message_passing("stlr x3, [x2]", "ldar x4, [x2]");
    message_passing("stlr x3, [x2]", "ldapr x4, [x2]");
}

/// Store buffering: each of two vCPUs stores one location and loads the other;
/// not both loads may miss the other's store.
fn store_buffering(store: &str, order: &str, load: &str) {
    let body = format!(
        "       mov     x16, x1
                mov     x17, x2
                cbz     x0, 4f
                mov     x16, x2
                mov     x17, x1
        4:      {store} x3, [x16]
                {order}
                {load}  x4, [x17]
                cmp     x4, x3
                cset    x9, lo"
    );
    let records = play(2, &body);
    let both = records[0].iter().zip(&records[1]);
    let missed = both.filter(|(a, b)| **a == 1 && **b == 1).count();
    assert_eq!(missed, 0, "{store} {order} {load}");
}

#[test]
fn full_barriers_order_a_store_before_a_load() {
    store_buffering("str", "dmb ish", "ldr");
    store_buffering("str", "dsb ish", "ldr");
}

#[test]
fn an_acquire_does_not_overtake_a_release() {
    store_buffering("stlr", "nop", "ldar");
}

#[test]
fn two_readers_agree_on_the_order_of_two_writers() {
    // vCPUs 0 and 1 write X and Y, 2 and 3 read both, each in another order.
    let body = "
                mov     x9, #0
                cmp     x0, #1
                b.hi    4f
                csel    x16, x1, x2, lo
                str     x3, [x16]
                b       5f
        4:      cmp     x0, #2
                csel    x16, x1, x2, eq
                csel    x17, x2, x1, eq
                ldar    x4, [x16]
                ldar    x5, [x17]
                // The first seen, the second not.
                cmp     x4, x3
                ccmp    x5, x3, #2, eq
                cset    x9, lo
        5:";
    let records = play(4, body);
    let both = records[2].iter().zip(&records[3]);
    let disagreed = both.filter(|(a, b)| **a == 1 && **b == 1).count();
    assert_eq!(disagreed, 0);
}

#[test]
fn no_increment_is_lost_by_any_kind_of_atomic() {
    // X is incremented by LSE, Y by exclusives, X + 16 by CAS, Y + 16 by CASP,
    // X + 32 under an exclusive pair.
    let body = "
                stadd   x15, [x1]
        4:      ldaxr   x4, [x2]
                add     x4, x4, #1
                stlxr   w5, x4, [x2]
                cbnz    w5, 4b
                add     x16, x1, #16
                ldr     x4, [x16]
        5:      mov     x6, x4
                add     x5, x4, #1
                casal   x4, x5, [x16]
                cmp     x4, x6
                b.ne    5b
                add     x16, x2, #16
                ldp     x4, x5, [x16]
        6:      mov     x20, x4
                mov     x21, x5
                add     x6, x4, #1
                add     x7, x5, #2
                caspal  x4, x5, x6, x7, [x16]
                cmp     x4, x20
                ccmp    x5, x21, #0, eq
                b.ne    6b
                add     x16, x1, #32
        7:      ldaxp   x4, x5, [x16]
                add     x4, x4, #1
                sub     x5, x5, #1
                stlxp   w6, x4, x5, [x16]
                cbnz    w6, 7b
                mov     x9, #0
                cmp     x3, x12
                b.ne    8f
                // The last round: everyone is past it after one more barrier.
                ldaddal x15, x13, [x10]
                add     x14, x14, #COUNT
        9:      ldar    x13, [x10]
                cmp     x13, x14
                b.hs    10f
                wfe
                b       9b
        10:     ldr     x9, [x1]
                ldr     x4, [x2]
                eor     x4, x4, x9
                ldr     x5, [x1, #16]
                eor     x5, x5, x9
                orr     x4, x4, x5
                ldp     x5, x6, [x2, #16]
                eor     x5, x5, x9
                orr     x4, x4, x5
                eor     x6, x6, x9, lsl #1
                orr     x4, x4, x6
                ldp     x5, x6, [x1, #32]
                eor     x5, x5, x9
                orr     x4, x4, x5
                add     x6, x6, x9
                orr     x4, x4, x6
                // All agree: X9 is the count, else not.
                cmp     x4, #0
                csinv   x9, x9, xzr, eq
        8:";
    for records in play(2, body) {
        assert_eq!(records.last(), Some(&(2 * ROUNDS)));
    }
}
