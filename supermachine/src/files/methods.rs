//! What can be done with the files of a machine, whoever owns it.

use super::{
    Copied, CopyOptions, DIRECTORY_MODE, FileInfo, FileOptions, absolute, ask, copy_in, copy_out,
    infos, mkdir_all, stat, tar, whole,
};
use crate::running::RunningVm;
use crate::{Error, Vm, WhileWanted};
use std::io::{Read, Write};
use std::path::Path;

/// The same for each type that leads to a guest's agent.
macro_rules! files {
    ($machine:ty) => {
        impl $machine {
            /// Writes a file of at most 4 MiB in the guest, mode 0644. The path is
            /// absolute; directories that are missing are made. Longer files go by
            /// [`Self::write_file_with`] or [`Self::write_file_from`].
            ///
            /// # Errors
            /// [`Error::Exec`] when the guest cannot write it, [`Error::Protocol`] for
            /// a path or a size that is not allowed.
            pub fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
                whole::write_small(self, path, bytes)
            }

            /// Reads a file of at most 4 MiB from the guest. The path is absolute. Longer
            /// files come by [`Self::read_file_with`] or [`Self::read_file_to`].
            ///
            /// # Errors
            /// [`Error::Exec`] when the guest cannot read it or it is larger.
            pub fn read_file(&self, path: &str) -> Result<Vec<u8>, Error> {
                whole::read_small(self, path)
            }

            /// As [`Self::write_file`], with another limit or mode.
            ///
            /// # Errors
            /// As [`Self::write_file_from`].
            pub fn write_file_with(
                &self,
                path: impl AsRef<[u8]>,
                bytes: &[u8],
                options: &FileOptions,
            ) -> Result<(), Error> {
                whole::write_from(self, path.as_ref(), &mut &bytes[..], options).map(drop)
            }

            /// As [`Self::read_file`], with another limit.
            ///
            /// # Errors
            /// As [`Self::read_file_to`].
            pub fn read_file_with(
                &self,
                path: impl AsRef<[u8]>,
                options: &FileOptions,
            ) -> Result<Vec<u8>, Error> {
                let mut bytes = Vec::new();
                whole::read_to(self, path.as_ref(), &mut bytes, options)?;
                Ok(bytes)
            }

            /// Writes a file of the guest with what a stream has until its end, and gives its
            /// length. The file appears when it is complete, in place of what has its name,
            /// or not at all; directories that are missing are made.
            ///
            /// # Errors
            /// [`Error::CopyTooLarge`] for more than the limit, [`Error::System`] if the stream
            /// cannot be read, [`Error::Exec`] when the guest cannot write the file.
            pub fn write_file_from(
                &self,
                path: impl AsRef<[u8]>,
                mut source: impl Read,
                options: &FileOptions,
            ) -> Result<u64, Error> {
                whole::write_from(self, path.as_ref(), &mut source, options)
            }

            /// Reads a file of the guest into a stream, and gives its length.
            ///
            /// # Errors
            /// [`Error::CopyTooLarge`] for more than the limit: what comes before it has been
            /// written by then. [`Error::System`] if it cannot be written,
            /// [`Error::Exec`] when the guest cannot read the file.
            pub fn read_file_to(
                &self,
                path: impl AsRef<[u8]>,
                mut sink: impl Write,
                options: &FileOptions,
            ) -> Result<u64, Error> {
                whole::read_to(self, path.as_ref(), &mut sink, options)
            }

            /// What is at `path`, which is absolute as all paths in a guest; a link at its
            /// end is not followed.
            ///
            /// # Errors
            /// [`Error::Exec`] if there is nothing, or the guest cannot tell.
            pub fn stat(&self, path: impl AsRef<[u8]>) -> Result<FileInfo, Error> {
                stat(self, path.as_ref(), false)
            }

            /// What is in the directory at `path`, in no particular order.
            ///
            /// # Errors
            /// [`Error::Exec`] if it is none, or cannot be read.
            pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<FileInfo>, Error> {
                infos(&ask(self, &[b"list", absolute(path.as_ref())?])?)
            }

            /// Makes a directory, mode 0755.
            ///
            /// # Errors
            /// [`Error::Exec`] if there is something already, or no directory to make it in.
            pub fn mkdir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
                ask(self, &[b"mkdir", DIRECTORY_MODE, absolute(path.as_ref())?]).map(drop)
            }

            /// Makes a directory and those above it that are missing, if it is not there.
            ///
            /// # Errors
            /// [`Error::Exec`] if something else is in the way.
            pub fn mkdir_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
                mkdir_all(self, path.as_ref())
            }

            /// Removes a file, a link or an empty directory.
            ///
            /// # Errors
            /// [`Error::Exec`] if there is none, or it cannot be removed.
            pub fn remove(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
                ask(self, &[b"remove", absolute(path.as_ref())?]).map(drop)
            }

            /// Removes a file, a link, or a directory with all that is in it. Links in it
            /// are removed and not followed.
            ///
            /// # Errors
            /// As [`Self::remove`].
            pub fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
                ask(self, &[b"remove-all", absolute(path.as_ref())?]).map(drop)
            }

            /// Gives a file or directory another name, in place of what has that name.
            ///
            /// # Errors
            /// [`Error::Exec`] if there is none, or the names are on different file systems.
            pub fn rename(
                &self,
                from: impl AsRef<[u8]>,
                to: impl AsRef<[u8]>,
            ) -> Result<(), Error> {
                let (from, to) = (absolute(from.as_ref())?, absolute(to.as_ref())?);
                ask(self, &[b"rename", from, to]).map(drop)
            }

            /// Copies a file or directory of the host to `guest`: modes, times, links and
            /// `user.` attributes too. Directories above `guest` that are missing are made.
            /// What is in the way is replaced, but directories keep what else is in them.
            ///
            /// # Errors
            /// [`Error::Host`] for what cannot be read, [`Error::Exec`] for what the guest
            /// cannot write. What was copied before stays.
            pub fn copy_in(
                &self,
                host: impl AsRef<Path>,
                guest: impl AsRef<[u8]>,
            ) -> Result<Copied, Error> {
                self.copy_in_with(host, guest, &CopyOptions::default())
            }

            /// As [`Self::copy_in`], with bounds.
            ///
            /// # Errors
            /// As [`Self::copy_in`], and [`Error::CopyTooLarge`].
            pub fn copy_in_with(
                &self,
                host: impl AsRef<Path>,
                guest: impl AsRef<[u8]>,
                options: &CopyOptions,
            ) -> Result<Copied, Error> {
                copy_in(self, host.as_ref(), guest.as_ref(), options)
            }

            /// Copies a file or directory of the guest to `host`, as [`Self::copy_in`] does
            /// the other way. The directory above `host` must be there. Whatever a hostile
            /// guest sends, nothing is written but `host` and what is below it, no link is
            /// followed there, and setuid and setgid are left out.
            ///
            /// # Errors
            /// [`Error::Exec`] for what the guest cannot read, [`Error::Host`] for what
            /// cannot be written, [`Error::Protocol`] for what is no tree. What was copied
            /// before stays.
            pub fn copy_out(
                &self,
                guest: impl AsRef<[u8]>,
                host: impl AsRef<Path>,
            ) -> Result<Copied, Error> {
                self.copy_out_with(guest, host, &CopyOptions::default())
            }

            /// As [`Self::copy_out`], with bounds.
            ///
            /// # Errors
            /// As [`Self::copy_out`], and [`Error::CopyTooLarge`].
            pub fn copy_out_with(
                &self,
                guest: impl AsRef<[u8]>,
                host: impl AsRef<Path>,
                options: &CopyOptions,
            ) -> Result<Copied, Error> {
                copy_out(self, guest.as_ref(), host.as_ref(), options)
            }

            /// Unpacks a tar archive in the directory `guest`, which is made if it is not
            /// there: modes, times, links; owners if that is asked for. Devices are left out.
            /// What is in the way is replaced, but directories keep what else is in them.
            ///
            /// # Errors
            /// [`Error::System`] for what is no archive or cannot be read,
            /// [`Error::Unsuitable`] for a name that leads outside, [`Error::CopyTooLarge`],
            /// [`Error::Exec`] for what the guest cannot write. What was unpacked before stays.
            pub fn copy_in_tar(
                &self,
                archive: impl Read + Send,
                guest: impl AsRef<[u8]>,
                options: &CopyOptions,
            ) -> Result<Copied, Error> {
                tar::copy_in_tar(self, archive, guest.as_ref(), options)
            }

            /// Packs a file or directory of the guest into a tar archive, by its own name.
            /// Sockets are left out, and setuid and setgid. A file that changes meanwhile has
            /// the length that it had when it was looked at.
            ///
            /// # Errors
            /// [`Error::Exec`] for what the guest cannot read, [`Error::System`] if the archive
            /// cannot be written, [`Error::CopyTooLarge`]; [`Error::Protocol`] for what is no
            /// tree.
            pub fn copy_out_tar(
                &self,
                guest: impl AsRef<[u8]>,
                archive: impl Write,
                options: &CopyOptions,
            ) -> Result<Copied, Error> {
                tar::copy_out_tar(self, guest.as_ref(), archive, options)
            }
        }
    };
}

files!(Vm);
files!(RunningVm);
files!(WhileWanted<'_>);
