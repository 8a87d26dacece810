//! The decisions of a pool, without a clock, a thread or a worker.
//!
//! [`Policy`] is told what happens and at what time, and answers with
//! [`Action`]s. Times are counted from any fixed moment and never go back.
//!
//! ```text
//! Spawning -> Restoring -> Idle <-> Leased -> Resetting -> Idle
//!     \___________\__________\________\___________\______> Dead
//! ```
//! Everything but `Idle` and `Leased` has a deadline, after which the worker is
//! killed. A dead worker is forgotten: what is still told about it is ignored.

use crate::ids::Waiter;
pub use crate::ids::{TicketId, WorkerId};
use crate::metrics::PoolMetrics;
use crate::tenants::Tenants;
use crate::{Failure, PoolConfig, PoolError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

mod rules;

/// A worker that dies sooner after it became idle may have been dead already.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a worker; then tell [`Policy::spawned`] or [`Policy::failed`].
    Spawn {
        /// The worker.
        worker: WorkerId,
        /// Whether it is started however little memory is left, because the
        /// pool has no other. If not, [`Policy::not_admitted`] may be the answer.
        must: bool,
    },
    /// Make a started worker usable; then tell [`Policy::ready`] or
    /// [`Policy::failed`].
    Restore(WorkerId),
    /// Bring a used worker back to its beginning; then tell [`Policy::ready`]
    /// or [`Policy::failed`].
    Reset(WorkerId),
    /// End a worker. It no longer counts.
    Kill(WorkerId),
    /// Give the worker to whoever waits.
    Grant(TicketId, WorkerId),
    /// Tell whoever waits that there will be none.
    Refuse(TicketId, PoolError),
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Its process is being started.
    Spawning,
    /// It is made usable.
    Restoring,
    /// It waits.
    Idle,
    /// Someone has it.
    Leased,
    /// It goes back to its beginning.
    Resetting,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: WorkerState,
    /// When it came into this state.
    since: Duration,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Workers in any state: the sum of the four below.
    pub alive: usize,
    /// Workers that someone has.
    pub in_use: usize,
    /// Workers that wait.
    pub idle: usize,
    /// Workers that are started or made usable.
    pub starting: usize,
    /// Workers on their way back to their beginning.
    pub resetting: usize,
    /// Acquires that wait.
    pub waiting: usize,
    /// Workers kept alive even when nobody wants one.
    pub min: usize,
    /// Most workers alive at any time.
    pub max: usize,
    /// Workers ever started.
    pub spawned: u64,
    /// Workers that failed, or were too late, in starting or being reset.
    pub failed: u64,
}

#[derive(Clone, Debug)]
struct Closing {
    /// When leased workers are killed; nothing waits for them.
    deadline: Option<Duration>,
}

/// The state of a pool and the rules by which it changes.
#[derive(Clone, Debug)]
pub struct Policy {
    config: PoolConfig,
    workers: BTreeMap<WorkerId, Slot>,
    /// Idle workers, the one that waits longest first.
    idle: VecDeque<WorkerId>,
    /// Those who may have a worker, in the order they came.
    waiters: VecDeque<Waiter>,
    tenants: Tenants,
    next_worker: u64,
    next_ticket: u64,
    /// Failures to start since the last success.
    failures: u32,
    last_failure: Option<Failure>,
    /// Workers that were dead when they were to be used, since one was not.
    dead_on_arrival: u32,
    /// No worker is started before this time.
    closed_until: Option<Duration>,
    /// Memory was refused; not asked again before this time.
    budget_refused_until: Option<Duration>,
    /// Memory was refused, and no worker has started since.
    memory_is_short: bool,
    worker_bytes: u64,
    closing: Option<Closing>,
    /// The latest time that was told.
    now: Duration,
    spawned: u64,
    failed: u64,
    metrics: PoolMetrics,
    actions: Vec<Action>,
}

impl Policy {
    /// An empty pool; [`Policy::tick`] starts its first workers.
    ///
    /// # Errors
    /// When the configuration is not valid.
    pub fn new(config: PoolConfig) -> Result<Self, PoolError> {
        config.validate()?;
        Ok(Self {
            worker_bytes: config.worker_bytes,
            tenants: Tenants::new(config.max_per_tenant),
            config,
            workers: BTreeMap::new(),
            idle: VecDeque::new(),
            waiters: VecDeque::new(),
            next_worker: 0,
            next_ticket: 0,
            failures: 0,
            last_failure: None,
            dead_on_arrival: 0,
            closed_until: None,
            budget_refused_until: None,
            memory_is_short: false,
            closing: None,
            now: Duration::ZERO,
            spawned: 0,
            failed: 0,
            metrics: PoolMetrics::default(),
            actions: Vec::new(),
        })
    }

