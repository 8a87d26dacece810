//! Files of machines, and what they have changed of mounts.

use crate::machines::Vm;
use crate::options::wanted;
use crate::results::{Copied, FileInfo, MountChange};
use crate::{CancelToken, Result, unless};
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

#[napi]
impl Vm {
    /// Writes a file in the guest, whole or not at all, also if that is aborted.
    #[napi(ts_args_type = "path: string, bytes: Uint8Array | string, options?: CallOptions")]
    pub async fn write_file(
        &self,
        path: String,
        bytes: Buffer,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.write_file(path, bytes.to_vec())).await
    }

    /// Reads a file of the guest.
    #[napi(ts_args_type = "path: string, options?: CallOptions")]
    pub async fn read_file(&self, path: String, cancel: Option<&CancelToken>) -> Result<Buffer> {
        Ok(unless(cancel, self.0.read_file(path)).await?.into())
    }

    /// Lists a directory of the guest.
    #[napi(ts_args_type = "path: string, options?: CallOptions")]
    pub async fn read_dir(
        &self,
        path: String,
        cancel: Option<&CancelToken>,
    ) -> Result<Vec<FileInfo>> {
        let listed = unless(cancel, self.0.read_dir(path)).await?;
        Ok(listed.into_iter().map(Into::into).collect())
    }

    /// Says what is at a path of the guest.
    #[napi(ts_args_type = "path: string, options?: CallOptions")]
    pub async fn stat(&self, path: String, cancel: Option<&CancelToken>) -> Result<FileInfo> {
        Ok(unless(cancel, self.0.stat(path)).await?.into())
    }

    /// Makes a directory in the guest, and those above it if `recursive`.
    #[napi(ts_args_type = "path: string, recursive?: boolean | null, options?: CallOptions")]
    pub async fn mkdir(
        &self,
        path: String,
        recursive: Option<bool>,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.mkdir(path, recursive.unwrap_or_default())).await
    }

    /// Removes a file of the guest, or a directory with all in it if `recursive`.
    #[napi(ts_args_type = "path: string, recursive?: boolean | null, options?: CallOptions")]
    pub async fn remove(
        &self,
        path: String,
        recursive: Option<bool>,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.remove(path, recursive.unwrap_or_default())).await
    }

    /// Gives a file of the guest another name.
    #[napi(ts_args_type = "from: string, to: string, options?: CallOptions")]
    pub async fn rename(
        &self,
        from: String,
        to: String,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.rename(from, to)).await
    }

    /// Copies a tree of the host into the guest. What was copied before an abort stays.
    #[napi(ts_args_type = "hostPath: string, guestPath: string, options?: CallOptions")]
    pub async fn copy_in(
        &self,
        host_path: String,
        guest_path: String,
        cancel: Option<&CancelToken>,
    ) -> Result<Copied> {
        let copied = self.0.copy_in(host_path.into(), guest_path);
        Ok(unless(cancel, copied).await?.into())
    }

    /// Copies a tree out of the guest. What was copied before an abort stays.
    #[napi(ts_args_type = "guestPath: string, hostPath: string, options?: CallOptions")]
    pub async fn copy_out(
        &self,
        guest_path: String,
        host_path: String,
        cancel: Option<&CancelToken>,
    ) -> Result<Copied> {
        let copied = self.0.copy_out(guest_path, host_path.into());
        Ok(unless(cancel, copied).await?.into())
    }

    /// What the guest has changed of the copy-on-write mount with this tag, sorted by
    /// path. It is compared with what the host's directory has now.
    #[napi(ts_args_type = "tag: string, options?: CallOptions")]
    pub async fn mount_changes(
        &self,
        tag: String,
        cancel: Option<&CancelToken>,
    ) -> Result<Vec<MountChange>> {
        let changes = unless(cancel, self.0.mount_changes(tag)).await?;
        Ok(changes.into_iter().map(Into::into).collect())
    }

    /// Makes changes of the copy-on-write mount with this tag to the directory of the
    /// host, and tells which: those in `changes`, of what `mountChanges` has told, or
    /// all. One that is not what it was then (`added`, now `deleted`; a file, now a link)
    /// is left out; what is in a file is what the guest has there now. For the guest
    /// nothing changes.
    #[napi(ts_args_type = "tag: string, changes?: MountChange[] | null, options?: CallOptions")]
    pub async fn apply_changes(
        &self,
        tag: String,
        changes: Option<Vec<MountChange>>,
        cancel: Option<&CancelToken>,
    ) -> Result<Vec<MountChange>> {
        let applied = self.0.apply_changes(tag, wanted(changes));
        let applied = unless(cancel, applied).await?;
        Ok(applied.into_iter().map(Into::into).collect())
    }

    /// Writes the same changes into a file of the host, in the place of what has its
    /// name: a tar archive in the form of an image's layer, in which `.wh.NAME` says that
    /// NAME was deleted. It is there with all of it or not at all.
    #[napi(
        ts_args_type = "tag: string, hostPath: string, changes?: MountChange[] | null, options?: CallOptions"
    )]
    pub async fn export_changes(
        &self,
        tag: String,
        host_path: String,
        changes: Option<Vec<MountChange>>,
        cancel: Option<&CancelToken>,
    ) -> Result<Copied> {
        let exported = self
            .0
            .export_changes(tag, host_path.into(), wanted(changes));
        Ok(unless(cancel, exported).await?.into())
    }

    /// Grows a volume that the machine has to this size, while it is mounted. One that is
    /// as large already stays as it is.
    #[napi(ts_args_type = "name: string, sizeMib: number, options?: CallOptions")]
    pub async fn grow_volume(
        &self,
        name: String,
        size_mib: f64,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        unless(cancel, self.0.grow_volume(name, size_mib)).await
    }
}
