//! Volumes without a machine.

use crate::results::VolumeInfo;
use crate::{CancelToken, Result, unless};
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
    #[napi(ts_args_type = "name: string, sizeMib: number, options?: CallOptions")]
    pub async fn create(
        &self,
        name: String,
        size_mib: f64,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.create(name, size_mib)).await
    }

    /// All volumes, by their names.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn list(&self, cancel: Option<&CancelToken>) -> Result<Vec<VolumeInfo>> {
        let listed = unless(cancel, self.0.list()).await?;
        Ok(listed.into_iter().map(Into::into).collect())
    }

    /// What is known of a volume.
    #[napi(ts_args_type = "name: string, options?: CallOptions")]
    pub async fn inspect(&self, name: String, cancel: Option<&CancelToken>) -> Result<VolumeInfo> {
        Ok(unless(cancel, self.0.inspect(name)).await?.into())
    }

    /// Removes a volume and all that is in it. One that a machine has stays, and that is
    /// an error.
    #[napi(ts_args_type = "name: string, options?: CallOptions")]
    pub async fn remove(&self, name: String, cancel: Option<&CancelToken>) -> Result<()> {
        unless(cancel, self.0.remove(name)).await
    }

    /// Removes what was left of volumes that were never finished, and if `all` is true
    /// every volume that no machine has; the names of these.
    #[napi(ts_args_type = "all?: boolean | null, options?: CallOptions")]
    pub async fn prune(
        &self,
        all: Option<bool>,
        cancel: Option<&CancelToken>,
    ) -> Result<Vec<String>> {
        unless(cancel, self.0.prune(all.unwrap_or_default())).await
    }

    /// Grows a volume that no machine has; one that a machine has is grown by
    /// `vm.growVolume`.
    #[napi(ts_args_type = "name: string, sizeMib: number, options?: CallOptions")]
    pub async fn grow(
        &self,
        name: String,
        size_mib: f64,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.grow(name, size_mib)).await
    }

    /// Copies what a volume holds to a file of the host, in the place of what has its
    /// name: the image of a disk with an ext4 file system, with holes. An aborted copy
    /// leaves what was there.
    #[napi(
        js_name = "export",
        ts_args_type = "name: string, hostPath: string, options?: CallOptions"
    )]
    pub async fn export_to(
        &self,
        name: String,
        host_path: String,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.export(name, host_path.into())).await
    }

    /// Makes a volume of what `export` has written, or another tool that makes ext4 file
    /// systems. If that is aborted, there is none.
    #[napi(
        js_name = "import",
        ts_args_type = "name: string, hostPath: string, options?: CallOptions"
    )]
    pub async fn import_from(
        &self,
        name: String,
        host_path: String,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.import(name, host_path.into())).await
    }
}
