//! Files that come with orders.

use snapshot::OpenFiles;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use vmm_core::HostFile;

/// Files by the names they were sent with.
pub fn named(names: &[String], files: Vec<OwnedFd>) -> OpenFiles {
    let files = files.into_iter().map(File::from);
    OpenFiles::new(names.iter().cloned().zip(files))
}

/// Files to make a machine of, in their order.
pub fn in_order<'a>(
    names: impl Iterator<Item = &'a String>,
    files: Vec<OwnedFd>,
) -> impl Iterator<Item = HostFile> {
    let files = files.into_iter().map(File::from);
    files
        .zip(names)
        .map(|(file, name)| HostFile::open(file, name))
}

/// Some of `files` to make a machine of, by their names.
pub fn among(files: &OpenFiles, names: &[String]) -> io::Result<Vec<HostFile>> {
    let open = |name: &String| {
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(HostFile::open(file.try_clone()?, name))
    };
    names.iter().map(open).collect()
}
