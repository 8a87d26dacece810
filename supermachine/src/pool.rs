//! Machines kept ready: each is used by one at a time and goes back to the
//! snapshot in between.

mod builder;
mod hooks;
pub(crate) mod turns;

use crate::ends::Ends;
use crate::error::with_causes;
use crate::host;
use crate::limits::SHUTDOWN_TIMEOUT;
use crate::template::Template;
use crate::{Error, Image, Vm, VmConfig, ports};
use pool::{ByteBudget, Factory, Failure, Lease, Worker};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use turns::Turns;

pub use builder::PoolBuilder;
pub use hooks::PoolHook;
pub use pool::{PoolMetrics, PoolStats};

pub(crate) use hooks::Hooks;

/// Most machines of a pool that sets no limit.
pub(crate) const DEFAULT_POOL_MAX: usize = 8;
/// How many machines in a row may fail to be made ready for a caller before it hears
/// of it.
const READY_TRIES: u32 = 3;
/// Part of the host's memory that the pools of a process may use, in percent.
const BUDGET_PERCENT: u64 = 80;

/// The memory of this process's machines.
fn budget() -> Arc<ByteBudget> {
    static BUDGET: OnceLock<Arc<ByteBudget>> = OnceLock::new();
    BUDGET
        .get_or_init(|| {
            let host = host::memory_bytes().unwrap_or(u64::MAX);
            Arc::new(ByteBudget::new(host / 100 * BUDGET_PERCENT))
        })
        .clone()
}

/// Machines of one image, ready to be used. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: pool::Pool<Starters>,
    starter: Arc<Starter>,
}

impl Pool {
    /// A machine that nobody has used since the snapshot. It goes back when
    /// dropped.
    ///
    /// # Errors
    /// [`Error::Pool`]: none in time, no memory for another one, or starting
    /// them fails, with the last words of the worker.
    pub fn acquire(&self) -> Result<PooledVm, Error> {
        self.lease(|| self.inner.acquire())
    }

    /// A machine as [`Pool::acquire`] gives it, as one of those that a tenant may have:
    /// see [`PoolBuilder::max_per_tenant`]. Whoever the program works for is a tenant,
    /// by any name that tells them apart.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub fn acquire_for(&self, tenant: &str) -> Result<PooledVm, Error> {
        self.lease(|| self.inner.request_for(tenant).wait())
    }

    fn lease(
        &self,
        wait: impl Fn() -> Result<Lease<Starters>, pool::PoolError>,
    ) -> Result<PooledVm, Error> {
        let mut tries = 1;
        loop {
            let leased = PooledVm::of(wait()?);
            match leased.ready(&self.starter.hooks) {
                // It was ended for that; the next may be well.
                Err(_) if tries < READY_TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// What is done in machines, for [`PooledVm::ready`].
    #[cfg(feature = "tokio")]
    pub(crate) fn hooks(&self) -> Hooks {
        self.starter.hooks.clone()
    }

    /// Leases a machine as [`Pool::acquire`] does, as a future of no particular
    /// runtime. Dropping it leaves the line. If the host's wall clock was moved while
    /// the machine waited, the future blocks for one exchange with the guest, some 0.2
    /// ms; and it blocks for as long as a hook of
    /// [`PoolBuilder::before_hand_out`] takes.
    pub fn request(&self) -> impl Future<Output = Result<PooledVm, Error>> + Send + use<> {
        let (ticket, starter) = (self.ticket(None), self.starter.clone());
        async move { ticket.await?.ready(&starter.hooks) }
    }

    /// Leases a machine for a tenant as [`Pool::acquire_for`] does, as a future like that
    /// of [`Pool::request`].
    pub fn request_for(
        &self,
        tenant: &str,
    ) -> impl Future<Output = Result<PooledVm, Error>> + Send + use<> {
        let (ticket, starter) = (self.ticket(Some(tenant)), self.starter.clone());
        async move { ticket.await?.ready(&starter.hooks) }
    }

    /// Leases a machine as [`Pool::request`] does, which is not ready yet.
    pub(crate) fn ticket(
        &self,
        tenant: Option<&str>,
    ) -> impl Future<Output = Result<PooledVm, Error>> + Send + use<> {
        let ticket = match tenant {
            Some(tenant) => self.inner.request_for(tenant),
            None => self.inner.request(),
        };
        async move { Ok(PooledVm::of(ticket.await?)) }
    }

    /// How many machines there are, and what they do.
    pub fn stats(&self) -> PoolStats {
        self.inner.stats()
    }

    /// What the pool has done so far: numbers that only grow.
    pub fn metrics(&self) -> PoolMetrics {
        self.inner.metrics()
    }

    /// Ends the pool: refuses who waits, ends idle machines and workers kept
    /// started, waits for machines in use up to 30 seconds and ends them then.
    pub fn shutdown(&self) {
        self.shutdown_within(SHUTDOWN_TIMEOUT);
    }

    /// Ends all machines as [`Pool::shutdown`] does, but waits up to `patience` for those
    /// in use.
    pub fn shutdown_within(&self, patience: Duration) {
        self.starter.close();
        self.inner.shutdown(patience);
    }

    /// Keeps at least `min` machines from now on, and has room for at least
    /// `max`.
    pub(crate) fn grow(&self, min: usize, max: usize) {
        self.inner.grow(min, max);
    }
}

/// A machine of a pool, for as long as this is not dropped.
pub struct PooledVm {
    /// Before the lease: whoever has the machine next does not find them.
    _ports: ports::Lease,
    lease: Lease<Starters>,
}

impl PooledVm {
    fn of(lease: Lease<Starters>) -> Self {
        Self {
            _ports: lease.vm.lease_ports(),
            lease,
        }
    }

    /// Ends the machine instead of giving it back.
    pub fn discard(self) {
        self.lease.discard();
    }

    /// The same machine with the time of now: it may have waited while the host's clock
    /// was moved; and with what the pool's owner does to each. One that does not take it
    /// is ended.
    pub(crate) fn ready(self, hooks: &Hooks) -> Result<Self, Error> {
        let hook = || match &hooks.handed_out {
            Some(hook) => hook(&self),
            None => Ok(()),
        };
        match self.correct_clock().and_then(|()| hook()) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }
}

impl Deref for PooledVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.lease.vm
    }
}

