//! The pool with real threads, and workers that do as they are told.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};
use supermachine_pool::{
    Budget, ByteBudget, Factory, Failure, Pool, PoolConfig, PoolError, Worker,
};

const LONG: Duration = Duration::from_secs(20);

/// What the workers of one pool share.
#[derive(Default)]
struct World {
    spawned: AtomicU32,
    killed: AtomicU32,
    resets: AtomicU32,
    fail_spawn: AtomicBool,
    fail_reset: AtomicBool,
    hang_reset: AtomicBool,
    panic_restore: AtomicBool,
    bytes: AtomicU64,
    /// Set to let a worker die by itself, in the order they were started.
    crashed: Mutex<Vec<Arc<AtomicBool>>>,
}

struct Fake {
    world: Arc<World>,
    dead: Mutex<bool>,
    crashed: Arc<AtomicBool>,
    died: Condvar,
    in_use: AtomicBool,
    dirty: AtomicBool,
}

impl Worker for Fake {
    fn restore(&self) -> Result<(), Failure> {
        assert!(!self.world.panic_restore.load(Ordering::SeqCst), "told to");
        Ok(())
    }

    fn reset(&self) -> Result<(), Failure> {
        self.world.resets.fetch_add(1, Ordering::SeqCst);
        if self.world.hang_reset.load(Ordering::SeqCst) {
            let mut dead = self.dead.lock().unwrap();
            while !*dead {
                dead = self.died.wait(dead).unwrap();
            }
            return Err(Failure::new("killed"));
        }
        if self.world.fail_reset.load(Ordering::SeqCst) {
            return Err(Failure::new("told to"));
        }
        self.dirty.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn kill(&self) {
        let mut dead = self.dead.lock().unwrap();
        if !std::mem::replace(&mut *dead, true) {
            self.world.killed.fetch_add(1, Ordering::SeqCst);
        }
        self.died.notify_all();
    }

    fn is_alive(&self) -> bool {
        !*self.dead.lock().unwrap() && !self.crashed.load(Ordering::SeqCst)
    }

    fn memory_bytes(&self) -> u64 {
        self.world.bytes.load(Ordering::SeqCst)
    }
}

struct Fakes(Arc<World>);

impl Factory for Fakes {
    type Worker = Fake;

    fn spawn(&self) -> Result<Fake, Failure> {
        self.0.spawned.fetch_add(1, Ordering::SeqCst);
        if self.0.fail_spawn.load(Ordering::SeqCst) {
            return Err(Failure::new("no binary").with_log(["first", "last words"]));
        }
        let crashed = Arc::new(AtomicBool::new(false));
        self.0.crashed.lock().unwrap().push(Arc::clone(&crashed));
        Ok(Fake {
            crashed,
            world: Arc::clone(&self.0),
            dead: Mutex::new(false),
            died: Condvar::new(),
            in_use: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
        })
    }
}

fn pool(config: PoolConfig) -> (Pool<Fakes>, Arc<World>) {
    let world = Arc::new(World::default());
    let pool = Pool::new(config, Fakes(Arc::clone(&world))).unwrap();
    (pool, world)
}

fn with_max(max: usize) -> PoolConfig {
    PoolConfig {
        max,
        acquire_timeout: Some(LONG),
        ..PoolConfig::default()
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_shares_a_worker_and_everybody_gets_a_clean_one() {
    let (pool, world) = pool(with_max(3));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let worker = pool.acquire().unwrap();
                    assert!(!worker.in_use.swap(true, Ordering::SeqCst), "shared");
                    assert!(!worker.dirty.swap(true, Ordering::SeqCst), "not reset");
                    worker.in_use.store(false, Ordering::SeqCst);
                }
            });
        }
    });
    assert!(world.spawned.load(Ordering::SeqCst) <= 3);
    pool.shutdown(LONG);
    assert_eq!(pool.stats().alive, 0);
    let spawned = world.spawned.load(Ordering::SeqCst);
    assert_eq!(world.killed.load(Ordering::SeqCst), spawned);
}

#[test]
fn minimum_is_started_without_being_asked() {
    let (pool, _) = pool(PoolConfig {
        min: 2,
        ..with_max(4)
    });
    eventually("two idle", || pool.stats().idle == 2);
}

