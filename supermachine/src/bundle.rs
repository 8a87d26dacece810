//! Snapshots as files, to be taken to other hosts.

use crate::limits::SNAPSHOT_LOCK_TIMEOUT;
use crate::template::Template;
use crate::whole::write_whole;
use crate::{Error, Image, VmConfig, stamp};
use snapshot::{FileEntry, Inspection, Store, SystemFiles};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is read and written at a time.
const BUFFER_BYTES: usize = 1 << 20;

impl Image {
    /// Writes the snapshot into a file, for [`Image::import`] on this host or another.
    /// Nobody sees the file before it is whole.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] if the image has no snapshot; [`Error::Snapshot`] or
    /// [`Error::Host`] if something cannot be read or written.
    pub fn export(&self, file: impl AsRef<Path>) -> Result<(), Error> {
        let template = self.template().ok_or(Error::Unsuitable {
            what: "an export",
            needs: "an image with a snapshot: bake it",
        })?;
        export(template.snapshot(), file.as_ref())
    }

    /// Makes a snapshot of a file that [`Image::export`] has written, in the directory
    /// `dest`: a new generation, if there is a snapshot already. All of it is compared
    /// with its checksums first.
    ///
    /// The maker of the file decides what runs in the machines: import only files of
    /// people you trust with that.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if it is no such file, or damaged, or does not fit this host,
    /// kernel or version; [`Error::Host`] if it cannot be read.
    pub fn import(file: impl AsRef<Path>, dest: impl AsRef<Path>) -> Result<Self, Error> {
        let dest = dest.as_ref();
        let name = dest.file_name().and_then(|name| name.to_str());
        let (Some(root), Some(name)) = (dest.parent(), name) else {
            return Err(Error::Unsuitable {
                what: "an import",
                needs: "a directory with a name to go to",
            });
        };
        // A path of one word is in the current directory.
        let is_here = root.as_os_str().is_empty();
        let root = if is_here { Path::new(".") } else { root };
        let template = import(file.as_ref(), root, Some(name), None)?;
        Ok(Self::from_template(Arc::new(template), None))
    }
}

/// Writes a snapshot into a file. Memory of a machine may hold secrets: it is the user's alone.
pub(crate) fn export(found: &Inspection, file: &Path) -> Result<(), Error> {
    write_whole(file, |to| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, to);
        found.export(&mut out)?;
        out.flush().map_err(Error::host("cannot write", file))
    })
}

/// Makes a snapshot in a directory of them of what is in a file. Layers that are in
/// `cache` already are shared with it.
pub(crate) fn import(
    file: &Path,
    root: &Path,
    name: Option<&str>,
    cache: Option<&Path>,
) -> Result<Template, Error> {
    let here = stamp::here(&VmConfig::new())?;
    let opened = File::open(file).map_err(Error::host("cannot read", file))?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, opened);
    fs::create_dir_all(root).map_err(Error::host("cannot create", root))?;
    let store = Store::new(root)?;
    let mut known = |name: &str, entry: FileEntry| -> Option<PathBuf> {
        let path = cache?.join("layers").join(name);
        let is_same = FileEntry::of(&SystemFiles, &path).is_ok_and(|found| found == entry);
        is_same.then_some(path)
    };
    let imported = store.import(name, &mut input, &here, SNAPSHOT_LOCK_TIMEOUT, &mut known)?;
    Template::new(imported, &here)
}
