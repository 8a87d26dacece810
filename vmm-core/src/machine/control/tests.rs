use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::*;

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(10);

/// A control with `count` vCPUs and the number of kicks each got.
fn control(count: u32) -> (Arc<Control>, Vec<Arc<AtomicU32>>) {
    let control = Arc::new(Control::new(crate::arch::of(
        crate::hypervisor::Architecture::Aarch64,
    )));
    let kicks: Vec<_> = (0..count)
        .map(|_| {
            let kicks = Arc::new(AtomicU32::new(0));
            let counted = kicks.clone();
            control.add_cpu(
                Box::new(move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                }),
                ExitCounters::default(),
            );
            kicks
        })
        .collect();
    (control, kicks)
}

#[test]
fn vcpus_rest_until_they_are_turned_on_and_the_machine_runs() {
    let (control, _) = control(2);
    assert!(control.wants_attention());
    assert_eq!(control.cpu_on(0, 0x8000_0000, 7), PowerReply::Done);
    assert_eq!(control.cpu_status(0), PowerReply::Pending);
    assert_eq!(control.cpu_on(0, 1, 2), PowerReply::OnPending);
    control.resume();
    assert!(!control.wants_attention());
    assert_eq!(control.next(0), Next::Start(0x8000_0000, 7));
    assert_eq!(control.next(0), Next::Run);
    assert_eq!(control.cpu_status(0), PowerReply::Done);
    assert_eq!(control.cpu_on(0, 1, 2), PowerReply::AlreadyOn);
    assert_eq!(control.cpu_status(1), PowerReply::Off);
    assert_eq!(control.cpu_on(2, 0, 0), PowerReply::InvalidParameters);
    assert_eq!(control.cpu_on(0x10, 0, 0), PowerReply::InvalidParameters);
    assert_eq!(control.cpu_status(u64::MAX), PowerReply::InvalidParameters);
}

#[test]
fn a_vcpu_turned_off_can_be_turned_on_elsewhere() {
    let (control, _) = control(1);
    control.resume();
    assert_eq!(control.cpu_on(0, 1, 2), PowerReply::Done);
    assert_eq!(control.next(0), Next::Start(1, 2));
    control.cpu_off(0);
    assert_eq!(control.cpu_status(0), PowerReply::Off);
    let waiting = std::thread::spawn({
        let control = control.clone();
        move || control.next(0)
    });
    assert_eq!(control.cpu_on(0, 3, 4), PowerReply::Done);
    assert_eq!(waiting.join().unwrap(), Next::Start(3, 4));
}

#[test]
fn pausing_kicks_until_the_vcpu_rests() {
    let (control, kicks) = control(1);
    control.resume();
    control.cpu_on(0, 0, 0);
    assert_eq!(control.next(0), Next::Start(0, 0));
    // It does not react: the pause gives up after several kicks.
    assert!(!control.pause(SHORT));
    assert!(kicks[0].load(Ordering::SeqCst) >= 2);
    assert!(control.wants_attention());
    let vcpu = std::thread::spawn({
        let control = control.clone();
        move || control.next(0)
    });
    assert!(control.pause(LONG));
    control.resume();
    assert_eq!(vcpu.join().unwrap(), Next::Run);
}

#[test]
fn the_first_reason_to_end_counts_and_nothing_starts_again() {
    let (control, kicks) = control(2);
    control.resume();
    control.cpu_on(0, 0, 0);
    assert_eq!(control.next(0), Next::Start(0, 0));
    assert_eq!(control.wait_ended(Some(SHORT)), None);
    control.end(ExitReason::PowerOff);
    control.end(ExitReason::Stopped);
    assert_eq!(kicks[0].load(Ordering::SeqCst), 2);
    assert_eq!(kicks[1].load(Ordering::SeqCst), 0, "it is not running");
    control.resume();
    assert_eq!(control.next(0), Next::Leave);
    assert_eq!(control.next(1), Next::Leave);
    assert_eq!(control.wait_ended(None), Some(ExitReason::PowerOff));
    assert!(!control.wait_gone(SHORT));
    control.gone(0);
    control.gone(1);
    assert!(control.wait_gone(SHORT));
}

#[test]
fn an_end_wakes_who_waits_and_who_rests() {
    let (control, _) = control(1);
    let waiter = std::thread::spawn({
        let control = control.clone();
        move || control.wait_ended(Some(LONG))
    });
    let vcpu = std::thread::spawn({
        let control = control.clone();
        move || control.next(0)
    });
    control.end(ExitReason::Reset);
    assert_eq!(waiter.join().unwrap(), Some(ExitReason::Reset));
    assert_eq!(vcpu.join().unwrap(), Next::Leave);
}

#[test]
fn resting_vcpus_do_not_keep_waking_each_other() {
    let (control, _) = control(4);
    control.resume();
    let resting: Vec<_> = (0..4)
        .map(|index| {
            let control = control.clone();
            std::thread::spawn(move || control.next(index))
        })
        .collect();
    // Something that wakes all of them, as each change of the machine does.
    assert!(control.pause(LONG));
    control.resume();
    // When nothing was said for a while, all threads are asleep again.
    let start = Instant::now();
    let mut state = control.lock();
    loop {
        let waited = control.changed.wait_timeout(state, 10 * SHORT).unwrap();
        state = waited.0;
        if waited.1.timed_out() {
            break;
        }
        assert!(start.elapsed() < LONG, "they never stop");
    }
    drop(state);
    control.end(ExitReason::PowerOff);
    for vcpu in resting {
        assert_eq!(vcpu.join().unwrap(), Next::Leave);
    }
}
