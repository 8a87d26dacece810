//! Tests of [`crate::link`] with real threads; `tests/model.rs` has the orders.

use crate::link::*;
use crate::mail::{CodeRange, TlbBatch, TlbInvalidate};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PAGE: TlbInvalidate = TlbInvalidate::VaAllAsids {
    va: 0x1000,
    pages: 1,
};

#[test]
fn mail_is_taken_once_and_clears_its_attention() {
    let link = VcpuShared::new(0);
    link.post_tlb(TlbInvalidate::Asid(3));
    link.post_tlb(PAGE);
    link.post_code(CodeRange {
        pa: 0x4000,
        bytes: 64,
    });
    assert_eq!(
        link.attention.load(Ordering::Relaxed),
        attention::TLB | attention::CODE
    );
    let mail = link.take_mail();
    let expected = vec![TlbInvalidate::Asid(3), PAGE];
    assert_eq!(mail.tlb, TlbBatch::Each(expected));
    assert!(!mail.code.is_empty() && !mail.map_changed);
    assert_eq!(link.attention.load(Ordering::Relaxed), 0);
    link.acknowledge(mail);
    link.post_tlb(TlbInvalidate::All);
    assert_eq!(link.take_mail().tlb, TlbBatch::Everything);
    assert!(link.take_mail().tlb.is_empty());
}

#[test]
fn only_a_running_vcpu_is_waited_for() {
    let link = VcpuShared::new(0);
    let ticket = link.post_tlb(PAGE);
    assert!(link.is_settled(ticket));
    link.enter();
    assert!(!link.is_settled(ticket));
    let mail = link.take_mail();
    assert!(!link.is_settled(ticket), "taken is not applied");
    link.acknowledge(mail);
    assert!(link.is_settled(ticket));
    let next = link.post_tlb(PAGE);
    assert!(!link.is_settled(next));
    link.leave();
    assert!(link.is_settled(next));
}

#[test]
fn park_returns_at_its_deadline_and_at_once_if_attention_is_due() {
    let link = VcpuShared::new(0);
    link.enter();
    let start = Instant::now();
    link.park(Some(Duration::from_millis(5)));
    assert!(start.elapsed() >= Duration::from_millis(5));
    assert_eq!(link.state(), State::Running);
    link.raise(attention::KICK);
    link.park(None);
    assert_eq!(link.take(attention::KICK), attention::KICK);
}

#[test]
fn mail_does_not_wake_a_parked_vcpu_but_an_interrupt_does() {
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        let sleeper = scope.spawn(move || {
            let link = Arc::new(VcpuShared::new(0));
            link.enter();
            send.send(Arc::clone(&link)).unwrap();
            while link.attention.load(Ordering::SeqCst) & attention::WAKE == 0 {
                link.park(None);
            }
            link.take(attention::WAKE)
        });
        let link = receive.recv().unwrap();
        while link.state() != State::Parked {
            std::thread::yield_now();
        }
        let ticket = link.post_tlb(PAGE);
        assert!(link.is_settled(ticket));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(link.state(), State::Parked);
        link.raise(attention::IRQ);
        assert_eq!(sleeper.join().unwrap(), attention::IRQ);
    });
}

/// Two vCPUs invalidate each other's "TLB" and wait, both at once, for
/// many rounds: neither may deadlock, nor see a stale entry after a wait.
#[test]
fn two_senders_wait_for_each_other_without_deadlock_or_stale_entries() {
    const ROUNDS: u64 = 5_000;
    let links = [0, 1].map(|i| Arc::new(VcpuShared::new(i)));
    // What "page tables" say, and what each vCPU has cached of them.
    let truth = AtomicU64::new(0);
    let cached = [AtomicU64::new(0), AtomicU64::new(0)];
    // What each has seen the other settle.
    let settled = [AtomicU64::new(0), AtomicU64::new(0)];
    let done = [AtomicBool::new(false), AtomicBool::new(false)];
    let service = |me: usize| {
        if links[me].attention.load(Ordering::Relaxed) & attention::MAIL != 0 {
            let mail = links[me].take_mail();
            if !mail.tlb.is_empty() {
                cached[me].store(truth.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            links[me].acknowledge(mail);
        }
    };
    let entered = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for me in [0, 1] {
            let (links, truth, cached, done) = (&links, &truth, &cached, &done);
            let (entered, settled) = (&entered, &settled);
            scope.spawn(move || {
                let other = 1 - me;
                let mut acks = AckWait::default();
                links[me].enter();
                // One that enters later has not looked at its mail yet.
                entered.wait();
                for _ in 0..ROUNDS {
                    service(me);
                    let now = truth.fetch_add(1, Ordering::SeqCst) + 1;
                    acks.add(&links[other], links[other].post_tlb(PAGE));
                    if !acks.poll() {
                        links[me].pause();
                        acks.wait();
                        links[me].resume();
                    }
                    settled[me].store(now, Ordering::SeqCst);
                    service(me);
                    // Between a look at its mail and the next it uses what it has.
                    let wanted = settled[other].load(Ordering::SeqCst);
                    assert!(cached[me].load(Ordering::SeqCst) >= wanted);
                }
                done[me].store(true, Ordering::SeqCst);
                links[me].leave();
            });
        }
    });
    assert!(done.iter().all(|d| d.load(Ordering::SeqCst)));
}

/// The target settles each message in one of the ways there are, as soon as
/// it is posted or a moment later; a lost wake-up would hang this.
#[test]
fn a_sleeping_sender_is_woken_by_everything_that_settles_its_message() {
    const ROUNDS: u64 = 20_000;
    let link = Arc::new(VcpuShared::new(0));
    link.enter();
    std::thread::scope(|scope| {
        let target = &link;
        let sender = scope.spawn(move || {
            for _ in 0..ROUNDS {
                let mut acks = AckWait::default();
                acks.add(target, target.post_tlb(PAGE));
                acks.wait();
                assert!(acks.is_empty());
            }
        });
        let mut round = 0u32;
        while !sender.is_finished() {
            round = round.wrapping_add(1);
            if link.attention.load(Ordering::Relaxed) & attention::MAIL == 0 {
                std::thread::yield_now();
                continue;
            }
            // At times it is looked at so late that the sender sleeps.
            for _ in 0..round % 7 * 100 {
                std::hint::spin_loop();
            }
            match round % 4 {
                0 => link.leave(),
                1 => link.pause(),
                _ => {}
            }
            link.resume();
            let mail = link.take_mail();
            link.acknowledge(mail);
        }
    });
}
