//! An engine that only remembers: enough of the contract to see what the safe
//! owners do with a table. It runs no guest; `vcpu_run` plays a script and
//! then sleeps like an idle guest until it is kicked.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use crate::sys::*;

/// What the engine was told, and what it is to answer.
#[derive(Default)]
pub struct Engine {
    /// A virtual machine exists.
    pub machine: bool,
    /// It has an interrupt controller.
    pub gic: bool,
    /// Configuration and state objects that were created and not released.
    pub live_objects: usize,
    /// Mapped guest memory: bytes and access rights by guest address.
    pub maps: BTreeMap<u64, (usize, MemoryFlags)>,
    /// vCPUs by number.
    pub vcpus: BTreeMap<u64, FakeVcpu>,
    /// Each setting of an interrupt line, in order.
    pub spis: Vec<(u32, bool)>,
    /// The state that the interrupt controller was last given.
    pub restored: Vec<u8>,
    /// What creating a virtual machine fails with.
    pub fail_create: Option<Return>,
    /// The one number of `MDCR_EL2` this engine knows.
    pub mdcr_number: u16,
    /// What each vCPU does, by its number.
    pub scripts: BTreeMap<u64, VecDeque<Step>>,
    /// Registers of each vCPU whenever it started to run.
    pub runs: Vec<(u64, [u64; 35])>,
    /// Calls with a GIC register write: offset and value.
    pub gic_writes: Vec<(u32, u64)>,
}

/// One thing a guest does.
#[derive(Clone)]
pub enum Step {
    /// It leaves with these general registers changed.
    Exit(VcpuExit, Vec<(usize, u64)>),
    /// The engine fails.
    Fail(Return),
}

impl From<VcpuExit> for Step {
    fn from(exit: VcpuExit) -> Self {
        Self::Exit(exit, Vec::new())
    }
}

/// A vCPU of the engine.
pub struct FakeVcpu {
    /// The thread that created it.
    pub owner: ThreadId,
    /// Where the engine says why the vCPU stopped.
    pub exit: Box<VcpuExit>,
    /// General registers, by their numbers in the ABI.
    pub regs: [u64; 35],
    /// Vector registers.
    pub simd: [[u8; 16]; 32],
    /// System registers that were set.
    pub sys: BTreeMap<u16, u64>,
    /// The IRQ input.
    pub irq: bool,
    /// The FIQ input.
    pub fiq: bool,
    /// It is to stop running.
    pub kicked: bool,
}

static ENGINE: Mutex<Option<Engine>> = Mutex::new(None);
static ONE_TEST: Mutex<()> = Mutex::new(());

/// Runs `test` with a fresh engine, one test at a time: the engine is the
/// process's, as the real one is.
pub fn with_engine(test: impl FnOnce(Api)) {
    let _one = ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner);
    *lock() = Some(Engine {
        mdcr_number: SysReg::MDCR_EL2.0,
        ..Engine::default()
    });
    test(api());
    engine(|e| {
        assert!(!e.machine, "the machine outlived its owner");
        assert!(e.vcpus.is_empty(), "a vCPU outlived its owner");
        assert_eq!(e.live_objects, 0, "a configuration or state leaked");
    });
}

fn lock() -> MutexGuard<'static, Option<Engine>> {
    ENGINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks into the engine.
pub fn engine<T>(look: impl FnOnce(&mut Engine) -> T) -> T {
    look(lock().as_mut().expect("an engine is set up"))
}

fn owned(id: VcpuId, act: impl FnOnce(&mut FakeVcpu) -> Return) -> Return {
    engine(|e| match e.vcpus.get_mut(&id.0) {
        Some(v) if v.owner == std::thread::current().id() => act(v),
        _ => Return::BAD_ARGUMENT,
    })
}

fn put<T>(out: *mut T, value: T) -> Return {
    // SAFETY: tests reach this only through the safe owners, which pass
    // pointers to live locals.
    unsafe { out.write(value) };
    Return::SUCCESS
}