#[test]
fn dropped_ticket_leaves_the_line_and_hands_its_worker_on() {
    let (pool, _) = pool(with_max(1));
    let lease = pool.acquire().unwrap();
    let waits = pool.request();
    let next = pool.request();
    assert_eq!(pool.stats().waiting, 2);
    drop(waits);
    assert_eq!(pool.stats().waiting, 1);
    drop(lease);
    // Granted, but nobody has looked at it yet.
    eventually("granted", || pool.stats().in_use == 1);
    let after = pool.request();
    drop(next);
    let lease = after.wait().unwrap();
    assert!(!lease.dirty.load(Ordering::SeqCst));
}

#[test]
fn ticket_is_a_future_that_wakes_its_task() {
    struct Flag(AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (pool, _) = pool(with_max(1));
    let lease = pool.acquire().unwrap();
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    let mut ticket = pin!(pool.request());
    assert!(ticket.as_mut().poll(&mut context).is_pending());
    drop(lease);
    eventually("woken", || flag.0.load(Ordering::SeqCst));
    assert!(matches!(
        ticket.as_mut().poll(&mut context),
        Poll::Ready(Ok(_))
    ));
}

#[test]
fn failed_reset_kills_the_worker_and_the_next_one_is_new() {
    let (pool, world) = pool(with_max(1));
    let first = pool.acquire().unwrap();
    let id = first.id();
    world.fail_reset.store(true, Ordering::SeqCst);
    drop(first);
    let second = pool.acquire().unwrap();
    assert_ne!(second.id(), id);
    assert_eq!(world.killed.load(Ordering::SeqCst), 1);
    assert_eq!(pool.stats().failed, 1);
}

#[test]
fn late_reset_kills_the_worker() {
    let (pool, world) = pool(PoolConfig {
        reset_timeout: Duration::from_millis(20),
        ..with_max(1)
    });
    world.hang_reset.store(true, Ordering::SeqCst);
    drop(pool.acquire().unwrap());
    let next = pool.acquire().unwrap();
    assert!(next.is_alive());
    assert_eq!(world.killed.load(Ordering::SeqCst), 1);
}

#[test]
fn panic_in_a_worker_is_its_own_failure() {
    let (pool, world) = pool(with_max(1));
    world.panic_restore.store(true, Ordering::SeqCst);
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, PoolError::CircuitOpen { .. }), "{error}");
    world.panic_restore.store(false, Ordering::SeqCst);
    eventually("back to normal", || pool.acquire().is_ok());
}

#[test]
fn error_of_the_open_circuit_has_the_last_words_of_the_worker() {
    let (pool, world) = pool(with_max(2));
    world.fail_spawn.store(true, Ordering::SeqCst);
    let error = pool.acquire().unwrap_err();
    let PoolError::CircuitOpen {
        failures, failure, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(failures, 3);
    assert_eq!(failure.log(), ["first", "last words"]);
    assert_eq!(world.spawned.load(Ordering::SeqCst), 3);
    assert_eq!(pool.stats().alive, 0);
}

#[test]
fn dead_idle_worker_is_replaced_when_checked_and_when_acquired() {
    let (pool, world) = pool(PoolConfig {
        min: 1,
        ..with_max(1)
    });
    eventually("idle", || pool.stats().idle == 1);
    let lease = pool.acquire().unwrap();
    let first = lease.id();
    drop(lease);
    eventually("idle", || pool.stats().idle == 1);
    let crash = |index: usize| {
        world.crashed.lock().unwrap()[index].store(true, Ordering::SeqCst);
    };
    pool.check();
    assert_eq!(pool.stats().idle, 1, "the living stay");
    crash(0);
    let second = pool.acquire().unwrap();
    assert_ne!(second.id(), first);
    drop(second);
    eventually("idle", || pool.stats().idle == 1);
    crash(1);
    pool.check();
    eventually("replaced", || pool.stats().idle == 1);
    assert_eq!(world.spawned.load(Ordering::SeqCst), 3);
}

#[test]
fn acquire_gives_up_at_its_timeout() {
    let (pool, _) = pool(PoolConfig {
        acquire_timeout: Some(Duration::from_millis(20)),
        ..with_max(1)
    });
    let lease = pool.acquire().unwrap();
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, PoolError::Timeout { .. }), "{error}");
    assert_eq!(pool.stats().waiting, 0);
    drop(lease);
}

