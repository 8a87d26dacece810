//! Random operations on the policy, checked against what must hold whatever
//! happens, with a clock that only moves when told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use supermachine_pool::policy::{Action, Policy, TicketId, WorkerId, WorkerState};
use supermachine_pool::{Failure, PoolConfig, PoolError};

/// Small and good enough: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// What a worker of the model is asked to do, and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Spawning,
    Restoring,
    Idle,
    Leased,
    Resetting,
}

/// The world around the policy: it believes only actions.
struct Model {
    policy: Policy,
    config: PoolConfig,
    now: Duration,
    workers: BTreeMap<WorkerId, (Life, Duration)>,
    waiting: Vec<(TicketId, Duration)>,
    /// Whose a ticket is, of those who say so.
    tenants: BTreeMap<TicketId, Arc<str>>,
    granted: BTreeMap<WorkerId, TicketId>,
    budget: Option<usize>,
    closed: bool,
    ever: BTreeSet<WorkerId>,
    answered: BTreeSet<TicketId>,
}

impl Model {
    fn new(config: PoolConfig, budget: Option<usize>) -> Self {
        let mut model = Self {
            policy: Policy::new(config.clone()).expect("valid"),
            config,
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            waiting: Vec::new(),
            tenants: BTreeMap::new(),
            granted: BTreeMap::new(),
            budget,
            closed: false,
            ever: BTreeSet::new(),
            answered: BTreeSet::new(),
        };
        model.policy.tick(model.now);
        model.apply();
        model
    }

    fn with(&self, life: Life) -> Vec<WorkerId> {
        let here = self.workers.iter().filter(|(_, (state, _))| *state == life);
        here.map(|(worker, _)| *worker).collect()
    }

    fn enter(&mut self, worker: WorkerId, life: Life) {
        self.workers.insert(worker, (life, self.now));
    }

