//! `supermachine volume`: disks that outlive machines.

use super::disk::mebibytes;
use super::list::{List, ListOptions, Row, column};
use super::machine::age;
use super::output::{plain, print, print_json};
use super::values::memory_mib;
use crate::running::unix_ms;
use crate::{Error, VolumeInfo, VolumeStore};

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
        VolumeCommand::Prune(arguments) => {
            for name in store.prune(arguments.all)? {
                print(&format!("{}\n", plain(&name)))?;
            }
        }
    }
    Ok(0)
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
