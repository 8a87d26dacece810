//! Volumes without a machine.

use crate::results::VolumeInfo;
use crate::{Result, thrown};
use bindings_core as core;
use napi_derive::napi;

/// A directory of volumes: of disks that outlive machines.
#[napi]
pub struct VolumeStore(core::VolumeStore);

#[napi]
impl VolumeStore {
    /// That of this user: the directory in the environment variable
    /// `SUPERMACHINE_VOLUMES`, else `~/.local/supermachine-volumes`.
    #[napi]
    pub fn of_user() -> Self {
        Self(core::VolumeStore::of_user())
    }

    /// That in a directory, which is made, for its owner alone, when the first volume is.
    #[napi]
    pub fn at(dir: String) -> Self {
        Self(core::VolumeStore::at(dir.into()))
    }

    /// Makes an empty volume, with a file system.
    #[napi]
    pub async fn create(&self, name: String, size_mib: f64) -> Result<()> {
        self.0.create(name, size_mib).await.map_err(thrown)
    }

    /// All volumes, by their names.
    #[napi]
    pub async fn list(&self) -> Result<Vec<VolumeInfo>> {
        let listed = self.0.list().await.map_err(thrown)?;
        Ok(listed.into_iter().map(Into::into).collect())
    }

    /// What is known of a volume.
    #[napi]
    pub async fn inspect(&self, name: String) -> Result<VolumeInfo> {
        Ok(self.0.inspect(name).await.map_err(thrown)?.into())
    }

    /// Removes a volume and all that is in it. One that a machine has stays, and that is
    /// an error.
    #[napi]
    pub async fn remove(&self, name: String) -> Result<()> {
        self.0.remove(name).await.map_err(thrown)
    }

    /// Removes what was left of volumes that were never finished, and if `all` is true
    /// every volume that no machine has; the names of these.
    #[napi]
    pub async fn prune(&self, all: Option<bool>) -> Result<Vec<String>> {
        self.0.prune(all.unwrap_or_default()).await.map_err(thrown)
    }

    /// Grows a volume that no machine has; one that a machine has is grown by
    /// `vm.growVolume`.
    #[napi]
    pub async fn grow(&self, name: String, size_mib: f64) -> Result<()> {
        self.0.grow(name, size_mib).await.map_err(thrown)
    }

    /// Copies what a volume holds to a file of the host, in the place of what has its
    /// name: the image of a disk with an ext4 file system, with holes.
    #[napi(js_name = "export")]
    pub async fn export_to(&self, name: String, host_path: String) -> Result<()> {
        let exported = self.0.export(name, host_path.into()).await;
        exported.map_err(thrown)
    }

    /// Makes a volume of what `export` has written, or another tool that makes ext4 file
    /// systems.
    #[napi(js_name = "import")]
    pub async fn import_from(&self, name: String, host_path: String) -> Result<()> {
        let imported = self.0.import(name, host_path.into()).await;
        imported.map_err(thrown)
    }
}
