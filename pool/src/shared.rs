//! What the handles of a pool share: the policy, and its workers, threads and
//! clock.

use crate::budget::Budget;
use crate::jobs::{Jobs, lock};
use crate::policy::{Action, Policy, TicketId, WorkerId};
use crate::sync::{Condvar, Instant, Mutex, thread};
use crate::worker::{Factory, Worker};
use crate::{Failure, PoolConfig, PoolError, PoolMetrics, PoolStats};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// A worker with what it was charged.
struct Member<W> {
    /// Nothing while it is being started.
    worker: Option<Arc<W>>,
    charged: u64,
}

/// Someone who waits.
struct Waiting {
    since: Duration,
    waker: Option<Waker>,
    answer: Option<Result<WorkerId, PoolError>>,
}

struct Core<W> {
    policy: Policy,
    members: BTreeMap<WorkerId, Member<W>>,
    waiting: BTreeMap<TicketId, Waiting>,
    /// When the keeper looks next on its own.
    alarm: Option<Duration>,
    /// Workers that no longer count and have not yet been told to end.
    ending: usize,
}

/// What is done after the lock is released.
struct Errands<W> {
    wake: Vec<Waker>,
    kill: Vec<Arc<W>>,
    work: Vec<Work<W>>,
    /// The keeper must look at the time, or at whether it is still needed.
    alarm: bool,
}

/// A worker and which one it is.
pub(crate) type Granted<W> = (WorkerId, Arc<W>);

enum Work<W> {
    Spawn(WorkerId),
    Restore(WorkerId, Arc<W>),
    Reset(WorkerId, Arc<W>),
}

impl<W> Work<W> {
    fn worker(&self) -> WorkerId {
        match self {
            Self::Spawn(id) | Self::Restore(id, _) | Self::Reset(id, _) => *id,
        }
    }
}

/// A pool, for as long as anybody has a handle to it or a worker lives.
pub(crate) struct Shared<F: Factory> {
    factory: F,
    budget: Arc<dyn Budget>,
    start: Instant,
    core: Mutex<Core<F::Worker>>,
    /// For the keeper, and for those who wait for the end.
    changed: Condvar,
    jobs: Jobs,
}

impl<F: Factory> Shared<F> {
    /// A pool with a thread that watches the time, and its first workers on their
    /// way.
    pub(crate) fn start(
        config: PoolConfig,
        factory: F,
        budget: Arc<dyn Budget>,
    ) -> Result<Arc<Self>, PoolError> {
        let shared = Arc::new(Self {
            factory,
            budget,
            start: Instant::now(),
            core: Mutex::new(Core {
                policy: Policy::new(config)?,
                members: BTreeMap::new(),
                waiting: BTreeMap::new(),
                alarm: None,
                ending: 0,
            }),
            changed: Condvar::new(),
            jobs: Jobs::default(),
        });
        let keeper = Arc::clone(&shared);
        thread::Builder::new()
            .name("pool-keeper".to_owned())
            .spawn(move || keeper.keep())
            .map_err(|_| PoolError::Config("the system has no thread for a pool"))?;
        shared.change(Policy::tick);
        Ok(shared)
    }

    pub(crate) fn stats(&self) -> PoolStats {
        lock(&self.core).policy.stats()
    }

    pub(crate) fn metrics(&self) -> PoolMetrics {
        lock(&self.core).policy.metrics()
    }

