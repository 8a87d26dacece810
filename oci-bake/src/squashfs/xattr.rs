//! The extended attribute tables.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use super::table::{Table, write_plain};
use super::{INVALID, SquashfsError};

/// Name prefixes squashfs can store, with their on-disk type.
const PREFIXES: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];

/// Splits an attribute name into squashfs prefix type and the rest.
pub(crate) fn split_name(name: &[u8]) -> Option<(u16, &[u8])> {
    PREFIXES.iter().find_map(|(prefix, kind)| {
        name.strip_prefix(*prefix)
            .filter(|rest| !rest.is_empty())
            .map(|rest| (*kind, rest))
    })
}

/// The whole name of what [`split_name`] has split.
pub(super) fn full_name(kind: u64, rest: &[u8]) -> Option<Vec<u8>> {
    let (prefix, _) = PREFIXES.iter().find(|(_, of)| u64::from(*of) == kind)?;
    Some([prefix, rest].concat())
}

/// All attribute sets of an image, identical sets stored once.
#[derive(Default)]
pub(super) struct Xattrs {
    values: Table,
    /// 16-byte id records: reference, attribute count, encoded size.
    ids: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Xattrs {
    /// The id of `attributes`, or [`INVALID`] when there are none that
    /// squashfs can hold.
    pub(super) fn intern(
        &mut self,
        attributes: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<u32, SquashfsError> {
        let too_large = |what| SquashfsError::TooLarge {
            what,
            limit: u64::from(u16::MAX),
        };
        let mut encoded = Vec::new();
        let mut count = 0u32;
        for (name, value) in attributes {
            let Some((kind, rest)) = split_name(name) else {
                continue;
            };
            let name_len =
                u16::try_from(rest.len()).map_err(|_| too_large("attribute name bytes"))?;
            let value_len =
                u32::try_from(value.len()).map_err(|_| too_large("attribute value bytes"))?;
            encoded.extend_from_slice(&kind.to_le_bytes());
            encoded.extend_from_slice(&name_len.to_le_bytes());
            encoded.extend_from_slice(rest);
            encoded.extend_from_slice(&value_len.to_le_bytes());
            encoded.extend_from_slice(value);
            count += 1;
        }
        if count == 0 {
            return Ok(INVALID);
        }
        if let Some(&id) = self.known.get(&encoded) {
            return Ok(id);
        }
        let id = u32::try_from(self.known.len()).map_err(|_| too_large("attribute sets"))?;
        let size = u32::try_from(encoded.len()).map_err(|_| too_large("attribute bytes"))?;
        self.ids
            .extend_from_slice(&self.values.address()?.reference().to_le_bytes());
        self.ids.extend_from_slice(&count.to_le_bytes());
        self.ids.extend_from_slice(&size.to_le_bytes());
        self.values.push(&encoded);
        self.known.insert(encoded, id);
        Ok(id)
    }

    /// Adds a set that no file has, if there is no other: Linux refuses empty tables.
    pub(super) fn fill(&mut self) -> Result<(), SquashfsError> {
        if self.known.is_empty() {
            self.intern(&BTreeMap::from([(b"user.none".to_vec(), Vec::new())]))?;
        }
        Ok(())
    }

    /// Writes the tables, which are not empty, at disk offset `at`. Returns the offset of
    /// the id table header and the offset after everything.
    pub(super) fn write_to(&self, at: u64, out: &mut dyn Write) -> io::Result<(u64, u64)> {
        let ids_at = at + self.values.write_to(out)?;
        let (starts, header_at) = write_plain(&self.ids, ids_at, out)?;
        let count = u32::try_from(self.known.len()).map_err(io::Error::other)?;
        out.write_all(&at.to_le_bytes())?;
        out.write_all(&count.to_le_bytes())?;
        out.write_all(&0u32.to_le_bytes())?;
        for start in &starts {
            out.write_all(&start.to_le_bytes())?;
        }
        Ok((header_at, header_at + 16 + 8 * starts.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_prefixes_are_storable() {
        assert_eq!(
            split_name(b"security.capability"),
            Some((2, &b"capability"[..]))
        );
        assert_eq!(split_name(b"system.posix_acl_access"), None);
        assert_eq!(split_name(b"user."), None);
    }

    #[test]
    fn equal_sets_share_an_id() {
        let set = BTreeMap::from([(b"user.a".to_vec(), b"1".to_vec())]);
        let other = BTreeMap::from([(b"user.a".to_vec(), b"2".to_vec())]);
        let mut xattrs = Xattrs::default();
        assert_eq!(xattrs.intern(&set).unwrap(), 0);
        assert_eq!(xattrs.intern(&other).unwrap(), 1);
        assert_eq!(xattrs.intern(&set).unwrap(), 0);
        assert_eq!(xattrs.intern(&BTreeMap::new()).unwrap(), INVALID);
    }
}
