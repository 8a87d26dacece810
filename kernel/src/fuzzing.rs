//! Fuzz logic as plain functions over bytes, for fuzzers and for the replay in
//! this crate's own tests. What comes from outside is the text of a kernel
//! configuration, a file said to be a kernel, and the names in an archive. A
//! function panics if a promise is broken.

use crate::ImageHeader;
use crate::config::{settings, unmet};
use crate::initrd::{Archive, NEWC_MAGIC};

/// Two configurations, divided by a zero byte: the settings of each are lines
/// of it, a configuration honours itself, and what is reported is asked for.
///
/// # Panics
/// When one of that does not hold.
pub fn fuzz_config(data: &[u8]) {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let (fragment, config) = (text(), text());
    let wanted: Vec<_> = settings(&fragment).collect();
    for setting in &wanted {
        assert!(setting.symbol.starts_with("CONFIG_"));
        let line = match setting.value {
            Some(value) => format!("{}={value}", setting.symbol),
            None => format!("# {} is not set", setting.symbol),
        };
        assert!(fragment.contains(&line), "{line}");
    }
    let missing = unmet(&fragment, &config);
    assert!(missing.len() <= wanted.len());
    for one in &missing {
        assert!(wanted.iter().any(|setting| setting.symbol == one.symbol));
        assert_ne!(one.wanted, one.got);
        assert!(!one.to_string().is_empty());
    }
    // A symbol given twice, or set to "n", cannot be met by the same text.
    let mut symbols: Vec<_> = wanted.iter().map(|setting| setting.symbol).collect();
    symbols.sort_unstable();
    symbols.dedup();
    let plain = wanted.iter().all(|setting| setting.value != Some("n"));
    if symbols.len() == wanted.len() && plain {
        assert_eq!(unmet(&fragment, &fragment), []);
    }
}

/// The start of a file: read as a header only if it is one, for the fields at
/// their places.
///
/// # Panics
/// When a field is another, or a file is taken or refused wrongly.
pub fn fuzz_image(data: &[u8]) {
    let field = |at: usize| data.get(at..at + 8).map_or(&[][..], |bytes| bytes);
    let good =
        data.len() >= 64 && &data[56..60] == b"ARM\x64" && data[24] & 1 == 0 && field(16) != [0; 8];
    match ImageHeader::parse(data) {
        Ok(header) => {
            assert!(good);
            assert_eq!(header.text_offset.to_le_bytes(), field(8));
            assert_eq!(header.image_size.to_le_bytes(), field(16));
            let log = u32::from(data[24] >> 1 & 3);
            let pages = log.checked_sub(1).map(|log| 4096 << (2 * log));
            assert_eq!(header.page_bytes, pages);
        }
        Err(reason) => assert!(!good && !reason.is_empty()),
    }
}

/// A name, and after a zero byte what the file holds: an archive has the entry
/// whole, or is as it was.
///
/// # Panics
/// When a name that leads elsewhere gets in, or the archive is no archive.
pub fn fuzz_archive(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let content = parts.next().unwrap_or_default();
    let empty = Archive::new().finish();
    let mut archive = Archive::new();
    let added = archive.file(&name, 0o644, content);
    let bytes = archive.finish();
    assert!(bytes.starts_with(&NEWC_MAGIC) && bytes.len().is_multiple_of(512));
    if added.is_err() {
        assert_eq!(bytes, empty);
        return;
    }
    assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."));
    // Magic and thirteen fields of eight digits come before the name.
    assert_eq!(&bytes[110..110 + name.len()], name.as_bytes());
    let start = (110 + name.len() + 1).next_multiple_of(4);
    assert_eq!(&bytes[start..start + content.len()], content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FRAGMENT;
    use std::time::{Duration, Instant};

    /// Time for one target. The number of runs depends on the machine, the
    /// inputs and their order do not.
    const BUDGET: Duration = Duration::from_millis(400);

    fn replay(target: fn(&[u8]), seeds: &[&[u8]]) {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = move |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % limit.max(1)
        };
        seeds.iter().for_each(|seed| target(seed));
        target(&[]);
        let start = Instant::now();
        while start.elapsed() < BUDGET {
            let mut input = seeds[below(seeds.len())].to_vec();
            for _ in 0..=below(6) {
                let at = below(input.len());
                match below(5) {
                    0 if !input.is_empty() => input[at] = b"\0\n #=/.nyC\xff\x01"[below(12)],
                    1 if !input.is_empty() => input[at] ^= 1 << below(8),
                    2 => input.insert(at, u8::try_from(below(256)).unwrap()),
                    3 => input.truncate(at),
                    _ => input.extend_from_within(at..(at + below(40)).min(input.len())),
                }
            }
            target(&input);
        }
    }

    #[test]
    fn configurations_hold_every_invariant() {
        let pair = b"CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=n\n\0CONFIG_A=y\nCONFIG_B=16\n";
        replay(fuzz_config, &[pair, FRAGMENT.as_bytes(), b"CONFIG_=y\n"]);
    }

    #[test]
    fn kernel_files_hold_every_invariant() {
        let sample = crate::image::sample();
        let longer = [&sample[..], &[0xff; 40]].concat();
        replay(fuzz_image, &[&sample, &longer]);
    }

    #[test]
    fn archive_names_hold_every_invariant() {
        replay(fuzz_archive, &[b"init\0\x7fELF", b"a/b\0", b"../x\0y"]);
    }
}
