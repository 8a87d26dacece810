//! The thread that decodes ahead.

use super::batch::{Batch, Ready};
use super::plan::Plan;
use crate::block::MAX_BLOCK;
use crate::cpu::op::Op;
use crate::exec::bind;
use crate::exec::branch::stale;
use crate::mode::Mode;
use crate::page::{PAGE_MASK, PAGE_SIZE};
use crate::phys::{MemoryFlags, PhysView};
use crate::vm::VmShared;
use std::sync::Arc;

/// Ops of a batch at most: some microseconds of work at first, so that there is
/// something soon.
const FIRST_OPS: usize = 512;
const LATER_OPS: usize = 4096;
/// Ops of a block at most: one more for each instruction that moves the stack
/// pointer, and two around them.
const BLOCK_OPS: usize = 2 * MAX_BLOCK + 2;
/// Ops that are decoded ahead at most: 8 MiB, and more than three times what the first
/// command of a shell needs.
const MAX_OPS: usize = 1 << 18;

/// Has a thread decode the blocks of `plan` for the first vCPU of `vm`, which need
/// not wait for it. Whether there is such a thread now.
pub fn start(vm: &Arc<VmShared>, plan: Plan) -> bool {
    vm.ahead.begin(|| {
        let for_thread = Arc::clone(vm);
        std::thread::Builder::new()
            .name("softhv-ahead".into())
            .spawn(move || decode(&for_thread, &plan))
            .ok()
    })
}

fn decode(vm: &VmShared, plan: &Plan) {
    let view = vm.phys.view();
    let mut most = FIRST_OPS;
    let mut total = 0;
    let mut batch = Batch::default();
    for key in plan.keys() {
        if vm.ahead.is_over() || total >= MAX_OPS {
            break;
        }
        if vm.ahead.is_seen(*key) {
            continue;
        }
        if batch.ops.len() + BLOCK_OPS > batch.ops.capacity() {
            vm.ahead.give(std::mem::take(&mut batch));
            batch.ops = Vec::with_capacity(most + BLOCK_OPS);
            most = LATER_OPS;
        }
        total += block(&mut batch, &view, *key);
    }
    vm.ahead.give(batch);
}

/// Decodes the block of `key` if there is memory to be executed; how many ops that
/// took.
fn block(batch: &mut Batch, view: &PhysView, key: u64) -> usize {
    let physical = key & !3;
    let mode = Mode {
        user: key & 1 != 0,
        fp_traps: key & 2 != 0,
        sp_off: false,
    };
    let Some(backing) = view.lookup(physical) else {
        return 0;
    };
    if !backing.flags.contains(MemoryFlags::EXEC) {
        return 0;
    }
    let offset = physical & !PAGE_MASK;
    // Memory is mapped in whole pages.
    let room = ((PAGE_SIZE - offset) / 4) as usize;
    let (op, word) = (batch.ops.len(), batch.words.len());
    batch.ops.push(Op::new(stale));
    let Batch { ops, words, .. } = batch;
    let host = backing.host.cast_const().cast::<u32>();
    let count = bind::block(ops, mode, offset as u16, room.min(MAX_BLOCK), |n| {
        // SAFETY: `host` backs `physical`, mapped in whole pages, and `room` ends at
        // the page's end. Whoever unmaps it waits for this thread first. Volatile, as
        // the guest may be writing there from another thread.
        let value = unsafe { host.wrapping_add(n).read_volatile() };
        words.push(value);
        value
    });
    batch.blocks.push(Ready {
        key,
        op: op as u32,
        word: word as u32,
        count: count as u8,
    });
    batch.ops.len() - op
}
