//! The table filled by the system's Hypervisor.framework.
//!
//! What macOS 11 to 13 have is linked; what came with macOS 15 is looked up,
//! so that older systems can still load the program and say why it does not run.

use std::arch::{asm, naked_asm};
use std::ffi::{CStr, c_void};

use crate::error::HvfError;
use crate::sys::*;

#[link(name = "Hypervisor", kind = "framework")]
unsafe extern "C" {
    fn hv_vm_get_max_vcpu_count(out: *mut u32) -> Return;
    fn hv_vm_create(config: VmConfig) -> Return;
    fn hv_vm_destroy() -> Return;
    fn hv_vm_map(host: *mut c_void, ipa: u64, size: usize, flags: MemoryFlags) -> Return;
    fn hv_vm_unmap(ipa: u64, size: usize) -> Return;
    fn hv_vm_protect(ipa: u64, size: usize, flags: MemoryFlags) -> Return;
    fn hv_vm_config_create() -> VmConfig;
    fn hv_vm_config_get_max_ipa_size(bits: *mut u32) -> Return;
    fn hv_vm_config_get_default_ipa_size(bits: *mut u32) -> Return;
    fn hv_vm_config_set_ipa_size(config: VmConfig, bits: u32) -> Return;
    fn hv_vcpu_create(id: *mut VcpuId, exit: *mut *const VcpuExit, config: VcpuConfig) -> Return;
    fn hv_vcpu_destroy(id: VcpuId) -> Return;
    fn hv_vcpu_run(id: VcpuId) -> Return;
    fn hv_vcpus_exit(ids: *const VcpuId, count: u32) -> Return;
    fn hv_vcpu_get_reg(id: VcpuId, reg: Reg, value: *mut u64) -> Return;
    fn hv_vcpu_set_reg(id: VcpuId, reg: Reg, value: u64) -> Return;
    fn hv_vcpu_get_simd_fp_reg(id: VcpuId, reg: SimdReg, value: *mut SimdValue) -> Return;
    /// The vector argument is in `q0`, which Rust cannot declare; only
    /// [`set_simd_fp_reg`] may call this.
    fn hv_vcpu_set_simd_fp_reg();
    fn hv_vcpu_get_sys_reg(id: VcpuId, reg: SysReg, value: *mut u64) -> Return;
    fn hv_vcpu_set_sys_reg(id: VcpuId, reg: SysReg, value: u64) -> Return;
    fn hv_vcpu_get_pending_interrupt(id: VcpuId, kind: InterruptType, pending: *mut bool)
    -> Return;
    fn hv_vcpu_set_pending_interrupt(id: VcpuId, kind: InterruptType, pending: bool) -> Return;
    fn hv_vcpu_set_trap_debug_exceptions(id: VcpuId, trap: bool) -> Return;
    fn hv_vcpu_set_trap_debug_reg_accesses(id: VcpuId, trap: bool) -> Return;
    fn hv_vcpu_get_exec_time(id: VcpuId, ticks: *mut u64) -> Return;
    fn hv_vcpu_get_vtimer_mask(id: VcpuId, masked: *mut bool) -> Return;
    fn hv_vcpu_set_vtimer_mask(id: VcpuId, masked: bool) -> Return;
    fn hv_vcpu_get_vtimer_offset(id: VcpuId, offset: *mut u64) -> Return;
    fn hv_vcpu_set_vtimer_offset(id: VcpuId, offset: u64) -> Return;
    fn hv_vcpu_config_create() -> VcpuConfig;
    fn hv_vcpu_config_get_feature_reg(
        config: VcpuConfig,
        reg: FeatureReg,
        value: *mut u64,
    ) -> Return;
}

// Both are in libSystem, which every program links.
unsafe extern "C" {
    fn os_release(object: *mut c_void);
    safe fn mach_absolute_time() -> u64;
}

/// Loads the vector from memory into `q0`, where the framework expects its
/// third argument, and goes on there. `x0` and `w1` are already in place.
#[unsafe(naked)]
unsafe extern "C" fn set_simd_fp_reg(id: VcpuId, reg: SimdReg, value: *const SimdValue) -> Return {
    naked_asm!(
        "ldr q0, [x2]",
        "b {callee}",
        callee = sym hv_vcpu_set_simd_fp_reg,
    )
}

/// Like `os_release`, but null is ignored.
unsafe extern "C" fn release(object: *mut c_void) {
    if !object.is_null() {
        // SAFETY: the caller gives up the one reference it owns.
        unsafe { os_release(object) }
    }
}

fn counter() -> u64 {
    mach_absolute_time()
}

fn counter_hz() -> u64 {
    let hz: u64;
    // SAFETY: CNTFRQ_EL0 is readable from user space on macOS and reading it
    // has no effect.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) hz, options(nomem, nostack, preserves_flags)) };
    hz
}

