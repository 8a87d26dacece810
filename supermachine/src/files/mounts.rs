//! What is mounted in a running guest, by the agent's own program.

#[cfg(feature = "cli")]
use super::DIRECTORY_MODE;
use super::{absolute, ask, check, tool};
use crate::exec::Opens;
use crate::limits::VOLUME_FLUSH_TIMEOUT;
use crate::{Error, Vm, VolumeSpec};

/// A file system in the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tmpfs {
    pub path: Vec<u8>,
    /// `MS_*` of Linux's `sys/mount.h`.
    pub flags: u64,
    /// Options of the file system itself: its size and mode.
    pub options: String,
}

/// Mounts one, over what is there; the directory is made if it is not.
pub(crate) fn mount_tmpfs(on: &dyn Opens, tmpfs: &Tmpfs) -> Result<(), Error> {
    let flags = tmpfs.flags.to_string();
    let path = absolute(&tmpfs.path)?;
    let words = [b"tmpfs", path, flags.as_bytes(), tmpfs.options.as_bytes()];
    ask(on, &words).map(drop)
}

#[cfg(feature = "cli")]
/// Makes the guest's root, and all that is not a mount of its own, read-only from
/// here on. `working_dir`, where a command is to start, is made before if it is not
/// there.
pub(crate) fn make_root_read_only(on: &dyn Opens, working_dir: &[u8]) -> Result<(), Error> {
    if working_dir.first() == Some(&b'/') {
        // What is wrong with it the command says.
        let _ = ask(on, &[b"mkdir-all", DIRECTORY_MODE, working_dir]);
    }
    ask(on, &[b"read-only-root"]).map(drop)
}

/// Has the guest's programs trust an authority, whose certificate is in PEM format.
pub(crate) fn trust(on: &Vm, certificate: &str) -> Result<(), Error> {
    ask(on, &[b"trust", certificate.as_bytes()]).map(drop)
}

/// Mounts the machine's `number`th volume, once the guest's kernel has seen what is in
/// it, and has its file system fill it.
pub(crate) fn mount_volume(on: &Vm, number: usize, volume: &VolumeSpec) -> Result<(), Error> {
    let number = number.to_string();
    let path = absolute(volume.mount_point.as_bytes())?;
    let mounted = ask(on, &[b"volume", number.as_bytes(), path]);
    mounted.map(drop).map_err(|error| match error {
        Error::Exec { message, .. } => Error::VolumeUnusable {
            name: volume.name.clone(),
            reason: message,
        },
        error => error,
    })
}

/// Has the file system of the machine's `number`th volume fill it, once the guest's kernel
/// has seen that it is as large as that.
pub(crate) fn grow_volume(
    on: &dyn Opens,
    number: usize,
    mount_point: &str,
    bytes: u64,
) -> Result<(), Error> {
    let (number, bytes) = (number.to_string(), bytes.to_string());
    let path = absolute(mount_point.as_bytes())?;
    ask(
        on,
        &[b"grow-volume", number.as_bytes(), path, bytes.as_bytes()],
    )
    .map(drop)
}

/// Asks the guest to write a volume out, and to write nothing more: the file system is
/// as after it was unmounted. One that the guest has unmounted is that already.
pub(crate) fn freeze_volume(on: &Vm, number: usize, volume: &VolumeSpec) -> Result<(), Error> {
    let number = number.to_string();
    let path = volume.mount_point.as_bytes();
    let command = tool(&[b"freeze-volume", number.as_bytes(), path]);
    let outcome = command.timeout(VOLUME_FLUSH_TIMEOUT).output_of(on)?;
    check(&outcome.status, &outcome.stderr)
}
