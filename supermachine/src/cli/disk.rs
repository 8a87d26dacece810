//! `supermachine du` and `gc`: what is on the disk, and what of it nothing needs.

use super::list::{List, ListOptions, Row, column};
use super::{detached, fork};
use crate::image::default_cache;
use crate::limits::cli::LAYER_REST;
use crate::running::unix_ms;
use crate::{Error, base, snapshots_dir, stamp};
use serde_json::{Value, json};
use snapshot::{SnapshotError, Store};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Unit of a file's blocks (POSIX, sys/stat.h on every system we know).
pub const BLOCK_BYTES: u64 = 512;

#[derive(clap::Args)]
pub struct DuArguments {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// List each thing instead of each kind
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    list: ListOptions,
}

#[derive(clap::Args)]
pub struct GcArguments {
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// Layers too that were used within the last day
    #[arg(short, long)]
    all: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    list: ListOptions,
}

/// Something that takes disk.
struct Item {
    kind: &'static str,
    name: String,
    bytes: u64,
    is_used: bool,
    /// What `gc`, or `prune`, gives back of it.
    spare_bytes: u64,
}

/// Where everything is.
struct Places {
    snapshots: Option<Store>,
    bases: Option<Store>,
    forks: Option<Store>,
    layers: Option<PathBuf>,
}

impl Places {
    fn find(dir: Option<&PathBuf>) -> Result<Self, Error> {
        let root = match dir {
            Some(dir) => Some(dir.clone()),
            // Without a home there are none.
            None => snapshots_dir().ok(),
        };
        let existing = |root: PathBuf| match Store::existing(root) {
            Ok(store) => Ok(Some(store)),
            Err(SnapshotError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let (snapshots, bases, forks) = match root {
            Some(root) => (
                existing(root.clone())?,
                existing(base::directory(&root))?,
                existing(fork::directory(&root))?,
            ),
            None => (None, None, None),
        };
        let layers = default_cache().ok().map(|cache| cache.join("layers"));
        Ok(Self {
            snapshots,
            bases,
            forks,
            layers: layers.filter(|layers| layers.is_dir()),
        })
    }

    fn stores(&self) -> impl Iterator<Item = (&'static str, &Store)> {
        let snapshots = self.snapshots.iter().map(|store| ("snapshot", store));
        let bases = self.bases.iter().map(|store| ("base", store));
        let forks = self.forks.iter().map(|store| ("fork", store));
        snapshots.chain(bases).chain(forks)
    }

    /// All there is. A file with several names counts where it is met first.
    fn items(&self) -> Result<Vec<Item>, Error> {
        let mut seen = HashSet::new();
        let mut items = Vec::new();
        for layer in self.layer_files() {
            let bytes = layer.bytes();
            seen.insert(layer.identity);
            items.push(Item {
                kind: "layer",
                spare_bytes: if layer.is_spare(false) { bytes } else { 0 },
                is_used: layer.is_linked,
                name: layer.name,
                bytes,
            });
        }
        for (kind, store) in self.stores() {
            for name in directories(store.root()) {
                items.push(stored(kind, store, name, &mut seen)?);
            }
        }
        for record in detached::all() {
            let bytes = usage(record.dir(), &mut seen);
            let is_used = record.is_supervised();
            items.push(Item {
                kind: "machine",
                name: record.id.clone(),
                bytes,
                is_used,
                spare_bytes: if is_used { 0 } else { bytes },
            });
        }
        Ok(items)
    }

    fn layer_files(&self) -> Vec<Layer> {
        let entries = self
            .layers
            .iter()
            .flat_map(fs::read_dir)
            .flatten()
            .flatten();
        let mut layers: Vec<Layer> = entries.filter_map(|entry| Layer::of(&entry)).collect();
        layers.sort_by(|one, other| one.name.cmp(&other.name));
        layers
    }
}

/// A layer in the cache.
struct Layer {
    name: String,
    path: PathBuf,
    identity: (u64, u64),
    blocks: u64,
    /// A snapshot has it too.
    is_linked: bool,
    used_unix_s: i64,
}

impl Layer {
    fn of(entry: &fs::DirEntry) -> Option<Self> {
        let name = entry.file_name().into_string().ok()?;
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        name.ends_with(".squashfs").then(|| Self {
            path: entry.path(),
            identity: (metadata.dev(), metadata.ino()),
            blocks: metadata.blocks(),
            is_linked: metadata.nlink() > 1,
            used_unix_s: metadata.atime().max(metadata.ctime()),
            name,
        })
    }

    fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(BLOCK_BYTES)
    }

    /// Whether nothing has it, and nobody is about to use it: who bakes has read it
    /// a moment ago.
    fn is_spare(&self, at_once: bool) -> bool {
        let now = i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX);
        let rest = i64::try_from(LAYER_REST.as_secs()).unwrap_or(i64::MAX);
        !self.is_linked && (at_once || now.saturating_sub(self.used_unix_s) > rest)
    }
}

