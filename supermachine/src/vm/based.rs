//! Machines that have an image's layers as their root, and begin as copies of a machine
//! without any ([`crate::base`]).

use super::{Vm, command_line, open_to_read};
use crate::deadline::Deadline;
use crate::doubt::doubting;
use crate::embedder::personalise::Personality;
use crate::error::with_causes;
use crate::template::Template;
use crate::{Error, Image, VmConfig};
use std::sync::Arc;
use std::time::Instant;
use tracing::{info, warn};

impl Vm {
    /// A machine as [`Vm::boot`] gives it, made in a part of the time: a copy of `base`
    /// that is told of its layers. Where it has to be another one than the base, or does
    /// not come up, one boots.
    pub(crate) fn boot_from(
        base: &Arc<Template>,
        image: &Image,
        config: &VmConfig,
    ) -> Result<Self, Error> {
        if !fits(image, config) || is_in_memory(base) {
            return Self::boot(image, config);
        }
        match Self::copy_of_base(base, image, config) {
            Ok(vm) => Ok(vm),
            Err(error) => {
                // What is wrong with an image shows in a boot, too.
                let reason = with_causes(&error);
                warn!(reason, "no machine came of the base, booting one");
                Self::boot(image, config)
            }
        }
    }

    fn copy_of_base(base: &Arc<Template>, image: &Image, config: &VmConfig) -> Result<Self, Error> {
        let begun = Instant::now();
        let config = VmConfig {
            volumes: Vec::new(),
            ..config.without_secrets()
        };
        let vm = Self::prepare(image, &config)?;
        let _machine = vm.span().entered();
        doubting(base, vm.instance.process(), || {
            let deadline = Deadline::within(config.boot_timeout);
            let layers = image.layers().iter().map(|path| {
                let name = path.to_string_lossy().into_owned();
                Ok((name, open_to_read(path)?))
            });
            let layers = layers.collect::<Result<_, Error>>()?;
            let (restore, files) = base.restore(&config, vm.id(), layers)?;
            let identity = Personality::default();
            vm.instance.restore(restore, &files, &identity, deadline)?;
            vm.instance
                .enter_root(&command_line(image, &config), deadline)
        })?;
        vm.mount_tmpfs(&[])?;
        vm.started(begun, None)?;
        info!(engine = vm.engine(), took = ?begun.elapsed(), "machine came of the base");
        Ok(vm)
    }
}

/// Whether the base's files are in memory (tmpfs): there a hole of a file takes room when a
/// guest reads it, and on a full one its worker would be killed for that.
fn is_in_memory(base: &Template) -> bool {
    #[cfg(target_os = "linux")]
    {
        /// `TMPFS_MAGIC` of `linux/magic.h`.
        const TMPFS: rustix::fs::FsWord = 0x0102_1994;
        rustix::fs::statfs(base.path()).is_ok_and(|system| system.f_type == TMPFS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = base;
        false
    }
}

/// Whether a base is what a machine begins with: its devices are those of a machine with
/// layers alone, and it says no more on its console.
fn fits(image: &Image, config: &VmConfig) -> bool {
    let has_other_devices =
        !config.mounts.is_empty() || !config.kept_volumes.is_empty() || config.volume_slots() > 0;
    !image.layers().is_empty() && !has_other_devices && !config.console
}
