//! `supermachine du` and `gc`: what is on the disk, and what of it nothing needs.

use super::list::{List, ListOptions, Row, column};
use super::{detached, values};
use crate::image::default_cache;
use crate::store::usage;
use crate::{Error, GcOptions, Store, StoreItem, StoreKind, snapshots_dir};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Bytes that layers may take, or with a unit (500m, 20g): those that were not used
    /// for longest go too
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    max_size: Option<u64>,
    /// Read all layers, and remove the damaged ones that nothing has
    #[arg(long)]
    verify: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    list: ListOptions,
}

/// The user's store, with snapshots elsewhere if that was asked for.
fn store(dir: Option<&PathBuf>) -> Result<Store, Error> {
    let snapshots = match dir {
        Some(dir) => Some(dir.clone()),
        // Without a home there are none.
        None => snapshots_dir().ok(),
    };
    Store::of(snapshots, default_cache().ok())
}

/// Machines that have ended or not, with their logs.
fn machines() -> Vec<StoreItem> {
    let mut seen = HashSet::new();
    let records = detached::all().into_iter();
    let item = |record: detached::Record| {
        let bytes = usage(record.dir(), &mut seen);
        let in_use = record.is_supervised();
        let spare_bytes = if in_use { 0 } else { bytes };
        StoreItem::of_machine(record.id.clone(), bytes, in_use, spare_bytes)
    };
    records.map(item).collect()
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

fn item_row(item: &StoreItem) -> Row {
    let named = json!({"kind": item.kind.word(), "name": item.name, "in_use": item.in_use});
    row(named, item.bytes, item.spare_bytes)
}

/// Says what is on the disk, and what of it nothing needs.
pub fn du(arguments: &DuArguments) -> Result<u8, Error> {
    let store = store(arguments.snapshots_dir.as_ref())?;
    let mut items = store.du()?;
    items.extend(machines());
    if arguments.verbose {
        ITEMS.print(items.iter().map(item_row).collect(), &arguments.list)?;
        return Ok(0);
    }
    // All kinds, also those there is nothing of.
    let kinds = [
        StoreKind::Snapshot,
        StoreKind::Base,
        StoreKind::Fork,
        StoreKind::Layer,
        StoreKind::Document,
        StoreKind::Name,
        StoreKind::Partial,
        StoreKind::Machine,
    ];
    let rows = kinds.iter().map(|kind| {
        let of_kind = || items.iter().filter(|item| item.kind == *kind);
        let in_use = of_kind().filter(|item| item.in_use).count();
        let total = |bytes: fn(&StoreItem) -> u64| {
            let all = of_kind().map(bytes);
            all.fold(0, u64::saturating_add)
        };
        row(
            json!({"kind": kind.word(), "count": of_kind().count(), "in_use": in_use}),
            total(|item| item.bytes),
            total(|item| item.spare_bytes),
        )
    });
    KINDS.print(rows.collect(), &arguments.list)?;
    Ok(0)
}

/// Removes what nothing needs, as [`Store::gc`] does.
pub fn gc(arguments: &GcArguments) -> Result<u8, Error> {
    let mut options = GcOptions::default();
    if arguments.all {
        options.unused_for = Duration::ZERO;
    }
    options.max_bytes = arguments.max_size;
    options.verify = arguments.verify;
    options.dry_run = arguments.dry_run;
    let gone = store(arguments.snapshots_dir.as_ref())?.gc(&options)?;
    let rows = gone.into_iter().map(|item| item_row(&item));
    ITEMS.print(rows.collect(), &arguments.list)?;
    Ok(0)
}
