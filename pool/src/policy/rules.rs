//! The rules: what follows from what was told and from the time.

use super::{Action, Policy, Slot, WorkerState};
use crate::ids::{Waiter, WorkerId};
use crate::{Failure, PoolError};
use std::time::Duration;

impl Policy {
    /// Applies every rule until none has anything to say.
    pub(super) fn settle(&mut self, now: Duration) {
        let now = now.max(self.now);
        self.now = now;
        self.expire(now);
        if self.is_closed() {
            self.close();
        } else {
            // A waiter that is refused makes room for another of its tenant.
            loop {
                while let Some(waiter) = self.tenants.next() {
                    self.join(waiter);
                }
                self.serve(now);
                self.evict(now);
                self.start(now);
                if !self.refuse(now) {
                    break;
                }
            }
        }
        debug_assert!(self.workers.len() <= self.config.max);
        debug_assert!(self.idle.is_empty() || self.waiters.is_empty());
    }

    /// Kills what is late.
    fn expire(&mut self, now: Duration) {
        let late: Vec<(WorkerId, WorkerState)> = self
            .workers
            .iter()
            .filter(|(_, slot)| self.deadline(slot).is_some_and(|deadline| deadline <= now))
            .map(|(worker, slot)| (*worker, slot.state))
            .collect();
        for (worker, state) in late {
            let failure = Failure::new(format_args!("worker was too late in {state:?}"));
            self.fail(worker, failure, now);
        }
    }

    fn close(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            self.turn_away(waiter.ticket, PoolError::Closed);
        }
        while let Some(waiter) = self.tenants.give_up(|_| true) {
            self.turn_away(waiter.ticket, PoolError::Closed);
        }
        let useless: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, slot)| slot.state != WorkerState::Leased)
            .map(|(worker, _)| *worker)
            .collect();
        for worker in useless {
            self.kill(worker);
        }
    }

    /// Gives idle workers to those who wait, in the order they came. The
    /// worker that was used last goes first: its memory is warm.
    fn serve(&mut self, now: Duration) {
        while let (Some(worker), Some(waiter)) = (self.idle.back(), self.waiters.front()) {
            let (worker, ticket) = (*worker, waiter.ticket);
            self.metrics.grant(now.saturating_sub(waiter.since));
            self.idle.pop_back();
            self.waiters.pop_front();
            self.tenants.granted(ticket, worker);
            self.enter(worker, WorkerState::Leased, now);
            self.actions.push(Action::Grant(ticket, worker));
        }
    }

    fn evict(&mut self, now: Duration) {
        while let Some((worker, at)) = self.next_eviction() {
            if at > now {
                break;
            }
            self.kill(worker);
        }
    }

    fn start(&mut self, now: Duration) {
        if self.budget_refused_until.is_some_and(|until| until <= now) {
            self.budget_refused_until = None;
        }
        let over_budget = self.budget_refused_until.is_some();
        for _ in 0..self.wanted() {
            let alone = self.workers.is_empty();
            let starting = self.stats().starting;
            // After a back-off a single worker shows whether it goes again.
            let on_trial = self.closed_until.is_some();
            let too_early = self.closed_until.is_some_and(|until| until > now);
            if too_early || (on_trial && starting > 0) || (over_budget && !alone) {
                break;
            }
            let worker = WorkerId(self.next_worker);
            self.next_worker += 1;
            self.spawned += 1;
            self.enter(worker, WorkerState::Spawning, now);
            let must = alone;
            self.actions.push(Action::Spawn { worker, must });
        }
    }

    /// Refuses those who waited too long, or in vain; whether there were any.
    fn refuse(&mut self, now: Duration) -> bool {
        let waited_before = self.waiters.len() + self.tenants.outside();
        if let (Some(until), true) = (self.closed_until, self.workers.is_empty())
            && until > now
        {
            let error = PoolError::CircuitOpen {
                failures: self.failures,
                retry_in: until - now,
                failure: self
                    .last_failure
                    .clone()
                    .unwrap_or_else(|| Failure::new("unknown")),
            };
            for waiter in std::mem::take(&mut self.waiters) {
                self.turn_away(waiter.ticket, error.clone());
            }
        }
        while let Some(waiter) = self.pop_late(now) {
            let waited = now.saturating_sub(waiter.since);
            let error = if self.memory_is_short {
                PoolError::OverBudget {
                    waited,
                    needed_bytes: self.worker_bytes,
                }
            } else {
                // A worker that failed since one did not is why there are no more.
                let failure = self.last_failure.clone().filter(|_| self.failures > 0);
                PoolError::Timeout { waited, failure }
            };
            self.turn_away(waiter.ticket, error);
        }
        self.waiters.len() + self.tenants.outside() < waited_before
    }

    /// Someone who has waited too long, in the line or outside.
    fn pop_late(&mut self, now: Duration) -> Option<Waiter> {
        let timeout = self.config.acquire_timeout?;
        let is_late = |waiter: &Waiter| waiter.since.saturating_add(timeout) <= now;
        match self.waiters.front() {
            Some(waiter) if is_late(waiter) => self.waiters.pop_front(),
            _ => self.tenants.give_up(is_late),
        }
    }

    /// When [`Policy::tick`] is to be called at the latest, if nothing happens
    /// before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let workers = self.workers.values().filter_map(|slot| self.deadline(slot));
        let oldest = [self.waiters.front(), self.tenants.oldest_outside()];
        let waiter = oldest
            .into_iter()
            .flatten()
            .filter_map(|waiter| self.patience(waiter));
        let evict = self.next_eviction().map(|(_, at)| at);
        let wanting = self.wanted() > 0;
        let retries = [self.closed_until, self.budget_refused_until];
        let retry = retries.into_iter().flatten().max();
        // In the past: what is wanted waits for something else by now.
        let retry = retry.filter(|at| wanting && *at > self.now);
        workers.chain(waiter).chain(evict).chain(retry).min()
    }

    fn deadline(&self, slot: &Slot) -> Option<Duration> {
        let after = |timeout| Some(slot.since.saturating_add(timeout));
        match slot.state {
            WorkerState::Spawning => after(self.config.spawn_timeout),
            WorkerState::Restoring => after(self.config.restore_timeout),
            WorkerState::Resetting => after(self.config.reset_timeout),
            WorkerState::Idle => None,
            WorkerState::Leased => self.closing.as_ref().and_then(|closing| closing.deadline),
        }
    }

    fn patience(&self, waiter: &Waiter) -> Option<Duration> {
        let timeout = self.config.acquire_timeout?;
        Some(waiter.since.saturating_add(timeout))
    }

    /// The worker that is to go next for being idle, and when.
    fn next_eviction(&self) -> Option<(WorkerId, Duration)> {
        let timeout = self.config.idle_timeout?;
        let worker = *self.idle.front()?;
        let since = self.workers.get(&worker)?.since;
        (self.workers.len() > self.config.min).then(|| (worker, since.saturating_add(timeout)))
    }

    /// Workers that should be started, were nothing in the way.
    fn wanted(&self) -> usize {
        if self.is_closed() {
            return 0;
        }
        let stats = self.stats();
        // One that is being reset is there sooner than a new one.
        let coming = stats.starting + stats.resetting + stats.idle;
        let for_waiters = self.waiters.len().saturating_sub(coming);
        let for_min = self.config.min.saturating_sub(stats.alive);
        for_waiters
            .max(for_min)
            .min(self.config.max - stats.alive.min(self.config.max))
    }
}
