//! The operations on files that this crate is made of, as a trait, so that
//! every one of them can be made to fail.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// How often a directory is emptied before it is given up: more files than a
/// worker writes into a draft.
const REMOVAL_ROUNDS: u32 = 8;

/// Kind of an advisory lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// With other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// What the writer and the reader of snapshots do with files.
///
/// The errors are those of the system, uninterpreted.
#[allow(clippy::missing_errors_doc)]
pub trait Files: fmt::Debug + Send + Sync {
    /// Creates a directory only its owner may enter.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that was not there, for reading and writing by its owner.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Opens a file or directory for reading, not following a link, not
    /// waiting for a pipe's other end.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Opens a file for writing, and creates it if it is not there.
    fn open_lock(&self, path: &Path) -> io::Result<File>;
    /// Attributes of an open file.
    fn attributes(&self, file: &File) -> io::Result<Metadata>;
    /// Attributes of a path, not following a link.
    fn attributes_of(&self, path: &Path) -> io::Result<Metadata>;
    /// Writes some bytes.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Reads some bytes.
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Sets the length; what is new is a hole.
    fn set_len(&self, file: &File, bytes: u64) -> io::Result<()>;
    /// Waits until the file is on the medium.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Waits until the names in a directory are on the medium.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a further name.
    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()>;
    /// Gives a file or directory another name, replacing a file there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Takes an advisory lock unless someone else has it.
    fn try_lock(&self, file: &File, kind: LockKind) -> io::Result<bool>;
}

impl dyn Files + '_ {
    /// Writes all bytes, however few at a time the system takes.
    pub(crate) fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `bytes`, or fails with `UnexpectedEof`.
    pub(crate) fn read_exact_at(
        &self,
        file: &File,
        bytes: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(file, &mut bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes a directory with the files in it; directories in it are an error.
    ///
    /// A worker whose baker was killed may still be writing there: each file
    /// it adds after the others were listed costs one more round.
    pub(crate) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let mut rounds = REMOVAL_ROUNDS;
        loop {
            let mut names = self.list(path)?;
            // The manifest goes first: without it nothing left looks whole.
            names.sort_by_key(|name| name != crate::manifest::FILE);
            for name in names {
                match self.remove_file(&path.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            rounds -= 1;
            match self.remove_dir(path) {
                Err(error) if rounds > 0 && error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                result => return result,
            }
        }
    }
}
