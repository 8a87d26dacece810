//! How the kernel is built, as data: `cargo xtask assets` follows it, and its
//! hash names the result.

use sha2::{Digest, Sha256};

use crate::config::{FRAGMENT, settings};

/// Raised when the steps change in a way the constants below do not show.
pub const VERSION: u32 = 1;
/// Debian package that carries the kernel source.
pub const SOURCE_PACKAGE: &str = "linux-source-6.12";
/// The archive that package installs.
pub const SOURCE_ARCHIVE: &str = "/usr/src/linux-source-6.12.tar.xz";
/// The single directory inside the archive.
pub const SOURCE_DIR: &str = "linux-source-6.12";
/// Our changes to it, by name, in the order in which they are applied with
/// `patch -p1`; explained in `patches/README.md`.
pub const PATCHES: [(&str, &str); 6] = [
    (
        "0001-hold-user-mode.patch",
        include_str!("../patches/0001-hold-user-mode.patch"),
    ),
    (
        "0002-squashfs-lookups.patch",
        include_str!("../patches/0002-squashfs-lookups.patch"),
    ),
    (
        "0003-cgroup-namespace-border.patch",
        include_str!("../patches/0003-cgroup-namespace-border.patch"),
    ),
    (
        "0004-virtiofs-notifications.patch",
        include_str!("../patches/0004-virtiofs-notifications.patch"),
    ),
    (
        "0005-squashfs-in-place.patch",
        include_str!("../patches/0005-squashfs-in-place.patch"),
    ),
    (
        "0006-fewer-files-longer-packets.patch",
        include_str!("../patches/0006-fewer-files-longer-packets.patch"),
    ),
];
/// Files of the archive that no build for arm64 guests reads, as `tar`'s
/// patterns: three quarters of it. Build descriptions stay, which name one
/// another everywhere.
pub const NOT_UNPACKED: [&str; 13] = [
    "*/Documentation/*/*",
    "*/arch/arm64/boot/dts/*/*",
    "*/drivers/gpu/*.[chS]",
    "*/drivers/infiniband/*.[chS]",
    "*/drivers/media/*.[chS]",
    "*/drivers/net/ethernet/*.[chS]",
    "*/drivers/net/wireless/*.[chS]",
    "*/drivers/scsi/*.[chS]",
    "*/drivers/staging/*.[chS]",
    "*/drivers/usb/*.[chS]",
    "*/sound/*.[chS]",
    "*/tools/perf/*",
    "*/tools/testing/*",
];
/// Prefix of the cross tools when the builder is not itself arm64.
pub const CROSS_COMPILE: &str = "aarch64-linux-gnu-";
/// Variables given to every `make`: the architecture, and fixed values in
/// place of the builder's name and clock, so that builds can be compared.
pub const MAKE_VARIABLES: [(&str, &str); 5] = [
    ("ARCH", "arm64"),
    ("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC"),
    ("KBUILD_BUILD_USER", "supermachine"),
    ("KBUILD_BUILD_HOST", "supermachine"),
    ("KBUILD_BUILD_VERSION", "1"),
];
/// Further compiler flags, which change no byte of the result and so are no part
/// of its hash. That a token came out of a macro is of use to warnings only, and
/// costs a tenth of the time of a compilation.
pub const QUICK_FLAGS: &str = "-pipe -ftrack-macro-expansion=0";
/// First configuration target; reads the fragment through `KCONFIG_ALLCONFIG`.
pub const BASE_TARGET: &str = "allnoconfig";
/// Second configuration target: settles what depends on the fragment.
pub const SETTLE_TARGET: &str = "olddefconfig";
/// The target built.
pub const BUILD_TARGET: &str = "Image";
/// The result, relative to the build directory.
pub const IMAGE: &str = "arch/arm64/boot/Image";

/// What every supermachine guest wants on its kernel command line, whatever
/// its devices: errors only on the console; grace periods that do not wait for
/// a 10 ms tick; no bounce buffers for devices that reach all of memory; no
/// `dummy0` that nobody asked for.
pub const BASE_COMMAND_LINE: &str =
    "quiet rcupdate.rcu_expedited=1 swiotlb=noforce dummy.numdummies=0";

/// Hash of the recipe and the configuration, as 16 lower-case hex digits: which
/// kernel this version of the crate wants, whatever point release of the source
/// the building machine had.
#[must_use]
pub fn recipe_hash() -> String {
    short(digest(&[]))
}

/// As [`recipe_hash`], for one version of the source package: names the
/// directory that holds a finished build.
#[must_use]
pub fn build_hash(source_version: &str) -> String {
    short(digest(&["source", source_version]))
}

fn digest(more: &[&str]) -> Sha256 {
    let mut hash = Sha256::new();
    let version = VERSION.to_string();
    let mut parts = vec![
        version.as_str(),
        SOURCE_PACKAGE,
        BASE_TARGET,
        SETTLE_TARGET,
        BUILD_TARGET,
        IMAGE,
    ];
    // Settings rather than text: a better comment is no other kernel.
    for setting in settings(FRAGMENT) {
        parts.extend([setting.symbol, setting.value.unwrap_or("n")]);
    }
    for (name, value) in MAKE_VARIABLES {
        parts.extend([name, value]);
    }
    for (name, text) in PATCHES {
        parts.extend([name, text]);
    }
    parts.extend(more);
    for part in parts {
        // Lengths keep neighbours apart: ("ab", "c") is not ("a", "bc").
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash
}

fn short(hash: Sha256) -> String {
    hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_sixteen_hex_digits() {
        for hash in [recipe_hash(), build_hash("6.12.1-1")] {
            assert_eq!(hash.len(), 16);
            assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn a_new_source_version_gives_a_new_build_hash() {
        assert_ne!(build_hash("6.12.1-1"), build_hash("6.12.2-1"));
        assert_ne!(build_hash("6.12.1-1"), recipe_hash());
        assert_eq!(build_hash("6.12.1-1"), build_hash("6.12.1-1"));
    }

    #[test]
    fn every_patch_of_the_directory_is_applied_in_the_order_of_names() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("patches");
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".patch"))
            .collect();
        names.sort();
        assert_eq!(PATCHES.map(|(name, _)| name.to_owned()).to_vec(), names);
        for (name, text) in PATCHES {
            // NOTICE says so of each.
            let licence = "SPDX-License-Identifier: GPL-2.0-only";
            assert!(text.contains(licence), "{name}");
        }
    }
}