    /// What is to be done because of what was told since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> PoolMetrics {
        PoolMetrics {
            spawned: self.spawned,
            failed: self.failed,
            ..self.metrics
        }
    }

    fn turn_away(&mut self, ticket: TicketId, error: PoolError) {
        self.tenants.left(ticket);
        self.metrics.refuse();
        self.actions.push(Action::Refuse(ticket, error));
    }

    /// Numbers of now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let mut stats = PoolStats {
            alive: self.workers.len(),
            waiting: self.waiters.len() + self.tenants.outside(),
            min: self.config.min,
            max: self.config.max,
            spawned: self.spawned,
            failed: self.failed,
            ..PoolStats::default()
        };
        for slot in self.workers.values() {
            match slot.state {
                WorkerState::Spawning | WorkerState::Restoring => stats.starting += 1,
                WorkerState::Idle => stats.idle += 1,
                WorkerState::Leased => stats.in_use += 1,
                WorkerState::Resetting => stats.resetting += 1,
            }
        }
        stats
    }

    /// State of a worker, if it lives.
    #[must_use]
    pub fn state(&self, worker: WorkerId) -> Option<WorkerState> {
        self.workers.get(&worker).map(|slot| slot.state)
    }

    /// Workers that wait.
    pub fn idle_workers(&self) -> impl Iterator<Item = WorkerId> {
        self.idle.iter().copied()
    }

    /// Whether the pool was shut down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closing.is_some()
    }

    /// Memory another worker is expected to need, in bytes.
    #[must_use]
    pub fn worker_bytes(&self) -> u64 {
        self.worker_bytes
    }

    /// Takes note of what a worker was seen to use. More is believed at once,
    /// less by and by.
    pub fn measured(&mut self, bytes: u64) {
        self.worker_bytes = bytes.max(self.worker_bytes - self.worker_bytes / 8);
    }

    /// Someone wants a worker, as one of a tenant's if they say so: of those no more are
    /// served at once than [`PoolConfig::max_per_tenant`]. More wait for one of their own
    /// to come back, and then have the place in the line that they came at.
    pub fn acquire(&mut self, tenant: Option<Arc<str>>, now: Duration) -> TicketId {
        let ticket = TicketId(self.next_ticket);
        self.next_ticket += 1;
        if self.is_closed() {
            self.turn_away(ticket, PoolError::Closed);
            return ticket;
        }
        let waiter = Waiter { ticket, since: now };
        let joins = match tenant {
            Some(tenant) => self.tenants.come(tenant, waiter),
            None => Some(waiter),
        };
        self.waiters.extend(joins);
        self.settle(now);
        ticket
    }

    /// Someone no longer waits. Nothing happens if the ticket was answered.
    pub fn cancel(&mut self, ticket: TicketId, now: Duration) {
        self.waiters.retain(|waiter| waiter.ticket != ticket);
        self.tenants.left(ticket);
        self.settle(now);
    }

    /// A worker's process runs.
    pub fn spawned(&mut self, worker: WorkerId, now: Duration) {
        if self.state(worker) == Some(WorkerState::Spawning) {
            self.memory_is_short = false;
            self.enter(worker, WorkerState::Restoring, now);
            self.actions.push(Action::Restore(worker));
        }
        self.settle(now);
    }

    /// A worker can be used: its restore or its reset is done.
    pub fn ready(&mut self, worker: WorkerId, now: Duration) {
        match self.state(worker) {
            Some(WorkerState::Restoring) => {
                self.failures = 0;
                self.closed_until = None;
                self.make_idle(worker, now);
            }
            Some(WorkerState::Resetting) => self.make_idle(worker, now),
            _ => (),
        }
        self.settle(now);
    }

    /// A worker failed in what it was asked to do, or died.
    pub fn failed(&mut self, worker: WorkerId, failure: Failure, now: Duration) {
        self.fail(worker, failure, now);
        self.settle(now);
    }

    /// A worker was not started because there is no memory for it.
    pub fn not_admitted(&mut self, worker: WorkerId, now: Duration) {
        if self.state(worker) == Some(WorkerState::Spawning) {
            self.workers.remove(&worker);
            self.spawned -= 1;
            self.memory_is_short = true;
            self.budget_refused_until = Some(now.saturating_add(self.config.budget_retry));
        }
        self.settle(now);
    }

    /// A granted worker comes back used.
    pub fn release(&mut self, worker: WorkerId, now: Duration) {
        if self.state(worker) == Some(WorkerState::Leased) {
            self.dead_on_arrival = 0;
            self.tenants.came_back(worker);
            if self.is_closed() {
                self.kill(worker);
            } else if self.config.restore_on_release {
                self.enter(worker, WorkerState::Resetting, now);
                self.metrics.reset = self.metrics.reset.saturating_add(1);
                self.actions.push(Action::Reset(worker));
            } else {
                self.make_idle(worker, now);
            }
        }
        self.settle(now);
    }

    /// A granted worker comes back that nobody has touched.
    pub fn give_back(&mut self, worker: WorkerId, now: Duration) {
        if self.state(worker) == Some(WorkerState::Leased) {
            self.tenants.came_back(worker);
            self.make_idle(worker, now);
        }
        self.settle(now);
    }

    /// A granted worker is not to be used again.
    pub fn discard(&mut self, worker: WorkerId, now: Duration) {
        if self.state(worker) == Some(WorkerState::Leased) {
            self.kill(worker);
        }
        self.settle(now);
    }

    /// A worker turned out dead when it was handed over: whoever waits is the
    /// first in line again, since the time they came.
    pub fn grant_failed(
        &mut self,
        ticket: TicketId,
        worker: WorkerId,
        since: Duration,
        now: Duration,
    ) {
        if self.state(worker) == Some(WorkerState::Leased) {
            self.metrics.take_back(now.saturating_sub(since));
            self.tenants.taken_back(worker, ticket);
            self.kill(worker);
            self.died_at_once(Failure::new("worker died before it was used"), now);
            if self.is_closed() {
                self.turn_away(ticket, PoolError::Closed);
            } else {
                self.join(Waiter { ticket, since });
            }
        }
        self.settle(now);
    }

    /// Gives someone the place in the line that they came at.
    fn join(&mut self, waiter: Waiter) {
        let before = self
            .waiters
            .partition_point(|other| other.ticket < waiter.ticket);
        self.waiters.insert(before, waiter);
    }

    /// Keeps at least `min` workers from now on, and has room for at least `max`.
    /// Neither becomes less.
    pub fn grow(&mut self, min: usize, max: usize, now: Duration) {
        self.config.min = self.config.min.max(min);
        self.config.max = self.config.max.max(max).max(self.config.min);
        self.settle(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.settle(now);
    }

    /// No more workers. Leased ones may be finished until `deadline`, if there
    /// is one; all others are killed now.
    pub fn shut_down(&mut self, deadline: Option<Duration>, now: Duration) {
        let earlier = self.closing.take().and_then(|closing| closing.deadline);
        let deadline = match (earlier, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.closing = Some(Closing { deadline });
        self.settle(now);
    }

    fn enter(&mut self, worker: WorkerId, state: WorkerState, now: Duration) {
        self.workers.insert(worker, Slot { state, since: now });
    }

    fn make_idle(&mut self, worker: WorkerId, now: Duration) {
        self.enter(worker, WorkerState::Idle, now);
        self.idle.push_back(worker);
    }

    fn kill(&mut self, worker: WorkerId) {
        if self.workers.remove(&worker).is_some() {
            self.tenants.came_back(worker);
            self.idle.retain(|idle| *idle != worker);
            self.actions.push(Action::Kill(worker));
        }
    }

    fn fail(&mut self, worker: WorkerId, failure: Failure, now: Duration) {
        let Some(state) = self.state(worker) else {
            return;
        };
        let lived = now.saturating_sub(self.workers.get(&worker).map_or(now, |slot| slot.since));
        self.kill(worker);
        if state == WorkerState::Idle && lived < LEAST_LIFE {
            self.died_at_once(failure, now);
            return;
        }
        if state == WorkerState::Idle || state == WorkerState::Leased {
            return;
        }
        self.failed += 1;
        if state == WorkerState::Resetting {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.note_failure(failure, now);
    }

    /// A worker died before anybody used it. Else workers that die right after
    /// they start would be started again and again without a pause.
    fn died_at_once(&mut self, failure: Failure, now: Duration) {
        self.dead_on_arrival = self.dead_on_arrival.saturating_add(1);
        self.failures = self.failures.max(self.dead_on_arrival);
        self.note_failure(failure, now);
    }

    /// Decides after a failure whether to stop starting workers for a while.
    fn note_failure(&mut self, failure: Failure, now: Duration) {
        self.last_failure = Some(failure);
        let beyond = self.failures.checked_sub(self.config.failures_to_open);
        if let Some(doublings) = beyond {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            let pause = self.config.first_backoff.saturating_mul(factor);
            let pause = pause.min(self.config.longest_backoff);
            self.closed_until = Some(now.saturating_add(pause));
        }
    }
}
