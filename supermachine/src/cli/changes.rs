//! `supermachine changes`: what a machine has changed of a directory that the host keeps
//! as it is.

use super::copy::Output;
use super::list::{List, ListOptions, Row, column};
use super::machine;
use super::output::is_terminal;
use crate::running::RunningVm;
use crate::{ChangeKind, Error, FileKind, MountChange};
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

#[derive(clap::Args)]
pub struct Arguments {
    /// Make these changes to the directory of the host, and print those that were made
    #[arg(long, conflicts_with = "export")]
    apply: bool,
    /// Write them into this file, or to standard output for -, as a tar archive in the
    /// form of an image's layer
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Which of its copy-on-write mounts: the place in the guest, or the tag
    #[arg(long, value_name = "PLACE")]
    mount: Option<String>,
    #[command(flatten)]
    list: ListOptions,
    /// Machine: its name, its id, or the start of its id
    #[arg(value_name = "VM")]
    vm: String,
    /// Only these files and directories, by their paths in the mount, and what is in them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

const CHANGES: List<'static> = List {
    columns: &[
        column("CHANGE", "change", false),
        column("FILE", "file", false),
        column("PATH", "path", false),
    ],
    key: "path",
    fields: &["change", "file", "path", "bytes"],
};

/// Lists changes, makes them or writes them into an archive.
pub fn run(arguments: &Arguments) -> Result<u8, Error> {
    let vm = machine::find(&arguments.vm)?.running()?;
    let tag = tag(&vm, arguments.mount.as_deref())?;
    let paths: Vec<PathBuf> = arguments.paths.iter().map(|path| inside(path)).collect();
    let is_wanted = |change: &MountChange| {
        paths.is_empty() || paths.iter().any(|path| change.path.starts_with(path))
    };
    if let Some(file) = &arguments.export {
        export(&vm, tag, file, is_wanted)?;
        return Ok(0);
    }
    let changes = match arguments.apply {
        true => vm.apply_changes(tag, is_wanted)?,
        false => {
            let mut changes = vm.mount_changes(tag)?;
            changes.retain(is_wanted);
            changes
        }
    };
    CHANGES.print(changes.iter().map(row).collect(), &arguments.list)?;
    Ok(0)
}

/// A path in the mount, as its changes are told.
fn inside(path: &Path) -> PathBuf {
    let is_name = |component: &Component<'_>| !matches!(component, Component::CurDir);
    path.components().filter(is_name).collect()
}

/// The tag of the mount that is meant.
fn tag<'a>(vm: &'a RunningVm, named: Option<&str>) -> Result<&'a str, Error> {
    let covered = vm
        .description
        .mounts
        .iter()
        .filter(|mount| mount.copy_on_write);
    let is_named = |mount: &&crate::running::Mounted| match named {
        Some(named) => mount.tag == named || mount.place.as_deref() == Some(named),
        None => true,
    };
    let found: Vec<_> = covered.filter(is_named).collect();
    match (&found[..], named) {
        ([mount], _) => Ok(&mount.tag),
        ([], _) => Err(Error::Mount {
            tag: named.unwrap_or_default().to_owned(),
            problem: "the machine has no such copy-on-write mount: start it with \
                      `-v DIRECTORY:PLACE:cow`, and name that place",
        }),
        _ => Err(Error::Unsuitable {
            what: "a machine with several copy-on-write mounts",
            needs: "--mount, with the place of one in the guest",
        }),
    }
}

fn export(
    vm: &RunningVm,
    tag: &str,
    file: &Path,
    is_wanted: impl Fn(&MountChange) -> bool,
) -> Result<(), Error> {
    if file == Path::new("-") {
        if is_terminal(io::stdout()) {
            return Err(Error::Unsuitable {
                what: "an archive on a terminal",
                needs: "standard output to lead elsewhere: `> FILE`, or a pipe",
            });
        }
        let exported = vm.export_changes(tag, Output, is_wanted);
        return exported.map(drop).map_err(|error| match error {
            Error::System { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                Error::Output { source }
            }
            error => error,
        });
    }
    // A pipe or a device is written to, and not replaced.
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        let archive = File::create(file).map_err(Error::host("cannot write", file))?;
        return vm.export_changes(tag, archive, is_wanted).map(drop);
    }
    vm.export_changes_to(tag, file, is_wanted).map(drop)
}

fn row(change: &MountChange) -> Row {
    let kind = match change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Changed => "changed",
        ChangeKind::Deleted => "deleted",
    };
    let file = change.file.map(|file| match file {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "link",
        FileKind::CharDevice | FileKind::BlockDevice => "device",
        FileKind::Fifo => "pipe",
        FileKind::Socket => "socket",
    });
    let row = serde_json::json!({
        "change": kind,
        "file": file,
        "path": change.path.to_string_lossy(),
        "bytes": change.bytes,
    });
    match row {
        serde_json::Value::Object(row) => row,
        _ => Row::new(),
    }
}
