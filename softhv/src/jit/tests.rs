//! What is where, and who may write it; what code does is tested by the streams.

use super::policy::Policy;
use super::{Tier, with};
use crate::code::CodeCache;
use crate::cpu::op::Op;
use crate::exec::bind;
use crate::exec::branch::stale;
use crate::mode::Mode;
use crate::tier::CodeMemory;
use crate::vm::VmShared;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

const USER: Mode = Mode {
    user: true,
    fp_traps: false,
    sp_off: false,
};
/// add x0, x0, #1; ret
const WORDS: [u32; 2] = [0x9100_0400, 0xd65f_03c0];
const PLACE: u64 = 0x8000_0000;

fn cache() -> CodeCache {
    let mut cache = CodeCache::new(stale);
    cache.set_tier(with(Policy::EAGER, &Arc::default()));
    cache
}

/// Adds a block `at` bytes into a page and compiles it; its entry.
fn compiled(cache: &mut CodeCache, at: u16) -> *const Op {
    let mut ops = Vec::new();
    cache.begin(&mut ops);
    bind::block(&mut ops, USER, at, WORDS.len(), |n| WORDS[n]);
    let entry = cache.insert(USER, PLACE + u64::from(at), &mut ops, &WORDS);
    // SAFETY: the entry of one of its blocks.
    unsafe { cache.compile(entry.cast_mut(), false) };
    entry
}

/// Where the handler of `op` is.
fn address(op: *const Op) -> usize {
    // SAFETY: of a cache that the callers have yet.
    unsafe { (*op).run as usize }
}

/// A line of the process's map of memory.
struct Mapping {
    rights: String,
    name: String,
    /// Names the file, as long as the process lives.
    inode: u64,
}

fn mappings() -> Vec<(std::ops::Range<usize>, Mapping)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (from, to) = fields[0].split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| usize::from_str_radix(text, 16).unwrap());
        let mapping = Mapping {
            rights: fields[1].to_owned(),
            name: fields.get(5).copied().unwrap_or_default().to_owned(),
            inode: fields[4].parse().unwrap(),
        };
        (from..to, mapping)
    };
    maps.lines().map(parse).collect()
}

/// Whether this process has a file open.
fn is_open(inode: u64) -> bool {
    let numbers = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut files = numbers.filter_map(|number| fs::metadata(number.path()).ok());
    files.any(|file| file.ino() == inode)
}

/// Whether the file that the code of compiled `op` was written to is open.
pub fn is_written_to(op: *const Op) -> bool {
    is_open(mapping(address(op)).inode)
}

/// What is mapped at `address`, which code is at.
fn mapping(address: usize) -> Mapping {
    let found = mappings()
        .into_iter()
        .find(|(range, _)| range.contains(&address));
    let (_, mapping) = found.expect("it is mapped");
    assert!(mapping.name.contains("softhv-code"), "{}", mapping.name);
    mapping
}

#[test]
fn compiled_code_has_no_writable_address() {
    let mut cache = cache();
    let entry = compiled(&mut cache, 0);
    let inode = mapping(address(entry)).inode;
    for (range, mapping) in mappings() {
        if mapping.inode == inode && mapping.name.contains("softhv-code") {
            assert_eq!(mapping.rights, "r-xp", "{range:x?}");
        }
    }
}

#[test]
fn a_forked_process_keeps_its_parents_code_and_writes_elsewhere() {
    let mut cache = cache();
    let old = compiled(&mut cache, 0);
    let (before, inode) = (address(old), mapping(address(old)).inode);
    assert_eq!(mapping(address(compiled(&mut cache, 64))).inode, inode);
    cache.part();
    cache.settle(&VmShared::new(40, Tier::Auto));
    assert_ne!(mapping(address(compiled(&mut cache, 128))).inode, inode);
    assert_eq!(address(old), before);
    assert_eq!(mapping(before).inode, inode);
}

#[test]
fn a_forked_process_closes_its_parents_files_before_their_numbers_are_given_anew() {
    let mut cache = cache();
    let inode = mapping(address(compiled(&mut cache, 0))).inode;
    assert!(is_open(inode));
    cache.part();
    assert!(
        !is_open(inode),
        "later it may close what has its number by then"
    );
}

#[test]
fn an_idle_vcpu_keeps_no_code() {
    let mut cache = cache();
    let inode = mapping(address(compiled(&mut cache, 0))).inode;
    cache.release();
    assert!(
        mappings()
            .iter()
            .all(|(_, m)| m.inode != inode || !m.name.contains("softhv-code"))
    );
    // And compiles again when it works again.
    mapping(address(compiled(&mut cache, 0)));
}

#[test]
fn changed_code_is_left_by_compiled_blocks_too() {
    let mut cache = cache();
    let entry = compiled(&mut cache, 0);
    let range = crate::mail::CodeRange {
        pa: PLACE + 4,
        bytes: 4,
    };
    cache.invalidate(range);
    assert_eq!(address(entry), stale as *const () as usize);
}

#[test]
fn nothing_is_accessible_right_before_and_behind_code() {
    let region = super::Region::new(64 << 10).unwrap();
    let (from, to) = (region.next(), region.next() + (64 << 10));
    let around = |address: usize| {
        let found = mappings().into_iter().find(|(r, _)| r.contains(&address));
        found.map_or_else(|| "---p".to_owned(), |(_, mapping)| mapping.rights)
    };
    assert_eq!(around(from), "r-xp");
    assert_eq!(around(from - 1), "---p");
    assert_eq!(around(to), "---p");
}

#[test]
fn a_machine_without_room_leaves_each_vcpu_one_region() {
    let memory: Arc<CodeMemory> = Arc::default();
    let _others: Vec<_> = (0..CodeMemory::MOST).map(|_| memory.take(true)).collect();
    let crowded = most_bytes(&memory);
    assert!((1..=64 << 10).contains(&crowded), "{crowded}");
    assert!(most_bytes(&Arc::default()) > 64 << 10);
    // What it had is given back, and no more than that.
    assert!(memory.take(false).is_none());
}

/// What a vCPU has of code at most while it compiles more than three regions of
/// 64 KiB.
fn most_bytes(memory: &Arc<CodeMemory>) -> usize {
    let policy = Policy {
        region_bytes: 64 << 10,
        ..Policy::EAGER
    };
    let mut cache = CodeCache::new(stale);
    cache.set_tier(with(policy, memory));
    let blocks = (0..5000u16).map(|n| {
        // In place of all that it was compiled for before.
        compiled(&mut cache, n % 500 * 8);
        cache.compiled_bytes()
    });
    blocks.max().unwrap_or_default()
}