/// Names in a store, also those whose snapshot was taken away.
fn directories(root: &Path) -> Vec<String> {
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    // A store keeps the lock of a name that it knows beside it.
    let is_known = |name: &String| root.join(format!(".{name}.lock")).is_file();
    let entries = entries(root).filter(is_directory);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(is_known).collect();
    names.sort();
    names
}

fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

fn stored(
    kind: &'static str,
    store: &Store,
    name: String,
    seen: &mut HashSet<(u64, u64)>,
) -> Result<Item, Error> {
    let directory = store.root().join(&name);
    let is_used = match store.lock(&name, Duration::ZERO) {
        Ok(lock) => lock.is_in_use()?,
        // Somebody bakes it.
        Err(SnapshotError::Locked { .. }) => true,
        // Not ours, or no name of a snapshot.
        Err(_) => false,
    };
    let current = store.inspect(&name).ok();
    let current = current.as_ref().map(|found| found.path().to_owned());
    let (mut bytes, mut spare_bytes) = (0, 0);
    for entry in entries(&directory) {
        let taken = usage(&entry.path(), seen);
        bytes += taken;
        let is_old =
            entry.path().is_dir() && current.as_ref().is_some_and(|now| *now != entry.path());
        // Nobody asks for the snapshot of forks that have ended.
        if !is_used && (is_old || kind == "fork") {
            spare_bytes += taken;
        }
    }
    Ok(Item {
        kind,
        name,
        bytes,
        is_used,
        spare_bytes,
    })
}

/// Bytes on the disk of a file or directory, without what was seen before.
fn usage(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !seen.insert((metadata.dev(), metadata.ino())) {
        return 0;
    }
    let below = match metadata.is_dir() {
        true => entries(path).fold(0_u64, |sum, entry| {
            sum.saturating_add(usage(&entry.path(), seen))
        }),
        false => 0,
    };
    metadata
        .blocks()
        .saturating_mul(BLOCK_BYTES)
        .saturating_add(below)
}

/// Bytes as people read them.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

const KINDS: List<'static> = List {
    columns: &[
        column("KIND", "kind", false),
        column("COUNT", "count", true),
        column("IN USE", "in_use", true),
        column("ON DISK", "disk", true),
        column("SPARE", "spare", true),
    ],
    key: "kind",
    fields: &[
        "kind",
        "count",
        "in_use",
        "disk",
        "disk_bytes",
        "spare",
        "spare_bytes",
    ],
};

const ITEMS: List<'static> = List {
    columns: &[
        column("KIND", "kind", false),
        column("ON DISK", "disk", true),
        column("SPARE", "spare", true),
        column("IN USE", "in_use", false),
        column("NAME", "name", false),
    ],
    key: "name",
    fields: &[
        "kind",
        "name",
        "in_use",
        "disk",
        "disk_bytes",
        "spare",
        "spare_bytes",
    ],
};

fn row(value: Value, bytes: u64, spare_bytes: u64) -> Row {
    let mut row = match value {
        Value::Object(row) => row,
        _ => Row::new(),
    };
    row.insert("disk".into(), mebibytes(bytes).into());
    row.insert("disk_bytes".into(), bytes.into());
    row.insert("spare".into(), mebibytes(spare_bytes).into());
    row.insert("spare_bytes".into(), spare_bytes.into());
    row
}

