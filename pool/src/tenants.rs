//! Who has how much of a pool.

use crate::ids::{TicketId, Waiter, WorkerId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Leases and places in the line by tenant, up to so many of each; and those who wait
/// for others of their own tenant before they come into the line.
#[derive(Clone, Debug)]
pub struct Tenants {
    most: usize,
    /// How many leases and places each has that has some.
    held: BTreeMap<Arc<str>, usize>,
    tickets: BTreeMap<TicketId, Arc<str>>,
    workers: BTreeMap<WorkerId, Arc<str>>,
    outside: VecDeque<(Arc<str>, Waiter)>,
}

impl Tenants {
    pub fn new(most: Option<usize>) -> Self {
        Self {
            most: most.unwrap_or(usize::MAX),
            held: BTreeMap::new(),
            tickets: BTreeMap::new(),
            workers: BTreeMap::new(),
            outside: VecDeque::new(),
        }
    }

    fn has_room(&self, tenant: &str) -> bool {
        self.held.get(tenant).is_none_or(|held| *held < self.most)
    }

    fn take(&mut self, ticket: TicketId, tenant: Arc<str>) {
        *self.held.entry(tenant.clone()).or_default() += 1;
        self.tickets.insert(ticket, tenant);
    }

    fn free(&mut self, tenant: Option<Arc<str>>) {
        let Some(tenant) = tenant else { return };
        if let Some(held) = self.held.get_mut(&tenant) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
    }

    /// Someone comes. Whoever may join the line is given back.
    pub fn come(&mut self, tenant: Arc<str>, waiter: Waiter) -> Option<Waiter> {
        if self.has_room(&tenant) {
            self.take(waiter.ticket, tenant);
            return Some(waiter);
        }
        self.outside.push_back((tenant, waiter));
        None
    }

    /// The first of those outside who may join the line by now.
    pub fn next(&mut self) -> Option<Waiter> {
        let place = self
            .outside
            .iter()
            .position(|(tenant, _)| self.has_room(tenant))?;
        let (tenant, waiter) = self.outside.remove(place)?;
        self.take(waiter.ticket, tenant);
        Some(waiter)
    }

    /// A waiter in the line got a worker.
    pub fn granted(&mut self, ticket: TicketId, worker: WorkerId) {
        if let Some(tenant) = self.tickets.remove(&ticket) {
            self.workers.insert(worker, tenant);
        }
    }

    /// A waiter lost its worker and is in the line again.
    pub fn taken_back(&mut self, worker: WorkerId, ticket: TicketId) {
        if let Some(tenant) = self.workers.remove(&worker) {
            self.tickets.insert(ticket, tenant);
        }
    }

    /// Nobody has the worker any more.
    pub fn came_back(&mut self, worker: WorkerId) {
        let tenant = self.workers.remove(&worker);
        self.free(tenant);
    }

    /// Nobody waits with this ticket any more, in the line or outside.
    pub fn left(&mut self, ticket: TicketId) {
        let tenant = self.tickets.remove(&ticket);
        self.free(tenant);
        self.outside.retain(|(_, waiter)| waiter.ticket != ticket);
    }

    /// How many are outside.
    pub fn outside(&self) -> usize {
        self.outside.len()
    }

    /// The waiter that has been outside for the longest time.
    pub fn oldest_outside(&self) -> Option<&Waiter> {
        self.outside.front().map(|(_, waiter)| waiter)
    }

    /// Takes whoever has been outside for the longest time, if that is too long.
    pub fn give_up(&mut self, is_late: impl Fn(&Waiter) -> bool) -> Option<Waiter> {
        self.oldest_outside().filter(|waiter| is_late(waiter))?;
        self.outside.pop_front().map(|(_, waiter)| waiter)
    }
}
