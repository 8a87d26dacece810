//! `hv_vm_*`: the one VM of the process and its memory.

use super::objects::{self, Object};
use super::{DEFAULT_IPA_BITS, MAX_IPA_BITS, host, put};
use crate::ahead::helper;
use crate::ahead::plan::{self, Plan};
use crate::faults::{FAULTS, Faults};
use crate::inherit;
use crate::jit::{self, census};
use crate::phys::{MemoryFlags, PhysError};
use crate::tier::Tier;
use crate::vm::{MAX_VCPUS, VmShared};
use hvf::sys::{self, CodeCounts, Return, VmConfig};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The VM, while there is one.
static MACHINE: Mutex<Option<Arc<VmShared>>> = Mutex::new(None);

fn machine() -> MutexGuard<'static, Option<Arc<VmShared>>> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets the VM of the process this one was forked from, but for the code
/// that its vCPUs had decoded. It is not dropped: that would wait for threads
/// that are not here.
pub(super) fn forget() {
    if let Some(vm) = machine().take() {
        inherit::take_over(&vm);
        std::mem::forget(vm);
    }
}

/// The VM, or what a call without one returns.
pub(super) fn current() -> Result<Arc<VmShared>, Return> {
    machine().clone().ok_or(Return::NO_DEVICE)
}

/// Runs `f` on the VM while it cannot be destroyed.
pub(super) fn with_current<R>(f: impl FnOnce(&Arc<VmShared>) -> R) -> Result<R, Return> {
    machine().as_ref().map(f).ok_or(Return::NO_DEVICE)
}

/// Flattens a result into the ABI's code.
pub(super) fn code(result: Result<Return, Return>) -> Return {
    result.unwrap_or_else(|error| error)
}

fn map_code(result: Result<(), PhysError>) -> Return {
    match result {
        Ok(()) => Return::SUCCESS,
        Err(PhysError::BadArgument) => Return::BAD_ARGUMENT,
        Err(PhysError::Overlap | PhysError::Hole) => Return::ERROR,
    }
}

pub(super) unsafe extern "C" fn get_max_vcpu_count(out: *mut u32) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(out, MAX_VCPUS as u32) }
}

/// `hv_vm_create` for machines of the [`Tier`] with number `TIER`.
pub(super) unsafe extern "C" fn create<const TIER: u8>(config: VmConfig) -> Return {
    let tier = Tier::from_number(TIER);
    let mut ipa_bits = 0;
    if config != VmConfig::NULL {
        let set = objects::with(config.0, |object| match object {
            Object::Vm { ipa_bits } => Some(*ipa_bits),
            _ => None,
        });
        match set.flatten() {
            Some(bits) => ipa_bits = bits,
            None => return Return::BAD_ARGUMENT,
        }
    }
    if ipa_bits == 0 {
        ipa_bits = DEFAULT_IPA_BITS;
    }
    if !host::can_run() || (tier.must_compile() && jit::probe().is_err()) {
        return Return::UNSUPPORTED;
    }
    let mut slot = machine();
    if slot.is_some() {
        return Return::BUSY;
    }
    if Faults::take(&FAULTS.no_resources) {
        return Return::NO_RESOURCES;
    }
    *slot = Some(Arc::new(VmShared::new(ipa_bits, tier)));
    Return::SUCCESS
}

pub(super) unsafe extern "C" fn destroy() -> Return {
    let mut slot = machine();
    match slot.as_ref() {
        None => return Return::NO_DEVICE,
        Some(vm) if vm.vcpu_count() != 0 => return Return::BUSY,
        Some(_) => {}
    }
    let vm = slot.take();
    drop(slot);
    if let Some(vm) = &vm {
        // Its memory may go when this returns.
        vm.ahead.end();
    }
    drop(vm);
    Return::SUCCESS
}

pub(super) unsafe extern "C" fn map(
    host: *mut c_void,
    ipa: u64,
    size: usize,
    flags: sys::MemoryFlags,
) -> Return {
    let vm = match current() {
        Ok(vm) => vm,
        Err(error) => return error,
    };
    if !is_mapped(host, size) {
        return Return::BAD_ARGUMENT;
    }
    map_code(vm.map(host.addr(), ipa, size as u64, MemoryFlags(flags.0)))
}

/// Whether the whole range is memory of this process.
fn is_mapped(host: *mut c_void, size: usize) -> bool {
    if host.is_null() || host.addr().checked_add(size).is_none() {
        return false;
    }
    // MS_ASYNC writes nothing back here, it only walks the mappings; a gap is
    // ENOMEM, an unaligned address EINVAL.
    // SAFETY: the call does not change memory.
    unsafe { libc::msync(host, size, libc::MS_ASYNC) == 0 }
}

pub(super) unsafe extern "C" fn unmap(ipa: u64, size: usize) -> Return {
    code(current().map(|vm| map_code(vm.unmap(ipa, size as u64))))
}

pub(super) unsafe extern "C" fn protect(ipa: u64, size: usize, flags: sys::MemoryFlags) -> Return {
    code(current().map(|vm| map_code(vm.protect(ipa, size as u64, MemoryFlags(flags.0)))))
}

