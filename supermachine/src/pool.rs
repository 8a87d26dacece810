//! Machines kept ready: each is used by one at a time and goes back to the
//! snapshot in between.

use crate::ends::Ends;
use crate::error::with_causes;
use crate::host;
use crate::limits::{ACQUIRE_TIMEOUT, SHUTDOWN_TIMEOUT};
use crate::template::Template;
use crate::{Error, Image, Vm, VmConfig};
use pool::{ByteBudget, Checker, Factory, Failure, Lease, PoolConfig, Worker};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub use pool::{PoolMetrics, PoolStats};

/// Most machines of a pool that sets no limit.
pub(crate) const DEFAULT_POOL_MAX: usize = 8;
/// How many machines in a row may fail to have their clock set before a caller
/// hears of it.
const CLOCK_TRIES: u32 = 3;
/// Part of the host's memory that the pools of a process may use, in percent.
const BUDGET_PERCENT: u64 = 80;

/// Configures a [`Pool`].
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    image: Image,
    config: VmConfig,
    memory_mib: Option<usize>,
    vcpus: Option<u32>,
    restore_timeout: Option<Duration>,
    sizes: PoolConfig,
    prestart: usize,
}

impl PoolBuilder {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            image,
            config: VmConfig::new(),
            memory_mib: None,
            vcpus: None,
            restore_timeout: None,
            sizes: PoolConfig {
                max: DEFAULT_POOL_MAX,
                idle_timeout: None,
                acquire_timeout: Some(ACQUIRE_TIMEOUT),
                ..PoolConfig::default()
            },
            prestart: 1,
        }
    }

    /// Machines kept alive even when nobody wants one; 0 if not set.
    pub fn min(mut self, min: usize) -> Self {
        self.sizes.min = min;
        self
    }

    /// Most machines alive at any time; 8 if not set. On the software engine a busy
    /// machine takes a processor of the host for each busy vCPU: eight of them on two
    /// cores take four times as long, which time limits of commands should allow for.
    pub fn max(mut self, max: usize) -> Self {
        self.sizes.max = max;
        self
    }

    /// How long a machine above the minimum may be idle; for ever if not set, or
    /// [`Duration::MAX`].
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.sizes.idle_timeout = finite(timeout);
        self
    }

    /// How long [`Pool::acquire`] waits, in the order of those who came; a minute if not
    /// set. Zero and [`Duration::MAX`] are for ever.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.sizes.acquire_timeout = finite(timeout).filter(|timeout| !timeout.is_zero());
        self
    }

    /// Whether a machine goes back to the snapshot before the next one gets
    /// it, as is the default. Without it the next one finds everything the
    /// last one left: files, processes, memory.
    pub fn restore_on_release(mut self, restore: bool) -> Self {
        self.sizes.restore_on_release = restore;
        self
    }

    /// Guest memory in MiB; that of the snapshot if not set. A balloon takes
    /// what is less, in copies of at least 48 MiB and a sixteenth of the
    /// snapshot's; more is added, rounded up to 2 MiB.
    ///
    /// Less than the snapshot's is a limit: the guest's kernel kills a program
    /// rather than take memory back from the balloon. Root in the guest can take
    /// it back all the same, by ending the balloon's driver, up to what the
    /// snapshot has. Where root is not trusted with that, bake with less memory.
    pub fn memory_mib(mut self, memory_mib: usize) -> Self {
        self.memory_mib = Some(memory_mib);
        self
    }

    /// Virtual CPUs; those of the snapshot if not set.
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.vcpus = Some(vcpus);
        self
    }

    /// How long a machine may take to be restored or reset; one that takes
    /// longer is killed.
    pub fn restore_timeout(mut self, timeout: Duration) -> Self {
        self.restore_timeout = Some(timeout);
        self
    }

    /// Worker processes kept started beyond the machines there are, so that a
    /// further machine needs none to start; 1 if not set.
    pub fn prestart(mut self, workers: usize) -> Self {
        self.prestart = workers;
        self
    }

    /// Everything else about the machines. Memory, vCPUs and the time limit
    /// set there count where the builder's own setting of that name was not
    /// called, before or after.
    pub fn vm_config(mut self, config: VmConfig) -> Self {
        self.config = config;
        self
    }

    /// What its machines are started with, and the sizes that follow from it.
    fn settled(&self) -> (VmConfig, PoolConfig) {
        let mut config = self.config.clone();
        config.memory_mib = self.memory_mib.or(config.memory_mib);
        config.vcpus = self.vcpus.or(config.vcpus);
        config.restore_timeout = self.restore_timeout.unwrap_or(config.restore_timeout);
        let sizes = PoolConfig {
            restore_timeout: config.restore_timeout,
            reset_timeout: config.restore_timeout,
            ..self.sizes.clone()
        };
        (config, sizes)
    }

    /// Makes the pool, which starts its minimum of machines by itself.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if the image has no snapshot, or the machines are to
    /// have a name or volumes; [`Error::MemoryOutOfRange`] for memory its copies cannot have;
    /// [`Error::Pool`] if the sizes contradict each other.
    pub fn build(self) -> Result<Pool, Error> {
        let (config, sizes) = self.settled();
        config.validate()?;
        let Some(template) = self.image.template().cloned() else {
            return Err(Error::Unsuitable {
                what: "a pool",
                needs: "an image with a snapshot: bake it with Image::builder",
            });
        };
        if config.name.is_some() {
            return Err(Error::Unsuitable {
                what: "a pool",
                needs: "a configuration without a name, which only one machine can have",
            });
        }
        if !config.volumes.is_empty() {
            return Err(Error::Unsuitable {
                what: "a pool",
                needs: "a configuration without volumes, which only one machine can have",
            });
        }
        template.check_memory(&config)?;
        let checker = Arc::new(OnceLock::<Checker<Starters>>::new());
        let ended = Arc::clone(&checker);
        let ends = Ends::watch(move || ended.get().is_none_or(Checker::check))
            .map_err(Error::system("watch workers"))?;
        let starter = Arc::new(Starter {
            baked: Mutex::new(self.image.take_baked(&config)),
            image: self.image.detached(),
            template,
            config,
            prestart: self.prestart,
            spares: Mutex::default(),
            ends,
        });
        starter.refill();
        let factory = Starters(starter.clone());
        let inner = pool::Pool::with_budget(sizes, factory, budget())?;
        if checker.set(inner.checker()).is_ok() {
            // What ended before it was there.
            inner.check();
        }
        Ok(Pool { inner, starter })
    }
}

