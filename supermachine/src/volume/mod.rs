//! Disks of a guest that outlive it, by name.

mod ext4;
pub(crate) mod kept;
mod store;
mod transfer;

use crate::assets::volumes_dir;
use crate::link::monitor::Question;
use crate::running::MountedVolume;
use crate::{Error, VmConfig, guest_path};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
pub use store::{VolumeInfo, VolumeStore};

/// Size of a volume that names none, in MiB.
const DEFAULT_MIB: u64 = 1024;
/// Most of one machine, so that a fork can be told of all in one message.
const MAX_VOLUMES: usize = 7;

/// A disk with an ext4 file system that outlives the machines that have it. One
/// machine at a time has it, and what it writes there is a file of the host's.
///
/// ```
/// use supermachine::VolumeSpec;
///
/// let volume = VolumeSpec::new("cache", "/work/node_modules").with_size_mib(4096);
/// assert_eq!(volume.name, "cache");
/// ```
///
/// The guest has it mounted when [`crate::Vm::start`] returns.
///
/// An image can be [baked](crate::OciImageBuilder::with_volume) with some, too: what they
/// hold then is in the snapshot, and each copy begins with that.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VolumeSpec {
    /// Its name in the [store](VolumeStore): 1 to 64 letters, digits, dots, hyphens and
    /// underscores, and a letter or digit first. If there is none of that name, it is
    /// made, empty.
    pub name: String,
    /// Its least size in MiB: one that is smaller is grown, and one that is larger stays as
    /// it is. Without it one that is made has 1,024 MiB, and one that is there stays as it
    /// is. It takes from the disk what is written to it.
    pub size_mib: Option<u64>,
    /// Where the guest has it: an absolute path, made if it is not there.
    pub mount_point: String,
}

impl VolumeSpec {
    /// A volume of the default size.
    pub fn new(name: impl Into<String>, mount_point: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            size_mib: None,
            mount_point: mount_point.into(),
        }
    }

    /// Sets the least size in MiB.
    pub fn with_size_mib(mut self, size_mib: u64) -> Self {
        self.size_mib = Some(size_mib);
        self
    }

    /// The size that it has if it is made.
    fn new_mib(&self) -> u64 {
        self.size_mib.unwrap_or(DEFAULT_MIB)
    }

    fn refused(&self, problem: &'static str) -> Error {
        refused(&self.name, problem)
    }

    fn validate(&self) -> Result<(), Error> {
        store::check_name(&self.name)?;
        store::check_size(&self.name, self.new_mib())?;
        guest_path::check(&self.mount_point).map_err(|problem| self.refused(problem))?;
        Ok(())
    }
}

fn refused(name: &str, problem: &'static str) -> Error {
    Error::Volume {
        name: name.to_owned(),
        problem,
    }
}

/// How a worker is asked to grow a volume.
pub(crate) struct Growth {
    /// Which of the machine's it is.
    pub number: usize,
    /// The question.
    pub asked: Question,
}

/// How the one of a machine's volumes that has this name is grown.
pub(crate) fn growth(volumes: &[MountedVolume], name: &str, mib: u64) -> Result<Growth, Error> {
    store::check_size(name, mib)?;
    let number = volumes.iter().position(|volume| volume.name == name);
    let number = number.ok_or_else(|| refused(name, "the machine has none of that name"))?;
    if volumes[number].file.is_none() {
        return Err(kept::cannot_grow(name));
    }
    let asked = Question::GrowVolume {
        number: u8::try_from(number).unwrap_or(u8::MAX),
        mib,
    };
    Ok(Growth { number, asked })
}

/// What other processes are told of the volumes of a machine.
pub(crate) fn described(config: &VmConfig) -> Vec<MountedVolume> {
    let file = |name: &str| {
        let path = config.volume_places().store_of(name).ok()?.file(name);
        Some(path.to_str()?.into())
    };
    let described = config.volumes.iter().map(|volume| MountedVolume {
        name: volume.name.clone(),
        file: file(&volume.name),
        place: volume.mount_point.clone(),
    });
    described.collect()
}

/// Refuses volumes that no machine could have.
pub(crate) fn validate(volumes: &[VolumeSpec]) -> Result<(), Error> {
    for (n, volume) in volumes.iter().enumerate() {
        volume.validate()?;
        if volumes[..n].iter().any(|other| other.name == volume.name) {
            return Err(volume.refused("give it to a machine once"));
        }
        if n >= MAX_VOLUMES {
            return Err(volume.refused("give a machine at most seven volumes"));
        }
    }
    Ok(())
}

/// Refuses volumes that no machine could have beside those whose content a snapshot is to
/// hold, with room for as many others as `slots` says.
pub(crate) fn validate_together(
    kept: &[VolumeSpec],
    volumes: &[VolumeSpec],
    slots: usize,
) -> Result<(), Error> {
    kept::check_sizes(kept)?;
    if slots.saturating_add(kept.len()) > MAX_VOLUMES {
        return Err(Error::Unsuitable {
            what: "room for more volumes",
            needs: "at most seven together with those that are baked",
        });
    }
    validate(&[kept, volumes].concat())
}

