//! What a machine has beside its image: volumes and secrets.

use super::Vm;
use crate::error::with_causes;
use crate::files::mounts::{Tmpfs, freeze_volume, mount_tmpfs, mount_volume};
use crate::running::MountedVolume;
use crate::secret::Told;
use crate::volume::kept::{self, KeptVolume};
use crate::{Error, TmpfsSpec, VolumeSpec, tmpfs, volume};
use broker::Orders;
use oci_bake::ImageConfig;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tracing::warn;

impl Vm {
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
        for (number, volume) in self.lasting_volumes() {
            mount_volume(self, number, volume)?;
            self.has_volumes.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Asks the guest to mount the volumes that a bake fills. Copies have them mounted.
    pub(super) fn mount_kept_volumes(&self) -> Result<(), Error> {
        let mut kept = self.config.kept_volumes.iter().enumerate();
        kept.try_for_each(|(number, volume)| mount_volume(self, number, volume))
    }

    /// The volumes whose content a snapshot holds or is to hold, which are the first of
    /// the machine's.
    fn kept_volumes(&self) -> Vec<KeptVolume> {
        match self.image.template() {
            Some(template) => template.image().kept_volumes.clone(),
            None => {
                let baked = self.config.kept_volumes.iter();
                baked.map(KeptVolume::from).collect()
            }
        }
    }

    /// All that it has mounted, in the order of its disks: what a snapshot of it holds.
    pub(crate) fn mounted_volumes(&self) -> Vec<KeptVolume> {
        let mut volumes = self.kept_volumes();
        volumes.extend(self.config.volumes.iter().map(KeptVolume::from));
        volumes
    }

    /// The volumes that outlive it, by the numbers of their disks.
    fn lasting_volumes(&self) -> impl Iterator<Item = (usize, &VolumeSpec)> {
        let first = self.kept_volumes().len();
        (first..).zip(&self.config.volumes)
    }

    /// What other processes are told of its volumes, in the order of its disks.
    pub(crate) fn described_volumes(&self) -> Vec<MountedVolume> {
        let kept = self.kept_volumes();
        let mut volumes: Vec<_> = kept::described(&kept).collect();
        volumes.extend(volume::described(&self.config));
        volumes
    }

    /// How many disks for volumes it has.
    pub(crate) fn volume_disks(&self) -> usize {
        match self.image.template() {
            Some(template) => template.image().volumes,
            None => self.config.kept_volumes.len() + self.config.volume_slots(),
        }
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
        for (number, volume) in self.lasting_volumes() {
            if let Err(error) = freeze_volume(self, number, volume) {
                let reason = with_causes(&error);
                warn!(volume = volume.name, reason, "volume not written out");
            }
        }
    }
}
