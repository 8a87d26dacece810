//! `hv_gic_*`.

use super::machine::{code, current};
use super::objects::{self, GicSettings, Object};
use super::put;
use super::vcpu::with_owned;
use crate::faults::FAULTS;
use crate::gic::{
    DISTRIBUTOR_BYTES, Gic, IccReg, MSI_REGION_BYTES, MsiConfig, REDISTRIBUTOR_BYTES,
    REDISTRIBUTOR_REGION_BYTES, SPI_BASE, SPI_COUNT,
};
use crate::link::State;
use crate::vm::VmShared;
use hvf::sys::{
    GicConfig, GicDistributorReg, GicIccReg, GicIntid, GicMsiReg, GicRedistributorReg, GicState,
    Return, VcpuId,
};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Every frame starts at a multiple of this.
const ALIGNMENT: u64 = 0x1_0000;
/// `ICC_SRE_EL2`, which `hv_gic_icc_reg_t` names too.
const ICC_SRE_EL2: u16 = 0xe64d;

/// Runs `f` on the VM's interrupt controller.
fn with_gic(f: impl FnOnce(&Arc<VmShared>, &Gic) -> Return) -> Return {
    code(current().map(|vm| match vm.gic() {
        Some(gic) => f(&vm, gic),
        None => Return::NO_DEVICE,
    }))
}

fn configure(config: GicConfig, f: impl FnOnce(&mut GicSettings)) -> Return {
    let done = objects::with(config.0, |object| match object {
        Object::Gic(settings) => {
            f(settings);
            Return::SUCCESS
        }
        _ => Return::BAD_ARGUMENT,
    });
    done.unwrap_or(Return::BAD_ARGUMENT)
}

fn is_frame(base: u64, bytes: u64) -> bool {
    base.is_multiple_of(ALIGNMENT) && base.checked_add(bytes).is_some()
}

pub(super) unsafe extern "C" fn config_create() -> GicConfig {
    GicConfig(objects::insert(Object::Gic(GicSettings::default())))
}

pub(super) unsafe extern "C" fn config_set_distributor_base(config: GicConfig, ipa: u64) -> Return {
    if !is_frame(ipa, DISTRIBUTOR_BYTES) {
        return Return::BAD_ARGUMENT;
    }
    configure(config, |s| s.distributor = Some(ipa))
}

pub(super) unsafe extern "C" fn config_set_redistributor_base(
    config: GicConfig,
    ipa: u64,
) -> Return {
    if !is_frame(ipa, REDISTRIBUTOR_REGION_BYTES) {
        return Return::BAD_ARGUMENT;
    }
    configure(config, |s| s.redistributor = Some(ipa))
}

pub(super) unsafe extern "C" fn config_set_msi_region_base(config: GicConfig, ipa: u64) -> Return {
    if !is_frame(ipa, MSI_REGION_BYTES) {
        return Return::BAD_ARGUMENT;
    }
    configure(config, |s| s.msi_base = Some(ipa))
}

pub(super) unsafe extern "C" fn config_set_msi_interrupt_range(
    config: GicConfig,
    first: u32,
    count: u32,
) -> Return {
    let end = first.checked_add(count);
    let inside = first >= SPI_BASE && end.is_some_and(|end| end <= SPI_BASE + SPI_COUNT);
    if !inside || count == 0 {
        return Return::BAD_ARGUMENT;
    }
    configure(config, |s| s.msi_range = Some((first, count)))
}

/// The configuration of a controller, if `settings` are one that fits a guest
/// with `ipa_bits` address bits.
fn checked(settings: &GicSettings, ipa_bits: u32) -> Option<crate::gic::GicConfig> {
    let distributor = settings.distributor?;
    let redistributor = settings.redistributor?;
    let msi = match (settings.msi_base, settings.msi_range) {
        (Some(base), Some((first, count))) => Some(MsiConfig { base, first, count }),
        (None, None) => None,
        _ => return None,
    };
    // Only the frames of vCPUs that exist are claimed, but one must fit.
    let mut frames = vec![
        (distributor, DISTRIBUTOR_BYTES),
        (redistributor, REDISTRIBUTOR_BYTES),
    ];
    frames.extend(msi.map(|m| (m.base, MSI_REGION_BYTES)));
    frames.sort_unstable();
    let apart = frames.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0);
    let inside = frames
        .iter()
        .all(|(base, bytes)| base + bytes <= 1 << ipa_bits);
    (apart && inside).then_some(crate::gic::GicConfig {
        distributor,
        redistributor,
        msi,
    })
}

