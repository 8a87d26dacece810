//! `manifest.json`: what a generation is made of and where it can run.

use crate::error::cap;
use crate::limits::{
    CHUNK_BYTES, GRANULE_BYTES, MAX_BASE_RUNS, MAX_EXTRA_BYTES, MAX_EXTRA_FILES, MAX_LABELS,
    MAX_MANIFEST_BYTES, MAX_MEMORY_BYTES, MAX_RESOURCES, MAX_STATE_BYTES, MAX_STRING_BYTES,
    MAX_VCPUS, MAX_WORKING_SET_BYTES,
};
use crate::{Result, SnapshotError, Stamp, name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the manifest: a reader refuses any other.
pub const MANIFEST_FORMAT: u32 = 3;
pub(crate) const FILE: &str = "manifest.json";
pub(crate) const STATE_FILE: &str = "state.bin";
pub(crate) const MEMORY_FILE: &str = "mem.bin";
pub(crate) const BASE_FILE: &str = "base.bin";
pub(crate) const WORKING_SET_FILE: &str = "ws.bin";

/// What the writer has to be told about a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Digest of everything that was baked: another bake with the same key can
    /// use this snapshot.
    pub key: String,
    /// When it was captured, seconds since 1970.
    pub created_unix_s: u64,
    /// Who made it.
    pub stamp: Stamp,
    /// Virtual CPUs of the machine.
    pub vcpus: u16,
    /// Things of the host the machine uses, by logical names. What a name
    /// stands for is told by whoever restores, never by the file.
    pub resources: Vec<Resource>,
    /// Further facts for people and for the layers above, never for this one.
    pub labels: BTreeMap<String, String>,
}

/// Something of the host that the machine uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// What it is: `disk`, `mount`, `port`.
    pub kind: String,
    /// Logical name; never a path.
    pub name: String,
}

/// Length and checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// CRC32C; for `mem.bin` that of its table of chunks.
    pub crc32c: u32,
}

/// Checksums of `mem.bin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryTable {
    /// Bytes that are stored; all others are holes in the file.
    pub stored_bytes: u64,
    /// Index and CRC32C of each chunk of [`CHUNK_BYTES`] of memory with a byte
    /// other than zero, ascending.
    pub chunks: Vec<(u32, u32)>,
    /// What is in `base.bin` instead, at the same place: first and number of
    /// units of [`GRANULE_BYTES`], ascending.
    pub base_runs: Vec<(u32, u32)>,
}

impl MemoryTable {
    pub(crate) fn crc32c(&self) -> u32 {
        let pairs = self.chunks.iter().chain(&self.base_runs);
        pairs.fold(0, |crc, (first, second)| {
            let crc = crc32c::crc32c_append(crc, &first.to_le_bytes());
            crc32c::crc32c_append(crc, &second.to_le_bytes())
        })
    }
}

/// The manifest of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The name it was baked under.
    pub name: String,
    /// What the writer was told.
    pub machine: Description,
    /// Checksums of the memory.
    pub memory: MemoryTable,
    /// Every other file of the generation.
    pub files: BTreeMap<String, FileEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<M> {
    crc32c: u32,
    manifest: M,
}

/// The one field all versions of the manifest have.
#[derive(Deserialize)]
struct Probe {
    format: u32,
}

impl Manifest {
    /// Bytes of guest memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.files.get(MEMORY_FILE).map_or(0, |entry| entry.bytes)
    }

    /// Names of the files beside the ones every generation has.
    pub fn extra_files(&self) -> impl Iterator<Item = (&str, FileEntry)> {
        self.files
            .iter()
            .filter(|(name, _)| !is_fixed(name))
            .map(|(name, entry)| (name.as_str(), *entry))
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// When a reader would refuse them.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let bytes = self.canonical()?;
        cap(FILE, bytes.len() as u64, MAX_MANIFEST_BYTES)?;
        Ok(bytes)
    }

    /// One line of JSON, the checksum first: there is one spelling of a
    /// manifest, so that every changed byte is found.
    fn canonical(&self) -> Result<Vec<u8>> {
        let malformed = |_| SnapshotError::Malformed { what: FILE };
        let inner = serde_json::to_vec(self).map_err(malformed)?;
        let envelope = Envelope {
            crc32c: crc32c::crc32c(&inner),
            manifest: self,
        };
        let mut bytes = serde_json::to_vec(&envelope).map_err(malformed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// When anything is not as the writer would have written it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        cap(FILE, bytes.len() as u64, MAX_MANIFEST_BYTES)?;
        if !bytes.ends_with(b"\n") {
            return Err(SnapshotError::Truncated { what: FILE });
        }
        let Ok(envelope) = serde_json::from_slice::<Envelope<Self>>(bytes) else {
            if let Ok(other) = serde_json::from_slice::<Envelope<Probe>>(bytes) {
                version(other.manifest.format)?;
            }
            return Err(SnapshotError::Malformed { what: FILE });
        };
        version(envelope.manifest.format)?;
        if envelope.manifest.canonical()? != bytes {
            return Err(SnapshotError::Checksum {
                section: FILE.to_owned(),
            });
        }
        envelope.manifest.validate()?;
        Ok(envelope.manifest)
    }

    fn validate(&self) -> Result<()> {
        version(self.format)?;
        name::check(&self.name)?;
        self.machine.validate()?;
        let extra = self.files.len().saturating_sub(3) as u64;
        cap("number of files", extra, MAX_EXTRA_FILES as u64)?;
        for (name, limit) in [
            (STATE_FILE, MAX_STATE_BYTES),
            (MEMORY_FILE, MAX_MEMORY_BYTES),
            (WORKING_SET_FILE, MAX_WORKING_SET_BYTES),
        ] {
            let entry = self.files.get(name).ok_or(SnapshotError::Malformed {
                what: "list of files of manifest.json",
            })?;
            cap(name, entry.bytes, limit)?;
        }
        for (name, entry) in self.extra_files() {
            check_extra_name(name)?;
            cap("extra file", entry.bytes, MAX_EXTRA_BYTES)?;
        }
        self.validate_memory()
    }

    fn validate_memory(&self) -> Result<()> {
        let bytes = self.memory_bytes();
        check_memory_bytes(bytes)?;
        let ascending = self.memory.chunks.is_sorted_by(|a, b| a.0 < b.0);
        let last = self.memory.chunks.last().map_or(0, |(index, _)| *index);
        let inside = u64::from(last) < bytes.div_ceil(CHUNK_BYTES);
        cap(
            "number of runs in the base",
            self.memory.base_runs.len() as u64,
            MAX_BASE_RUNS as u64,
        )?;
        let mut at = 0;
        let apart = self.memory.shared().all(|run| {
            let is_behind = run.start >= at && run.end > run.start;
            at = run.end;
            is_behind
        });
        let inside = inside && at <= bytes;
        if !ascending || !apart || !inside || self.memory.stored_bytes > bytes {
            return Err(SnapshotError::Malformed {
                what: "memory table of manifest.json",
            });
        }
        if self.files[MEMORY_FILE].crc32c != self.memory.crc32c() {
            return Err(SnapshotError::Checksum {
                section: "memory table of manifest.json".to_owned(),
            });
        }
        Ok(())
    }
}

