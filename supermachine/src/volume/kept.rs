//! Volumes whose content is in a snapshot: each copy of it begins with that, and has what
//! it changes to itself, for as long as it runs.

use super::store;
use super::{MAX_VOLUMES, Opened, Places, VolumeSpec, refused};
use crate::running::MountedVolume;
use crate::whole::create_new;
use crate::{Error, guest_path};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;

/// Longest volume whose content can be in a snapshot, in MiB: that of a file of one.
const MAX_MIB: u64 = snapshot::limits::MAX_EXTRA_BYTES >> 20;

/// What a snapshot says of a volume that is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptVolume {
    /// Its name.
    pub name: String,
    /// Where the guest has it mounted.
    pub mount_point: String,
}

impl From<&VolumeSpec> for KeptVolume {
    fn from(spec: &VolumeSpec) -> Self {
        Self {
            name: spec.name.clone(),
            mount_point: spec.mount_point.clone(),
        }
    }
}

/// The file of a snapshot with what its `number`th volume holds.
pub(crate) fn file_name(number: usize) -> String {
    format!("volume-{number}.ext4")
}

/// Refuses volumes that are too large for a snapshot.
pub(crate) fn check_sizes(volumes: &[VolumeSpec]) -> Result<(), Error> {
    match volumes.iter().find(|volume| volume.new_mib() > MAX_MIB) {
        Some(volume) => Err(volume.refused(
            "choose a size of at most 64 GiB (65,536 MiB) for a volume whose content is baked",
        )),
        None => Ok(()),
    }
}

/// Refuses a snapshot of a machine with a volume of the store that is too large for one.
pub(crate) fn check_lengths(volumes: &[VolumeSpec], places: Places<'_>) -> Result<(), Error> {
    for volume in volumes {
        // A forked machine has a copy, and what it is one of may be gone.
        let Ok(found) = places.store_of(&volume.name)?.inspect(&volume.name) else {
            continue;
        };
        if found.size_bytes >> 20 > MAX_MIB {
            return Err(volume.refused(
                "a snapshot holds volumes of at most 64 GiB (65,536 MiB): take it of a machine \
                 with a smaller one",
            ));
        }
    }
    Ok(())
}

/// Refuses what a snapshot says of its volumes if no machine could have them; what is
/// wrong with it.
pub(crate) fn check(kept: &[KeptVolume], disks: usize) -> Result<(), String> {
    if disks > MAX_VOLUMES || kept.len() > disks {
        return Err(format!("{} volumes in {disks} disks", kept.len()));
    }
    for (number, volume) in kept.iter().enumerate() {
        store::check_name(&volume.name).map_err(|error| error.to_string())?;
        guest_path::check(&volume.mount_point).map_err(str::to_owned)?;
        if kept[..number].iter().any(|other| other.name == volume.name) {
            return Err(format!("volume {} twice", volume.name));
        }
    }
    Ok(())
}

/// Refuses volumes for a copy of a snapshot that holds some of the same name.
pub(crate) fn check_for_copy(kept: &[KeptVolume], volumes: &[VolumeSpec]) -> Result<(), Error> {
    let is_kept = |volume: &&VolumeSpec| kept.iter().any(|kept| kept.name == volume.name);
    match volumes.iter().find(is_kept) {
        Some(volume) => Err(volume.refused(
            "the snapshot holds one of that name, which each copy has to itself: leave it out, \
             or choose another name for one that outlives the copy",
        )),
        None => Ok(()),
    }
}

/// Disks for the volumes that a bake fills: file systems that are gone with its machine.
pub(crate) fn make(volumes: &[VolumeSpec], dir: Option<&Path>) -> Result<Opened, Error> {
    let mut opened = Opened::new();
    if !volumes.is_empty() {
        let store = super::store(dir)?;
        for volume in volumes {
            opened.push((volume.name.clone(), store.formatted(volume.new_mib())?));
        }
    }
    Ok(opened)
}

/// For each of a copy's volumes a file for what it changes.
pub(crate) fn open_for_copy(kept: &[KeptVolume], dir: Option<&Path>) -> Result<Opened, Error> {
    let mut opened = Opened::new();
    if !kept.is_empty() {
        let store = super::store(dir)?;
        for volume in kept {
            opened.push((volume.name.clone(), store.unnamed()?));
        }
    }
    Ok(opened)
}

/// Files in a draft's directory for what so many volumes hold.
pub(crate) fn files_for(count: usize, draft: &Path) -> Result<Vec<File>, Error> {
    let make = |number| {
        let path = draft.join(file_name(number));
        create_new(&path).map_err(Error::host("cannot make", &path))
    };
    (0..count).map(make).collect()
}

/// What other processes are told of them.
pub(crate) fn described(kept: &[KeptVolume]) -> impl Iterator<Item = MountedVolume> {
    kept.iter().map(|volume| MountedVolume {
        name: volume.name.clone(),
        file: None,
        place: volume.mount_point.clone(),
    })
}

/// The error for a volume of a copy that is to be grown.
pub(crate) fn cannot_grow(name: &str) -> Error {
    refused(
        name,
        "it begins with what the snapshot holds, and has its size: bake the image with a \
         larger one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, mount_point: &str) -> KeptVolume {
        KeptVolume {
            name: name.to_owned(),
            mount_point: mount_point.to_owned(),
        }
    }

    #[test]
    fn what_a_snapshot_cannot_hold_is_refused_in_words() {
        let good = [kept("a", "/a"), kept("b", "/b/c")];
        check(&good, 2).unwrap();
        check(&good, MAX_VOLUMES).unwrap();
        for (bad, disks) in [
            (&good[..], 1),
            (&good[..], MAX_VOLUMES + 1),
            (&good[..], usize::MAX),
            (&[kept("a", "/a"), kept("a", "/b")][..], 2),
            (&[kept("../a", "/a")], 1),
            (&[kept("", "/a")], 1),
            (&[kept("a", "a")], 1),
            (&[kept("a", "/../a")], 1),
        ] {
            assert!(check(bad, disks).is_err(), "{bad:?} {disks}");
        }
        let of_copy = [VolumeSpec::new("c", "/c"), VolumeSpec::new("b", "/d")];
        let error = check_for_copy(&good, &of_copy).unwrap_err().to_string();
        assert!(error.contains("`b`") && error.contains("leave it out"));
        check_for_copy(&good, &of_copy[..1]).unwrap();
        let large = VolumeSpec::new("v", "/v").with_size_mib(MAX_MIB + 1);
        assert!(check_sizes(&[large]).is_err());
    }
}
