//! The thread that tells the guest what the host has changed.
//!
//! It sleeps in the operating system until the host says that something has changed, or
//! somebody wakes it: the guest, which has room for more, or the owner.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::server::{Lately, Server, everything_changed};
use super::threads::{Said, Shared};
use super::watch::{HostEvent, Pending, Watch};
use crate::DeviceMemory;
use crate::virtio::ActivateError;

/// How long what happens together is waited for after the first change.
const SETTLE: Duration = Duration::from_millis(5);
/// Shortest time from one look to the next, however much changes.
const INTERVAL: Duration = Duration::from_millis(20);
/// Room for its calls, which are not deep.
const STACK_BYTES: usize = 128 << 10;

/// The thread of one device, once it has been started.
#[derive(Debug)]
pub(super) struct Herald {
    server: Arc<Server>,
    orders: Arc<Orders>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Orders {
    stopping: AtomicBool,
    /// The guest is one that was saved: what it knows is watched again.
    restored: AtomicBool,
}

impl Herald {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self {
            server,
            orders: Arc::default(),
            thread: Mutex::default(),
        }
    }

    /// Starts the thread, if there is something to watch and it does not run yet.
    pub(super) fn start<M: DeviceMemory>(
        &self,
        shared: &Arc<Shared<M>>,
    ) -> Result<(), ActivateError> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.server.watch().is_none() || thread.is_some() {
            return Ok(());
        }
        let (server, orders) = (self.server.clone(), self.orders.clone());
        let shared = shared.clone();
        let started = Builder::new()
            .name("vm-fs-watch".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Some(watch) = server.watch() {
                    run(&server, watch, &orders, &shared);
                }
            });
        *thread = Some(started.map_err(ActivateError::Thread)?);
        Ok(())
    }

    /// Has the thread look whether it can go on.
    pub(super) fn wake(&self) {
        if let Some(watch) = self.server.watch() {
            watch.host().wake();
        }
    }

    /// The guest is one that was saved.
    pub(super) fn restored(&self) {
        self.orders.restored.store(true, Ordering::Release);
        self.wake();
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.orders.stopping.store(true, Ordering::Release);
        self.wake();
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It has no way to panic that could be reported here.
            let _ = thread.join();
        }
    }
}

fn run<M: DeviceMemory>(server: &Server, watch: &Watch, orders: &Orders, shared: &Shared<M>) {
    let mut pending = Pending::default();
    let mut taken = Vec::new();
    let mut last: Option<Instant> = None;
    while !orders.stopping.load(Ordering::Acquire) {
        if orders.restored.swap(false, Ordering::AcqRel) {
            // What waits is for the guest that was.
            pending = Pending::default();
            server.watch_restored();
        }
        if take(watch, &mut taken, &mut pending) {
            let since = last.map_or(INTERVAL, |last| last.elapsed());
            std::thread::sleep(SETTLE.max(INTERVAL.saturating_sub(since)));
            take(watch, &mut taken, &mut pending);
            last = Some(Instant::now());
        }
        watch.settle();
        tell(server, shared, &mut pending);
        watch.host().wait();
    }
}

/// Takes what the host says; whether there was anything.
fn take(watch: &Watch, taken: &mut Vec<HostEvent>, pending: &mut Pending) -> bool {
    let complete = watch.host().take(taken);
    let any = !taken.is_empty() || !complete;
    taken.drain(..).for_each(|event| pending.add(event));
    if !complete {
        pending.lose();
    }
    any
}

/// Tells the guest as much as it has room for.
fn tell<M: DeviceMemory>(server: &Server, shared: &Shared<M>, pending: &mut Pending) {
    if pending.has_lost() {
        match shared.say(&everything_changed()) {
            Said::Later => return,
            Said::Heard | Said::Nobody => pending.found(),
        }
    }
    let mut lately = Lately::default();
    while let Some(event) = pending.first() {
        if let Some(message) = server.tell_event(event, &mut lately)
            && matches!(shared.say(&message), Said::Later)
        {
            return;
        }
        pending.remove_first();
    }
}