    fn apply(&mut self) {
        loop {
            let actions = self.policy.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.apply_one(action);
            }
        }
        self.check();
    }

    fn apply_one(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, must } => {
                assert!(!self.closed, "spawn after shutdown");
                assert!(self.ever.insert(worker), "identity used twice");
                let full = self.budget.is_some_and(|most| self.workers.len() >= most);
                if full && !must {
                    self.policy.not_admitted(worker, self.now);
                } else {
                    self.enter(worker, Life::Spawning);
                }
            }
            Action::Restore(worker) => {
                assert_eq!(self.workers[&worker].0, Life::Spawning);
                self.enter(worker, Life::Restoring);
            }
            Action::Reset(worker) => {
                assert_eq!(self.workers[&worker].0, Life::Leased);
                assert!(self.config.restore_on_release);
                self.enter(worker, Life::Resetting);
            }
            Action::Kill(worker) => {
                assert!(self.workers.remove(&worker).is_some(), "killed twice");
                self.granted.remove(&worker);
            }
            Action::Grant(ticket, worker) => {
                let first = self.first_in_line().expect("somebody waits");
                let (first, _) = self.waiting.remove(first);
                assert_eq!(first, ticket, "not first come, first served");
                assert!(self.answered.insert(ticket));
                assert_eq!(self.workers[&worker].0, Life::Idle, "not idle");
                assert_eq!(self.granted.insert(worker, ticket), None, "lent twice");
                self.enter(worker, Life::Leased);
            }
            Action::Refuse(ticket, error) => {
                let at = self.waiting.iter().position(|(other, _)| *other == ticket);
                let (_, since) = self.waiting.remove(at.expect("refused twice"));
                assert!(self.answered.insert(ticket));
                let waited = self.now - since;
                match error {
                    PoolError::Timeout { .. } | PoolError::OverBudget { .. } => {
                        assert!(Some(waited) >= self.config.acquire_timeout);
                    }
                    PoolError::CircuitOpen { failures, .. } => {
                        assert!(failures >= self.config.failures_to_open);
                    }
                    PoolError::Closed => assert!(self.closed),
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn check(&self) {
        let stats = self.policy.stats();
        let parts = stats.idle + stats.in_use + stats.starting + stats.resetting;
        assert_eq!(stats.alive, parts);
        assert!(stats.alive <= self.config.max);
        assert_eq!(stats.alive, self.workers.len());
        assert_eq!(stats.waiting, self.waiting.len());
        assert_eq!(stats.in_use, self.granted.len());
        assert!(
            stats.idle == 0 || self.first_in_line().is_none(),
            "idle while some wait"
        );
        for (worker, (life, since)) in &self.workers {
            let (state, limit) = match life {
                Life::Spawning => (WorkerState::Spawning, Some(self.config.spawn_timeout)),
                Life::Restoring => (WorkerState::Restoring, Some(self.config.restore_timeout)),
                Life::Resetting => (WorkerState::Resetting, Some(self.config.reset_timeout)),
                Life::Idle => (WorkerState::Idle, None),
                Life::Leased => (WorkerState::Leased, None),
            };
            assert_eq!(self.policy.state(*worker), Some(state));
            assert!(limit.is_none_or(|limit| self.now - *since < limit), "late");
        }
        for (_, since) in &self.waiting {
            let timeout = self.config.acquire_timeout;
            assert!(timeout.is_none_or(|timeout| self.now - *since < timeout));
        }
        if let Some(next) = self.policy.next_deadline() {
            assert!(next > self.now, "a keeper would spin");
        }
        if self.closed {
            assert_eq!(stats.alive, stats.in_use);
            assert_eq!(stats.waiting, 0);
        }
        // Nobody waits for nothing: something is under way or will be looked at.
        if stats.waiting > 0 {
            let moving = stats.starting + stats.resetting + stats.in_use > 0;
            assert!(moving || self.policy.next_deadline().is_some(), "stuck");
        }
    }

    /// Where whoever is to be served next is among those who wait.
    fn first_in_line(&self) -> Option<usize> {
        let most = self.config.max_per_tenant.unwrap_or(usize::MAX);
        let has_room = |ticket: &TicketId| {
            let tenant = self.tenants.get(ticket);
            let same = |other: &&TicketId| self.tenants.get(other) == tenant;
            tenant.is_none() || self.granted.values().filter(same).count() < most
        };
        self.waiting.iter().position(|(ticket, _)| has_room(ticket))
    }

    fn acquire(&mut self) -> TicketId {
        self.acquire_for(None)
    }

    fn acquire_for(&mut self, tenant: Option<&str>) -> TicketId {
        let tenant = tenant.map(Arc::<str>::from);
        // The answer may come before the number is known outside.
        let ticket = self.policy.acquire(tenant.clone(), self.now);
        self.tenants.extend(tenant.map(|tenant| (ticket, tenant)));
        self.waiting.push((ticket, self.now));
        self.apply();
        ticket
    }

    fn ready(&mut self, worker: WorkerId) {
        self.enter(worker, Life::Idle);
        self.policy.ready(worker, self.now);
        self.apply();
    }

    fn fail(&mut self, worker: WorkerId) {
        self.policy
            .failed(worker, Failure::new("told to"), self.now);
        self.apply();
        assert!(!self.workers.contains_key(&worker));
    }

    fn come_back(&mut self, worker: WorkerId, how: usize) {
        self.granted.remove(&worker);
        match how {
            0 => self.policy.discard(worker, self.now),
            1 => {
                self.enter(worker, Life::Idle);
                self.policy.give_back(worker, self.now);
            }
            _ => {
                if !self.config.restore_on_release && !self.closed {
                    self.enter(worker, Life::Idle);
                }
                self.policy.release(worker, self.now);
            }
        }
        self.apply();
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.policy.tick(self.now);
        self.apply();
    }

    fn step(&mut self, random: &mut Random) {
        let choice = random.below(100);
        let spawning = random.pick(&self.with(Life::Spawning));
        let restoring = random.pick(&self.with(Life::Restoring));
        let resetting = random.pick(&self.with(Life::Resetting));
        let leased = random.pick(&self.with(Life::Leased));
        let idle = random.pick(&self.with(Life::Idle));
        match (choice, spawning.or(restoring).or(resetting)) {
            (0..22, _) => {
                let tenant = random.pick(&[None, Some("a"), Some("b"), Some("c")]);
                self.acquire_for(tenant.flatten());
            }
            (22..27, _) => {
                let tickets: Vec<TicketId> = self.waiting.iter().map(|(id, _)| *id).collect();
                if let Some(ticket) = random.pick(&tickets) {
                    self.waiting.retain(|(other, _)| *other != ticket);
                    self.policy.cancel(ticket, self.now);
                    self.apply();
                }
            }
            (27..42, _) if spawning.is_some() => {
                self.policy.spawned(spawning.expect("some"), self.now);
                self.apply();
            }
            (42..56, _) if restoring.is_some() => self.ready(restoring.expect("some")),
            (56..70, _) if resetting.is_some() => self.ready(resetting.expect("some")),
            (70..74, Some(worker)) => self.fail(worker),
            (74..75, _) if idle.is_some() => self.fail(idle.expect("some")),
            (75..90, _) => {
                if let Some(worker) = leased {
                    let how = if self.closed { 2 } else { random.below(8) };
                    self.come_back(worker, how);
                }
            }
            (90..91, _) => {
                // What is told about the dead is ignored.
                let dead = self.ever.iter().find(|id| !self.workers.contains_key(id));
                if let Some(dead) = dead.copied() {
                    self.policy.ready(dead, self.now);
                    self.policy.release(dead, self.now);
                    self.policy.spawned(dead, self.now);
                    self.policy.failed(dead, Failure::new("again"), self.now);
                    self.apply();
                }
            }
            _ => self.advance(Duration::from_millis(random.next() % 400)),
        }
    }

    /// Everything under way comes to its end, nobody fails: all are served.
    fn calm_down(&mut self) {
        for _ in 0..10_000 {
            for worker in self.with(Life::Spawning) {
                self.policy.spawned(worker, self.now);
                self.apply();
            }
            for worker in [self.with(Life::Restoring), self.with(Life::Resetting)].concat() {
                if self.workers.contains_key(&worker) {
                    self.ready(worker);
                }
            }
            for worker in self.with(Life::Leased) {
                self.come_back(worker, 2);
            }
            let stats = self.policy.stats();
            let settled = stats.starting + stats.resetting + stats.in_use + stats.waiting == 0;
            if settled && stats.alive >= self.config.min {
                return;
            }
            self.advance(Duration::from_millis(20));
        }
        panic!("never calm: {:?}", self.policy.stats());
    }
}

fn configuration(random: &mut Random) -> PoolConfig {
    let max = 1 + random.below(6);
    let millis = |random: &mut Random| Duration::from_millis(50 + random.next() % 1000);
    PoolConfig {
        min: random.below(max + 1),
        max,
        idle_timeout: (random.below(3) > 0).then(|| millis(random)),
        acquire_timeout: (random.below(3) > 0).then(|| millis(random)),
        max_per_tenant: (random.below(2) > 0).then(|| 1 + random.below(3)),
        restore_on_release: random.below(4) > 0,
        spawn_timeout: millis(random),
        restore_timeout: millis(random),
        reset_timeout: millis(random),
        first_backoff: Duration::from_millis(50),
        longest_backoff: Duration::from_millis(400),
        ..PoolConfig::default()
    }
}

#[test]
fn invariants_hold_for_random_operations() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let config = configuration(&mut random);
        let budget = (random.below(3) == 0).then(|| 1 + random.below(config.max));
        let mut model = Model::new(config, budget);
        for _ in 0..400 {
            model.step(&mut random);
        }
        // Were memory still short, a minimum above it could not be reached.
        model.budget = None;
        model.calm_down();
        let deadline = model.now + Duration::from_millis(100);
        for _ in 0..3 {
            model.acquire();
        }
        model.closed = true;
        model.policy.shut_down(Some(deadline), model.now);
        model.apply();
        for _ in 0..50 {
            model.step(&mut random);
        }
        model.advance(Duration::from_millis(100));
        assert_eq!(model.policy.stats().alive, 0, "seed {seed}");
        assert_eq!(model.policy.next_deadline(), None);
    }
}

