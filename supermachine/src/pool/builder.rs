//! How a pool is to be.

use super::hooks::{Hooks, PoolHook};
use super::turns::Turns;
use super::{DEFAULT_POOL_MAX, Pool, Starter, Starters, budget};
use crate::ends::Ends;
use crate::limits::ACQUIRE_TIMEOUT;
use crate::{Error, Image, VmConfig};
use pool::{Checker, PoolConfig};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Configures a [`Pool`].
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    hooks: Hooks,
    image: Image,
    config: VmConfig,
    memory_mib: Option<usize>,
    vcpus: Option<u32>,
    restore_timeout: Option<Duration>,
    sizes: PoolConfig,
    prestart: usize,
    max_computing: Option<usize>,
}

impl PoolBuilder {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            hooks: Hooks::default(),
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
            max_computing: None,
        }
    }

    /// Machines kept alive even when nobody wants one; 0 if not set.
    pub fn min(mut self, min: usize) -> Self {
        self.sizes.min = min;
        self
    }

    /// Most machines alive at any time; 8 if not set. How many of them compute at once is
    /// [`PoolBuilder::max_computing`]'s.
    pub fn max(mut self, max: usize) -> Self {
        self.sizes.max = max;
        self
    }

    /// Most machines that one tenant has at a time, of those that
    /// [`Pool::acquire_for`] names; as many as there are if not set. A tenant that has
    /// so many waits for one of its own to come back, and holds nobody else up.
    pub fn max_per_tenant(mut self, max: usize) -> Self {
        self.sizes.max_per_tenant = Some(max);
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

    /// How many machines compute at once. On the software engine a busy machine takes a
    /// processor of the host for each of its vCPUs: eight of them on two cores would take
    /// four times as long each, and a command with a limit of 5 s would miss it. If this
    /// is not set it is the host's processors over the vCPUs of a machine there, one at
    /// least, and without a limit on engines of hardware.
    ///
    /// It is for commands whose output is collected (`output`, `exec`, `run`): each waits
    /// for its turn in the order in which they came, and its time limit begins with the
    /// turn. A turn counts while the machine has something to compute, and for ten seconds
    /// at most: what sleeps, or waits for something, holds nobody up.
    pub fn max_computing(mut self, machines: usize) -> Self {
        self.max_computing = Some(machines);
        self
    }

    /// How many that is, for machines with so many vCPUs.
    fn turns(&self, vcpus: u32) -> Turns {
        match self.max_computing {
            Some(most) => Turns::of_any_engine(most),
            None => {
                let cpus = std::thread::available_parallelism().map_or(1, usize::from);
                let each = usize::try_from(vcpus).unwrap_or(usize::MAX).max(1);
                Turns::of_software(cpus / each)
            }
        }
    }

    /// Worker processes kept started beyond the machines there are, so that a
    /// further machine needs none to start; 1 if not set.
    pub fn prestart(mut self, workers: usize) -> Self {
        self.prestart = workers;
        self
    }

    /// Does something in each new machine, before anybody gets it: once for each, and
    /// not after resets, which bring back what the snapshot has. It runs on a thread of
    /// the pool. A machine in which it fails is ended.
    pub fn after_create(mut self, hook: impl PoolHook) -> Self {
        self.hooks.created = Some(Arc::new(hook));
        self
    }

    /// Does something in a machine each time somebody gets it, while they wait. A machine
    /// in which it fails is ended, and after three of them whoever waits hears why.
    pub fn before_hand_out(mut self, hook: impl PoolHook) -> Self {
        self.hooks.handed_out = Some(Arc::new(hook));
        self
    }

    /// Does something in a machine that was given back, before it goes back to the
    /// snapshot: on a thread of the pool, so that nobody waits for it but the next one
    /// who would get this machine. It is not called for machines that are ended
    /// instead. A machine in which it fails is ended.
    pub fn after_release(mut self, hook: impl PoolHook) -> Self {
        self.hooks.released = Some(Arc::new(hook));
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
            // The hook runs where machines are reset, whether they are or not.
            restore_on_release: self.sizes.restore_on_release || self.hooks.released.is_some(),
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
        let (mut config, sizes) = self.settled();
        config.validate()?;
        config.starts_idle = sizes.min > 0;
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
        let vcpus = config.vcpus.or(self.image.vcpus()).unwrap_or(1);
        let turns = Arc::new(self.turns(vcpus));
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
            resets: self.sizes.restore_on_release,
            hooks: self.hooks,
            turns,
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
    fn as_many_machines_compute_as_the_host_has_processors_for() {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let builder = PoolBuilder::new(Image::bare());
        assert_eq!(builder.turns(1).most(), cpus);
        assert_eq!(builder.turns(16).most(), (cpus / 16).max(1));
        assert_eq!(builder.turns(0).most(), cpus);
        assert_eq!(builder.max_computing(5).turns(16).most(), 5);
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