impl fmt::Debug for PooledVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledVm").field(&self.lease.vm).finish()
    }
}

/// Starts the machines of a pool.
#[derive(Debug)]
struct Starter {
    image: Image,
    template: Arc<Template>,
    config: VmConfig,
    /// Workers to keep started in advance.
    prestart: usize,
    /// Whether machines go back to the snapshot.
    resets: bool,
    hooks: Hooks,
    /// Who of them computes.
    turns: Arc<Turns>,
    spares: Mutex<Spares>,
    /// Waits for the ends of the pool's workers.
    ends: Ends,
    /// The machine that was baked, for the first acquire.
    baked: Mutex<Option<Vm>>,
}

/// Workers kept started.
#[derive(Debug, Default)]
struct Spares {
    ready: VecDeque<Vm>,
    /// The pool was shut down: there are to be no more.
    is_closed: bool,
}

#[derive(Clone, Debug)]
struct Starters(Arc<Starter>);

impl Starter {
    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> Result<Vm, Error> {
        Vm::prepare(&self.image, &self.config)
    }

    /// Starts spare workers until there are enough; one that cannot be started
    /// is missed when it is needed.
    fn refill(&self) {
        loop {
            {
                let spares = self.spares();
                if spares.is_closed || spares.ready.len() >= self.prestart {
                    return;
                }
            }
            let Ok(vm) = self.start() else { return };
            let mut spares = self.spares();
            if spares.is_closed {
                drop(spares);
                vm.abandon();
                return;
            }
            spares.ready.push_back(vm);
        }
    }

    /// Ends the workers that nobody will need, and starts no more.
    fn close(&self) {
        let unused = {
            let mut spares = self.spares();
            spares.is_closed = true;
            std::mem::take(&mut spares.ready)
        };
        // They have no machine yet that could end in good order.
        unused.iter().for_each(Vm::abandon);
    }

    /// A started worker, spare or new.
    fn worker(&self) -> Result<Vm, Error> {
        while let Some(vm) = { self.spares().ready.pop_front() } {
            if is_well(&vm) {
                return Ok(vm);
            }
        }
        self.start()
    }
}

impl Factory for Starters {
    type Worker = PoolVm;

    fn spawn(&self) -> Result<PoolVm, Failure> {
        let starter = &self.0;
        let baked = {
            starter
                .baked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        };
        let is_restored = baked.is_some();
        let vm = match baked {
            Some(vm) => vm,
            // With the system's reason: a pool that cannot grow says why.
            None => starter
                .worker()
                .map_err(|error| Failure::new(with_causes(&error)))?,
        };
        let worker = vm.instance().process().clone();
        starter.ends.add((worker, vm.instance().control()));
        vm.compute_by(&starter.turns);
        Ok(PoolVm {
            vm,
            is_restored,
            starter: starter.clone(),
        })
    }
}

/// Whether a machine's worker lives and has not been stopped: one that does
/// nothing is as good as dead to who would wait for it.
fn is_well(vm: &Vm) -> bool {
    vm.instance().process().is_well()
}

/// A machine of a pool.
struct PoolVm {
    vm: Vm,
    /// It was restored before it came to the pool.
    is_restored: bool,
    starter: Arc<Starter>,
}

impl PoolVm {
    fn failure(&self, error: &Error) -> Failure {
        let words = self.vm.instance().worker().last_words();
        Failure::new(with_causes(error)).with_log(words.lines())
    }
}

impl Worker for PoolVm {
    fn restore(&self) -> Result<(), Failure> {
        let starter = &self.starter;
        let restored = if self.is_restored {
            Ok(())
        } else {
            self.vm.restore(&starter.template)
        };
        let created = || match &starter.hooks.created {
            Some(hook) => hook(&self.vm),
            None => Ok(()),
        };
        restored
            .and_then(|()| created())
            .map_err(|error| self.failure(&error))?;
        // The next one is started while this one is used.
        let starter = starter.clone();
        let refill = std::thread::Builder::new().name("pool-spare".into());
        let _ = refill.spawn(move || starter.refill());
        Ok(())
    }

    fn reset(&self) -> Result<(), Failure> {
        let starter = &self.starter;
        let released = match &starter.hooks.released {
            Some(hook) => hook(&self.vm),
            None => Ok(()),
        };
        let reset = || match starter.resets {
            true => self.vm.reset(&starter.template),
            false => Ok(()),
        };
        released
            .and_then(|()| reset())
            .map_err(|error| self.failure(&error))
    }

    fn kill(&self) {
        self.starter.ends.remove(self.vm.instance().process());
        self.vm.abandon();
    }

    fn is_alive(&self) -> bool {
        is_well(&self.vm)
    }

    fn memory_bytes(&self) -> u64 {
        self.vm.instance().process().memory_bytes()
    }
}