impl Description {
    pub(crate) fn validate(&self) -> Result<()> {
        self.stamp.validate()?;
        cap("number of vCPUs", self.vcpus.into(), MAX_VCPUS.into())?;
        if self.vcpus == 0 {
            return Err(SnapshotError::Malformed {
                what: "number of vCPUs",
            });
        }
        let resources = self.resources.len() as u64;
        cap("number of resources", resources, MAX_RESOURCES as u64)?;
        for resource in &self.resources {
            name::check(&resource.kind)?;
            name::check(&resource.name)?;
        }
        cap(
            "number of labels",
            self.labels.len() as u64,
            MAX_LABELS as u64,
        )?;
        let texts = self.labels.iter().flat_map(|(name, value)| [name, value]);
        for text in texts.chain([&self.key]) {
            cap("string", text.len() as u64, MAX_STRING_BYTES as u64)?;
        }
        Ok(())
    }
}

/// Checks the size of guest memory.
pub(crate) fn check_memory_bytes(bytes: u64) -> Result<()> {
    cap(MEMORY_FILE, bytes, MAX_MEMORY_BYTES)?;
    if bytes == 0 || !bytes.is_multiple_of(GRANULE_BYTES) {
        return Err(SnapshotError::Malformed {
            what: "size of guest memory",
        });
    }
    Ok(())
}

/// Checks the name of an extra file.
pub(crate) fn check_extra_name(name: &str) -> Result<()> {
    name::check(name)?;
    if is_fixed(name) || name == FILE {
        return Err(SnapshotError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn is_fixed(name: &str) -> bool {
    [STATE_FILE, MEMORY_FILE, WORKING_SET_FILE, BASE_FILE].contains(&name)
}

fn version(format: u32) -> Result<()> {
    if format != MANIFEST_FORMAT {
        return Err(SnapshotError::Version {
            what: FILE,
            found: format.to_string(),
            supported: MANIFEST_FORMAT.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::manifest;

    #[test]
    fn manifest_comes_back_as_written() {
        let manifest = manifest();
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let good = manifest().encode().unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(Manifest::decode(&bad).is_err(), "byte {at} bit {bit}");
            }
            assert!(Manifest::decode(&good[..at]).is_err());
        }
        assert!(Manifest::decode(&[&good[..], b" "].concat()).is_err());
    }

    #[test]
    fn another_version_is_told_even_with_fields_nobody_knows() {
        let bytes = br#"{"crc32c":0,"manifest":{"format":4,"new":1}}
"#;
        assert!(matches!(
            Manifest::decode(bytes),
            Err(SnapshotError::Version { .. })
        ));
    }

    #[test]
    fn paths_are_no_names() {
        for bad in ["/etc/passwd", "..", "a/b", "", ".hidden", "a\nb"] {
            let mut hostile = manifest();
            hostile.machine.resources[0].name = bad.to_owned();
            assert!(Manifest::decode(&hostile.canonical().unwrap()).is_err());
            let mut hostile = manifest();
            let entry = FileEntry {
                bytes: 1,
                crc32c: 0,
            };
            hostile.files.insert(bad.to_owned(), entry);
            assert!(Manifest::decode(&hostile.canonical().unwrap()).is_err());
        }
    }

    #[test]
    fn sizes_above_the_caps_are_refused() {
        let changes: [fn(&mut Manifest); 5] = [
            |manifest| manifest.machine.vcpus = 65,
            |manifest| manifest.machine.vcpus = 0,
            |manifest| manifest.files.get_mut(STATE_FILE).unwrap().bytes = MAX_STATE_BYTES + 1,
            |manifest| manifest.files.get_mut(MEMORY_FILE).unwrap().bytes += 1,
            |manifest| manifest.memory.chunks.push((1 << 20, 0)),
        ];
        for change in changes {
            let mut bad = manifest();
            change(&mut bad);
            assert!(Manifest::decode(&bad.canonical().unwrap()).is_err());
        }
    }
}