fn finite(timeout: Duration) -> Option<Duration> {
    (timeout != Duration::MAX).then_some(timeout)
}

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
        let mut tries = 1;
        loop {
            let leased = PooledVm {
                lease: self.inner.acquire()?,
            };
            match leased.on_time() {
                // It was ended for that; the next may be well.
                Err(_) if tries < CLOCK_TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Leases a machine as [`Pool::acquire`] does, as a future of no particular
    /// runtime. Dropping it leaves the line. If the host's wall clock was moved while
    /// the machine waited, the future blocks for one exchange with the guest, some 0.2
    /// ms.
    pub fn request(&self) -> impl Future<Output = Result<PooledVm, Error>> + Send + use<> {
        let ticket = self.ticket();
        async move { ticket.await?.on_time() }
    }

    /// Leases a machine as [`Pool::request`] does, whose clock may be off.
    pub(crate) fn ticket(&self) -> impl Future<Output = Result<PooledVm, Error>> + Send + use<> {
        let ticket = self.inner.request();
        async move {
            Ok(PooledVm {
                lease: ticket.await?,
            })
        }
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
    lease: Lease<Starters>,
}

impl PooledVm {
    /// Ends the machine instead of giving it back.
    pub fn discard(self) {
        self.lease.discard();
    }

    /// The same machine with the time of now: it may have waited while the
    /// host's clock was moved. One that does not take it is ended.
    pub(crate) fn on_time(self) -> Result<Self, Error> {
        match self.correct_clock() {
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
        restored.map_err(|error| self.failure(&error))?;
        // The next one is started while this one is used.
        let starter = starter.clone();
        let refill = std::thread::Builder::new().name("pool-spare".into());
        let _ = refill.spawn(move || starter.refill());
        Ok(())
    }

    fn reset(&self) -> Result<(), Failure> {
        let starter = &self.starter;
        let reset = self.vm.reset(&starter.template);
        reset.map_err(|error| self.failure(&error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_the_documented_defaults_and_zero_waits_for_ever() {
        let sizes = |builder: PoolBuilder| builder.settled().1;
        let plain = sizes(PoolBuilder::new(Image::bare()));
        assert_eq!((plain.min, plain.max), (0, 8));
        assert_eq!(plain.idle_timeout, None);
        assert_eq!(plain.acquire_timeout, Some(Duration::from_secs(60)));
        assert_eq!(plain.restore_timeout, Duration::from_secs(30));
        assert!(plain.restore_on_release);
        for for_ever in [Duration::ZERO, Duration::MAX] {
            let builder = PoolBuilder::new(Image::bare()).acquire_timeout(for_ever);
            assert_eq!(sizes(builder).acquire_timeout, None);
        }
    }

    #[test]
    fn settings_hold_in_whatever_order_they_are_given() {
        let long = Duration::from_secs(120);
        let config = VmConfig::new()
            .with_restore_timeout(long)
            .with_memory_mib(300)
            .with_hostname("web");
        let builder = || PoolBuilder::new(Image::bare());
        let (settled, sizes) = builder().vm_config(config.clone()).settled();
        // Resets have the limit that was set, too.
        assert_eq!((sizes.restore_timeout, sizes.reset_timeout), (long, long));
        assert_eq!(settled, config);
        let short = Duration::from_secs(7);
        let before = builder().memory_mib(512).vcpus(3).restore_timeout(short);
        let after = builder().vm_config(config.clone());
        for builder in [
            before.vm_config(config),
            after.memory_mib(512).vcpus(3).restore_timeout(short),
        ] {
            let (settled, sizes) = builder.settled();
            assert_eq!((settled.memory_mib, settled.vcpus), (Some(512), Some(3)));
            assert_eq!(settled.hostname.as_deref(), Some("web"));
            assert_eq!(settled.restore_timeout, short);
            assert_eq!((sizes.restore_timeout, sizes.reset_timeout), (short, short));
        }
    }
}
