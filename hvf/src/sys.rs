//! The C ABI of Hypervisor.framework on Apple silicon: types, constants and
//! [`Api`], the table of entry points.
//!
//! Nothing here links anything. The framework itself fills the table on macOS;
//! a software engine fills the same table on any host. Enumerations are
//! newtype integers, because a newer system may return values unknown here.
//!
//! Left out on purpose: EL2 (nested virtualisation), the ICH/ICV registers
//! that need it, SME, and what only macOS 26 and later have.

use std::ffi::c_void;
use std::fmt;
use std::ops::BitOr;

mod gic_reg;
mod sys_reg;

pub use gic_reg::{GicDistributorReg, GicIccReg, GicIntid, GicMsiReg, GicRedistributorReg};
pub use sys_reg::SysReg;

/// Unit of guest mappings: host address, guest address and size must be
/// multiples of it, on every engine.
pub const PAGE_BYTES: usize = 16 * 1024;

/// `hv_return_t`, a `mach_error_t`.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct Return(pub i32);

impl Return {
    /// The operation succeeded.
    pub const SUCCESS: Self = Self(0);
    /// Unspecified failure.
    pub const ERROR: Self = Self::code(0x01);
    /// The resource is in use.
    pub const BUSY: Self = Self::code(0x02);
    /// An argument is out of range, misaligned or unknown.
    pub const BAD_ARGUMENT: Self = Self::code(0x03);
    /// The guest is in a state the engine cannot run.
    pub const ILLEGAL_GUEST_STATE: Self = Self::code(0x04);
    /// A system-wide limit was reached.
    pub const NO_RESOURCES: Self = Self::code(0x05);
    /// There is no virtual machine, or no such unit in it.
    pub const NO_DEVICE: Self = Self::code(0x06);
    /// The process may not do this; for `vm_create`, the entitlement is missing.
    pub const DENIED: Self = Self::code(0x07);
    /// The object exists already.
    pub const EXISTS: Self = Self::code(0x08);
    /// This host, or the virtual machine as configured, cannot do this.
    pub const UNSUPPORTED: Self = Self::code(0x0f);

    const fn code(low: u8) -> Self {
        Self((0xfae9_4000_u32 | low as u32).cast_signed())
    }

    /// The bits as Apple's headers print them.
    pub const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// Whether the operation succeeded.
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// The name without the `HV_` prefix, if it is a known code.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self(0) => "SUCCESS",
            r if r.0 == Self::ERROR.0 => "ERROR",
            r if r.0 == Self::BUSY.0 => "BUSY",
            r if r.0 == Self::BAD_ARGUMENT.0 => "BAD_ARGUMENT",
            r if r.0 == Self::ILLEGAL_GUEST_STATE.0 => "ILLEGAL_GUEST_STATE",
            r if r.0 == Self::NO_RESOURCES.0 => "NO_RESOURCES",
            r if r.0 == Self::NO_DEVICE.0 => "NO_DEVICE",
            r if r.0 == Self::DENIED.0 => "DENIED",
            r if r.0 == Self::EXISTS.0 => "EXISTS",
            r if r.0 == Self::UNSUPPORTED.0 => "UNSUPPORTED",
            _ => return None,
        })
    }
}

impl fmt::Debug for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "HV_{name}"),
            None => write!(f, "hv_return_t {:#010x}", self.bits()),
        }
    }
}

/// `hv_vcpu_t`: a small integer, reused after the vCPU is destroyed.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VcpuId(pub u64);

/// `hv_memory_flags_t`: what the guest may do with a mapping.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryFlags(pub u64);

impl MemoryFlags {
    /// No access: every access exits.
    pub const NONE: Self = Self(0);
    /// The guest may read.
    pub const READ: Self = Self(1);
    /// The guest may write.
    pub const WRITE: Self = Self(2);
    /// The guest may fetch instructions.
    pub const EXEC: Self = Self(4);
    /// Ordinary RAM.
    pub const RWX: Self = Self(7);

    /// Whether every flag of `other` is set here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for MemoryFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `hv_exit_reason_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitReason(pub u32);

impl ExitReason {
    /// Another thread asked for the exit with `vcpus_exit`.
    pub const CANCELED: Self = Self(0);
    /// A guest exception that the engine does not handle; see [`ExitException`].
    pub const EXCEPTION: Self = Self(1);
    /// The virtual timer fired and masked itself.
    pub const VTIMER_ACTIVATED: Self = Self(2);
    /// The engine cannot say.
    pub const UNKNOWN: Self = Self(3);
}

/// `hv_vcpu_exit_exception_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitException {
    /// `ESR_EL2` of the exit.
    pub syndrome: u64,
    /// `FAR_EL2`: the guest virtual address, for aborts.
    pub virtual_address: u64,
    /// The guest physical address, for aborts.
    pub physical_address: u64,
}