fn new_object() -> *mut c_void {
    engine(|e| e.live_objects += 1);
    std::ptr::dangling_mut::<u8>().cast()
}

unsafe extern "C" fn os_release(_: *mut c_void) {
    engine(|e| e.live_objects -= 1);
}
unsafe extern "C" fn get_u32_max_vcpus(out: *mut u32) -> Return {
    put(out, 64)
}
unsafe extern "C" fn get_default_ipa(out: *mut u32) -> Return {
    put(out, 36)
}
unsafe extern "C" fn get_max_ipa(out: *mut u32) -> Return {
    put(out, 40)
}
unsafe extern "C" fn set_ipa(_: VmConfig, bits: u32) -> Return {
    if bits > 40 {
        Return::UNSUPPORTED
    } else {
        Return::SUCCESS
    }
}
unsafe extern "C" fn vm_config_create() -> VmConfig {
    VmConfig(new_object())
}
unsafe extern "C" fn vcpu_config_create() -> VcpuConfig {
    VcpuConfig(new_object())
}
unsafe extern "C" fn gic_config_create() -> GicConfig {
    GicConfig(new_object())
}
unsafe extern "C" fn feature(_: VcpuConfig, reg: FeatureReg, out: *mut u64) -> Return {
    put(out, u64::from(reg.0) << 32)
}
unsafe extern "C" fn vm_create(_: VmConfig) -> Return {
    engine(|e| match e.fail_create {
        Some(code) => code,
        None if e.machine => Return::BUSY,
        None => {
            e.machine = true;
            Return::SUCCESS
        }
    })
}
unsafe extern "C" fn vm_destroy() -> Return {
    engine(|e| {
        if !e.vcpus.is_empty() {
            return Return::BUSY;
        }
        e.machine = false;
        e.gic = false;
        e.maps.clear();
        Return::SUCCESS
    })
}
unsafe extern "C" fn vm_map(_: *mut c_void, ipa: u64, size: usize, flags: MemoryFlags) -> Return {
    engine(|e| {
        e.maps.insert(ipa, (size, flags));
        Return::SUCCESS
    })
}
unsafe extern "C" fn vm_unmap(ipa: u64, _: usize) -> Return {
    engine(|e| match e.maps.remove(&ipa) {
        Some(_) => Return::SUCCESS,
        None => Return::ERROR,
    })
}
unsafe extern "C" fn vm_protect(ipa: u64, _: usize, flags: MemoryFlags) -> Return {
    engine(|e| match e.maps.get_mut(&ipa) {
        Some(map) => {
            map.1 = flags;
            Return::SUCCESS
        }
        None => Return::ERROR,
    })
}
unsafe extern "C" fn vcpu_create(
    id: *mut VcpuId,
    exit: *mut *const VcpuExit,
    _: VcpuConfig,
) -> Return {
    engine(|e| {
        let number = (0..).find(|n| !e.vcpus.contains_key(n)).unwrap();
        let vcpu = FakeVcpu {
            owner: std::thread::current().id(),
            exit: Box::new(VcpuExit {
                reason: ExitReason::UNKNOWN,
                exception: ExitException::default(),
            }),
            regs: [0; 35],
            simd: [[0; 16]; 32],
            sys: BTreeMap::new(),
            irq: false,
            fiq: false,
            kicked: false,
        };
        let code = put(exit, &raw const *vcpu.exit);
        e.vcpus.insert(number, vcpu);
        assert_eq!(code, put(id, VcpuId(number)));
        code
    })
}
unsafe extern "C" fn vcpu_destroy(id: VcpuId) -> Return {
    engine(|e| match e.vcpus.remove(&id.0) {
        Some(_) => Return::SUCCESS,
        None => Return::BAD_ARGUMENT,
    })
}
unsafe extern "C" fn vcpu_run(id: VcpuId) -> Return {
    let step = engine(|e| {
        if let Some(vcpu) = e.vcpus.get(&id.0) {
            e.runs.push((id.0, vcpu.regs));
        }
        e.scripts.get_mut(&id.0).and_then(VecDeque::pop_front)
    });
    match step {
        Some(Step::Fail(code)) => code,
        Some(Step::Exit(exit, changes)) => owned(id, |v| {
            for (register, value) in changes {
                v.regs[register] = value;
            }
            *v.exit = exit;
            Return::SUCCESS
        }),
        None => sleep_until_kicked(id),
    }
}
fn sleep_until_kicked(id: VcpuId) -> Return {
    loop {
        let code = owned(id, |v| {
            if !std::mem::take(&mut v.kicked) {
                return Return::BUSY;
            }
            *v.exit = VcpuExit {
                reason: ExitReason::CANCELED,
                exception: ExitException::default(),
            };
            Return::SUCCESS
        });
        if code != Return::BUSY {
            return code;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
unsafe extern "C" fn vcpus_exit(ids: *const VcpuId, count: u32) -> Return {
    assert_eq!(count, 1);
    // SAFETY: as in `put`.
    let id = unsafe { ids.read() };
    engine(|e| match e.vcpus.get_mut(&id.0) {
        Some(v) => {
            v.kicked = true;
            Return::SUCCESS
        }
        None => Return::BAD_ARGUMENT,
    })
}
unsafe extern "C" fn get_reg(id: VcpuId, reg: Reg, out: *mut u64) -> Return {
    owned(id, |v| match v.regs.get(reg.0 as usize) {
        Some(value) => put(out, *value),
        None => Return::BAD_ARGUMENT,
    })
}
unsafe extern "C" fn set_reg(id: VcpuId, reg: Reg, value: u64) -> Return {
    owned(id, |v| match v.regs.get_mut(reg.0 as usize) {
        Some(slot) => {
            *slot = value;
            Return::SUCCESS
        }
        None => Return::BAD_ARGUMENT,
    })
}
unsafe extern "C" fn get_simd(id: VcpuId, reg: SimdReg, out: *mut SimdValue) -> Return {
    owned(id, |v| put(out, SimdValue(v.simd[reg.0 as usize])))
}
unsafe extern "C" fn set_simd(id: VcpuId, reg: SimdReg, value: *const SimdValue) -> Return {
    assert!(value.is_aligned(), "the shim loads a whole vector register");
    // SAFETY: as in `put`.
    let value = unsafe { value.read() };
    owned(id, |v| {
        v.simd[reg.0 as usize] = value.0;
        Return::SUCCESS
    })
}
fn known(e: &Engine, reg: SysReg) -> bool {
    let mdcr = [SysReg::MDCR_EL2, SysReg::MDCR_EL2_MACOS_15_0];
    !mdcr.contains(&reg) || reg.0 == e.mdcr_number
}
unsafe extern "C" fn get_sys(id: VcpuId, reg: SysReg, out: *mut u64) -> Return {
    if !engine(|e| known(e, reg)) {
        return Return::BAD_ARGUMENT;
    }
    owned(id, |v| put(out, v.sys.get(&reg.0).copied().unwrap_or(0)))
}
unsafe extern "C" fn set_sys(id: VcpuId, reg: SysReg, value: u64) -> Return {
    if !engine(|e| known(e, reg)) {
        return Return::BAD_ARGUMENT;
    }
    owned(id, |v| {
        v.sys.insert(reg.0, value);
        Return::SUCCESS
    })
}
unsafe extern "C" fn get_pending(id: VcpuId, kind: InterruptType, out: *mut bool) -> Return {
    owned(id, |v| put(out, if kind.0 == 0 { v.irq } else { v.fiq }))
}
unsafe extern "C" fn set_pending(id: VcpuId, kind: InterruptType, pending: bool) -> Return {
    if engine(|e| e.gic) {
        return Return::UNSUPPORTED;
    }
    owned(id, |v| {
        // What Apple's headers say: 0 is the IRQ line.
        *(if kind.0 == 0 { &mut v.irq } else { &mut v.fiq }) = pending;
        Return::SUCCESS
    })
}
unsafe extern "C" fn set_flag(_: VcpuId, _: bool) -> Return {
    Return::SUCCESS
}
unsafe extern "C" fn get_flag(_: VcpuId, out: *mut bool) -> Return {
    put(out, true)
}
unsafe extern "C" fn gicr_base(id: VcpuId, out: *mut u64) -> Return {
    put(out, 0x80a_0000 + id.0 * 0x2_0000)
}
unsafe extern "C" fn get_u64(_: VcpuId, out: *mut u64) -> Return {
    put(out, 7)
}
unsafe extern "C" fn set_u64(_: VcpuId, _: u64) -> Return {
    Return::SUCCESS
}

unsafe extern "C" fn gic_config_set(_: GicConfig, _: u64) -> Return {
    Return::SUCCESS
}
unsafe extern "C" fn gic_config_msi(_: GicConfig, _: u32, _: u32) -> Return {
    Return::SUCCESS
}
unsafe extern "C" fn gic_create(_: GicConfig) -> Return {
    engine(|e| {
        if !e.vcpus.is_empty() || e.gic {
            return Return::ERROR;
        }
        e.gic = true;
        Return::SUCCESS
    })
}
unsafe extern "C" fn gic_set_spi(intid: u32, level: bool) -> Return {
    if !(32..1020).contains(&intid) {
        return Return::BAD_ARGUMENT;
    }
    engine(|e| e.spis.push((intid, level)));
    Return::SUCCESS
}
unsafe extern "C" fn gic_send_msi(_: u64, _: u32) -> Return {
    Return::BAD_ARGUMENT
}
unsafe extern "C" fn gicd_get(reg: GicDistributorReg, out: *mut u64) -> Return {
    put(out, u64::from(reg.0))
}
unsafe extern "C" fn gicd_set(reg: GicDistributorReg, value: u64) -> Return {
    engine(|e| e.gic_writes.push((u32::from(reg.0), value)));
    Return::SUCCESS
}
unsafe extern "C" fn gicr_get(id: VcpuId, reg: GicRedistributorReg, out: *mut u64) -> Return {
    owned(id, |_| put(out, u64::from(reg.0)))
}
unsafe extern "C" fn gicr_set(id: VcpuId, reg: GicRedistributorReg, value: u64) -> Return {
    engine(|e| e.gic_writes.push((reg.0, value)));
    owned(id, |_| Return::SUCCESS)
}
unsafe extern "C" fn icc_get(id: VcpuId, reg: GicIccReg, out: *mut u64) -> Return {
    owned(id, |_| put(out, u64::from(reg.0)))
}
unsafe extern "C" fn icc_set(id: VcpuId, _: GicIccReg, _: u64) -> Return {
    owned(id, |_| Return::SUCCESS)
}
unsafe extern "C" fn msi_get(_: GicMsiReg, out: *mut u64) -> Return {
    put(out, 0)
}
unsafe extern "C" fn msi_set(_: GicMsiReg, _: u64) -> Return {
    Return::SUCCESS
}
unsafe extern "C" fn gic_64k(out: *mut usize) -> Return {
    put(out, 0x1_0000)
}
unsafe extern "C" fn gic_region(out: *mut usize) -> Return {
    put(out, 0x200_0000)
}
unsafe extern "C" fn gicr_bytes(out: *mut usize) -> Return {
    put(out, 0x2_0000)
}
unsafe extern "C" fn spi_range(first: *mut u32, count: *mut u32) -> Return {
    assert_eq!(put(first, 32), Return::SUCCESS);
    put(count, 988)
}
unsafe extern "C" fn intid(source: GicIntid, out: *mut u32) -> Return {
    put(out, u32::from(source.0))
}
unsafe extern "C" fn state_create() -> GicState {
    GicState(if engine(|e| e.gic) {
        new_object()
    } else {
        std::ptr::null_mut()
    })
}
const STATE: [u8; 4] = *b"fake";
unsafe extern "C" fn state_size(_: GicState, out: *mut usize) -> Return {
    put(out, STATE.len())
}
unsafe extern "C" fn state_data(_: GicState, out: *mut c_void) -> Return {
    put(out.cast(), STATE)
}
unsafe extern "C" fn set_state(data: *const c_void, bytes: usize) -> Return {
    // SAFETY: the safe owner passes a slice's pointer and length.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) };
    if data != STATE {
        return Return::BAD_ARGUMENT;
    }
    engine(|e| e.restored = data.to_vec());
    Return::SUCCESS
}
unsafe extern "C" fn gic_reset() -> Return {
    Return::SUCCESS
}

unsafe extern "C" fn vm_content_replaced(_host: *mut c_void, _ipa: u64, _size: usize) -> Return {
    Return::SUCCESS
}

/// The table of this engine.
pub fn api() -> Api {
    Api {
        id: crate::EngineId::Software,
        name: "fake",
        dirty: None,
        code: None,
        after_fork: None,
        vm_content_replaced,
        gic: Some(GicApi {
            config_create: gic_config_create,
            config_set_distributor_base: gic_config_set,
            config_set_redistributor_base: gic_config_set,
            config_set_msi_region_base: gic_config_set,
            config_set_msi_interrupt_range: gic_config_msi,
            create: gic_create,
            set_spi: gic_set_spi,
            send_msi: gic_send_msi,
            get_distributor_reg: gicd_get,
            set_distributor_reg: gicd_set,
            get_redistributor_base: gicr_base,
            get_redistributor_reg: gicr_get,
            set_redistributor_reg: gicr_set,
            get_icc_reg: icc_get,
            set_icc_reg: icc_set,
            get_msi_reg: msi_get,
            set_msi_reg: msi_set,
            get_distributor_size: gic_64k,
            get_distributor_base_alignment: gic_64k,
            get_redistributor_region_size: gic_region,
            get_redistributor_size: gicr_bytes,
            get_redistributor_base_alignment: gic_64k,
            get_msi_region_size: gic_64k,
            get_msi_region_base_alignment: gic_64k,
            get_spi_interrupt_range: spi_range,
            get_intid: intid,
            state_create,
            state_get_size: state_size,
            state_get_data: state_data,
            set_state,
            reset: gic_reset,
        }),
        counter: || 0,
        counter_hz: 24_000_000,
        os_release,
        vm_get_max_vcpu_count: get_u32_max_vcpus,
        vm_create,
        vm_destroy,
        vm_map,
        vm_unmap,
        vm_protect,
        vm_config_create,
        vm_config_get_max_ipa_size: get_max_ipa,
        vm_config_get_default_ipa_size: get_default_ipa,
        vm_config_set_ipa_size: set_ipa,
        vcpu_create,
        vcpu_destroy,
        vcpu_run,
        vcpus_exit,
        vcpu_get_reg: get_reg,
        vcpu_set_reg: set_reg,
        vcpu_get_simd_fp_reg: get_simd,
        vcpu_set_simd_fp_reg: set_simd,
        vcpu_get_sys_reg: get_sys,
        vcpu_set_sys_reg: set_sys,
        vcpu_get_pending_interrupt: get_pending,
        vcpu_set_pending_interrupt: set_pending,
        vcpu_set_trap_debug_exceptions: set_flag,
        vcpu_set_trap_debug_reg_accesses: set_flag,
        vcpu_get_exec_time: get_u64,
        vcpu_get_vtimer_mask: get_flag,
        vcpu_set_vtimer_mask: set_flag,
        vcpu_get_vtimer_offset: get_u64,
        vcpu_set_vtimer_offset: set_u64,
        vcpu_config_create,
        vcpu_config_get_feature_reg: feature,
    }
}
