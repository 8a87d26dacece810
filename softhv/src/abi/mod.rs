//! Hypervisor.framework's C ABI over this engine.
//!
//! Who may call what, and which argument is refused how, follows the framework.
//! Where its documentation is silent, this engine decides:
//!
//! | Case | Result |
//! |---|---|
//! | no VM; no interrupt controller for an `hv_gic` call | `HV_NO_DEVICE` |
//! | mapping over a mapping; unmapping or protecting a hole | `HV_ERROR` |
//! | part of a mapping unmapped or protected | done |
//! | host range of a mapping not in this process | `HV_BAD_ARGUMENT` |
//! | vCPU used by another thread, or unknown | `HV_BAD_ARGUMENT` |
//! | second vCPU on a thread; VM destroyed with vCPUs | `HV_BUSY` |
//! | thread ends with its vCPU | the vCPU is destroyed |
//! | system register of EL2, SME or pointer authentication; `CNTP_*` without interrupt controller | `HV_UNSUPPORTED` |
//! | other unknown register; read-only one written with a new value | `HV_BAD_ARGUMENT` |
//! | second interrupt controller | `HV_EXISTS` |
//! | interrupt controller after a vCPU | `HV_BUSY` |
//! | redistributor address before `MPIDR_EL1` is set | `HV_ERROR` |
//! | interrupt controller state restored after a run, without a reset | `HV_DENIED` |
//! | dirty log, replaced content or notes of code begun while a vCPU runs | `HV_BUSY` |
//! | notes of code that this engine did not write, or no room for them | `HV_BAD_ARGUMENT` |
//! | dirty log of a range that is not followed | `HV_BAD_ARGUMENT` |
//! | state with vCPUs that the VM does not have | `HV_BAD_ARGUMENT` |
//! | machines of the compiling tier where nothing can be compiled | `HV_UNSUPPORTED` |
//! | debug traps asked for | `HV_UNSUPPORTED` |
//!
//! There are 96 SPIs instead of the architecture's 988: see
//! [`crate::gic::SPI_COUNT`]. No function unwinds: none panics, and what
//! callers pass is checked before it is used, as far as a C ABI allows.

mod gic;
#[cfg_attr(target_arch = "x86_64", path = "host_x86_64.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "host_any.rs")]
mod host;
mod machine;
mod objects;
mod registers;
mod vcpu;

use crate::counter;
use crate::tier::Tier;
use hvf::sys::{Api, CodeApi, DirtyApi, GicApi, Return};

/// Guest physical address bits without configuration, as on most Macs.
pub const DEFAULT_IPA_BITS: u32 = 36;
/// Most guest physical address bits: ID_AA64MMFR0_EL1.PARange.
pub const MAX_IPA_BITS: u32 = 40;

/// This engine, as the table that `hvf` and everything above it use.
pub fn api() -> Api {
    api_with(Tier::Auto)
}

