//! What a machine has beside its image: volumes and secrets.

use super::Vm;
use crate::error::with_causes;
use crate::files::mounts::{Tmpfs, freeze_volume, mount_tmpfs, mount_volume};
use crate::secret::Told;
use crate::{Error, TmpfsSpec, tmpfs};
use broker::Orders;
use oci_bake::ImageConfig;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::warn;

impl Vm {
    /// What its volumes are on, to be read.
    #[cfg(feature = "cli")]
    pub(crate) fn open_volumes(&self) -> Result<Vec<std::fs::File>, Error> {
        match self.copies.get() {
            Some(copies) => copies
                .iter()
                .map(std::fs::File::try_clone)
                .collect::<Result<_, _>>()
                .map_err(Error::system("duplicate a descriptor")),
            None => crate::volume::open_to_read(
                &self.config.volumes,
                self.config.volumes_dir.as_deref(),
            ),
        }
    }

    /// Has the guest mount the memory of the configuration, but what is there already.
    pub(super) fn mount_tmpfs(&self, there: &[TmpfsSpec]) -> Result<(), Error> {
        for tmpfs in tmpfs::missing(&self.config.tmpfs, there)? {
            let order = Tmpfs {
                path: tmpfs.mount_point().into(),
                flags: tmpfs.flags(),
                options: tmpfs.options(),
            };
            mount_tmpfs(self, &order)?;
        }
        Ok(())
    }

    /// Asks the guest to mount the volumes of the configuration, which its disks are now.
    pub(super) fn mount_volumes(&self) -> Result<(), Error> {
        // What goes on has them mounted; and they end with it.
        if self.config.volumes_are_copies {
            return Ok(());
        }
        for (number, volume) in self.config.volumes.iter().enumerate() {
            mount_volume(self, number, volume)?;
            self.has_volumes.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes what stands for secrets in this start of the machine.
    pub(super) fn make_secrets(&self) -> Result<Option<Box<Orders>>, Error> {
        let (secrets, now) = (&self.config.secrets, self.config.clock.now());
        let Some((orders, told)) = Told::new(secrets, now, self.image.config())? else {
            return Ok(None);
        };
        self.adopt_secrets(Some(Arc::new(told)));
        Ok(Some(Box::new(orders)))
    }

    /// Goes on with what a guest was told already: a forked child's by its parent.
    pub(crate) fn adopt_secrets(&self, told: Option<Arc<Told>>) {
        if let Some(told) = told {
            // A machine is started once.
            let _ = self.secrets.set(told);
        }
    }

    pub(crate) fn told_secrets(&self) -> Option<Arc<Told>> {
        self.secrets.get().cloned()
    }

    /// Has the guest trust whoever puts its secrets into requests.
    pub(super) fn tell_secrets(&self) -> Result<(), Error> {
        match self.secrets.get() {
            Some(told) => told.install(self),
            None => Ok(()),
        }
    }

    /// The image's configuration, with what commands of this machine have of secrets.
    pub(super) fn config_of_commands(&self) -> &ImageConfig {
        match self.secrets.get() {
            Some(told) => &told.config,
            None => self.image.config(),
        }
    }

    /// Asks the guest to write its volumes out, and to write nothing more from then on.
    pub(super) fn flush_volumes(&self) {
        if !self.has_volumes.swap(false, Ordering::Relaxed) {
            return;
        }
        for (number, volume) in self.config.volumes.iter().enumerate() {
            if let Err(error) = freeze_volume(self, number, volume) {
                let reason = with_causes(&error);
                warn!(volume = volume.name, reason, "volume not written out");
            }
        }
    }
}
