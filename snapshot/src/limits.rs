//! Upper bounds, checked before anything is allocated or mapped.

/// Most bytes of `state.bin`.
pub const MAX_STATE_BYTES: u64 = 16 << 20;
/// Most sections in `state.bin`.
pub const MAX_SECTIONS: usize = 512;
/// Most virtual CPUs of a machine.
pub const MAX_VCPUS: u16 = 64;
/// Most devices of a machine.
pub const MAX_DEVICES: u16 = 160;
/// Most bytes of `manifest.json`: room for the checksums of [`MAX_MEMORY_BYTES`].
pub const MAX_MANIFEST_BYTES: u64 = 2 << 20;
/// Most bytes of guest memory, 64 GiB.
pub const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// Most bytes of `ws.bin`.
pub const MAX_WORKING_SET_BYTES: u64 = 2 << 20;
/// Most runs of pages in `ws.bin`.
pub const MAX_WORKING_SET_RUNS: usize = 65_536;
/// Most runs of memory in a base: each is a mapping of its own in every copy.
pub const MAX_BASE_RUNS: usize = 512;
/// Shortest run of memory that is left to a base: a shorter one costs every copy a mapping,
/// and spares the disk little. Readers take any.
pub const MIN_BASE_RUN_BYTES: u64 = 4 * GRANULE_BYTES;
/// Most files a generation may have beside the four it always has: each
/// disk of the machine may be one.
pub const MAX_EXTRA_FILES: usize = 256;
/// Most bytes of one extra file, 64 GiB.
pub const MAX_EXTRA_BYTES: u64 = 64 << 30;
/// Most bytes of content of a snapshot as one file: what is in no hole.
pub const MAX_BUNDLE_BYTES: u64 = 128 << 30;
/// Most named resources (disks, mounts, listeners) together.
pub const MAX_RESOURCES: usize = 4096;
/// Most labels.
pub const MAX_LABELS: usize = 256;
/// Most bytes of any string.
pub const MAX_STRING_BYTES: usize = 4096;
/// Most facts in a stamp.
pub const MAX_FACTS: usize = 512;

/// Unit in which guest memory is stored and compared with zero.
pub const PAGE_BYTES: u64 = 4096;
/// Guest memory is a multiple of this and is mapped at a multiple of it: the
/// granule of Apple Silicon.
pub const GRANULE_BYTES: u64 = 16 << 10;
/// Memory covered by one checksum.
pub const CHUNK_BYTES: u64 = 2 << 20;