fn simple(change: impl FnOnce(&mut PoolConfig)) -> Model {
    let mut config = PoolConfig::default();
    change(&mut config);
    Model::new(config, None)
}

/// Brings all that is being started to its end.
fn settle(model: &mut Model) {
    for worker in model.with(Life::Spawning) {
        model.policy.spawned(worker, model.now);
        model.apply();
        model.ready(worker);
    }
}

#[test]
fn workers_are_started_for_those_who_wait_and_for_the_minimum() {
    let mut model = simple(|config| (config.min, config.max) = (2, 3));
    assert_eq!(model.with(Life::Spawning).len(), 2);
    for _ in 0..5 {
        model.acquire();
    }
    assert_eq!(model.with(Life::Spawning).len(), 3);
    settle(&mut model);
    assert_eq!(model.with(Life::Leased).len(), 3);
    assert_eq!(model.policy.stats().waiting, 2);
}

#[test]
fn worker_that_is_late_is_killed_and_replaced() {
    let mut model = simple(|config| config.reset_timeout = Duration::from_millis(10));
    model.acquire();
    settle(&mut model);
    let worker = model.with(Life::Leased)[0];
    model.come_back(worker, 2);
    model.acquire();
    assert_eq!(model.with(Life::Resetting), [worker]);
    model.advance(Duration::from_millis(10));
    assert!(!model.workers.contains_key(&worker));
    assert_eq!(model.with(Life::Spawning).len(), 1);
    model.policy.ready(worker, model.now);
    model.apply();
    assert_eq!(model.policy.stats().waiting, 1, "the dead one is not lent");
}

