//! The orders in which those who want a worker, those who give one back and the
//! pool's own threads can meet: the files of this crate, compiled with loom's types.
//!
//! A [`Machine`] is a worker that must be in one pair of hands at a time, and says so
//! if it is not. Loom fails on a thread that is never woken: no time passes, so that
//! no limit does either.

// Not all of it is used here.
#![allow(dead_code, unused_imports)]

mod sync {
    pub use loom::sync::{Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    /// A clock that stands still, so that each order of events is one run.
    pub struct Instant;

    impl Instant {
        pub fn now() -> Self {
            Self
        }

        pub fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    pub mod thread {
        use loom::sync::Notify;
        pub use loom::thread::Builder;
        use std::sync::Arc;

        /// A thread that can be woken. Loom's own would also be woken where it
        /// waits for a lock or for the end of another.
        #[derive(Clone)]
        pub struct Thread(Arc<Notify>);

        impl Thread {
            pub fn unpark(&self) {
                self.0.notify();
            }
        }

        loom::thread_local! {
            static CURRENT: Thread = Thread(Arc::new(Notify::new()));
        }

        pub fn current() -> Thread {
            CURRENT.with(Thread::clone)
        }

        pub fn park() {
            current().0.wait();
        }
    }
}

#[path = "../src/budget.rs"]
mod budget;
#[path = "../src/config.rs"]
mod config;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/ids.rs"]
mod ids;
#[path = "../src/jobs.rs"]
mod jobs;
#[path = "../src/metrics.rs"]
mod metrics;
#[path = "../src/policy/mod.rs"]
mod policy;
#[path = "../src/pool.rs"]
mod pool;
#[path = "../src/shared.rs"]
mod shared;
#[path = "../src/tenants.rs"]
mod tenants;
#[path = "../src/ticket.rs"]
mod ticket;
#[path = "../src/worker.rs"]
mod worker;

use budget::Unlimited;
use config::PoolConfig;
use error::{Failure, PoolError};
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread::spawn;
use metrics::PoolMetrics;
use policy::PoolStats;
use pool::Pool;
use std::time::{Duration, Instant};
use worker::{Factory, Worker};

/// Longer than any run.
const LONG: Duration = Duration::from_secs(3600);

/// A worker that counts its uses since it was brought back.
#[derive(Default)]
struct Machine {
    uses: AtomicU32,
    /// Those who use it now: loom may let others run meanwhile.
    users: AtomicU32,
}

impl Machine {
    fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        assert_eq!(self.users.fetch_add(1, SeqCst), 0, "in two hands");
        let result = act();
        self.users.fetch_sub(1, SeqCst);
        result
    }

    /// By whoever has it; how many have since it was brought back.
    fn take(&self) -> u32 {
        self.alone(|| self.uses.fetch_add(1, SeqCst) + 1)
    }

    fn bring_back(&self) {
        self.alone(|| self.uses.store(0, SeqCst));
    }
}

impl Worker for Machine {
    fn restore(&self) -> Result<(), Failure> {
        self.bring_back();
        Ok(())
    }

    fn reset(&self) -> Result<(), Failure> {
        self.bring_back();
        Ok(())
    }

    fn kill(&self) {}

    fn is_alive(&self) -> bool {
        true
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

struct Machines;

impl Factory for Machines {
    type Worker = Machine;

    fn spawn(&self) -> Result<Machine, Failure> {
        Ok(Machine::default())
    }
}

/// A pool that has one machine for all.
fn pool_of_one(restore_on_release: bool) -> Pool<Machines> {
    let config = PoolConfig {
        min: 0,
        max: 1,
        idle_timeout: None,
        acquire_timeout: None,
        restore_on_release,
        ..PoolConfig::default()
    };
    Pool::new(config, Machines).unwrap()
}

fn two_who_want_the_only_machine_get_it_one_after_the_other() {
    let pool = pool_of_one(false);
    let other = pool.clone();
    let other = spawn(move || other.acquire().unwrap().take());
    let first = pool.acquire().unwrap().take();
    let second = other.join().unwrap();
    // Nothing brings it back between them.
    assert_eq!(first.min(second), 1);
    assert_eq!(first.max(second), 2);
    pool.shutdown(LONG);
}

fn a_machine_is_brought_back_between_two_uses() {
    let pool = pool_of_one(true);
    assert_eq!(pool.acquire().unwrap().take(), 1);
    assert_eq!(pool.acquire().unwrap().take(), 1);
    pool.shutdown(LONG);
}

fn who_leaves_the_line_takes_no_machine_along() {
    let pool = pool_of_one(false);
    let other = pool.clone();
    let other = spawn(move || drop(other.request()));
    assert_eq!(pool.acquire().unwrap().take(), 1);
    other.join().unwrap();
    assert_eq!(pool.acquire().unwrap().take(), 2);
    pool.shutdown(LONG);
}

fn who_waits_while_a_pool_is_shut_down_gets_a_machine_or_a_refusal() {
    let pool = pool_of_one(false);
    let other = pool.clone();
    let other = spawn(move || match other.acquire() {
        Ok(machine) => assert_eq!(machine.take(), 1),
        Err(error) => assert!(matches!(error, PoolError::Closed), "{error}"),
    });
    pool.shutdown(LONG);
    assert_eq!(pool.stats().alive, 0);
    other.join().unwrap();
}

/// A model's name, itself, and how many switches at a bad moment it tries.
type Model = (&'static str, fn(), usize);

macro_rules! models {
    ($($name:ident: $switches:literal),* $(,)?) => {
        &[$((stringify!($name), $name as fn(), $switches)),*]
    };
}

const MODELS: &[Model] = models![
    two_who_want_the_only_machine_get_it_one_after_the_other: 1,
    a_machine_is_brought_back_between_two_uses: 1,
    who_leaves_the_line_takes_no_machine_along: 1,
    who_waits_while_a_pool_is_shut_down_gets_a_machine_or_a_refusal: 2,
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    for (name, model, switches) in MODELS {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(*switches);
        builder.max_branches = 10_000;
        builder.check(model);
        println!("model {name} ... ok, {:?}", begun.elapsed());
    }
}
