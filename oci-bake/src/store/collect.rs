//! What is in the cache, and removing what nothing needs.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::lease::{Leased, files_of, stem};
use super::{ALIGN, FOOTER_MAGIC, Store, check, partial};
use crate::digest::Digest;
use crate::error::BakeError;
use crate::limits::Limits;
use crate::no_follow::open_in_cache;
use crate::section::{ReadAt, Section};

/// Unit of a file's blocks (POSIX, sys/stat.h on every system we know).
const BLOCK_BYTES: u64 = 512;
/// A document as young as this may be that of an image which is being pulled.
const YOUNG: Duration = Duration::from_secs(3600);
const SUFFIX: &str = ".squashfs";

/// What a file of the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A converted layer.
    Layer,
    /// A manifest, index or config of an image from a registry.
    Document,
    /// What the name of an image in a registry led to.
    Name,
    /// What came of a blob whose layer is not here yet; the next pull goes on with it.
    Partial,
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreEntry {
    /// What it holds.
    pub kind: EntryKind,
    /// The file's name; of a [`EntryKind::Name`] the name itself.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes it takes on the disk.
    pub bytes: u64,
    /// When a layer was used last, to the hour; when anything else was written.
    pub used: SystemTime,
    /// Whether something has it: a layer a snapshot, a machine or a bake; a document a
    /// name; a name all layers of its image; of a [`EntryKind::Partial`], whether somebody
    /// is getting the rest.
    pub in_use: bool,
    /// Whether it is not what it should be, as far as was looked; also what an earlier
    /// version wrote and this one makes anew.
    pub is_damaged: bool,
}

/// What [`Store::gc`] removes. By default: all layers that nothing has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GcOptions {
    /// Layers that were used within this time stay, and so do blobs of which something came
    /// within it.
    pub unused_for: Duration,
    /// Bytes on the disk to get down to: of the layers that nothing has, those that were
    /// not used for longest go, also if they were used within
    /// [`unused_for`](Self::unused_for).
    pub max_bytes: Option<u64>,
    /// Also read everything, and remove what is damaged and not in use.
    pub verify: bool,
    /// Remove nothing, and say what would be.
    pub dry_run: bool,
}