/// The same, for machines that execute code by `tier`.
pub fn api_with(tier: Tier) -> Api {
    Api {
        id: hvf::EngineId::Software,
        name: "soft",
        gic: Some(gic_api()),
        dirty: Some(dirty_api()),
        code: Some(code_api()),
        after_fork: Some(machine::forget),
        counter: counter::counter,
        counter_hz: counter::COUNTER_HZ,
        os_release: machine::os_release,
        vm_get_max_vcpu_count: machine::get_max_vcpu_count,
        vm_create: match tier {
            Tier::Auto => machine::create::<{ Tier::Auto as u8 }>,
            Tier::Interpret => machine::create::<{ Tier::Interpret as u8 }>,
            Tier::Compile => machine::create::<{ Tier::Compile as u8 }>,
            Tier::Census => machine::create::<{ Tier::Census as u8 }>,
            Tier::Restless => machine::create::<{ Tier::Restless as u8 }>,
            Tier::Count => machine::create::<{ Tier::Count as u8 }>,
        },
        vm_destroy: machine::destroy,
        vm_map: machine::map,
        vm_unmap: machine::unmap,
        vm_protect: machine::protect,
        vm_content_replaced: machine::content_replaced,
        vm_config_create: machine::config_create,
        vm_config_get_max_ipa_size: machine::config_get_max_ipa_size,
        vm_config_get_default_ipa_size: machine::config_get_default_ipa_size,
        vm_config_set_ipa_size: machine::config_set_ipa_size,
        vcpu_create: vcpu::create,
        vcpu_destroy: vcpu::destroy,
        vcpu_run: vcpu::run,
        vcpus_exit: vcpu::exit_all,
        vcpu_get_reg: vcpu::get_reg,
        vcpu_set_reg: vcpu::set_reg,
        vcpu_get_simd_fp_reg: vcpu::get_simd_fp_reg,
        vcpu_set_simd_fp_reg: vcpu::set_simd_fp_reg,
        vcpu_get_sys_reg: vcpu::get_sys_reg,
        vcpu_set_sys_reg: vcpu::set_sys_reg,
        vcpu_get_pending_interrupt: vcpu::get_pending_interrupt,
        vcpu_set_pending_interrupt: vcpu::set_pending_interrupt,
        vcpu_set_trap_debug_exceptions: vcpu::set_trap_debug,
        vcpu_set_trap_debug_reg_accesses: vcpu::set_trap_debug,
        vcpu_get_exec_time: vcpu::get_exec_time,
        vcpu_get_vtimer_mask: vcpu::get_vtimer_mask,
        vcpu_set_vtimer_mask: vcpu::set_vtimer_mask,
        vcpu_get_vtimer_offset: vcpu::get_vtimer_offset,
        vcpu_set_vtimer_offset: vcpu::set_vtimer_offset,
        vcpu_config_create: vcpu::config_create,
        vcpu_config_get_feature_reg: vcpu::config_get_feature_reg,
    }
}

fn dirty_api() -> DirtyApi {
    DirtyApi {
        start: machine::dirty_start,
        take: machine::dirty_take,
    }
}

fn code_api() -> CodeApi {
    CodeApi {
        note: machine::code_note,
        take_notes: machine::code_take_notes,
        decode_ahead: machine::code_decode_ahead,
        counts: machine::code_counts,
        census: machine::code_census,
    }
}

fn gic_api() -> GicApi {
    GicApi {
        config_create: gic::config_create,
        config_set_distributor_base: gic::config_set_distributor_base,
        config_set_redistributor_base: gic::config_set_redistributor_base,
        config_set_msi_region_base: gic::config_set_msi_region_base,
        config_set_msi_interrupt_range: gic::config_set_msi_interrupt_range,
        create: gic::create,
        set_spi: gic::set_spi,
        send_msi: gic::send_msi,
        get_distributor_reg: gic::get_distributor_reg,
        set_distributor_reg: gic::set_distributor_reg,
        get_redistributor_base: gic::get_redistributor_base,
        get_redistributor_reg: gic::get_redistributor_reg,
        set_redistributor_reg: gic::set_redistributor_reg,
        get_icc_reg: gic::get_icc_reg,
        set_icc_reg: gic::set_icc_reg,
        get_msi_reg: gic::get_msi_reg,
        set_msi_reg: gic::set_msi_reg,
        get_distributor_size: gic::get_distributor_size,
        get_distributor_base_alignment: gic::get_base_alignment,
        get_redistributor_region_size: gic::get_redistributor_region_size,
        get_redistributor_size: gic::get_redistributor_size,
        get_redistributor_base_alignment: gic::get_base_alignment,
        get_msi_region_size: gic::get_msi_region_size,
        get_msi_region_base_alignment: gic::get_base_alignment,
        get_spi_interrupt_range: gic::get_spi_interrupt_range,
        get_intid: gic::get_intid,
        state_create: gic::state_create,
        state_get_size: gic::state_get_size,
        state_get_data: gic::state_get_data,
        set_state: gic::set_state,
        reset: gic::reset,
    }
}

/// Writes an out-parameter.
///
/// # Safety
/// `out` must be null or valid for a write of `T`.
unsafe fn put<T>(out: *mut T, value: T) -> Return {
    if out.is_null() {
        return Return::BAD_ARGUMENT;
    }
    // SAFETY: not null, so valid by the caller's promise; C callers may have
    // less alignment than Rust wants.
    unsafe { out.write_unaligned(value) };
    Return::SUCCESS
}