pub(super) unsafe extern "C" fn create(config: GicConfig) -> Return {
    let settings = objects::with(config.0, |object| match object {
        Object::Gic(settings) => Some(*settings),
        _ => None,
    });
    let Some(settings) = settings.flatten() else {
        return Return::BAD_ARGUMENT;
    };
    code(super::machine::with_current(|vm| {
        if vm.gic().is_some() {
            return Return::EXISTS;
        }
        // Redistributors belong to vCPUs from their creation on.
        if vm.vcpu_count() != 0 {
            return Return::BUSY;
        }
        match checked(&settings, vm.ipa_bits()) {
            Some(config) if vm.install_gic(Gic::new(config)) => Return::SUCCESS,
            Some(_) => Return::EXISTS,
            None => Return::BAD_ARGUMENT,
        }
    }))
}

pub(super) unsafe extern "C" fn set_spi(intid: u32, level: bool) -> Return {
    with_gic(|_, gic| match gic.set_spi(intid, level) {
        Ok(()) => Return::SUCCESS,
        Err(_) => Return::BAD_ARGUMENT,
    })
}

pub(super) unsafe extern "C" fn send_msi(address: u64, intid: u32) -> Return {
    with_gic(|_, gic| match gic.send_msi(address, intid) {
        Ok(()) => Return::SUCCESS,
        Err(_) => Return::BAD_ARGUMENT,
    })
}

pub(super) unsafe extern "C" fn get_distributor_reg(
    reg: GicDistributorReg,
    value: *mut u64,
) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    with_gic(|_, gic| unsafe { put(value, gic.distributor_read(u64::from(reg.0))) })
}

pub(super) unsafe extern "C" fn set_distributor_reg(reg: GicDistributorReg, value: u64) -> Return {
    with_gic(|_, gic| {
        gic.distributor_write(u64::from(reg.0), value);
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn get_redistributor_base(id: VcpuId, ipa: *mut u64) -> Return {
    with_gic(|vm, gic| {
        let vcpu = usize::try_from(id.0).ok().and_then(|index| vm.vcpu(index));
        match vcpu {
            None => Return::BAD_ARGUMENT,
            Some(vcpu) if !vcpu.has_affinity() => Return::ERROR,
            // SAFETY: the caller gives null or a place for the value.
            Some(vcpu) => unsafe { put(ipa, gic.redistributor_base(vcpu.index())) },
        }
    })
}

/// Runs `f` on the controller and this thread's vCPU `id`.
fn with_owned_gic(id: VcpuId, f: impl FnOnce(&Gic, usize) -> Return) -> Return {
    with_owned(id, |vcpu| match vcpu.cpu.vm.gic() {
        Some(gic) => f(gic, vcpu.cpu.index),
        None => Return::NO_DEVICE,
    })
}

pub(super) unsafe extern "C" fn get_redistributor_reg(
    id: VcpuId,
    reg: GicRedistributorReg,
    value: *mut u64,
) -> Return {
    let offset = u64::from(reg.0);
    if offset >= REDISTRIBUTOR_BYTES {
        return Return::BAD_ARGUMENT;
    }
    with_owned_gic(id, |gic, index| {
        // SAFETY: the caller gives null or a place for the value.
        unsafe { put(value, gic.redistributor_read(index, offset)) }
    })
}

pub(super) unsafe extern "C" fn set_redistributor_reg(
    id: VcpuId,
    reg: GicRedistributorReg,
    value: u64,
) -> Return {
    let offset = u64::from(reg.0);
    if offset >= REDISTRIBUTOR_BYTES {
        return Return::BAD_ARGUMENT;
    }
    with_owned_gic(id, |gic, index| {
        gic.redistributor_write(index, offset, value);
        Return::SUCCESS
    })
}

/// The CPU interface register of `reg`, if the ABI gives access to it.
fn icc(reg: GicIccReg) -> Result<IccReg, Return> {
    if reg.0 == ICC_SRE_EL2 {
        return Err(Return::UNSUPPORTED);
    }
    IccReg::from_key(reg.0)
        .filter(|reg| reg.is_state())
        .ok_or(Return::BAD_ARGUMENT)
}

pub(super) unsafe extern "C" fn get_icc_reg(id: VcpuId, reg: GicIccReg, value: *mut u64) -> Return {
    with_owned_gic(id, |gic, index| match icc(reg) {
        // SAFETY: the caller gives null or a place for the value.
        Ok(reg) => unsafe { put(value, gic.icc_read(index, reg)) },
        Err(error) => error,
    })
}

pub(super) unsafe extern "C" fn set_icc_reg(id: VcpuId, reg: GicIccReg, value: u64) -> Return {
    with_owned_gic(id, |gic, index| match icc(reg) {
        Ok(reg) if reg.is_writable() => {
            gic.icc_write(index, reg, value);
            Return::SUCCESS
        }
        Ok(_) => Return::BAD_ARGUMENT,
        Err(error) => error,
    })
}

pub(super) unsafe extern "C" fn get_msi_reg(reg: GicMsiReg, value: *mut u64) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    with_gic(|_, gic| unsafe { put(value, gic.msi_read(u64::from(reg.0))) })
}

pub(super) unsafe extern "C" fn set_msi_reg(reg: GicMsiReg, value: u64) -> Return {
    with_gic(|_, gic| {
        gic.msi_write(u64::from(reg.0), value);
        Return::SUCCESS
    })
}

pub(super) unsafe extern "C" fn get_distributor_size(bytes: *mut usize) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bytes, DISTRIBUTOR_BYTES as usize) }
}