/// Runs `f` on the VM if none of its vCPUs is in a run.
fn with_stopped(f: impl FnOnce(&VmShared) -> Return) -> Return {
    code(current().map(|vm| {
        if vm.is_stopped() {
            f(&vm)
        } else {
            Return::BUSY
        }
    }))
}

pub(super) unsafe extern "C" fn content_replaced(
    _host: *mut c_void,
    ipa: u64,
    size: usize,
) -> Return {
    with_stopped(|vm| {
        if !vm.phys.is_mapped(ipa, size as u64) {
            return Return::ERROR;
        }
        vm.content_replaced(ipa, size as u64);
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn dirty_start(ipa: u64, size: usize) -> Return {
    with_stopped(|vm| map_code(vm.follow_writes(ipa, size as u64)))
}

pub(super) unsafe extern "C" fn dirty_take(
    ipa: u64,
    size: usize,
    bits: *mut u64,
    words: usize,
) -> Return {
    if bits.is_null() || !bits.is_aligned() || words > isize::MAX.unsigned_abs() / 8 {
        return Return::BAD_ARGUMENT;
    }
    // SAFETY: not null and aligned; the caller gives `words` initialised words
    // that no one else uses.
    let out = unsafe { std::slice::from_raw_parts_mut(bits, words) };
    with_stopped(|vm| {
        if vm.take_written(ipa, size as u64, out) {
            Return::SUCCESS
        } else {
            Return::BAD_ARGUMENT
        }
    })
}

pub(super) unsafe extern "C" fn code_note() -> Return {
    with_stopped(|vm| {
        vm.note_code();
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn code_take_notes(
    bytes: *mut u8,
    room: usize,
    written: *mut usize,
) -> Return {
    code(current().map(|vm| {
        let notes = Plan::of(vm.ahead.take_notes(), vm.dirty.marked()).encode();
        if bytes.is_null() || notes.len() > room {
            return Return::BAD_ARGUMENT;
        }
        // SAFETY: the caller gives `room` bytes that no one else uses.
        unsafe { notes.as_ptr().copy_to_nonoverlapping(bytes, notes.len()) };
        // SAFETY: the caller gives null or a place for the value.
        unsafe { put(written, notes.len()) }
    }))
}

pub(super) unsafe extern "C" fn code_decode_ahead(
    bytes: *const u8,
    count: usize,
    at_work: bool,
) -> Return {
    if bytes.is_null() || count > plan::MAX_BYTES {
        return Return::BAD_ARGUMENT;
    }
    // SAFETY: not null; the caller gives `count` bytes that nobody changes meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, count) };
    if Plan::decode(bytes).is_none() {
        return Return::BAD_ARGUMENT;
    }
    code(current().map(|vm| {
        // Without a thread for it, vCPUs decode by themselves.
        helper::start(&vm, bytes.into(), at_work);
        Return::SUCCESS
    }))
}

pub(super) unsafe extern "C" fn code_counts(counts: *mut CodeCounts) -> Return {
    code(current().map(|vm| {
        let blocks = vm.ahead.counts();
        let all = CodeCounts {
            decoded: blocks.decoded,
            ahead: blocks.taken,
            instructions_decoded: vm.work.instructions_decoded(),
            decoding_ns: vm.work.decoding_ns(),
            instructions_compiled: vm.work.instructions_compiled(),
            compiling_ns: vm.work.compiling_ns(),
            instructions_begun: vm.work.instructions_begun(),
        };
        // SAFETY: the caller gives null or a place for the value.
        unsafe { put(counts, all) }
    }))
}

pub(super) unsafe extern "C" fn code_census(
    text: *mut u8,
    room: usize,
    written: *mut usize,
) -> Return {
    code(current().map(|vm| {
        let report = if vm.tier == Tier::Census {
            census(vm.work.instructions_begun(), room)
        } else {
            String::new()
        };
        if text.is_null() {
            return Return::BAD_ARGUMENT;
        }
        // SAFETY: the caller gives `room` bytes that no one else uses, and the report
        // is no longer than that.
        unsafe { report.as_ptr().copy_to_nonoverlapping(text, report.len()) };
        // SAFETY: the caller gives null or a place for the value.
        unsafe { put(written, report.len()) }
    }))
}

pub(super) unsafe extern "C" fn config_create() -> VmConfig {
    VmConfig(objects::insert(Object::Vm { ipa_bits: 0 }))
}

pub(super) unsafe extern "C" fn config_get_max_ipa_size(bits: *mut u32) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bits, MAX_IPA_BITS) }
}

pub(super) unsafe extern "C" fn config_get_default_ipa_size(bits: *mut u32) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bits, DEFAULT_IPA_BITS) }
}

pub(super) unsafe extern "C" fn config_set_ipa_size(config: VmConfig, bits: u32) -> Return {
    if bits > MAX_IPA_BITS {
        return Return::UNSUPPORTED;
    }
    let done = objects::with(config.0, |object| match object {
        Object::Vm { ipa_bits } => {
            *ipa_bits = bits;
            Return::SUCCESS
        }
        _ => Return::BAD_ARGUMENT,
    });
    done.unwrap_or(Return::BAD_ARGUMENT)
}

pub(super) unsafe extern "C" fn os_release(object: *mut c_void) {
    objects::release(object);
}