#[test]
fn idle_workers_above_the_minimum_go_and_the_oldest_first() {
    let mut model = simple(|config| {
        (config.min, config.max) = (1, 3);
        config.idle_timeout = Some(Duration::from_secs(1));
    });
    for _ in 0..3 {
        model.acquire();
    }
    settle(&mut model);
    let workers = model.with(Life::Leased);
    for worker in &workers {
        model.advance(Duration::from_millis(100));
        model.come_back(*worker, 1);
    }
    model.advance(Duration::from_secs(10));
    assert_eq!(model.with(Life::Idle), workers[2..]);
}

#[test]
fn failures_in_a_row_open_the_circuit_for_longer_each_time() {
    let mut model = simple(|config| config.first_backoff = Duration::from_millis(100));
    model.acquire();
    for _ in 0..3 {
        let worker = model.with(Life::Spawning)[0];
        model.fail(worker);
    }
    assert_eq!(model.policy.stats().waiting, 0, "refused");
    assert!(model.with(Life::Spawning).is_empty());
    model.acquire();
    assert_eq!(model.policy.stats().waiting, 0, "refused at once");

    model.advance(Duration::from_millis(100));
    model.acquire();
    model.acquire();
    assert_eq!(model.with(Life::Spawning).len(), 1, "one on trial");
    let worker = model.with(Life::Spawning)[0];
    model.fail(worker);
    model.advance(Duration::from_millis(199));
    model.acquire();
    assert!(model.with(Life::Spawning).is_empty(), "twice as long");
    model.advance(Duration::from_millis(1));
    model.acquire();
    model.acquire();
    settle(&mut model);
    assert_eq!(model.with(Life::Leased).len(), 1);
    assert_eq!(model.with(Life::Spawning).len(), 1, "back to normal");
}

#[test]
fn refused_memory_is_an_error_of_its_own_at_the_timeout() {
    let mut policy = Policy::new(PoolConfig {
        acquire_timeout: Some(Duration::from_secs(1)),
        ..PoolConfig::default()
    })
    .expect("valid");
    policy.acquire(None, Duration::ZERO);
    let second = policy.acquire(None, Duration::ZERO);
    let actions = policy.take_actions();
    let [
        Action::Spawn { worker, must: true },
        Action::Spawn {
            worker: other,
            must: false,
        },
    ] = actions[..]
    else {
        panic!("{actions:?}");
    };
    policy.not_admitted(other, Duration::ZERO);
    policy.spawned(worker, Duration::ZERO);
    policy.ready(worker, Duration::ZERO);
    policy.take_actions();
    assert_eq!(policy.next_deadline(), Some(Duration::from_millis(100)));
    let mut refusal = None;
    for tenth in 1..=10 {
        let now = Duration::from_millis(100 * tenth);
        policy.tick(now);
        for action in policy.take_actions() {
            match action {
                Action::Spawn { worker, .. } => policy.not_admitted(worker, now),
                Action::Refuse(ticket, error) => refusal = Some((ticket, error)),
                other => panic!("{other:?}"),
            }
        }
    }
    let (ticket, error) = refusal.expect("refused");
    assert_eq!(ticket, second);
    assert!(matches!(error, PoolError::OverBudget { .. }), "{error}");
}

#[test]
fn measured_memory_is_believed_at_once_when_more_and_slowly_when_less() {
    let mut policy = Policy::new(PoolConfig::default()).expect("valid");
    policy.measured(1 << 30);
    assert_eq!(policy.worker_bytes(), 1 << 30);
    policy.measured(0);
    assert_eq!(policy.worker_bytes(), (1 << 30) - (1 << 27));
}