fn item_row(item: &Item) -> Row {
    let named = json!({"kind": item.kind, "name": item.name, "in_use": item.is_used});
    row(named, item.bytes, item.spare_bytes)
}

/// Says what is on the disk, and what of it nothing needs.
pub fn du(arguments: &DuArguments) -> Result<u8, Error> {
    let items = Places::find(arguments.snapshots_dir.as_ref())?.items()?;
    if arguments.verbose {
        ITEMS.print(items.iter().map(item_row).collect(), &arguments.list)?;
        return Ok(0);
    }
    // All kinds, also those there is nothing of.
    let kinds = ["snapshot", "base", "fork", "layer", "machine"];
    let rows = kinds.iter().map(|kind| {
        let of_kind = || items.iter().filter(|item| item.kind == *kind);
        let in_use = of_kind().filter(|item| item.is_used).count();
        let total = |bytes: fn(&Item) -> u64| of_kind().map(bytes).fold(0, u64::saturating_add);
        row(
            json!({"kind": kind, "count": of_kind().count(), "in_use": in_use}),
            total(|item| item.bytes),
            total(|item| item.spare_bytes),
        )
    });
    KINDS.print(rows.collect(), &arguments.list)?;
    Ok(0)
}

/// Removes what nothing needs: generations of snapshots that were replaced, what
/// killed processes left, bases without snapshots, and layers in no snapshot.
pub fn gc(arguments: &GcArguments) -> Result<u8, Error> {
    let places = Places::find(arguments.snapshots_dir.as_ref())?;
    let spare: Vec<Layer> = places
        .layer_files()
        .into_iter()
        .filter(|layer| layer.is_spare(arguments.all))
        .collect();
    let before = places.items()?;
    let mut rows = Vec::new();
    for layer in &spare {
        if !arguments.dry_run {
            fs::remove_file(&layer.path).map_err(Error::host("cannot remove", &layer.path))?;
        }
        let named = json!({"kind": "layer", "name": layer.name, "in_use": false});
        rows.push(row(named, layer.bytes(), layer.bytes()));
    }
    if arguments.dry_run {
        let stored =
            |item: &&Item| item.kind != "layer" && item.kind != "machine" && item.spare_bytes > 0;
        rows.extend(before.iter().filter(stored).map(item_row));
        ITEMS.print(rows, &arguments.list)?;
        return Ok(0);
    }
    for (kind, store) in places.stores() {
        for name in directories(store.root()) {
            if kind == "fork" {
                fork::remove_unless_used(&store.root().join(name))?;
                continue;
            }
            match store.lock(&name, Duration::ZERO) {
                Ok(lock) => drop(lock.collect()?),
                // Whoever bakes it sees to it. What is no snapshot's name is not ours.
                Err(SnapshotError::Locked { .. } | SnapshotError::Name { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        store.sweep()?;
    }
    if let Some(store) = &places.snapshots {
        base::prune(store.root())?;
    }
    if let Some(cache) = places.layers.as_ref().and_then(|layers| layers.parent()) {
        // Opening it removes what killed processes left there.
        oci_bake::Store::open(cache)?;
    }
    // Of files that are gone nobody wants them, and of others they are soon made again.
    if let Ok(notes) = stamp::notes() {
        let _ = fs::remove_dir_all(notes);
    }
    rows.extend(freed(&before, &places.items()?));
    ITEMS.print(rows, &arguments.list)?;
    Ok(0)
}

/// What snapshots and bases have given back.
fn freed(before: &[Item], after: &[Item]) -> Vec<Row> {
    let key = |item: &Item| (item.kind, item.name.clone());
    let after: BTreeMap<_, u64> = after.iter().map(|item| (key(item), item.bytes)).collect();
    let stored = |item: &&Item| matches!(item.kind, "snapshot" | "base" | "fork");
    let given = before.iter().filter(stored).filter_map(|item| {
        let left = after.get(&key(item)).copied().unwrap_or(0);
        let freed = item.bytes.saturating_sub(left);
        let named = json!({"kind": item.kind, "name": item.name, "in_use": item.is_used});
        (freed > 0).then(|| row(named, left, freed))
    });
    given.collect()
}