/// `hv_vcpu_exit_t`: owned by the engine, rewritten by every `vcpu_run`,
/// valid from `vcpu_create` to `vcpu_destroy`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuExit {
    /// Why `vcpu_run` returned.
    pub reason: ExitReason,
    /// Details of [`ExitReason::EXCEPTION`].
    pub exception: ExitException,
}

const _: () = {
    assert!(size_of::<VcpuExit>() == 32 && align_of::<VcpuExit>() == 8);
    assert!(std::mem::offset_of!(VcpuExit, reason) == 0);
    assert!(std::mem::offset_of!(VcpuExit, exception) == 8);
    assert!(std::mem::offset_of!(ExitException, syndrome) == 0);
    assert!(std::mem::offset_of!(ExitException, virtual_address) == 8);
    assert!(std::mem::offset_of!(ExitException, physical_address) == 16);
    assert!(size_of::<SimdValue>() == 16 && align_of::<SimdValue>() == 16);
};

/// `hv_reg_t`: the general registers, flags and program counter. Stack
/// pointers are system registers.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg(pub u32);

impl Reg {
    /// First of the general registers `X0` to `X30`.
    pub const X0: Self = Self(0);
    /// The link register.
    pub const LR: Self = Self(30);
    /// The program counter. Shares its number with `XZR` in instruction
    /// encodings, which is why [`Reg::x`] refuses 31.
    pub const PC: Self = Self(31);
    /// Floating-point control.
    pub const FPCR: Self = Self(32);
    /// Floating-point status.
    pub const FPSR: Self = Self(33);
    /// The processor state, in `SPSR` layout.
    pub const CPSR: Self = Self(34);

    /// General register `n`, or `None` for 31 (`XZR`) and above.
    pub const fn x(n: u8) -> Option<Self> {
        if n < 31 { Some(Self(n as u32)) } else { None }
    }
}

/// `hv_simd_fp_reg_t`: `Q0` to `Q31` are 0 to 31.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SimdReg(pub u32);

/// `hv_simd_fp_uchar16_t` in memory, least significant byte first.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimdValue(pub [u8; 16]);

/// `hv_interrupt_type_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterruptType(pub u32);

impl InterruptType {
    /// The IRQ line. It is 0; one published binding has the two swapped.
    pub const IRQ: Self = Self(0);
    /// The FIQ line.
    pub const FIQ: Self = Self(1);
}

/// `hv_cache_type_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheType(pub u32);

impl CacheType {
    /// Data and unified caches.
    pub const DATA: Self = Self(0);
    /// Instruction caches.
    pub const INSTRUCTION: Self = Self(1);
}

/// `hv_feature_reg_t`: identification registers, readable before any vCPU.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeatureReg(pub u32);

#[allow(missing_docs)] // Each is the identification register of its name.
impl FeatureReg {
    pub const ID_AA64DFR0_EL1: Self = Self(0);
    pub const ID_AA64DFR1_EL1: Self = Self(1);
    pub const ID_AA64ISAR0_EL1: Self = Self(2);
    pub const ID_AA64ISAR1_EL1: Self = Self(3);
    pub const ID_AA64MMFR0_EL1: Self = Self(4);
    pub const ID_AA64MMFR1_EL1: Self = Self(5);
    pub const ID_AA64MMFR2_EL1: Self = Self(6);
    pub const ID_AA64PFR0_EL1: Self = Self(7);
    pub const ID_AA64PFR1_EL1: Self = Self(8);
    pub const CTR_EL0: Self = Self(9);
    pub const CLIDR_EL1: Self = Self(10);
    pub const DCZID_EL0: Self = Self(11);
}

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub *mut c_void);

        impl $name {
            /// The null object: defaults where it is allowed, failure where
            /// it is returned.
            pub const NULL: Self = Self(std::ptr::null_mut());
        }
    )+};
}

opaque! {
    /// `hv_vm_config_t`, freed with [`Api::os_release`].
    VmConfig,
    /// `hv_vcpu_config_t`, freed with [`Api::os_release`].
    VcpuConfig,
    /// `hv_gic_config_t`, freed with [`Api::os_release`].
    GicConfig,
    /// `hv_gic_state_t`, freed with [`Api::os_release`].
    GicState,
}

