//! `supermachine volume`: disks that outlive machines.

use super::disk::mebibytes;
use super::list::{List, ListOptions, Row, column};
use super::machine::age;
use super::output::{plain, print, print_json};
use super::values::memory_mib;
use crate::running::{self, RunningVm, unix_ms};
use crate::{Error, VolumeInfo, VolumeStore};
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum VolumeCommand {
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Make empty volumes
    Create(CreateArguments),
    /// Show all that is known of volumes, as JSON
    Inspect(Named),
    /// Remove volumes and all that is in them, unless a machine has them
    #[command(visible_alias = "remove")]
    Rm(Named),
    /// Make volumes larger, also one that a machine has mounted
    Grow(GrowArguments),
    /// Write what is in a volume into a file: the image of a disk
    Export(ExportArguments),
    /// Make a volume of an image of an ext4 file system, as `volume export` writes it
    Import(ImportArguments),
    /// Remove what was left of volumes that were never finished
    Prune(PruneArguments),
}

#[derive(clap::Args)]
pub struct CreateArguments {
    /// Size: a number of MiB, or one with a unit (512m, 10g); only what is written takes
    /// disk
    #[arg(short, long, value_name = "SIZE", default_value = "1g", value_parser = memory_mib)]
    size: usize,
    #[command(flatten)]
    named: Named,
}

#[derive(clap::Args)]
pub struct GrowArguments {
    /// Size: a number of MiB, or one with a unit (512m, 10g); one that is as large already
    /// stays as it is
    #[arg(short, long, value_name = "SIZE", value_parser = memory_mib)]
    size: usize,
    #[command(flatten)]
    named: Named,
}

#[derive(clap::Args)]
pub struct ExportArguments {
    /// Volume
    #[arg(value_name = "NAME")]
    name: String,
    /// The file, which is replaced if it is there
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(clap::Args)]
pub struct ImportArguments {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Volume, which must not be there
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(clap::Args)]
pub struct Named {
    /// Volumes
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(clap::Args)]
pub struct PruneArguments {
    /// Remove every volume that no machine has, too, and all that is in them
    #[arg(short, long)]
    all: bool,
}

/// Carries one out.
pub fn run(command: &VolumeCommand) -> Result<u8, Error> {
    let store = VolumeStore::of_user()?;
    match command {
        VolumeCommand::Ls(options) => {
            let rows = store.list()?.iter().map(row).collect();
            VOLUMES.print(rows, options)?;
        }
        VolumeCommand::Create(arguments) => {
            for name in &arguments.named.names {
                store.create(name, arguments.size as u64)?;
                print(&format!("{}\n", plain(name)))?;
            }
        }
        VolumeCommand::Inspect(named) => {
            let volumes = named.names.iter().map(|name| store.inspect(name));
            let volumes = volumes.collect::<Result<Vec<_>, _>>()?;
            let rows: Vec<Row> = volumes.iter().map(row).collect();
            print_json(&rows, true)?;
        }
        VolumeCommand::Rm(named) => {
            for name in &named.names {
                store.remove(name)?;
                print(&format!("{}\n", plain(name)))?;
            }
        }
        VolumeCommand::Grow(arguments) => {
            for name in &arguments.named.names {
                grow(&store, name, arguments.size as u64)?;
                print(&format!("{}\n", plain(name)))?;
            }
        }
        VolumeCommand::Export(arguments) => {
            store.export(&arguments.name, &arguments.file)?;
            print(&format!("{}\n", plain(&arguments.file.to_string_lossy())))?;
        }
        VolumeCommand::Import(arguments) => {
            store.import(&arguments.name, &arguments.file)?;
            print(&format!("{}\n", plain(&arguments.name)))?;
        }
        VolumeCommand::Prune(arguments) => {
            for name in store.prune(arguments.all)? {
                print(&format!("{}\n", plain(&name)))?;
            }
        }
    }
    Ok(0)
}

/// Grows a volume, by the machine that has it if there is one.
fn grow(store: &VolumeStore, name: &str, size_mib: u64) -> Result<(), Error> {
    let file = Some(store.inspect(name).map(|_| store.file(name))?);
    let has_it = |vm: &RunningVm| {
        vm.description
            .volumes
            .iter()
            .any(|volume| volume.file == file)
    };
    match running::list().iter().find(|vm| has_it(vm)) {
        Some(vm) => vm.grow_volume(name, size_mib),
        None => store.grow(name, size_mib),
    }
}

const VOLUMES: List<'static> = List {
    columns: &[
        column("NAME", "name", false),
        column("SIZE", "size", true),
        column("ON DISK", "disk", true),
        column("CHANGED", "age", true),
        column("IN USE BY", "in_use_by", false),
    ],
    key: "name",
    fields: &[
        "name",
        "path",
        "size",
        "size_bytes",
        "disk",
        "disk_bytes",
        "age",
        "age_s",
        "in_use_by",
    ],
};

fn row(volume: &VolumeInfo) -> Row {
    let row = serde_json::json!({
        "name": volume.name,
        "path": volume.path,
        "size": mebibytes(volume.size_bytes),
        "size_bytes": volume.size_bytes,
        "disk": mebibytes(volume.disk_bytes),
        "disk_bytes": volume.disk_bytes,
        "age": age(volume.changed_unix_ms),
        "age_s": unix_ms().saturating_sub(volume.changed_unix_ms) / 1000,
        "in_use_by": volume.in_use_by,
    });
    match row {
        serde_json::Value::Object(row) => row,
        _ => Row::new(),
    }
}