    /// Starts no more workers, and waits until there is none.
    pub(crate) fn shut_down(self: &Arc<Self>, patience: Duration) {
        let deadline = self.now().saturating_add(patience);
        self.change(|policy, now| policy.shut_down(Some(deadline), now));
        let mut core = lock(&self.core);
        while core.policy.stats().alive + core.ending > 0 {
            let changed = self.changed.wait(core);
            core = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tells the policy something and does what it says.
    pub(crate) fn change<T>(self: &Arc<Self>, tell: impl FnOnce(&mut Policy, Duration) -> T) -> T {
        let mut core = lock(&self.core);
        let result = tell(&mut core.policy, self.now());
        let errands = self.act(&mut core);
        drop(core);
        self.run(errands);
        result
    }

    /// Carries out the policy's actions as far as that never blocks.
    fn act(&self, core: &mut Core<F::Worker>) -> Errands<F::Worker> {
        let mut errands = Errands {
            wake: Vec::new(),
            kill: Vec::new(),
            work: Vec::new(),
            alarm: false,
        };
        loop {
            let actions = core.policy.take_actions();
            if actions.is_empty() {
                break;
            }
            errands.alarm |= actions
                .iter()
                .any(|action| matches!(action, Action::Kill(_)));
            for action in actions {
                self.act_on(core, &mut errands, action);
            }
        }
        let alarm = core.policy.next_deadline();
        let earlier = alarm.is_some_and(|at| core.alarm.is_none_or(|set| at < set));
        errands.alarm |= earlier || core.policy.is_closed();
        errands
    }

    fn act_on(&self, core: &mut Core<F::Worker>, errands: &mut Errands<F::Worker>, action: Action) {
        match action {
            Action::Spawn { worker, must } => {
                let charged = core.policy.worker_bytes();
                if self.budget.reserve(charged, must) {
                    let member = Member {
                        worker: None,
                        charged,
                    };
                    core.members.insert(worker, member);
                    errands.work.push(Work::Spawn(worker));
                } else {
                    core.policy.not_admitted(worker, self.now());
                }
            }
            Action::Restore(id) => {
                if let Some(worker) = core.worker(id) {
                    errands.work.push(Work::Restore(id, worker));
                }
            }
            Action::Reset(id) => {
                if let Some(worker) = core.worker(id) {
                    errands.work.push(Work::Reset(id, worker));
                }
            }
            Action::Kill(id) => {
                if let Some(member) = core.members.remove(&id) {
                    self.budget.release(member.charged);
                    core.ending += usize::from(member.worker.is_some());
                    errands.kill.extend(member.worker);
                }
            }
            Action::Grant(ticket, id) => {
                let alive = core.worker(id).is_some_and(|worker| worker.is_alive());
                if alive {
                    errands.wake.extend(core.answer(ticket, Ok(id)));
                } else {
                    let now = self.now();
                    let since = core.waiting.get(&ticket).map_or(now, |entry| entry.since);
                    core.policy.grant_failed(ticket, id, since, now);
                }
            }
            Action::Refuse(ticket, error) => {
                errands.wake.extend(core.answer(ticket, Err(error)));
            }
        }
    }

    fn run(self: &Arc<Self>, errands: Errands<F::Worker>) {
        if errands.alarm {
            self.changed.notify_all();
        }
        for waker in errands.wake {
            waker.wake();
        }
        if !errands.kill.is_empty() {
            for worker in &errands.kill {
                worker.kill();
            }
            lock(&self.core).ending -= errands.kill.len();
            self.changed.notify_all();
        }
        for work in errands.work {
            let id = work.worker();
            let shared = Arc::clone(self);
            if let Err(error) = self.jobs.run(move || shared.work(work)) {
                let failure = Failure::new(format_args!("no thread for the worker: {error}"));
                self.change(|policy, now| policy.failed(id, failure, now));
            }
        }
    }

    /// Does what blocks, and tells the policy how it went.
    fn work(self: &Arc<Self>, work: Work<F::Worker>) {
        match work {
            Work::Spawn(id) => match guarded(|| self.factory.spawn()) {
                Ok(worker) => self.spawned(id, Arc::new(worker)),
                Err(failure) => self.change(|policy, now| policy.failed(id, failure, now)),
            },
            Work::Restore(id, worker) => self.finished(id, &worker, guarded(|| worker.restore())),
            Work::Reset(id, worker) => self.finished(id, &worker, guarded(|| worker.reset())),
        }
    }

    fn spawned(self: &Arc<Self>, id: WorkerId, worker: Arc<F::Worker>) {
        let mut core = lock(&self.core);
        let Some(member) = core.members.get_mut(&id) else {
            // Too late: the policy has given it up, and nobody knows of it.
            drop(core);
            worker.kill();
            return;
        };
        member.worker = Some(worker);
        core.policy.spawned(id, self.now());
        let errands = self.act(&mut core);
        drop(core);
        self.run(errands);
    }

    fn finished(
        self: &Arc<Self>,
        id: WorkerId,
        worker: &Arc<F::Worker>,
        result: Result<(), Failure>,
    ) {
        let measured = match &result {
            Ok(()) => worker.memory_bytes(),
            Err(_) => 0,
        };
        let mut core = lock(&self.core);
        let now = self.now();
        match result {
            Ok(()) => {
                if measured > 0
                    && let Some(member) = core.members.get_mut(&id)
                {
                    self.budget.adjust(member.charged, measured);
                    member.charged = measured;
                    core.policy.measured(measured);
                }
                core.policy.ready(id, now);
            }
            Err(failure) => core.policy.failed(id, failure, now),
        }
        let errands = self.act(&mut core);
        drop(core);
        self.run(errands);
    }

    /// Watches the time until the pool is closed and empty.
    fn keep(self: &Arc<Self>) {
        let mut core = lock(&self.core);
        loop {
            if core.policy.is_closed() && core.policy.stats().alive == 0 {
                self.jobs.close();
                return;
            }
            let now = self.now();
            let alarm = core.policy.next_deadline();
            core.alarm = alarm;
            match alarm {
                Some(at) if at <= now => {
                    core.policy.tick(now);
                    let errands = self.act(&mut core);
                    drop(core);
                    self.run(errands);
                    core = lock(&self.core);
                }
                Some(at) => {
                    let waited = self.changed.wait_timeout(core, at - now);
                    core = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    let waited = self.changed.wait(core);
                    core = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    pub(crate) fn check(self: &Arc<Self>) {
        let mut core = lock(&self.core);
        let idle: Vec<WorkerId> = core.policy.idle_workers().collect();
        for id in idle {
            if !core.worker(id).is_some_and(|worker| worker.is_alive()) {
                let failure = Failure::new("worker died while idle");
                core.policy.failed(id, failure, self.now());
            }
        }
        let errands = self.act(&mut core);
        drop(core);
        self.run(errands);
    }

    pub(crate) fn request(self: &Arc<Self>, tenant: Option<Arc<str>>) -> TicketId {
        let mut core = lock(&self.core);
        let now = self.now();
        let ticket = core.policy.acquire(tenant, now);
        let entry = Waiting {
            since: now,
            waker: None,
            answer: None,
        };
        core.waiting.insert(ticket, entry);
        let errands = self.act(&mut core);
        drop(core);
        self.run(errands);
        ticket
    }

    /// The answer to a ticket, once; before, notes whom to wake.
    pub(crate) fn poll(
        &self,
        ticket: TicketId,
        waker: &Waker,
    ) -> Option<Result<Granted<F::Worker>, PoolError>> {
        let mut core = lock(&self.core);
        let Some(entry) = core.waiting.get_mut(&ticket) else {
            return Some(Err(PoolError::Closed));
        };
        let Some(answer) = entry.answer.take() else {
            if !entry.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
                entry.waker = Some(waker.clone());
            }
            return None;
        };
        core.waiting.remove(&ticket);
        Some(answer.and_then(|id| {
            let worker = core.worker(id).ok_or(PoolError::Closed)?;
            Ok((id, worker))
        }))
    }

    /// The ticket's owner has lost interest.
    pub(crate) fn forget(self: &Arc<Self>, ticket: TicketId) {
        let mut core = lock(&self.core);
        let Some(entry) = core.waiting.remove(&ticket) else {
            return;
        };
        let now = self.now();
        match entry.answer {
            None => core.policy.cancel(ticket, now),
            Some(Ok(id)) => core.policy.give_back(id, now),
            Some(Err(_)) => return,
        }
        let errands = self.act(&mut core);
        drop(core);
        self.run(errands);
    }

    pub(crate) fn release(self: &Arc<Self>, id: WorkerId, usable: bool) {
        self.change(|policy, now| {
            if usable {
                policy.release(id, now);
            } else {
                policy.discard(id, now);
            }
        });
    }
}

impl<W> Core<W> {
    fn worker(&self, id: WorkerId) -> Option<Arc<W>> {
        self.members.get(&id)?.worker.clone()
    }

    fn answer(&mut self, ticket: TicketId, answer: Result<WorkerId, PoolError>) -> Option<Waker> {
        let entry = self.waiting.get_mut(&ticket)?;
        entry.answer = Some(answer);
        entry.waker.take()
    }
}

/// A panic in a worker's code is a failure of that worker, not of the pool.
fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(Failure::new("worker panicked")))
}
