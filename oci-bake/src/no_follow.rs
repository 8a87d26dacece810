//! Directories and files of the cache, never through a symbolic link in their
//! place: it could lead anywhere.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory for its owner only, unless it is there.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "it is a symbolic link or no directory; \
                 remove it, or name the directory it leads to",
            ));
        }
        Err(_) => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file of the cache, and not what a link in its place leads to.
pub(crate) fn open_in_cache(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let bits = i32::try_from(no_follow.bits()).map_err(io::Error::other)?;
    options.custom_flags(bits).open(path)
}