#[test]
fn budget_is_charged_what_was_measured_and_given_back() {
    let world = Arc::new(World::default());
    world.bytes.store(60, Ordering::SeqCst);
    let budget = Arc::new(ByteBudget::new(100));
    let config = PoolConfig {
        worker_bytes: 10,
        acquire_timeout: Some(Duration::from_millis(50)),
        ..with_max(4)
    };
    let shared: Arc<dyn Budget> = budget.clone();
    let pool = Pool::with_budget(config, Fakes(Arc::clone(&world)), shared).unwrap();
    let first = pool.acquire().unwrap();
    assert_eq!(budget.used(), 60);
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, PoolError::OverBudget { .. }), "{error}");
    first.discard();
    eventually("given back", || budget.used() == 0);
    drop(pool.acquire().unwrap());
    pool.shutdown(LONG);
    assert_eq!(budget.used(), 0);
}

#[test]
fn shutdown_waits_for_leases_and_then_kills_them() {
    let (pool, world) = pool(with_max(2));
    let polite = pool.acquire().unwrap();
    let stubborn = pool.acquire().unwrap();
    let waits = pool.request();
    let back = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        drop(polite);
    });
    let started = Instant::now();
    pool.shutdown(Duration::from_millis(60));
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert_eq!(waits.wait().unwrap_err(), PoolError::Closed);
    assert_eq!(pool.acquire().unwrap_err(), PoolError::Closed);
    assert_eq!(world.killed.load(Ordering::SeqCst), 2);
    assert!(!stubborn.is_alive());
    back.join().unwrap();
}

#[test]
fn pool_that_is_dropped_ends_its_workers_and_lets_leases_finish() {
    let (pool, world) = pool(PoolConfig {
        min: 2,
        ..with_max(2)
    });
    let lease = pool.acquire().unwrap();
    eventually("the other idle", || pool.stats().idle == 1);
    drop(pool);
    eventually("idle one killed", || {
        world.killed.load(Ordering::SeqCst) == 1
    });
    assert!(lease.is_alive());
    drop(lease);
    assert_eq!(world.killed.load(Ordering::SeqCst), 2);
    eventually("threads are gone", || Arc::strong_count(&world) == 1);
}

#[test]
fn an_idle_worker_that_died_is_replaced_as_soon_as_somebody_checks() {
    let config = PoolConfig {
        min: 2,
        ..with_max(2)
    };
    let (pool, world) = pool(config);
    let until = |wanted: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !wanted() {
            assert!(begun.elapsed() < LONG, "{:?}", pool.stats());
            thread::sleep(Duration::from_millis(1));
        }
    };
    until(&|| pool.stats().idle == 2);
    let checker = pool.checker();
    world.crashed.lock().unwrap()[0].store(true, Ordering::SeqCst);
    assert!(checker.check());
    until(&|| pool.stats().idle == 2 && pool.stats().spawned == 3);
    assert_eq!(pool.stats().alive, 2);
    drop(pool);
    let begun = Instant::now();
    while checker.check() {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_pool_grows_and_does_not_shrink() {
    let (pool, _) = pool(with_max(1));
    let lease = pool.acquire().unwrap();
    pool.grow(3, 2);
    pool.grow(0, 0);
    let begun = Instant::now();
    while pool.stats().idle < 2 {
        assert!(begun.elapsed() < LONG, "{:?}", pool.stats());
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((pool.stats().min, pool.stats().max), (3, 3));
    drop(lease);
}

#[test]
fn who_waits_in_vain_for_a_pool_that_cannot_grow_learns_why() {
    let config = PoolConfig {
        acquire_timeout: Some(Duration::from_millis(300)),
        ..with_max(2)
    };
    let (pool, world) = pool(config);
    let lease = pool.acquire().unwrap();
    world.fail_spawn.store(true, Ordering::SeqCst);
    let error = pool.acquire().unwrap_err();
    assert!(matches!(error, PoolError::Timeout { .. }), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("no binary"), "{cause}");
    assert!(error.to_string().contains("can be started"), "{error}");
    drop(lease);
}