/// The table of the system's own framework.
///
/// Whether this process may use it shows only when it creates a machine.
pub fn system_api() -> Result<Api, HvfError> {
    if !kernel_can_virtualise() {
        return Err(HvfError::Unavailable {
            reason: "the kernel says this host cannot virtualise (kern.hv_support is 0)",
        });
    }
    Ok(Api {
        id: crate::EngineId::Framework,
        name: "hvf",
        gic: gic_api(),
        dirty: None,
        code: None,
        after_fork: None,
        counter,
        counter_hz: counter_hz(),
        os_release: release,
        vm_get_max_vcpu_count: hv_vm_get_max_vcpu_count,
        vm_create: hv_vm_create,
        vm_destroy: hv_vm_destroy,
        vm_map: hv_vm_map,
        vm_unmap: hv_vm_unmap,
        vm_protect: hv_vm_protect,
        vm_content_replaced: content_replaced,
        vm_config_create: hv_vm_config_create,
        vm_config_get_max_ipa_size: hv_vm_config_get_max_ipa_size,
        vm_config_get_default_ipa_size: hv_vm_config_get_default_ipa_size,
        vm_config_set_ipa_size: hv_vm_config_set_ipa_size,
        vcpu_create: hv_vcpu_create,
        vcpu_destroy: hv_vcpu_destroy,
        vcpu_run: hv_vcpu_run,
        vcpus_exit: hv_vcpus_exit,
        vcpu_get_reg: hv_vcpu_get_reg,
        vcpu_set_reg: hv_vcpu_set_reg,
        vcpu_get_simd_fp_reg: hv_vcpu_get_simd_fp_reg,
        vcpu_set_simd_fp_reg: set_simd_fp_reg,
        vcpu_get_sys_reg: hv_vcpu_get_sys_reg,
        vcpu_set_sys_reg: hv_vcpu_set_sys_reg,
        vcpu_get_pending_interrupt: hv_vcpu_get_pending_interrupt,
        vcpu_set_pending_interrupt: hv_vcpu_set_pending_interrupt,
        vcpu_set_trap_debug_exceptions: hv_vcpu_set_trap_debug_exceptions,
        vcpu_set_trap_debug_reg_accesses: hv_vcpu_set_trap_debug_reg_accesses,
        vcpu_get_exec_time: hv_vcpu_get_exec_time,
        vcpu_get_vtimer_mask: hv_vcpu_get_vtimer_mask,
        vcpu_set_vtimer_mask: hv_vcpu_set_vtimer_mask,
        vcpu_get_vtimer_offset: hv_vcpu_get_vtimer_offset,
        vcpu_set_vtimer_offset: hv_vcpu_set_vtimer_offset,
        vcpu_config_create: hv_vcpu_config_create,
        vcpu_config_get_feature_reg: hv_vcpu_config_get_feature_reg,
    })
}

unsafe extern "C" {
    /// `libkern/OSCacheControl.h`, in every program's system library.
    fn sys_icache_invalidate(start: *mut c_void, bytes: usize);
}

/// Instruction caches of Apple silicon are found by physical address, so that
/// maintenance of the host's address is maintenance of the guest's.
unsafe extern "C" fn content_replaced(host: *mut c_void, _ipa: u64, size: usize) -> Return {
    // SAFETY: the caller gives a range of mapped memory.
    unsafe { sys_icache_invalidate(host, size) };
    Return::SUCCESS
}

fn kernel_can_virtualise() -> bool {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>();
    // SAFETY: name is a C string; value and size describe one integer.
    let result = unsafe {
        libc::sysctlbyname(
            c"kern.hv_support".as_ptr(),
            (&raw mut value).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    result == 0 && value == 1
}

/// Model, processor and system of this Mac, in a line.
pub fn host_description() -> String {
    [
        c"hw.model",
        c"machdep.cpu.brand_string",
        c"kern.osproductversion",
        c"kern.osversion",
    ]
    .map(system_text)
    .join(", ")
}

fn system_text(name: &CStr) -> String {
    let mut text = [0_u8; 256];
    let mut size = text.len();
    // SAFETY: name is a C string; text and size describe a buffer.
    let result = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            text.as_mut_ptr().cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    let known = if result == 0 { text.as_slice() } else { b"?" };
    let end = known.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&known[..end.unwrap_or(known.len())]).into_owned()
}

/// Chooses 4 KiB as the unit of a machine's mappings, where macOS has a call for that;
/// only the framework's own table has such machines.
pub(crate) fn set_small_granule(api: &Api, config: VmConfig) -> Option<Result<(), HvfError>> {
    /// `HV_IPA_GRANULE_4KB`.
    const SMALL: u32 = 0;
    if api.id != crate::EngineId::Framework {
        return None;
    }
    let address = symbol(c"hv_vm_config_set_ipa_granule")?;
    // SAFETY: this symbol has this signature in the headers of macOS 26.
    let set = unsafe {
        std::mem::transmute::<*mut c_void, unsafe extern "C" fn(VmConfig, u32) -> Return>(address)
    };
    // SAFETY: the caller's configuration is live.
    let chosen = unsafe { set(config, SMALL) };
    Some(crate::error::check("vm_config_set_ipa_granule", chosen))
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the framework is loaded (it is linked), the name is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// Fills a [`GicApi`] with `hv_gic_<field>`, or returns if one is missing.
macro_rules! look_up {
    ($($field:ident)*) => {
        Some(GicApi {
            $($field: {
                let name = concat!("hv_gic_", stringify!($field), "\0");
                let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
                let address = symbol(name)?;
                // SAFETY: this symbol has the field's signature in the
                // framework's headers, and both are one pointer wide.
                unsafe { std::mem::transmute::<*mut c_void, _>(address) }
            },)*
        })
    };
}

fn gic_api() -> Option<GicApi> {
    look_up! {
        config_create config_set_distributor_base config_set_redistributor_base
        config_set_msi_region_base config_set_msi_interrupt_range create set_spi send_msi
        get_distributor_reg set_distributor_reg get_redistributor_base get_redistributor_reg
        set_redistributor_reg get_icc_reg set_icc_reg get_msi_reg set_msi_reg
        get_distributor_size get_distributor_base_alignment get_redistributor_region_size
        get_redistributor_size get_redistributor_base_alignment get_msi_region_size
        get_msi_region_base_alignment get_spi_interrupt_range get_intid state_create
        state_get_size state_get_data set_state reset
    }
}