/// Declares a table: each entry is one C function of Apple's headers.
macro_rules! table {
    (
        $(#[$struct_doc:meta])*
        pub struct $name:ident {
            fields { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* }
            functions { $($(#[$doc:meta])* $func:ident($($arg:ident: $arg_ty:ty),*) $(-> $ret:ty)?;)* }
        }
    ) => {
        $(#[$struct_doc])*
        #[derive(Clone, Copy)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
            $($(#[$doc])* pub $func: unsafe extern "C" fn($($arg: $arg_ty),*) $(-> $ret)?,)*
        }
    };
}

table! {
    /// The engine: every entry point of the framework that we use, named
    /// without the `hv_` prefix.
    ///
    /// "Owner" below is the thread that created the vCPU; everything else may
    /// be called from any thread.
    pub struct Api {
        fields {
            /// Which engine this is.
            id: crate::EngineId,
            /// Name of the engine for people, like `hvf` or `soft`.
            name: &'static str,
            /// The interrupt controller, absent before macOS 15.
            gic: Option<GicApi>,
            /// The engine's own log of guest writes. No system has one.
            dirty: Option<DirtyApi>,
            /// Code that the engine decodes before it is needed. No system has it.
            code: Option<CodeApi>,
            /// In a process made by fork(2): forgets the virtual machine of its
            /// parent, whose threads are not there, so that another can be
            /// created. That has to be the parent's machine again: when a vCPU
            /// first runs, memory holds what it held for the parent's vCPU of
            /// that number. Absent where a process with a machine cannot fork.
            after_fork: Option<fn()>,
            /// `mach_absolute_time` in ticks of the guest's counter: a guest's
            /// `CNTVCT_EL0` is this minus the vtimer offset.
            counter: fn() -> u64,
            /// Ticks per second of `counter` and of the guest's timers.
            counter_hz: u64,
        }
        functions {
            /// Frees a configuration or state object; null is ignored.
            os_release(object: *mut c_void);

            /// Largest number of vCPUs in one virtual machine.
            vm_get_max_vcpu_count(out: *mut u32) -> Return;
            /// Creates the process's one virtual machine.
            vm_create(config: VmConfig) -> Return;
            /// Destroys it; all vCPUs must be gone.
            vm_destroy() -> Return;
            /// Maps host memory at a guest physical address, in whole
            /// [`PAGE_BYTES`] pages.
            vm_map(host: *mut c_void, ipa: u64, size: usize, flags: MemoryFlags) -> Return;
            /// Unmaps whole pages; a hole is an error.
            vm_unmap(ipa: u64, size: usize) -> Return;
            /// Changes what the guest may do with mapped pages.
            vm_protect(ipa: u64, size: usize, flags: MemoryFlags) -> Return;
            /// Not of the framework: the host replaced the content of guest
            /// memory, `size` bytes at `host` and at `ipa`, while no vCPU ran.
            /// Guests do not execute what used to be there.
            vm_content_replaced(host: *mut c_void, ipa: u64, size: usize) -> Return;
            /// A new configuration with the defaults.
            vm_config_create() -> VmConfig;
            /// Largest guest physical address width of this host, in bits.
            vm_config_get_max_ipa_size(bits: *mut u32) -> Return;
            /// Width without configuration, in bits.
            vm_config_get_default_ipa_size(bits: *mut u32) -> Return;
            /// Chooses the width, in bits.
            vm_config_set_ipa_size(config: VmConfig, bits: u32) -> Return;

            /// Creates a vCPU that belongs to the calling thread.
            vcpu_create(id: *mut VcpuId, exit: *mut *const VcpuExit, config: VcpuConfig) -> Return;
            /// Destroys it (owner).
            vcpu_destroy(id: VcpuId) -> Return;
            /// Runs until the next exit, which it describes in the vCPU's
            /// [`VcpuExit`] (owner).
            vcpu_run(id: VcpuId) -> Return;
            /// Makes the vCPUs leave `vcpu_run`, now or the next time.
            vcpus_exit(ids: *const VcpuId, count: u32) -> Return;
            /// Reads a register (owner).
            vcpu_get_reg(id: VcpuId, reg: Reg, value: *mut u64) -> Return;
            /// Writes a register (owner).
            vcpu_set_reg(id: VcpuId, reg: Reg, value: u64) -> Return;
            /// Reads a vector register (owner).
            vcpu_get_simd_fp_reg(id: VcpuId, reg: SimdReg, value: *mut SimdValue) -> Return;
            /// Writes a vector register (owner). Takes a pointer: the
            /// framework's own function takes the vector in a vector register,
            /// which Rust cannot say, so the macOS table has a shim here.
            vcpu_set_simd_fp_reg(id: VcpuId, reg: SimdReg, value: *const SimdValue) -> Return;
            /// Reads a system register (owner).
            vcpu_get_sys_reg(id: VcpuId, reg: SysReg, value: *mut u64) -> Return;
            /// Writes a system register (owner).
            vcpu_set_sys_reg(id: VcpuId, reg: SysReg, value: u64) -> Return;
            /// Reads an interrupt line; only without the GIC (owner).
            vcpu_get_pending_interrupt(id: VcpuId, kind: InterruptType, pending: *mut bool) -> Return;
            /// Drives an interrupt line until the next exit; only without the
            /// GIC (owner).
            vcpu_set_pending_interrupt(id: VcpuId, kind: InterruptType, pending: bool) -> Return;
            /// Whether guest debug exceptions exit (owner).
            vcpu_set_trap_debug_exceptions(id: VcpuId, trap: bool) -> Return;
            /// Whether guest accesses to debug registers exit (owner).
            vcpu_set_trap_debug_reg_accesses(id: VcpuId, trap: bool) -> Return;
            /// Time spent in the guest, in `counter` ticks (owner).
            vcpu_get_exec_time(id: VcpuId, ticks: *mut u64) -> Return;
            /// Whether the virtual timer is masked (owner).
            vcpu_get_vtimer_mask(id: VcpuId, masked: *mut bool) -> Return;
            /// Masks or unmasks the virtual timer (owner).
            vcpu_set_vtimer_mask(id: VcpuId, masked: bool) -> Return;
            /// Reads the offset between `counter` and the guest's (owner).
            vcpu_get_vtimer_offset(id: VcpuId, offset: *mut u64) -> Return;
            /// Writes it; all vCPUs need the same value (owner).
            vcpu_set_vtimer_offset(id: VcpuId, offset: u64) -> Return;
            /// A new configuration with the defaults.
            vcpu_config_create() -> VcpuConfig;
            /// Reads an identification register as vCPUs will see it.
            vcpu_config_get_feature_reg(config: VcpuConfig, reg: FeatureReg, value: *mut u64) -> Return;
        }
    }
}

table! {
    /// An engine's log of the pages its vCPUs write, in units of 4 KiB.
    /// Both calls are legal only while no vCPU runs.
    pub struct DirtyApi {
        fields {}
        functions {
            /// Follows writes to a mapped range, in whole [`PAGE_BYTES`]
            /// pages, from now on; all of it counts as unwritten.
            start(ipa: u64, size: usize) -> Return;
            /// Moves the marks of a range given to `start` into `words` words
            /// at `bits`: one for each 64 pages, rounded up, lowest bit
            /// first. The range counts as unwritten again.
            take(ipa: u64, size: usize, bits: *mut u64, words: usize) -> Return;
        }
    }
}

table! {
    /// What an engine that decodes code remembers of it for other machines.
    pub struct CodeApi {
        fields {}
        functions {
            /// Drops all decoded code, and notes what is decoded from now on. Legal
            /// only while no vCPU runs.
            note() -> Return;
            /// Ends noting: writes what was noted to `room` bytes at `bytes`, and how
            /// many bytes that took to `written`.
            take_notes(bytes: *mut u8, room: usize, written: *mut usize) -> Return;
            /// Decodes ahead what another machine with the same memory has noted,
            /// while vCPUs run. Bytes that are no such notes are a bad argument. Unless
            /// the machine is `at_work` at once, it may be idle for long, and takes no
            /// memory that only work needs.
            decode_ahead(bytes: *const u8, count: usize, at_work: bool) -> Return;
            /// What vCPUs did to have code that they can execute.
            counts(counts: *mut CodeCounts) -> Return;
            /// Writes to `room` bytes at `text` what the compiled code of a machine that
            /// counts has executed, in lines of UTF-8 (a number, why, and which
            /// instruction), the largest numbers first, and how many bytes that took to
            /// `written`. None of a machine that does not count.
            census(text: *mut u8, room: usize, written: *mut usize) -> Return;
        }
    }
}

/// What the vCPUs of a machine did to have code that they can execute.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeCounts {
    /// Blocks that they decoded when they needed them.
    pub decoded: u64,
    /// Blocks that they found decoded ahead.
    pub ahead: u64,
    /// Instructions of the blocks that they decoded.
    pub instructions_decoded: u64,
    /// How long that took them, in nanoseconds.
    pub decoding_ns: u64,
    /// Instructions that they compiled, once more each time.
    pub instructions_compiled: u64,
    /// How long compiling took the vCPUs, in nanoseconds.
    pub compiling_ns: u64,
    /// Instructions that they had begun when each last exited or began to wait, of a
    /// machine that counts them; else zero.
    pub instructions_begun: u64,
}

/// Bytes of text that [`CodeApi`] gives at most.
pub const MAX_CODE_CENSUS: usize = 16 << 10;

/// Bytes of notes that [`CodeApi`] takes and gives at most.
pub const MAX_CODE_NOTES: usize = 128 << 10;

table! {
    /// The interrupt controller of macOS 15: a GICv3 inside the engine.
    ///
    /// Order: VM, configuration, `create`, vCPUs, `MPIDR_EL1` on each, run.
    pub struct GicApi {
        fields {}
        functions {
            /// A new configuration without addresses.
            config_create() -> GicConfig;
            /// Places the distributor.
            config_set_distributor_base(config: GicConfig, ipa: u64) -> Return;
            /// Places the redistributors.
            config_set_redistributor_base(config: GicConfig, ipa: u64) -> Return;
            /// Places the frame of message-signalled interrupts.
            config_set_msi_region_base(config: GicConfig, ipa: u64) -> Return;
            /// Reserves interrupts for messages.
            config_set_msi_interrupt_range(config: GicConfig, first: u32, count: u32) -> Return;
            /// Creates the controller: after the VM, before any vCPU.
            create(config: GicConfig) -> Return;
            /// Drives a shared peripheral interrupt, by absolute INTID. On an
            /// edge line `true` is one edge and `false` is ignored.
            set_spi(intid: u32, level: bool) -> Return;
            /// Sends a message-signalled interrupt.
            send_msi(address: u64, intid: u32) -> Return;
            /// Reads a distributor register.
            get_distributor_reg(reg: GicDistributorReg, value: *mut u64) -> Return;
            /// Writes a distributor register.
            set_distributor_reg(reg: GicDistributorReg, value: u64) -> Return;
            /// Address of a vCPU's redistributor; only after its `MPIDR_EL1`.
            get_redistributor_base(id: VcpuId, ipa: *mut u64) -> Return;
            /// Reads a redistributor register (owner).
            get_redistributor_reg(id: VcpuId, reg: GicRedistributorReg, value: *mut u64) -> Return;
            /// Writes a redistributor register (owner).
            set_redistributor_reg(id: VcpuId, reg: GicRedistributorReg, value: u64) -> Return;
            /// Reads a CPU interface register (owner).
            get_icc_reg(id: VcpuId, reg: GicIccReg, value: *mut u64) -> Return;
            /// Writes a CPU interface register (owner).
            set_icc_reg(id: VcpuId, reg: GicIccReg, value: u64) -> Return;
            /// Reads a register of the message frame.
            get_msi_reg(reg: GicMsiReg, value: *mut u64) -> Return;
            /// Writes a register of the message frame.
            set_msi_reg(reg: GicMsiReg, value: u64) -> Return;
            /// Bytes of the distributor's window.
            get_distributor_size(bytes: *mut usize) -> Return;
            /// Alignment of the distributor's base, in bytes.
            get_distributor_base_alignment(bytes: *mut usize) -> Return;
            /// Bytes of all redistributor windows together.
            get_redistributor_region_size(bytes: *mut usize) -> Return;
            /// Bytes of one redistributor's window.
            get_redistributor_size(bytes: *mut usize) -> Return;
            /// Alignment of the redistributors' base, in bytes.
            get_redistributor_base_alignment(bytes: *mut usize) -> Return;
            /// Bytes of the message frame.
            get_msi_region_size(bytes: *mut usize) -> Return;
            /// Alignment of the message frame, in bytes.
            get_msi_region_base_alignment(bytes: *mut usize) -> Return;
            /// First shared peripheral INTID and how many there are.
            get_spi_interrupt_range(first: *mut u32, count: *mut u32) -> Return;
            /// INTID of an internal source, like a timer.
            get_intid(source: GicIntid, intid: *mut u32) -> Return;
            /// Captures distributor and redistributors; no vCPU may run. Null
            /// if there is no GIC. CPU interface registers are not in it.
            state_create() -> GicState;
            /// Bytes of the capture.
            state_get_size(state: GicState, bytes: *mut usize) -> Return;
            /// Copies the capture out.
            state_get_data(state: GicState, data: *mut c_void) -> Return;
            /// Restores a capture: after all vCPUs have their `MPIDR_EL1`,
            /// before any runs.
            set_state(data: *const c_void, bytes: usize) -> Return;
            /// Back to the state after `create`.
            reset() -> Return;
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("name", &self.name)
            .field("gic", &self.gic.is_some())
            .field("dirty", &self.dirty.is_some())
            .field("counter_hz", &self.counter_hz)
            .finish_non_exhaustive()
    }
}
