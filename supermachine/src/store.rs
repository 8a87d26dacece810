//! What this crate keeps on the disk, and removing what nothing needs.

use crate::base;
use crate::image::default_cache;
use crate::limits::{LAYER_REST, REMOVAL_LOCK_TIMEOUT};
use crate::{Error, snapshots_dir, stamp};
use oci_bake::{EntryKind, StoreEntry};
use snapshot::SnapshotError;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Unit of a file's blocks (POSIX, sys/stat.h on every system we know).
pub(crate) const BLOCK_BYTES: u64 = 512;
/// Where the snapshots of forks are, among snapshots: no image can have that name.
const FORKS: &str = ".forks";

/// What something on the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// A snapshot of an image.
    Snapshot,
    /// Memory that snapshots have in common.
    Base,
    /// What forks were copied from.
    Fork,
    /// A layer of an image, converted.
    Layer,
    /// A manifest, index or config of an image from a registry.
    Document,
    /// What the name of an image in a registry led to.
    Name,
    /// What came of a blob of an image that is not all here yet; the next pull goes on with
    /// it.
    Partial,
    /// A machine that was started with `supermachine run --detach`, with its log.
    Machine,
}

impl StoreKind {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Base => "base",
            Self::Fork => "fork",
            Self::Layer => "layer",
            Self::Document => "document",
            Self::Name => "name",
            Self::Partial => "partial",
            Self::Machine => "machine",
        }
    }
}

/// Something on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreItem {
    /// What it is.
    pub kind: StoreKind,
    /// The name of a snapshot or an image, or of a file.
    pub name: String,
    /// Bytes it takes on the disk. What several have counts for the first of them.
    pub bytes: u64,
    /// Whether something has it: of a snapshot a machine or a bake, of a layer a snapshot
    /// too, of a document the name of an image, of that all its layers.
    pub in_use: bool,
    /// Bytes that [`Store::gc`] gives back.
    pub spare_bytes: u64,
}

impl StoreItem {
    /// A machine with its log, which the command line keeps beside the store.
    #[cfg(feature = "cli")]
    pub(crate) fn of_machine(name: String, bytes: u64, in_use: bool, spare_bytes: u64) -> Self {
        Self {
            kind: StoreKind::Machine,
            name,
            bytes,
            in_use,
            spare_bytes,
        }
    }
}

/// Something that is not as it was written.
#[derive(Debug)]
#[non_exhaustive]
pub struct Damage {
    /// What it is.
    pub kind: StoreKind,
    /// Its name.
    pub name: String,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// What [`Store::gc`] removes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GcOptions {
    /// Layers that were used within this time stay, and what came of blobs within it: 25
    /// hours, unless it is set.
    pub unused_for: Duration,
    /// Bytes that layers may take: of those that nothing has, the ones that were not
    /// used for longest go until the rest is no more.
    pub max_bytes: Option<u64>,
    /// Also read all of the layers, and remove the damaged ones that nothing has.
    pub verify: bool,
    /// Remove nothing, and say what would be.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            unused_for: LAYER_REST,
            max_bytes: None,
            verify: false,
            dry_run: false,
        }
    }
}

/// The snapshots of a user, and the layers of images, which any number of processes
/// share.
///
/// ```no_run
/// let store = supermachine::Store::open()?;
/// let bytes: u64 = store.du()?.iter().map(|item| item.bytes).sum();
/// println!("{} MiB", bytes >> 20);
/// store.gc(&supermachine::GcOptions::default())?;
/// # Ok::<(), supermachine::Error>(())
/// ```
#[derive(Debug)]
pub struct Store {
    snapshots: Option<snapshot::Store>,
    bases: Option<snapshot::Store>,
    forks: Option<snapshot::Store>,
    images: Option<oci_bake::Store>,
}

impl Store {
    /// What the user has: in [`snapshots_dir`] and where [`crate::Image::load`] caches
    /// layers. Nothing is made, and nothing need be there.
    ///
    /// # Errors
    /// [`Error::Snapshot`] or [`Error::Image`] if something else is in the place of a
    /// directory.
    pub fn open() -> Result<Self, Error> {
        // Without a home there is nothing.
        Self::of(snapshots_dir().ok(), default_cache().ok())
    }

