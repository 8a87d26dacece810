//! Volumes as files that other tools read, and other hosts.

use super::refused;
use super::store::{self, MAX_MIB, MIN_MIB, VolumeStore};
use crate::whole::write_whole;
use crate::{Error, host};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where ext2 and its successors have their magic number, and the number.
const MAGIC: (u64, [u8; 2]) = (1024 + 0x38, 0xef53_u16.to_le_bytes());

impl VolumeStore {
    /// Copies what a volume holds to a file, in the place of what has its name: the image
    /// of a disk with an ext4 file system, in which what was never written is a hole. A
    /// file is there with all of it or not at all.
    ///
    /// # Errors
    /// [`Error::VolumeInUse`] if a machine has it; [`Error::Volume`] if there is none of
    /// that name; [`Error::Host`] if the file cannot be written.
    pub fn export(&self, name: &str, file: impl AsRef<Path>) -> Result<(), Error> {
        store::check_name(name)?;
        let path = file.as_ref();
        let volume = self.open(name)?.ok_or_else(|| store::missing(name))?;
        self.lock(&volume, name)?;
        write_whole(path, |to| {
            let copied = host::copy_content(&volume, to, || self.go_on());
            self.check_wanted()?;
            copied.map_err(Error::host("cannot write", path))
        })
    }

    /// Makes a volume of what [`VolumeStore::export`] has written, or another tool that
    /// makes ext4 file systems: the image of one, of at least 16 MiB. What is in it is
    /// read by guests alone.
    ///
    /// # Errors
    /// [`Error::Volume`] if there is one of that name, or the file is no such image;
    /// [`Error::Host`] if it cannot be read, or the volume cannot be written.
    pub fn import(&self, name: &str, file: impl AsRef<Path>) -> Result<(), Error> {
        store::check_name(name)?;
        let path = file.as_ref();
        let failed = || Error::host("cannot read", path);
        let from = File::open(path).map_err(failed())?;
        let metadata = from.metadata().map_err(failed())?;
        let mut magic = [0; 2];
        let is_image = metadata.is_file() && from.read_exact_at(&mut magic, MAGIC.0).is_ok();
        if !is_image || magic != MAGIC.1 {
            return Err(refused(
                name,
                "the file is no image of an ext4 file system: make one with `volume export`, or \
                 with mke2fs",
            ));
        }
        if !(MIN_MIB << 20..=MAX_MIB << 20).contains(&metadata.len()) {
            return Err(refused(
                name,
                "the file is smaller than 16 MiB or larger than 8 TiB: make one of another size",
            ));
        }
        match self.make_by(name, |to| host::copy_content(&from, to, || self.go_on()))? {
            true => Ok(()),
            false => Err(refused(
                name,
                "there is one of that name: choose another, or remove it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::runtime_dir::RuntimeDir;
    use crate::whole::create_new;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    #[test]
    fn volumes_go_into_files_and_come_back_with_their_holes() {
        let dir = RuntimeDir::create().unwrap();
        let store = VolumeStore::at(dir.path().join("store"));
        store.create("one", 64).unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let bytes = |path: &Path| fs::read(path).unwrap();
        let image = out.join("image");
        fs::write(&image, "was there").unwrap();
        store.export("one", &image).unwrap();
        let original = store.inspect("one").unwrap().path;
        assert!(bytes(&image) == bytes(&original));
        assert!(fs::metadata(&image).unwrap().blocks() * 512 < 32 << 20);
        store.import("two", &image).unwrap();
        assert!(bytes(&store.inspect("two").unwrap().path) == bytes(&original));
        // Nothing that was begun stays.
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path().join("store")).unwrap().count(), 2);
        let error = store.import("two", &image).unwrap_err();
        assert!(error.to_string().contains("one of that name"), "{error}");
        let nowhere = store.export("one", dir.path().join("none/x")).unwrap_err();
        assert!(matches!(nowhere, Error::Host { .. }), "{nowhere}");
        assert!(store.export("none", &image).is_err());
        let _had = store.open_for("one", 16, 16, "machine").unwrap();
        let error = store.export("one", &image).unwrap_err();
        assert!(matches!(error, Error::VolumeInUse { .. }), "{error}");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_made() {
        let dir = RuntimeDir::create().unwrap();
        let store = VolumeStore::at(dir.path().join("store"));
        store.create("one", 64).unwrap();
        let image = dir.path().join("image");
        fs::write(&image, "was there").unwrap();
        // Asked before each piece, and once more before it has its name.
        for times in [0, 1] {
            let unwanted = || {
                let left = AtomicUsize::new(times);
                let takes = move |n: usize| n.checked_sub(1);
                let is_wanted = move || left.fetch_update(SeqCst, SeqCst, takes).is_ok();
                store.clone().while_wanted(is_wanted)
            };
            let exported = unwanted().export("one", &image);
            assert!(matches!(exported, Err(Error::Cancelled)), "{exported:?}");
            assert_eq!(fs::read(&image).unwrap(), b"was there");
            if times == 0 {
                let made = unwanted().create("two", 16);
                assert!(matches!(made, Err(Error::Cancelled)), "{made:?}");
            }
        }
        store.export("one", &image).unwrap();
        let imported = store.clone().while_wanted(|| false).import("two", &image);
        assert!(matches!(imported, Err(Error::Cancelled)), "{imported:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(dir.path().join("store")).unwrap().count(), 1);
    }

    #[test]
    fn files_that_are_no_image_become_no_volume() {
        let dir = RuntimeDir::create().unwrap();
        let store = VolumeStore::at(dir.path().join("store"));
        let image = |name: &str, bytes: u64, magic: &[u8]| {
            let path = dir.path().join(name);
            let file = create_new(&path).unwrap();
            file.write_all_at(magic, MAGIC.0).unwrap();
            file.set_len(bytes).unwrap();
            path
        };
        let refused = |path: &Path| store.import("v", path).unwrap_err().to_string();
        assert!(refused(&image("empty", 0, b"")).contains("no image"));
        assert!(refused(&image("zeroes", 64 << 20, b"")).contains("no image"));
        assert!(refused(&image("small", (16 << 20) - 1, &MAGIC.1)).contains("16 MiB"));
        assert!(refused(dir.path()).contains("no image"));
        symlink("/dev/zero", dir.path().join("device")).unwrap();
        assert!(refused(&dir.path().join("device")).contains("no image"));
        assert!(store.import("../v", dir.path()).is_err());
        assert!(store.list().unwrap().is_empty());
        let least = image("least", 16 << 20, &MAGIC.1);
        store.import("v", &least).unwrap();
        assert_eq!(store.inspect("v").unwrap().size_bytes, 16 << 20);
    }

    #[test]
    fn volumes_that_nobody_has_grow_and_do_not_shrink() {
        let dir = RuntimeDir::create().unwrap();
        let store = VolumeStore::at(dir.path());
        store.create("v", 32).unwrap();
        for (mib, expected) in [(64, 64), (16, 64)] {
            store.grow("v", mib).unwrap();
            assert_eq!(store.inspect("v").unwrap().size_bytes, expected << 20);
        }
        assert!(store.grow("v", (8 << 20) + 1).is_err());
        assert!(store.grow("none", 64).is_err());
        let _had = store.open_for("v", 16, 16, "machine").unwrap();
        let error = store.grow("v", 128).unwrap_err();
        assert!(matches!(error, Error::VolumeInUse { .. }), "{error}");
    }
}