pub(super) unsafe extern "C" fn get_base_alignment(bytes: *mut usize) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bytes, ALIGNMENT as usize) }
}

pub(super) unsafe extern "C" fn get_redistributor_region_size(bytes: *mut usize) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bytes, REDISTRIBUTOR_REGION_BYTES as usize) }
}

pub(super) unsafe extern "C" fn get_redistributor_size(bytes: *mut usize) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bytes, REDISTRIBUTOR_BYTES as usize) }
}

pub(super) unsafe extern "C" fn get_msi_region_size(bytes: *mut usize) -> Return {
    // SAFETY: the caller gives null or a place for the value.
    unsafe { put(bytes, MSI_REGION_BYTES as usize) }
}

pub(super) unsafe extern "C" fn get_spi_interrupt_range(
    first: *mut u32,
    count: *mut u32,
) -> Return {
    if first.is_null() || count.is_null() {
        return Return::BAD_ARGUMENT;
    }
    // SAFETY: neither is null, so both are valid by the caller's promise.
    unsafe {
        first.write_unaligned(SPI_BASE);
        count.write_unaligned(SPI_COUNT);
    }
    Return::SUCCESS
}

pub(super) unsafe extern "C" fn get_intid(source: GicIntid, intid: *mut u32) -> Return {
    match source {
        GicIntid::PERFORMANCE_MONITOR
        | GicIntid::EL1_VIRTUAL_TIMER
        | GicIntid::EL1_PHYSICAL_TIMER => {
            // SAFETY: the caller gives null or a place for the value.
            unsafe { put(intid, u32::from(source.0)) }
        }
        GicIntid::MAINTENANCE | GicIntid::EL2_PHYSICAL_TIMER => Return::UNSUPPORTED,
        _ => Return::BAD_ARGUMENT,
    }
}

pub(super) unsafe extern "C" fn state_create() -> GicState {
    let saved = current().ok().and_then(|vm| {
        let stopped = vm.vcpus().iter().all(|v| v.state() == State::Outside);
        vm.gic().filter(|_| stopped).map(Gic::save)
    });
    match saved {
        Some(data) => GicState(objects::insert(Object::GicState(data))),
        None => GicState::NULL,
    }
}

pub(super) unsafe extern "C" fn state_get_size(state: GicState, bytes: *mut usize) -> Return {
    let size = objects::with(state.0, |object| match object {
        Object::GicState(data) => Some(data.len()),
        _ => None,
    });
    match size.flatten() {
        // SAFETY: the caller gives null or a place for the value.
        Some(size) => unsafe { put(bytes, size) },
        None => Return::BAD_ARGUMENT,
    }
}

pub(super) unsafe extern "C" fn state_get_data(state: GicState, data: *mut c_void) -> Return {
    if data.is_null() {
        return Return::BAD_ARGUMENT;
    }
    let done = objects::with(state.0, |object| match object {
        Object::GicState(saved) => {
            // SAFETY: the caller gives room for as many bytes as
            // `state_get_size` said; the source is ours, so they are apart.
            unsafe { std::ptr::copy_nonoverlapping(saved.as_ptr(), data.cast(), saved.len()) };
            Return::SUCCESS
        }
        _ => Return::BAD_ARGUMENT,
    });
    done.unwrap_or(Return::BAD_ARGUMENT)
}

/// No state of this engine is longer, with all vCPUs there can be.
const MAX_STATE_BYTES: usize = 64 * 1024;

pub(super) unsafe extern "C" fn set_state(data: *const c_void, bytes: usize) -> Return {
    if data.is_null() || bytes > MAX_STATE_BYTES {
        return Return::BAD_ARGUMENT;
    }
    with_gic(|vm, gic| {
        if vm.vcpus().iter().any(|v| v.has_run.load(Ordering::Relaxed)) {
            return Return::DENIED;
        }
        if FAULTS.refuse_gic_state.load(Ordering::Relaxed) {
            return Return::BAD_ARGUMENT;
        }
        // SAFETY: the caller gives `bytes` readable bytes.
        let data = unsafe { std::slice::from_raw_parts(data.cast(), bytes) };
        match gic.restore(data) {
            Ok(()) => Return::SUCCESS,
            Err(_) => Return::BAD_ARGUMENT,
        }
    })
}

pub(super) unsafe extern "C" fn reset() -> Return {
    with_gic(|vm, gic| {
        gic.reset();
        // A machine that starts over may have its state restored again.
        if vm.is_stopped() {
            for vcpu in vm.vcpus().iter() {
                vcpu.has_run.store(false, Ordering::Relaxed);
            }
        }
        Return::SUCCESS
    })
}
