//! The wall clock of machines that wait while the host's is moved.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};
use supermachine::{Vm, VmConfig};
use support::shelf::*;
use support::*;

/// A host's clock that can be moved, by so many seconds.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn now(&self) -> SystemTime {
        let by_s = self.0.load(Ordering::SeqCst);
        let by = Duration::from_secs(by_s.unsigned_abs());
        if by_s < 0 {
            SystemTime::now() - by
        } else {
            SystemTime::now() + by
        }
    }

    fn config(&self) -> VmConfig {
        let clock = self.clone();
        library_config().with_wall_clock(move || clock.now())
    }

    fn assert_right(&self, vm: &Vm) {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            i64::try_from(since.as_secs()).unwrap()
        };
        let before = seconds(self.now());
        let guest: i64 = sh(vm, "date +%s").parse().unwrap();
        let after = seconds(self.now());
        assert!(
            (before - 1..=after + 1).contains(&guest),
            "{guest}, not {before} to {after}"
        );
    }
}

const DAY_S: i64 = 86_400;

#[test]
fn machine_that_waited_while_the_clock_was_moved_has_the_time_of_now() {
    let shelf = Shelf::new("clock");
    let image = shelf.bake();
    let clock = Clock::default();
    let pool = image.pool().vm_config(clock.config()).max(1).prestart(0);
    for pool in [pool.clone(), pool.restore_on_release(false)] {
        let pool = pool.build().unwrap();
        let vm = pool.acquire().unwrap();
        let worker = worker_of(&vm);
        clock.assert_right(&vm);
        drop(vm);
        for moved in [DAY_S, -400 * DAY_S, 0] {
            while pool.stats().idle == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            clock.0.store(moved, Ordering::SeqCst);
            let vm = pool.acquire().unwrap();
            clock.assert_right(&vm);
            assert_eq!(worker_of(&vm), worker, "another machine");
        }
    }
}

#[test]
fn every_machine_has_the_time_of_its_configuration() {
    let shelf = Shelf::new("times");
    let clock = Clock::default();
    clock.0.store(1000 * DAY_S, Ordering::SeqCst);
    let booted = Vm::start(&library_image(), &clock.config()).unwrap();
    clock.assert_right(&booted);
    let copy = Vm::start(&shelf.bake(), &clock.config()).unwrap();
    clock.assert_right(&copy);
    let children = copy.fork(1).unwrap();
    clock.assert_right(&children[0]);
}