#[test]
fn workers_that_die_before_use_open_the_circuit_too() {
    let mut policy = Policy::new(PoolConfig::default()).expect("valid");
    let now = Duration::ZERO;
    let ticket = policy.acquire(None, now);
    let mut spawned = 0;
    loop {
        let actions = policy.take_actions();
        if actions.is_empty() {
            break;
        }
        for action in actions {
            match action {
                Action::Spawn { worker, .. } => {
                    spawned += 1;
                    policy.spawned(worker, now);
                    policy.ready(worker, now);
                }
                Action::Grant(ticket, worker) => policy.grant_failed(ticket, worker, now, now),
                Action::Refuse(refused, error) => {
                    assert_eq!(refused, ticket);
                    assert!(matches!(error, PoolError::CircuitOpen { .. }));
                }
                _ => (),
            }
        }
    }
    assert_eq!(spawned, 3);
    assert_eq!(policy.stats().waiting, 0);
}

#[test]
fn configuration_that_contradicts_itself_is_refused() {
    let changes: [fn(&mut PoolConfig); 6] = [
        |config| config.max = 0,
        |config| config.min = config.max + 1,
        |config| config.acquire_timeout = Some(Duration::ZERO),
        |config| config.idle_timeout = Some(Duration::ZERO),
        |config| config.reset_timeout = Duration::ZERO,
        |config| config.first_backoff = config.longest_backoff * 2,
    ];
    for change in changes {
        let mut config = PoolConfig::default();
        change(&mut config);
        assert!(matches!(Policy::new(config), Err(PoolError::Config(_))));
    }
    let forever = PoolConfig::default().acquire_timeout_millis(0);
    assert_eq!(forever.acquire_timeout, None);
}

#[test]
fn what_was_done_is_counted_and_a_worker_that_was_dead_is_not() {
    let config = PoolConfig {
        max: 1,
        acquire_timeout: Some(Duration::from_secs(5)),
        ..PoolConfig::default()
    };
    let mut policy = Policy::new(config).expect("valid");
    let at = Duration::from_secs;
    let started = |policy: &mut Policy| {
        let actions = policy.take_actions();
        let worker = actions.iter().find_map(|action| match action {
            Action::Spawn { worker, .. } => Some(*worker),
            _ => None,
        });
        worker.expect("one is started")
    };
    let first = policy.acquire(None, at(0));
    let dead = started(&mut policy);
    policy.spawned(dead, at(1));
    policy.ready(dead, at(1));
    assert_eq!(policy.metrics().granted, 1);
    policy.grant_failed(first, dead, at(0), at(1));
    assert_eq!(
        (policy.metrics().granted, policy.metrics().waited),
        (0, at(0))
    );
    let worker = started(&mut policy);
    policy.spawned(worker, at(2));
    policy.ready(worker, at(3));
    // The next one waits in vain.
    policy.acquire(None, at(3));
    policy.tick(at(8));
    policy.release(worker, at(9));
    let metrics = policy.metrics();
    assert_eq!((metrics.granted, metrics.refused, metrics.reset), (1, 1, 1));
    assert_eq!((metrics.waited, metrics.longest_wait), (at(3), at(3)));
    assert_eq!(
        (metrics.spawned, metrics.failed),
        (policy.stats().spawned, policy.stats().failed)
    );
}

#[test]
fn a_tenant_with_all_it_may_have_holds_nobody_else_up() {
    let mut model = simple(|config| {
        config.max = 4;
        config.max_per_tenant = Some(2);
        config.acquire_timeout = Some(Duration::from_secs(1));
    });
    let greedy: Vec<TicketId> = (0..4).map(|_| model.acquire_for(Some("greedy"))).collect();
    settle(&mut model);
    let stats = model.policy.stats();
    assert_eq!((stats.in_use, stats.waiting, stats.alive), (2, 2, 2));
    // A later waiter of another tenant is served before earlier ones of a full one.
    model.acquire_for(Some("other"));
    model.acquire();
    settle(&mut model);
    assert_eq!(model.policy.stats().in_use, 4);
    let lease = *model
        .granted
        .iter()
        .find(|(_, ticket)| **ticket == greedy[0])
        .expect("granted")
        .0;
    model.come_back(lease, 2);
    model.ready(lease);
    assert!(model.answered.contains(&greedy[2]), "the next of its own");
    assert!(!model.answered.contains(&greedy[3]));
    // The last one has waited as long as anybody may.
    model.advance(Duration::from_secs(1));
    assert!(model.answered.contains(&greedy[3]));
    assert_eq!(model.policy.stats().waiting, 0);
}