impl Store {
    /// Opens a cache as [`Store::open`] does, if there is one. Nothing is made or removed.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn existing(dir: impl Into<PathBuf>) -> Result<Option<Self>, BakeError> {
        let dir = dir.into();
        match fs::symlink_metadata(dir.join("layers")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::of_directories(dir).map(Some),
        }
    }

    /// Everything in the cache, by kind and name.
    ///
    /// # Errors
    /// [`BakeError::Store`] when it cannot be read.
    pub fn du(&self) -> Result<Vec<StoreEntry>, BakeError> {
        self.entries(&self.leased_now(), false)
    }

    /// What of the cache is damaged, after reading all of it.
    ///
    /// # Errors
    /// [`BakeError::Store`] when it cannot be read.
    pub fn verify(&self) -> Result<Vec<StoreEntry>, BakeError> {
        let mut entries = self.entries(&self.leased_now(), true)?;
        entries.retain(|entry| entry.is_damaged);
        Ok(entries)
    }

    /// Removes what nothing needs, and gives what that was. Of layers, what a snapshot, a
    /// machine or a bake of any process has stays; see [`GcOptions`] for the rest. Names
    /// of images whose layers are not all here go too, and documents that no name leads
    /// to. Other processes may use the cache meanwhile; being killed half way leaves a
    /// cache that is whole.
    ///
    /// # Errors
    /// [`BakeError::Store`] when something cannot be read or removed.
    pub fn gc(&self, options: &GcOptions) -> Result<Vec<StoreEntry>, BakeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| BakeError::Store { path, source }
        };
        // Reading everything takes long, and nobody waits for it.
        let damaged: BTreeSet<PathBuf> = match options.verify {
            true => self.verify()?.into_iter().map(|entry| entry.path).collect(),
            false => BTreeSet::new(),
        };
        let mark = |entries: &mut Vec<StoreEntry>| {
            for entry in entries {
                entry.is_damaged |= damaged.contains(&entry.path);
            }
        };
        let (_lock, leased) = match options.dry_run {
            true => (None, self.leased_now()),
            false => match self.leased().map_err(failed(&self.locks()))? {
                Some((lock, leased)) => (Some(lock), leased),
                // Another process is at it.
                None => return Ok(Vec::new()),
            },
        };
        let mut layers = self.layer_entries(&leased, false)?;
        mark(&mut layers);
        let victims = victims(&mut layers, options);
        let present = stems(&layers);
        let (names, needed) = self.name_entries(&present)?;
        let mut documents = self.document_entries(&needed, false)?;
        mark(&mut documents);
        let mut gone = victims;
        gone.extend(names.into_iter().filter(|name| !name.in_use));
        let now = SystemTime::now();
        documents.retain(|document| {
            let is_young = now
                .duration_since(document.used)
                .is_ok_and(|age| age < YOUNG);
            document.is_damaged || !(document.in_use || is_young)
        });
        gone.extend(documents);
        gone.extend(self.partial_entries().into_iter().filter(|partial| {
            let age = now.duration_since(partial.used).unwrap_or_default();
            !partial.in_use && age >= options.unused_for
        }));
        if !options.dry_run {
            for entry in &gone {
                match fs::remove_file(&entry.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(&entry.path)(error));
                    }
                    _ => {}
                }
            }
            self.remove_old_locks();
            self.sweep().map_err(failed(&self.layers()))?;
        }
        Ok(gone)
    }

    fn entries(&self, leased: &Leased, verify: bool) -> Result<Vec<StoreEntry>, BakeError> {
        let mut entries = self.layer_entries(leased, verify)?;
        let (names, needed) = self.name_entries(&stems(&entries))?;
        entries.extend(self.document_entries(&needed, verify)?);
        entries.extend(names);
        entries.extend(self.partial_entries());
        Ok(entries)
    }

    fn layer_entries(&self, leased: &Leased, verify: bool) -> Result<Vec<StoreEntry>, BakeError> {
        let layers = self.layers();
        // Unlike the others it is always there.
        fs::read_dir(&layers).map_err(|source| BakeError::Store {
            path: layers.clone(),
            source,
        })?;
        let mut found = Vec::new();
        for path in files_of(&layers) {
            let Some((mut entry, metadata)) = entry(EntryKind::Layer, path) else {
                continue;
            };
            let Some(name) = entry.name.strip_suffix(SUFFIX) else {
                continue;
            };
            entry.is_damaged = !self.is_sound(&entry.path, name, verify);
            // A snapshot has it as a further name.
            entry.in_use = metadata.nlink() > 1 || leased.has(name);
            found.push(entry);
        }
        Ok(found)
    }

    /// Whether a layer is one of this version; and whole, if that is to be found out.
    fn is_sound(&self, path: &Path, name: &str, verify: bool) -> bool {
        let Ok(file) = open_in_cache(OpenOptions::new().read(true), path) else {
            return false;
        };
        let Ok(section) = Section::whole(file) else {
            return false;
        };
        if verify {
            return check(&self.cancel.watch(section), name, true).is_some();
        }
        let mut magic = [0; 8];
        let at = section.len().checked_sub(ALIGN);
        at.is_some_and(|at| section.read_exact_at(&mut magic, at).is_ok()) && magic == *FOOTER_MAGIC
    }

    /// Names, and the documents that those lead to whose images are here whole.
    fn name_entries(
        &self,
        present: &BTreeSet<String>,
    ) -> Result<(Vec<StoreEntry>, BTreeSet<String>), BakeError> {
        let mut needed = BTreeSet::new();
        let mut found = Vec::new();
        for path in files_of(&self.names()) {
            let Some((mut entry, _)) = entry(EntryKind::Name, path) else {
                continue;
            };
            match self.remembered_in(&entry.path) {
                Some((name, root)) => {
                    entry.name = name;
                    let documents = self.documents_of(root, present);
                    entry.in_use = documents.is_some();
                    needed.extend(documents.into_iter().flatten());
                }
                None => entry.is_damaged = true,
            }
            found.push(entry);
        }
        Ok((found, needed))
    }

    fn document_entries(
        &self,
        needed: &BTreeSet<String>,
        verify: bool,
    ) -> Result<Vec<StoreEntry>, BakeError> {
        let mut found = Vec::new();
        for path in files_of(&self.documents()) {
            let Some((mut entry, _)) = entry(EntryKind::Document, path) else {
                continue;
            };
            entry.in_use = needed.contains(&entry.name);
            entry.is_damaged = verify && !is_named_by_content(&entry.path, &entry.name);
            found.push(entry);
        }
        Ok(found)
    }

    fn partial_entries(&self) -> Vec<StoreEntry> {
        let paths = files_of(&self.partials()).into_iter();
        let entries = paths.filter_map(|path| entry(EntryKind::Partial, path));
        entries
            .map(|(mut entry, _)| {
                entry.in_use = partial::is_held(&entry.path);
                entry
            })
            .collect()
    }

    /// Locks that nobody has had for long. If somebody takes one just now, two may do the
    /// same work, with the same result.
    fn remove_old_locks(&self) {
        for path in files_of(&self.locks()) {
            let is_lock = path.extension().is_some_and(|end| end == "lock");
            let is_old = |metadata: fs::Metadata| {
                let age = metadata.modified().ok()?.elapsed().ok()?;
                Some(metadata.is_file() && age > YOUNG)
            };
            let metadata = fs::symlink_metadata(&path).ok();
            if is_lock
                && metadata.and_then(is_old) == Some(true)
                && let Ok(file) = open_in_cache(OpenOptions::new().read(true), &path)
                && file.try_lock().is_ok()
            {
                // There is no one to tell.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

/// Takes those out of `layers` that are to go.
fn victims(layers: &mut Vec<StoreEntry>, options: &GcOptions) -> Vec<StoreEntry> {
    let now = SystemTime::now();
    let is_old = |entry: &StoreEntry| {
        let age = now.duration_since(entry.used).unwrap_or_default();
        age >= options.unused_for
    };
    let (mut gone, kept): (Vec<_>, Vec<_>) = layers
        .drain(..)
        .partition(|entry| !entry.in_use && (entry.is_damaged || is_old(entry)));
    *layers = kept;
    if let Some(max_bytes) = options.max_bytes {
        layers.sort_by_key(|entry| entry.used);
        let mut bytes = layers
            .iter()
            .fold(0, |sum: u64, entry| sum.saturating_add(entry.bytes));
        layers.retain(|entry| {
            let goes = bytes > max_bytes && !entry.in_use;
            if goes {
                bytes = bytes.saturating_sub(entry.bytes);
                gone.push(entry.clone());
            }
            !goes
        });
    }
    gone.sort_by(|one, other| one.name.cmp(&other.name));
    gone
}

/// The digests of layers that are here.
fn stems(layers: &[StoreEntry]) -> BTreeSet<String> {
    let stems = layers.iter().filter_map(|layer| stem(&layer.name));
    stems.map(str::to_owned).collect()
}

/// A regular file of the cache, as far as its attributes say what it is. What is being
/// written is none.
fn entry(kind: EntryKind, path: PathBuf) -> Option<(StoreEntry, fs::Metadata)> {
    let name = path.file_name()?.to_str()?.to_owned();
    let metadata = fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || name.starts_with('.') {
        return None;
    }
    let second = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let used = match kind {
        // Noted there by `find`, and by whoever made or removed a further name.
        EntryKind::Layer => metadata.atime().max(metadata.ctime()),
        EntryKind::Document | EntryKind::Name | EntryKind::Partial => metadata.mtime(),
    };
    let entry = StoreEntry {
        kind,
        name,
        path,
        bytes: metadata.blocks().saturating_mul(BLOCK_BYTES),
        used: SystemTime::UNIX_EPOCH + second(used),
        in_use: false,
        is_damaged: false,
    };
    Some((entry, metadata))
}

/// Whether a document has the digest that it is called by.
fn is_named_by_content(path: &Path, name: &str) -> bool {
    let digest = name.replacen('-', ":", 1).parse::<Digest>();
    let read = open_in_cache(OpenOptions::new().read(true), path).and_then(|file| {
        let mut bytes = Vec::new();
        let limit = Limits::default().max_document_bytes;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match (digest, read) {
        (Ok(digest), Ok(bytes)) => Digest::of(digest.algorithm(), &bytes) == digest,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, bytes: u64, age_s: u64, in_use: bool) -> StoreEntry {
        StoreEntry {
            kind: EntryKind::Layer,
            name: name.to_owned(),
            path: PathBuf::new(),
            bytes,
            used: SystemTime::now() - Duration::from_secs(age_s),
            in_use,
            is_damaged: false,
        }
    }

    /// Names of layers that go and of those that stay.
    fn chosen(options: &GcOptions) -> (String, String) {
        let mut layers = vec![
            layer("a", 100, 5_000, false),
            layer("b", 100, 90_000, true),
            layer("c", 100, 80_000, false),
            layer("d", 100, 70_000, false),
            layer("e", 100, 10, false),
        ];
        let gone = victims(&mut layers, options);
        layers.sort_by(|one, other| one.name.cmp(&other.name));
        let names =
            |layers: &[StoreEntry]| layers.iter().map(|layer| layer.name.as_str()).collect();
        (names(&gone), names(&layers))
    }

    #[test]
    fn of_what_nothing_has_the_least_lately_used_goes_first() {
        let options = |hours: u64, max_bytes| GcOptions {
            unused_for: Duration::from_secs(hours * 3600),
            max_bytes,
            ..GcOptions::default()
        };
        for (hours, max_bytes, gone, kept) in [
            (0, None, "acde", "b"),
            (20, None, "c", "abde"),
            (100, None, "", "abcde"),
            (100, Some(500), "", "abcde"),
            (100, Some(499), "c", "abde"),
            (100, Some(300), "cd", "abe"),
            (20, Some(300), "cd", "abe"),
            (100, Some(0), "acde", "b"),
        ] {
            let expected = (gone.to_owned(), kept.to_owned());
            assert_eq!(
                chosen(&options(hours, max_bytes)),
                expected,
                "{hours} {max_bytes:?}"
            );
        }
    }

    #[test]
    fn a_time_in_the_future_is_no_reason_to_remove_something() {
        let mut layers = vec![layer("a", 1, 0, false)];
        layers[0].used += Duration::from_secs(1 << 20);
        let mut options = GcOptions {
            unused_for: Duration::from_secs(1),
            ..GcOptions::default()
        };
        assert!(victims(&mut layers, &options).is_empty());
        options.unused_for = Duration::ZERO;
        assert_eq!(victims(&mut layers, &options).len(), 1);
    }
}
