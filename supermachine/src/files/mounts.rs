//! What is mounted in a running guest, by the agent's own program.

use super::{DIRECTORY_MODE, absolute, ask};
use crate::Error;
use crate::exec::Opens;

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

/// Has the guest's root, and all that is not a mount of its own, refuse writes from
/// here on. `working_dir`, where a command is to start, is made before if it is not
/// there.
pub(crate) fn make_root_read_only(on: &dyn Opens, working_dir: &[u8]) -> Result<(), Error> {
    if working_dir.first() == Some(&b'/') {
        // What is wrong with it the command says.
        let _ = ask(on, &[b"mkdir-all", DIRECTORY_MODE, working_dir]);
    }
    ask(on, &[b"read-only-root"]).map(drop)
}
