//! Names from archives as lists of components.

use crate::error::LayerError;
use crate::squashfs::NAME_MAX;

/// Linux `PATH_MAX`: no guest program can name anything longer.
const PATH_MAX: usize = 4096;

/// Splits an archive name into components below the root of the tree.
/// Leading slashes, `.` and repeated slashes vanish; `..` is refused rather
/// than resolved, because no tool that writes layers produces it and readers
/// disagree about what it means after a symlink.
pub(crate) fn normalise(name: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
    let unsafe_name = |reason| LayerError::UnsafePath {
        path: crate::error::show(name),
        reason,
    };
    if name.len() > PATH_MAX {
        return Err(unsafe_name("longer than 4096 bytes"));
    }
    if name.contains(&0) {
        return Err(unsafe_name("contains a NUL byte"));
    }
    let mut components = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(unsafe_name("contains `..`")),
            part if part.len() > NAME_MAX => {
                return Err(unsafe_name("has a component longer than 255 bytes"));
            }
            part => components.push(part.to_vec()),
        }
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundant_parts_vanish() {
        let parts = normalise(b"/./usr//bin/").unwrap();
        assert_eq!(parts, [b"usr".to_vec(), b"bin".to_vec()]);
        assert!(normalise(b"./").unwrap().is_empty());
    }

    #[test]
    fn parent_components_are_rejected() {
        for name in [&b".."[..], b"../etc/passwd", b"a/../../b", b"/..", b"a/.."] {
            assert!(normalise(name).is_err());
        }
    }

    #[test]
    fn names_linux_cannot_hold_are_rejected() {
        assert!(normalise(b"a\0b").is_err());
        assert!(normalise(&[b'a'; 256]).is_err());
        assert!(normalise(&[b'a'; 255]).is_ok());
        assert!(normalise(&b"a/".repeat(3000)).is_err());
    }
}
