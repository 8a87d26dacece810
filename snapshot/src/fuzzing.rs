//! Fuzz logic as plain functions over bytes, for fuzzers and for replay under
//! `cargo test`. They panic when an invariant breaks.

use crate::fields::FieldReader;
use crate::{Manifest, StateFile, StateWriter, WorkingSet};

/// Size of guest memory for [`fuzz_working_set`], 64 MiB.
const MEMORY_BYTES: u64 = 64 << 20;

/// Puts the checksums of a `state.bin` right, so that mutations get past them.
fn repair_state(bytes: &mut [u8]) {
    let Some(count) = bytes.get(12..16).and_then(<[u8]>::first_chunk) else {
        return;
    };
    let count = u32::from_le_bytes(*count) as usize;
    let table_end = count.saturating_mul(20).saturating_add(32);
    let mut at = table_end;
    for index in 0..count.min(1024) {
        let entry = 32 + index * 20;
        let Some(length) = bytes.get(entry + 12..entry + 16) else {
            break;
        };
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let end = at.saturating_add(length);
        if let Some(crc) = bytes.get(at..end).map(crc32c::crc32c)
            && let Some(place) = bytes.get_mut(entry + 16..entry + 20)
        {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        at = end;
    }
    if let Some(crc) = bytes.get(32..table_end).map(crc32c::crc32c) {
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(crc) = bytes.get(..28).map(crc32c::crc32c)
        && let Some(place) = bytes.get_mut(28..32)
    {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// An accepted `state.bin` is written again as the same bytes.
///
/// # Panics
/// When it is not.
pub fn fuzz_state(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_state(&mut repaired);
    for bytes in [data.to_vec(), repaired] {
        let Ok(file) = StateFile::parse(bytes.clone()) else {
            continue;
        };
        let mut writer = StateWriter::new();
        for section in file.sections() {
            writer.section(&section).expect("accepted by the reader");
        }
        let mut again = writer.finish().expect("accepted by the reader");
        // An older minor version is read, and written as the newest.
        again[10..12].copy_from_slice(&bytes[10..12]);
        repair_state(&mut again);
        assert_eq!(again, bytes, "not the only spelling");
        let mut claims = file.claim();
        for section in file.sections() {
            let versions = section.version..=section.version;
            let claimed = claims.take(section.kind, section.instance, versions);
            assert_eq!(claimed.expect("there"), section);
        }
        claims.finish().expect("all taken");
    }
}

/// An accepted `manifest.json` is written again as the same bytes, and every
/// size in it is within its cap.
///
/// # Panics
/// When it is not.
pub fn fuzz_manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::decode(data) else {
        // Past the checksum: the inner document is signed anew.
        let Ok(manifest) = serde_json::from_slice::<Manifest>(data) else {
            return;
        };
        let Ok(bytes) = manifest.encode() else {
            return;
        };
        assert_eq!(Manifest::decode(&bytes).expect("just written"), manifest);
        return;
    };
    assert_eq!(manifest.encode().expect("accepted"), data);
    assert!(manifest.memory_bytes() <= crate::limits::MAX_MEMORY_BYTES);
    assert!(manifest.machine.vcpus <= crate::limits::MAX_VCPUS);
}

/// An accepted `ws.bin` is written again as the same bytes, and its runs are
/// inside of memory.
///
/// # Panics
/// When it is not.
pub fn fuzz_working_set(data: &[u8]) {
    let mut repaired = data.to_vec();
    if repaired.len() >= 32 {
        let runs = crc32c::crc32c(&repaired[32..]);
        repaired[24..28].copy_from_slice(&runs.to_le_bytes());
        let header = crc32c::crc32c(&repaired[..28]);
        repaired[28..32].copy_from_slice(&header.to_le_bytes());
    }
    for bytes in [data, &repaired] {
        let Ok(set) = WorkingSet::decode(bytes, MEMORY_BYTES) else {
            continue;
        };
        assert_eq!(set.encode(), bytes, "not the only spelling");
        let last = set.runs().last().map_or(0, |run| run.end);
        assert!(last * crate::limits::PAGE_BYTES <= MEMORY_BYTES);
        let pages = set.runs().iter().flat_map(Clone::clone);
        assert_eq!(WorkingSet::from_pages(pages), set);
    }
}

/// Fields never reach beyond the bytes there are, and what is reserved for a
/// count is not more than them.
///
/// # Panics
/// When they do.
pub fn fuzz_fields(data: &[u8]) {
    let (plan, bytes) = data.split_at(data.len().min(16));
    let mut reader = FieldReader::new("fuzz", bytes);
    for step in plan {
        let alive = match step % 8 {
            0 => reader.u8().is_ok(),
            1 => reader.u16().is_ok(),
            2 => reader.u64().is_ok(),
            3 => reader.bool().is_ok(),
            4 => reader.text().is_ok_and(|text| text.len() <= bytes.len()),
            5 => reader.bytes(usize::from(*step)).is_ok(),
            6 => reader.u128().is_ok(),
            _ => reader
                .count(usize::MAX, 8)
                .is_ok_and(|count| count * 8 <= bytes.len()),
        };
        if !alive {
            break;
        }
    }
    let _ = reader.finish();
}
