//! The thread that decodes ahead.

use super::plan::Plan;
use super::store::{Filled, Store};
use crate::block::MAX_BLOCK;
use crate::cpu::op::Op;
use crate::exec::bind;
use crate::exec::branch::stale;
use crate::heap;
use crate::mode::Mode;
use crate::page::{PAGE_MASK, PAGE_SIZE};
use crate::phys::{MemoryFlags, PhysView};
use crate::vm::VmShared;
use std::sync::Arc;

/// Has a thread decode the blocks of a stored [`Plan`] for the first vCPU of `vm`, which
/// need not wait for it, now and whenever it has nothing decoded. Whether there is such
/// a thread now. A machine that is `at_work` from its start gets the pages that it will
/// write at once; another one when it gets work.
pub fn start(vm: &Arc<VmShared>, notes: Arc<[u8]>, at_work: bool) -> bool {
    vm.ahead.keep(notes);
    begin(vm, at_work)
}

/// The same once more, with what was given before, if anything was.
pub fn again(vm: &Arc<VmShared>) -> bool {
    begin(vm, true)
}

fn begin(vm: &Arc<VmShared>, at_work: bool) -> bool {
    let Some(notes) = vm.ahead.kept() else {
        return false;
    };
    vm.ahead.begin(|| {
        let vm = Arc::clone(vm);
        std::thread::Builder::new()
            .name("softhv-ahead".into())
            .spawn(move || decode(&vm, &notes, at_work))
            .ok()
    })
}

fn decode(vm: &VmShared, notes: &[u8], at_work: bool) {
    let Some(plan) = Plan::decode(notes) else {
        return;
    };
    let store = Arc::new(Store::new(plan.keys().len()));
    vm.ahead.open(Arc::clone(&store));
    let view = vm.phys.view();
    if at_work {
        get_pages(vm, &view, plan.pages());
    }
    let mut filled = Filled::default();
    let mut block = Block::default();
    for key in plan.keys() {
        if vm.ahead.is_over() {
            break;
        }
        if vm.ahead.is_seen(*key) || !block.decode(&view, *key) {
            continue;
        }
        // SAFETY: nobody but this thread adds to the store that was made for it.
        if !unsafe { store.add(&mut filled, *key, &block.ops, &block.words) } {
            break;
        }
    }
}

/// Has the host make the pages that will be written this machine's own: while two
/// threads run, each page that one of them has read and then writes interrupts the other.
fn get_pages(vm: &VmShared, view: &PhysView, pages: &[u64]) {
    for run in pages.chunk_by(|page, next| page + 1 == *next) {
        let first = run[0] * PAGE_SIZE;
        let wanted = run.len() as u64 * PAGE_SIZE;
        if vm.ahead.is_over() {
            return;
        }
        let Some(backing) = view.lookup(first) else {
            continue;
        };
        if backing.flags.contains(MemoryFlags::WRITE) {
            let bytes = wanted.min(backing.left) as usize;
            // SAFETY: guest memory, which whoever unmaps it waits for this thread for.
            unsafe { heap::make_own(backing.host, bytes) };
        }
    }
}

/// A block that is being decoded.
#[derive(Default)]
struct Block {
    ops: Vec<Op>,
    words: Vec<u32>,
}

impl Block {
    /// Decodes the block of `key`, if there is memory to be executed.
    fn decode(&mut self, view: &PhysView, key: u64) -> bool {
        let physical = key & !3;
        let mode = Mode {
            user: key & 1 != 0,
            fp_traps: key & 2 != 0,
            sp_off: false,
        };
        let Some(backing) = view.lookup(physical) else {
            return false;
        };
        if !backing.flags.contains(MemoryFlags::EXEC) {
            return false;
        }
        let offset = physical & !PAGE_MASK;
        // Memory is mapped in whole pages.
        let room = ((PAGE_SIZE - offset) / 4) as usize;
        let host = backing.host.cast_const().cast::<u32>();
        let Self { ops, words } = self;
        ops.clear();
        words.clear();
        ops.push(Op::new(stale));
        bind::block(ops, mode, offset as u16, room.min(MAX_BLOCK), |n| {
            // SAFETY: `host` backs `physical`, mapped in whole pages, and `room` ends at
            // the page's end. Whoever unmaps it waits for this thread first. Volatile,
            // as the guest may be writing there from another thread.
            let value = unsafe { host.wrapping_add(n).read_volatile() };
            words.push(value);
            value
        });
        true
    }
}
