//! `supermachine images`, `rmi` and `snapshot`: what was baked.

use super::disk::mebibytes;
use super::fork::{CreateArguments, create};
use super::list::{List, ListOptions, Row, column};
use super::machine::age;
use super::output::{complain, plain, print, print_json};
use crate::error::with_causes;
use crate::limits::REMOVAL_LOCK_TIMEOUT;
use crate::running::unix_ms;
use crate::store::BLOCK_BYTES;
use crate::template::{IMAGE_FILE, ImageFile, MAX_IMAGE_FILE_BYTES};
use crate::{Error, base, snapshots_dir};
use snapshot::{Inspection, SnapshotError, Store};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Exit status of `images` and `snapshot verify` for what is damaged.
const EXIT_DAMAGED: u8 = 1;

#[derive(clap::Args)]
pub struct ImagesArguments {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(clap::Args)]
pub struct RemoveArguments {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// Snapshots to remove
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(clap::Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot of a running machine, which goes on
    Create(CreateArguments),
    /// List snapshots, as `images` does
    #[command(visible_alias = "list")]
    Ls(ImagesArguments),
    /// Remove snapshots, as `rmi` does
    #[command(visible_alias = "remove")]
    Rm(RemoveArguments),
    /// Show what a snapshot holds and where it runs
    Inspect(Which),
    /// Compare all of a snapshot with its checksums; status 1 if it is damaged
    Verify(Which),
}

#[derive(clap::Args)]
pub struct Which {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// Name of a snapshot, or path of its directory or of one generation
    #[arg(value_name = "NAME|PATH")]
    snapshot: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn store(dir: Option<&PathBuf>) -> Result<Option<Store>, Error> {
    let root = match dir {
        Some(dir) => dir.clone(),
        None => snapshots_dir()?,
    };
    match Store::existing(root) {
        Ok(store) => Ok(Some(store)),
        Err(SnapshotError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lists what was baked.
pub fn images(arguments: &ImagesArguments) -> Result<u8, Error> {
    let mut rows = Vec::new();
    let mut status = 0;
    if let Some(store) = store(arguments.snapshots_dir.as_ref())? {
        for name in store.names()? {
            match store.inspect(&name) {
                Ok(found) => rows.push(row(&name, &found)),
                Err(error) => {
                    status = EXIT_DAMAGED;
                    complain(&format!("supermachine: {}: {error}\n", plain(&name)));
                }
            }
        }
    }
    IMAGES.print(rows, &arguments.list)?;
    Ok(status)
}

const IMAGES: List<'static> = List {
    columns: &[
        column("NAME", "name", false),
        column("ON DISK", "disk", true),
        column("MIB", "memory_mib", true),
        column("VCPUS", "vcpus", true),
        column("ENGINE", "engine", false),
        column("AGE", "age", true),
        column("IMAGE", "reference", false),
    ],
    key: "name",
    fields: &[
        "name",
        "path",
        "disk",
        "disk_bytes",
        "memory_mib",
        "vcpus",
        "engine",
        "age",
        "age_s",
        "reference",
        "labels",
    ],
};

fn row(name: &str, found: &Inspection) -> Row {
    let manifest = found.manifest();
    let machine = &manifest.machine;
    let disk_bytes = disk_bytes(found.path());
    let created_unix_ms = machine.created_unix_s.saturating_mul(1000);
    let row = serde_json::json!({
        "name": name,
        "path": found.path(),
        "disk": mebibytes(disk_bytes),
        "disk_bytes": disk_bytes,
        "memory_mib": manifest.memory_bytes() >> 20,
        "vcpus": machine.vcpus,
        "engine": machine.stamp.engine,
        "age": age(created_unix_ms),
        "age_s": unix_ms().saturating_sub(created_unix_ms) / 1000,
        "reference": machine.labels.get("reference"),
        "labels": machine.labels,
    });
    match row {
        serde_json::Value::Object(row) => row,
        _ => Row::new(),
    }
}

/// What a generation takes on the disk and shares with nothing else.
fn disk_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok());
    let own = files.filter(|metadata| metadata.nlink() == 1);
    own.map(|metadata| metadata.blocks() * BLOCK_BYTES).sum()
}

/// Removes snapshots, but none that a machine runs from.
pub fn remove(arguments: &RemoveArguments) -> Result<u8, Error> {
    for name in &arguments.names {
        let Some(store) = store(arguments.snapshots_dir.as_ref())? else {
            return Err(SnapshotError::NotFound { name: name.clone() }.into());
        };
        // What is damaged, or was removed but for what a machine ran from, is
        // to be removed all the more.
        match store.inspect(name) {
            Err(error @ SnapshotError::Name { .. }) => return Err(error.into()),
            Err(error @ SnapshotError::NotFound { .. }) if !store.root().join(name).is_dir() => {
                return Err(error.into());
            }
            _ => {}
        }
        let lock = store.lock(name, REMOVAL_LOCK_TIMEOUT)?;
        if lock.is_in_use()? {
            return Err(SnapshotError::InUse { name: name.clone() }.into());
        }
        lock.remove()?;
        print(&format!("{}\n", plain(name)))?;
        base::prune(store.root())?;
    }
    Ok(0)
}

/// Shows or checks a snapshot.
pub fn snapshot(command: &SnapshotCommand) -> Result<u8, Error> {
    match command {
        SnapshotCommand::Create(arguments) => create(arguments),
        SnapshotCommand::Ls(arguments) => images(arguments),
        SnapshotCommand::Rm(arguments) => remove(arguments),
        SnapshotCommand::Inspect(which) => inspect(which),
        SnapshotCommand::Verify(which) => verify(which),
    }
}

fn inspect(which: &Which) -> Result<u8, Error> {
    let found = open(which)?;
    let manifest = found.manifest();
    let image = image_of(&found)?;
    if which.json {
        let mut report = serde_json::json!(manifest);
        report["image"] = serde_json::json!(image);
        print_json(&report, true)?;
        return Ok(0);
    }
    let (machine, stamp) = (&manifest.machine, &manifest.machine.stamp);
    let row = row(&manifest.name, &found);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{:<13} {}\n", format!("{name}:"), plain(value)));
    };
    line("name", &manifest.name);
    line("path", &found.path().to_string_lossy());
    line("on disk", &format!("{} bytes", row["disk_bytes"]));
    line("memory", &format!("{} MiB", row["memory_mib"]));
    line("vcpus", &machine.vcpus.to_string());
    line("age", row["age"].as_str().unwrap_or("-"));
    line("engine", row["engine"].as_str().unwrap_or("-"));
    for fact in ["architecture", "producer", "kernel", "init"] {
        line(fact, stamp.value(fact).unwrap_or("-"));
    }
    for (name, value) in &machine.labels {
        line("label", &format!("{name}={value}"));
    }
    // From the name to what is in the layers.
    if let Some(image) = &image {
        line("image", &image.reference);
        line("manifest", image.chain.manifest.as_deref().unwrap_or("-"));
        line("config", &image.digest);
        for layer in &image.chain.layers {
            line("layer", layer);
        }
    }
    print(&text)?;
    Ok(0)
}

/// What a snapshot says of its image, if it is of one.
fn image_of(found: &Inspection) -> Result<Option<ImageFile>, Error> {
    if !found.manifest().files.contains_key(IMAGE_FILE) {
        return Ok(None);
    }
    let text = found.read_extra_file(IMAGE_FILE, MAX_IMAGE_FILE_BYTES)?;
    // That of a later version says nothing here.
    Ok(serde_json::from_slice(&text).ok())
}

fn verify(which: &Which) -> Result<u8, Error> {
    let found = open(which);
    let path = found.as_ref().ok().map(|found| found.path().to_owned());
    let damage = found.and_then(|found| Ok(found.verify()?)).err();
    let status = if damage.is_some() { EXIT_DAMAGED } else { 0 };
    if which.json {
        let report = serde_json::json!({
            "snapshot": which.snapshot,
            "path": path,
            "whole": damage.is_none(),
            "damage": damage.as_ref().map(|error| with_causes(error)),
        });
        print_json(&report, false)?;
    } else if let Some(error) = damage {
        complain(&format!(
            "supermachine: {}: {}\n",
            plain(&which.snapshot),
            with_causes(&error)
        ));
    } else {
        let path = path.unwrap_or_default();
        print(&format!("{}: whole\n", plain(&path.to_string_lossy())))?;
    }
    Ok(status)
}

/// A snapshot by its name or path, whatever it is of.
pub fn open(which: &Which) -> Result<Inspection, Error> {
    let path = Path::new(&which.snapshot);
    if path.join("manifest.json").exists() {
        return Ok(Store::inspect_path(path)?);
    }
    // A path has a slash; a name has none.
    let (root, name) = match (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) {
        (Some(root), Some(name)) if !root.as_os_str().is_empty() => (Some(root.to_owned()), name),
        _ => (which.snapshots_dir.clone(), which.snapshot.as_str()),
    };
    match store(root.as_ref())? {
        Some(store) => Ok(store.inspect(name)?),
        None => Err(SnapshotError::NotFound {
            name: which.snapshot.clone(),
        }
        .into()),
    }
}
