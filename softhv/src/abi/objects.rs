//! The opaque objects of the ABI: configurations and saved states.
//!
//! A handle is a number that was never used before, not an address, so that a
//! stale or invented one is found out instead of followed.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// `hv_gic_config_t`.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct GicSettings {
    pub(super) distributor: Option<u64>,
    pub(super) redistributor: Option<u64>,
    pub(super) msi_base: Option<u64>,
    pub(super) msi_range: Option<(u32, u32)>,
}

/// What a handle stands for.
#[derive(Debug)]
pub(super) enum Object {
    /// `hv_vm_config_t`: address bits.
    Vm {
        /// 0 for the default.
        ipa_bits: u32,
    },
    /// `hv_vcpu_config_t`, which has nothing to set.
    Vcpu,
    /// `hv_gic_config_t`.
    Gic(GicSettings),
    /// `hv_gic_state_t`.
    GicState(Vec<u8>),
}

/// All live objects by handle.
#[derive(Debug)]
struct Objects {
    live: BTreeMap<usize, Object>,
    last: usize,
}

static OBJECTS: Mutex<Objects> = Mutex::new(Objects {
    live: BTreeMap::new(),
    last: 0,
});

/// Handles are this far apart, to look like aligned addresses.
const STEP: usize = 16;

/// Makes a handle for `object`.
pub(super) fn insert(object: Object) -> *mut c_void {
    let mut objects = OBJECTS.lock().unwrap_or_else(PoisonError::into_inner);
    objects.last += STEP;
    let handle = objects.last;
    objects.live.insert(handle, object);
    std::ptr::without_provenance_mut(handle)
}

/// Uses the object of `handle`; `None` if there is none.
pub(super) fn with<R>(handle: *mut c_void, f: impl FnOnce(&mut Object) -> R) -> Option<R> {
    let mut objects = OBJECTS.lock().unwrap_or_else(PoisonError::into_inner);
    objects.live.get_mut(&handle.addr()).map(f)
}

/// Frees the object of `handle`, if there is one.
pub(super) fn release(handle: *mut c_void) {
    let mut objects = OBJECTS.lock().unwrap_or_else(PoisonError::into_inner);
    objects.live.remove(&handle.addr());
}