/// Disks for a worker, open, and what errors call them.
pub(crate) type Opened = Vec<(String, File)>;

/// Where a configuration's volumes are.
pub(crate) fn store(dir: Option<&Path>) -> Result<VolumeStore, Error> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => volumes_dir()?,
    };
    Ok(VolumeStore::at(dir))
}

/// Where the volumes of a machine are that outlive it.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    /// The store's directory, if it is not the user's.
    pub dir: Option<&'a Path>,
    /// Those that are files somewhere else, by name.
    pub files: &'a BTreeMap<String, PathBuf>,
}

impl Places<'_> {
    /// Where the one of this name is.
    fn store_of(&self, name: &str) -> Result<VolumeStore, Error> {
        match self.files.get(name) {
            Some(file) => VolumeStore::of_file(file),
            None => store(self.dir),
        }
    }

    /// Opens one for the machine `id`. A file that somebody named keeps its size.
    fn open(&self, volume: &VolumeSpec, id: &str) -> Result<File, Error> {
        let least = match self.files.contains_key(&volume.name) {
            true => 0,
            false => volume.size_mib.unwrap_or(0),
        };
        let store = self.store_of(&volume.name)?;
        store.open_for(&volume.name, least, volume.new_mib(), id)
    }
}

/// Opens the volumes of the machine `id`, which nobody else has from here on until all
/// who have the files have ended; and as many disks without content as there are
/// `slots` more.
pub(crate) fn open(
    volumes: &[VolumeSpec],
    places: Places<'_>,
    slots: usize,
    id: &str,
) -> Result<Opened, Error> {
    let mut opened = Opened::new();
    for volume in volumes {
        opened.push((volume.name.clone(), places.open(volume, id)?));
    }
    for _ in volumes.len()..slots {
        opened.push(empty()?);
    }
    Ok(opened)
}

/// As [`open`], for the copy of a machine with so many disks for them.
pub(crate) fn open_for_copy(
    volumes: &[VolumeSpec],
    places: Places<'_>,
    slots: usize,
    id: &str,
) -> Result<Opened, Error> {
    match volumes.get(slots) {
        Some(volume) => {
            Err(volume
                .refused("the snapshot has no disk for it: bake the image with as many volumes"))
        }
        None => open(volumes, places, slots, id),
    }
}

/// A disk without content, which a copy of the machine has filled.
pub(crate) fn empty() -> Result<(String, File), Error> {
    const NOTHING: &str = "/dev/null";
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(NOTHING, flags, Mode::empty());
    let file =
        file.map_err(|error| Error::host("cannot open", Path::new(NOTHING))(error.into()))?;
    Ok((NOTHING.to_owned(), file.into()))
}

/// What the volumes of a forked child are copied to: files without a name beside those
/// that they are copies of, so that the file system can share what they have in common;
/// and as [`open`] has it, disks without content.
pub(crate) fn for_child(
    count: usize,
    dir: Option<&Path>,
    slots: usize,
) -> Result<Vec<OwnedFd>, Error> {
    let mut files = Vec::new();
    if count > 0 {
        let store = store(dir)?;
        for _ in 0..count {
            files.push(store.unnamed()?.into());
        }
    }
    for _ in count..slots {
        files.push(empty()?.1.into());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sizes_and_places_that_no_machine_could_have_are_refused() {
        let problem = |volume: VolumeSpec| validate(&[volume]).unwrap_err().to_string();
        let long = "n".repeat(65);
        for name in ["", "a/b", "..", ".hidden", "-x", "a b", "ü", long.as_str()] {
            assert!(problem(VolumeSpec::new(name, "/v")).contains("name"));
        }
        for at in ["", "v", "/", "/.", "/a/../b", "/a\0"] {
            assert!(problem(VolumeSpec::new("v", at)).contains("its place"));
        }
        for mib in [0, 15, (8 << 20) + 1, u64::MAX] {
            let volume = VolumeSpec::new("v", "/v").with_size_mib(mib);
            assert!(problem(volume).contains("MiB"));
        }
        let volume = VolumeSpec::new("v", "/v");
        assert!(validate(&[volume.clone(), volume.clone()]).is_err());
        let many: Vec<_> = (0..8)
            .map(|n| VolumeSpec::new(format!("v{n}"), "/v"))
            .collect();
        assert!(validate(&many).is_err());
        assert!(validate(&many[..7]).is_ok());
        let places = Places {
            dir: None,
            files: &BTreeMap::new(),
        };
        let one_too_many = open_for_copy(&many[..2], places, 1, "id").unwrap_err();
        assert!(one_too_many.to_string().contains("`v1`"), "{one_too_many}");
    }
}
