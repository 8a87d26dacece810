use super::*;
use crate::exec::bind;
use crate::exec::branch::stale;

const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const PLACE: u64 = 0x8000_0100;
const USER: Mode = Mode {
    user: true,
    fp_traps: false,
    sp_off: false,
};

/// Seven NOPs and a RET at [`PLACE`].
fn cache() -> (CodeCache, *const Op) {
    let mut cache = CodeCache::new(stale);
    let entry = decoded(&mut cache);
    (cache, entry)
}

fn decoded(cache: &mut CodeCache) -> *const Op {
    let mut ops = Vec::new();
    cache.begin(&mut ops);
    let mut words = [NOP; 8];
    words[7] = RET;
    let count = bind::block(&mut ops, USER, 0x100, 64, |n| words[n]);
    assert_eq!(count, 8);
    cache.insert(USER, PLACE, &mut ops, &words)
}

fn is_stale(op: *const Op) -> bool {
    // SAFETY: the cache that owns it lives in the callers.
    let run = unsafe { (*op).run };
    std::ptr::fn_addr_eq(run, stale as Handler)
}

fn range(pa: u64, bytes: u64) -> CodeRange {
    CodeRange { pa, bytes }
}

#[test]
fn a_block_is_entered_where_it_has_been_decoded_for_the_same_mode() {
    let (mut cache, entry) = cache();
    let inside = cache.enter(USER, PLACE + 12).unwrap();
    assert_eq!(inside, entry.wrapping_add(3));
    assert_eq!(cache.find(USER, PLACE + 12), Some(inside));
    assert_eq!(cache.enter(USER, PLACE - 4), None);
    assert_eq!(cache.enter(USER, PLACE + 32), None);
    let traps = Mode {
        fp_traps: true,
        ..USER
    };
    assert_eq!(cache.enter(traps, PLACE + 12), None);
    assert_eq!(cache.enter(USER, PLACE + PAGE_SIZE + 12), None);
}

#[test]
fn changed_code_is_left_by_all_who_enter_before_it() {
    let (mut cache, entry) = cache();
    let inside = cache.enter(USER, PLACE + 12).unwrap();
    // In front of where the second one enters.
    cache.invalidate(range(PLACE + 8, 4));
    assert_eq!(cache.find(USER, PLACE), None);
    assert_eq!(cache.find(USER, PLACE + 12), Some(inside));
    assert!(is_stale(entry) && !is_stale(inside));
    assert_eq!(cache.enter(USER, PLACE + 4), None);
    assert!(cache.enter(USER, PLACE + 16).is_some());
    cache.invalidate(range(PLACE + 28, 4));
    assert!(is_stale(inside));
    assert!(cache.blocks.is_empty());
    assert_eq!(cache.enter(USER, PLACE + 12), None);
}

#[cfg(compiles)]
#[test]
fn what_led_to_changed_code_leads_to_what_is_decoded_there_next() {
    let memory = Arc::default();
    let mut cache = CodeCache::new(stale);
    cache.set_tier(crate::jit::compiler(crate::Tier::Auto, &memory));
    let entry = decoded(&mut cache);
    let inside = cache.enter(USER, PLACE + 12).unwrap();
    for _ in 0..3 {
        cache.invalidate(range(PLACE + 16, 4));
        assert!(is_stale(entry) && is_stale(inside));
        assert_eq!(cache.find(USER, PLACE), None);
        assert_eq!(decoded(&mut cache), entry);
        assert!(!is_stale(entry) && is_stale(inside));
        assert_eq!(cache.enter(USER, PLACE + 12), Some(inside));
        assert!(!is_stale(inside));
        // SAFETY: live ops, which lead to the ops of the block.
        let firsts = unsafe { [(*entry).link.get(), (*inside).link.get()] };
        assert_eq!(firsts[1], firsts[0].wrapping_add(3));
    }
    cache.invalidate(range(PLACE, 4));
    cache.clear();
    assert!(cache.gone.is_empty());
}