    /// The same in directories as [`crate::OciImageBuilder`] takes them.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_directories(
        snapshots_dir: impl Into<PathBuf>,
        layer_cache: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        Self::of(Some(snapshots_dir.into()), Some(layer_cache.into()))
    }

    pub(crate) fn of(snapshots: Option<PathBuf>, images: Option<PathBuf>) -> Result<Self, Error> {
        let existing = |root: Option<PathBuf>| match root.map(snapshot::Store::existing) {
            None => Ok(None),
            Some(Ok(store)) => Ok(Some(store)),
            Some(Err(SnapshotError::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {
                Ok(None)
            }
            Some(Err(error)) => Err(error),
        };
        let images = match images {
            Some(images) => oci_bake::Store::existing(images)?,
            None => None,
        };
        Ok(Self {
            bases: existing(snapshots.as_deref().map(base::directory))?,
            forks: existing(snapshots.as_deref().map(forks))?,
            snapshots: existing(snapshots)?,
            images,
        })
    }

    fn stores(&self) -> impl Iterator<Item = (StoreKind, &snapshot::Store)> {
        let snapshots = self
            .snapshots
            .iter()
            .map(|store| (StoreKind::Snapshot, store));
        let bases = self.bases.iter().map(|store| (StoreKind::Base, store));
        let forks = self.forks.iter().map(|store| (StoreKind::Fork, store));
        snapshots.chain(bases).chain(forks)
    }

    /// All there is.
    ///
    /// # Errors
    /// [`Error::Snapshot`] or [`Error::Image`] if something cannot be looked at.
    pub fn du(&self) -> Result<Vec<StoreItem>, Error> {
        let mut seen = HashSet::new();
        let mut items = Vec::new();
        let mut spare = HashSet::new();
        if let Some(images) = &self.images {
            let mut options = cached(&GcOptions::default());
            options.dry_run = true;
            spare.extend(images.gc(&options)?.into_iter().map(|entry| entry.path));
            for entry in images.du()? {
                if let Ok(metadata) = fs::symlink_metadata(&entry.path) {
                    seen.insert((metadata.dev(), metadata.ino()));
                }
                items.push(item(&entry, spare.contains(&entry.path)));
            }
        }
        for (kind, store) in self.stores() {
            for name in names(store.root()) {
                items.push(stored(kind, store, name, &mut seen)?);
            }
        }
        Ok(items)
    }

    /// Compares everything with its checksums, which reads all of it.
    ///
    /// # Errors
    /// [`Error::Image`] or [`Error::Snapshot`] if something cannot be looked at; what is
    /// damaged is no error.
    pub fn verify(&self) -> Result<Vec<Damage>, Error> {
        let mut damages = Vec::new();
        if let Some(images) = &self.images {
            damages.extend(images.verify()?.into_iter().map(|entry| {
                Damage {
                    kind: kind_of(entry.kind),
                    name: entry.name,
                    reason: "it is not what was written; remove it with `supermachine gc --verify`"
                        .to_owned(),
                }
            }));
        }
        for (kind, store) in self.stores() {
            for name in store.names()? {
                let checked = store.inspect(&name).and_then(|found| found.verify());
                match checked {
                    // Removed meanwhile.
                    Ok(()) | Err(SnapshotError::NotFound { .. }) => {}
                    Err(error) => damages.push(Damage {
                        kind,
                        name,
                        reason: crate::error::with_causes(&Error::from(error)),
                    }),
                }
            }
        }
        Ok(damages)
    }

    /// Removes what nothing needs, and gives what that was: generations of snapshots that
    /// were replaced, what killed processes left, bases that no snapshot shares, snapshots of
    /// forks that have ended, layers in no snapshot, and what was remembered of images
    /// whose layers are gone. What a machine or a bake of any process has stays.
    ///
    /// # Errors
    /// [`Error::Snapshot`], [`Error::Image`] or [`Error::Host`] if something cannot be
    /// removed.
    pub fn gc(&self, options: &GcOptions) -> Result<Vec<StoreItem>, Error> {
        let before = self.du()?;
        let mut gone = Vec::new();
        if let Some(images) = &self.images {
            let entries = images.gc(&cached(options))?;
            gone.extend(entries.iter().map(|entry| item(entry, true)));
        }
        let is_stored = |item: &&StoreItem| {
            matches!(
                item.kind,
                StoreKind::Snapshot | StoreKind::Base | StoreKind::Fork
            )
        };
        if options.dry_run {
            let spare = before.into_iter().filter(|item| item.spare_bytes > 0);
            gone.extend(spare.filter(|item| is_stored(&item)));
            return Ok(gone);
        }
        for (kind, store) in self.stores() {
            for name in names(store.root()) {
                if kind == StoreKind::Fork {
                    remove_unless_used(&store.root().join(name))?;
                    continue;
                }
                match store.lock(&name, Duration::ZERO) {
                    Ok(lock) => {
                        lock.collect()?;
                        if kind == StoreKind::Base
                            && !lock.is_in_use()?
                            && !base::is_shared(store, &name)
                        {
                            lock.remove()?;
                        }
                    }
                    // Its baker removes what is left of it. What has no snapshot's name is not ours.
                    Err(SnapshotError::Locked { .. } | SnapshotError::Name { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            store.sweep()?;
        }
        if let Some(store) = &self.snapshots {
            base::prune(store.root())?;
        }
        // Of files that are gone nobody wants them, and of others they are soon made again.
        if let Ok(notes) = stamp::notes() {
            let _ = fs::remove_dir_all(notes);
        }
        let key = |item: &StoreItem| (item.kind, item.name.clone());
        let after = self.du()?;
        let left: BTreeMap<_, u64> = after.iter().map(|item| (key(item), item.bytes)).collect();
        gone.extend(before.iter().filter(is_stored).filter_map(|item| {
            let bytes = left.get(&key(item)).copied().unwrap_or(0);
            let spare_bytes = item.bytes.saturating_sub(bytes);
            (spare_bytes > 0).then(|| StoreItem {
                bytes,
                spare_bytes,
                ..item.clone()
            })
        }));
        Ok(gone)
    }
}

/// The same for the cache of images.
fn cached(options: &GcOptions) -> oci_bake::GcOptions {
    let mut cached = oci_bake::GcOptions::default();
    cached.unused_for = options.unused_for;
    cached.max_bytes = options.max_bytes;
    cached.verify = options.verify;
    cached.dry_run = options.dry_run;
    cached
}

fn kind_of(kind: EntryKind) -> StoreKind {
    match kind {
        EntryKind::Document => StoreKind::Document,
        EntryKind::Name => StoreKind::Name,
        EntryKind::Partial => StoreKind::Partial,
        _ => StoreKind::Layer,
    }
}

fn item(entry: &StoreEntry, is_spare: bool) -> StoreItem {
    StoreItem {
        kind: kind_of(entry.kind),
        name: entry.name.clone(),
        bytes: entry.bytes,
        in_use: entry.in_use,
        spare_bytes: if is_spare { entry.bytes } else { 0 },
    }
}

/// Names in a store, also those whose snapshot was taken away.
fn names(root: &Path) -> Vec<String> {
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
    kind: StoreKind,
    store: &snapshot::Store,
    name: String,
    seen: &mut HashSet<(u64, u64)>,
) -> Result<StoreItem, Error> {
    let directory = store.root().join(&name);
    let in_use = match store.lock(&name, Duration::ZERO) {
        Ok(lock) => lock.is_in_use()?,
        // Somebody bakes it.
        Err(SnapshotError::Locked { .. }) => true,
        // Not ours, or no name of a snapshot.
        Err(_) => false,
    };
    let nobody_shares = kind == StoreKind::Base && !base::is_shared(store, &name);
    let current = store.inspect(&name).ok();
    let current = current.as_ref().map(|found| found.path().to_owned());
    let (mut bytes, mut spare_bytes) = (0_u64, 0_u64);
    for entry in entries(&directory) {
        let taken = usage(&entry.path(), seen);
        bytes = bytes.saturating_add(taken);
        let is_old =
            entry.path().is_dir() && current.as_ref().is_some_and(|now| *now != entry.path());
        // Nobody asks for the snapshot of forks that have ended, and a base that is wanted
        // again is soon made.
        if !in_use && (is_old || kind == StoreKind::Fork || nobody_shares) {
            spare_bytes = spare_bytes.saturating_add(taken);
        }
    }
    Ok(StoreItem {
        kind,
        name,
        bytes,
        in_use,
        spare_bytes,
    })
}

/// Bytes on the disk of a file or directory, without what was seen before.
pub(crate) fn usage(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
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

/// Where the snapshots of forks are in a directory of snapshots.
pub(crate) fn forks(root: &Path) -> PathBuf {
    root.join(FORKS)
}

/// Removes the snapshot that forks were copied from, if none of them runs any more.
pub(crate) fn remove_unless_used(directory: &Path) -> Result<(), Error> {
    let name = directory.file_name().and_then(|name| name.to_str());
    let (Some(root), Some(name)) = (directory.parent(), name) else {
        return Ok(());
    };
    if !directory.is_dir() {
        return Ok(());
    }
    // Of several that end at once each looks, so that the last one sees it.
    let lock = snapshot::Store::existing(root)?.lock(name, REMOVAL_LOCK_TIMEOUT)?;
    if lock.is_in_use()? {
        return Ok(());
    }
    match lock.remove() {
        Err(SnapshotError::NotFound { .. }) => Ok(()),
        removed => Ok(removed?),
    }
}
