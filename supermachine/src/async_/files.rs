//! What can be done with the files of a machine, for tasks.

use super::abandoned::while_wanted;
use super::{AsyncPooledVm, AsyncVm};
#[cfg(doc)]
use crate::Vm;
use crate::{Copied, CopyOptions, Error, FileInfo, FileOptions, MountChange, WhileWanted};
use std::io::{Read, Write};
use std::path::PathBuf;

/// The same for both kinds of machines.
macro_rules! files {
    ($name:ident) => {
        impl $name {
            /// Writes a file in the guest, as [`Vm::write_file`] does.
            ///
            /// # Errors
            /// As [`Vm::write_file`].
            pub async fn write_file(
                &self,
                path: impl Into<String>,
                bytes: impl Into<Vec<u8>>,
            ) -> Result<(), Error> {
                let (path, bytes) = (path.into(), bytes.into());
                while_wanted(&self.vm, move |vm| vm.write_file(&path, &bytes)).await
            }

            /// Reads a file of the guest, as [`Vm::read_file`] does.
            ///
            /// # Errors
            /// As [`Vm::read_file`].
            pub async fn read_file(&self, path: impl Into<String>) -> Result<Vec<u8>, Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.read_file(&path)).await
            }

            /// Says what is at a path, as [`Vm::stat`] does.
            ///
            /// # Errors
            /// As [`Vm::stat`].
            pub async fn stat(&self, path: impl Into<Vec<u8>>) -> Result<FileInfo, Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.stat(&path)).await
            }

            /// Lists a directory, as [`Vm::read_dir`] does.
            ///
            /// # Errors
            /// As [`Vm::read_dir`].
            pub async fn read_dir(&self, path: impl Into<Vec<u8>>) -> Result<Vec<FileInfo>, Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.read_dir(&path)).await
            }

            /// Makes a directory, as [`Vm::mkdir`] does.
            ///
            /// # Errors
            /// As [`Vm::mkdir`].
            pub async fn mkdir(&self, path: impl Into<Vec<u8>>) -> Result<(), Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.mkdir(&path)).await
            }

            /// Makes a directory and those above it, as [`Vm::mkdir_all`] does.
            ///
            /// # Errors
            /// As [`Vm::mkdir_all`].
            pub async fn mkdir_all(&self, path: impl Into<Vec<u8>>) -> Result<(), Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.mkdir_all(&path)).await
            }

            /// Removes a file, a link or an empty directory, as [`Vm::remove`] does.
            ///
            /// # Errors
            /// As [`Vm::remove`].
            pub async fn remove(&self, path: impl Into<Vec<u8>>) -> Result<(), Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.remove(&path)).await
            }

            /// Removes a directory with all that is in it, as [`Vm::remove_all`] does.
            ///
            /// # Errors
            /// As [`Vm::remove_all`].
            pub async fn remove_all(&self, path: impl Into<Vec<u8>>) -> Result<(), Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.remove_all(&path)).await
            }

            /// Gives a file or directory another name, as [`Vm::rename`] does.
            ///
            /// # Errors
            /// As [`Vm::rename`].
            pub async fn rename(
                &self,
                from: impl Into<Vec<u8>>,
                to: impl Into<Vec<u8>>,
            ) -> Result<(), Error> {
                let (from, to) = (from.into(), to.into());
                while_wanted(&self.vm, move |vm| vm.rename(&from, &to)).await
            }

            /// Copies a tree into the guest, as [`Vm::copy_in_with`] does.
            ///
            /// # Errors
            /// As [`Vm::copy_in_with`].
            pub async fn copy_in(
                &self,
                host: impl Into<PathBuf>,
                guest: impl Into<Vec<u8>>,
                options: CopyOptions,
            ) -> Result<Copied, Error> {
                let (host, guest) = (host.into(), guest.into());
                while_wanted(&self.vm, move |vm| vm.copy_in_with(&host, &guest, &options)).await
            }

            /// Copies a tree out of the guest, as [`Vm::copy_out_with`] does.
            ///
            /// # Errors
            /// As [`Vm::copy_out_with`].
            pub async fn copy_out(
                &self,
                guest: impl Into<Vec<u8>>,
                host: impl Into<PathBuf>,
                options: CopyOptions,
            ) -> Result<Copied, Error> {
                let (guest, host) = (guest.into(), host.into());
                while_wanted(&self.vm, move |vm| {
                    vm.copy_out_with(&guest, &host, &options)
                })
                .await
            }

            /// Writes a file with another limit or mode, as [`Vm::write_file_with`] does.
            ///
            /// # Errors
            /// As [`Vm::write_file_with`].
            pub async fn write_file_with(
                &self,
                path: impl Into<Vec<u8>>,
                bytes: impl Into<Vec<u8>>,
                options: FileOptions,
            ) -> Result<(), Error> {
                let (path, bytes) = (path.into(), bytes.into());
                while_wanted(&self.vm, move |vm| {
                    vm.write_file_with(&path, &bytes, &options)
                })
                .await
            }

            /// Reads a file with another limit, as [`Vm::read_file_with`] does.
            ///
            /// # Errors
            /// As [`Vm::read_file_with`].
            pub async fn read_file_with(
                &self,
                path: impl Into<Vec<u8>>,
                options: FileOptions,
            ) -> Result<Vec<u8>, Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| vm.read_file_with(&path, &options)).await
            }

            /// Writes a file with what a stream has, as [`Vm::write_file_from`] does. The
            /// stream is read on a thread that may block.
            ///
            /// # Errors
            /// As [`Vm::write_file_from`].
            pub async fn write_file_from(
                &self,
                path: impl Into<Vec<u8>>,
                source: impl Read + Send + 'static,
                options: FileOptions,
            ) -> Result<u64, Error> {
                let path = path.into();
                while_wanted(&self.vm, move |vm| {
                    vm.write_file_from(&path, source, &options)
                })
                .await
            }

            /// Reads a file into a stream, as [`Vm::read_file_to`] does, and gives the
            /// stream back. It is written on a thread that may block.
            ///
            /// # Errors
            /// As [`Vm::read_file_to`].
            pub async fn read_file_to<W: Write + Send + 'static>(
                &self,
                path: impl Into<Vec<u8>>,
                mut sink: W,
                options: FileOptions,
            ) -> Result<(u64, W), Error> {
                let path = path.into();
                let read = move |vm: &WhileWanted<'_>| {
                    Ok((vm.read_file_to(&path, &mut sink, &options)?, sink))
                };
                while_wanted(&self.vm, read).await
            }

            /// Unpacks a tar archive in a directory, as [`Vm::copy_in_tar`] does. The
            /// archive is read on a thread that may block.
            ///
            /// # Errors
            /// As [`Vm::copy_in_tar`].
            pub async fn copy_in_tar(
                &self,
                archive: impl Read + Send + 'static,
                guest: impl Into<Vec<u8>>,
                options: CopyOptions,
            ) -> Result<Copied, Error> {
                let guest = guest.into();
                while_wanted(&self.vm, move |vm| {
                    vm.copy_in_tar(archive, &guest, &options)
                })
                .await
            }

            /// Packs a file or directory into a tar archive, as [`Vm::copy_out_tar`] does,
            /// and gives the archive back. It is written on a thread that may block.
            ///
            /// # Errors
            /// As [`Vm::copy_out_tar`].
            pub async fn copy_out_tar<W: Write + Send + 'static>(
                &self,
                guest: impl Into<Vec<u8>>,
                mut archive: W,
                options: CopyOptions,
            ) -> Result<(Copied, W), Error> {
                let guest = guest.into();
                let pack = move |vm: &WhileWanted<'_>| {
                    Ok((vm.copy_out_tar(&guest, &mut archive, &options)?, archive))
                };
                while_wanted(&self.vm, pack).await
            }

            /// What the guest has changed of a copy-on-write mount, as
            /// [`Vm::mount_changes`] tells it.
            ///
            /// # Errors
            /// As [`Vm::mount_changes`].
            pub async fn mount_changes(
                &self,
                tag: impl Into<String>,
            ) -> Result<Vec<MountChange>, Error> {
                let tag = tag.into();
                while_wanted(&self.vm, move |vm| vm.mount_changes(&tag)).await
            }

            /// Makes changes of a copy-on-write mount the host's, as
            /// [`Vm::apply_changes`] does.
            ///
            /// # Errors
            /// As [`Vm::apply_changes`].
            pub async fn apply_changes(
                &self,
                tag: impl Into<String>,
                filter: impl Fn(&MountChange) -> bool + Send + 'static,
            ) -> Result<Vec<MountChange>, Error> {
                let tag = tag.into();
                while_wanted(&self.vm, move |vm| vm.apply_changes(&tag, filter)).await
            }

            /// Makes changes of a copy-on-write mount the host's within bounds, as
            /// [`Vm::apply_changes_with`] does.
            ///
            /// # Errors
            /// As [`Vm::apply_changes_with`].
            pub async fn apply_changes_with(
                &self,
                tag: impl Into<String>,
                options: CopyOptions,
                filter: impl Fn(&MountChange) -> bool + Send + 'static,
            ) -> Result<Vec<MountChange>, Error> {
                let tag = tag.into();
                while_wanted(&self.vm, move |vm| {
                    vm.apply_changes_with(&tag, &options, filter)
                })
                .await
            }

            /// Writes changes of a copy-on-write mount as an archive, as
            /// [`Vm::export_changes`] does, and gives the archive back. It is written on a
            /// thread that may block.
            ///
            /// # Errors
            /// As [`Vm::export_changes`].
            pub async fn export_changes<W: Write + Send + 'static>(
                &self,
                tag: impl Into<String>,
                mut archive: W,
                filter: impl Fn(&MountChange) -> bool + Send + 'static,
            ) -> Result<(Copied, W), Error> {
                let tag = tag.into();
                let export = move |vm: &WhileWanted<'_>| {
                    Ok((vm.export_changes(&tag, &mut archive, filter)?, archive))
                };
                while_wanted(&self.vm, export).await
            }

            /// Writes them into a file of the host that is there whole or not at all, as
            /// [`Vm::export_changes_to`] does.
            ///
            /// # Errors
            /// As [`Vm::export_changes_to`].
            pub async fn export_changes_to(
                &self,
                tag: impl Into<String>,
                file: impl Into<PathBuf>,
                filter: impl Fn(&MountChange) -> bool + Send + 'static,
            ) -> Result<Copied, Error> {
                let (tag, file) = (tag.into(), file.into());
                while_wanted(&self.vm, move |vm| vm.export_changes_to(&tag, file, filter)).await
            }
        }
    };
}

files!(AsyncVm);
files!(AsyncPooledVm);
