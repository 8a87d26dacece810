//! The state of one vCPU.

pub mod op;

use crate::code::CodeCache;
use crate::dirty::DirtyView;
use crate::dispatch::StackLimit;
use crate::jump::JumpEntry;
use crate::link::{AckWait, VcpuShared};
use crate::mmu::Mmu;
use crate::phys::PhysView;
use crate::regs::Regs;
use crate::rest::Rest;
use crate::sys_regs::SysRegs;
use crate::timer::VcpuTimers;
use crate::tlb::Entry;
use crate::vm::VmShared;
use op::Op;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// PSTATE.D, A, I, F where PSTATE views (SPSR, DAIF) have them.
pub const DAIF_MASK: u64 = 0x3c0;
/// PSTATE.I.
pub const DAIF_I: u64 = 1 << 7;

/// PSTATE without the flags, which are in [`Regs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pstate {
    /// Exception level, 0 or 1.
    pub el: u8,
    /// SPSel: at EL1, whether SP is SP_EL1.
    pub sp_sel: bool,
    /// D, A, I, F at bits 9:6.
    pub daif: u64,
    /// Privileged access never.
    pub pan: bool,
    /// Illegal execution state.
    pub il: bool,
    /// Software step.
    pub ss: bool,
}

/// The exclusive monitor: what the last load-exclusive saw.
#[derive(Clone, Copy, Default, Debug)]
pub struct Monitor {
    /// Host address of the monitored location; 0 if open.
    pub host: u64,
    /// Bytes monitored.
    pub size: u8,
    /// Value loaded, low and high half.
    pub value: [u64; 2],
}

/// Why a vCPU left guest execution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunExit {
    /// Somebody asked for it.
    Canceled,
    /// Something for the virtual machine monitor, with ESR_EL2's layout.
    Exception {
        /// Exception class and syndrome.
        syndrome: u64,
        /// Faulting virtual address.
        virtual_address: u64,
        /// Faulting intermediate physical address.
        physical_address: u64,
    },
    /// The virtual timer fired and there is no interrupt controller.
    VtimerActivated,
}

/// One vCPU: registers first, so that handlers reach them at small offsets.
#[repr(C)]
pub struct Cpu {
    /// General, flag and vector registers.
    pub regs: Regs,
    /// Entries of the data bank for the current exception level and PAN.
    pub tlb: *mut Entry,
    /// Entries of the user bank, for unprivileged loads and stores at EL1.
    pub tlb_user: *mut Entry,
    /// Non-zero when the run loop has something to attend to.
    pub attention: *const AtomicU32,
    /// Jump cache, [`crate::jump::JUMP_ENTRIES`] entries.
    pub jump: *mut JumpEntry,
    /// Jump-cache context of the low and the high half of the address space.
    pub context: [u64; 2],
    /// How deep handlers may take the host stack.
    pub stack_limit: StackLimit,
    /// 1 << 63: what compiled code sets the V flag to.
    #[cfg(compiles)]
    pub overflow: u64,
    /// Vectors that compiled code uses.
    #[cfg(compiles)]
    pub constants: crate::constants::Constants,
    /// The op that a handler continues with, where it returns it.
    #[cfg(not(tail_calls))]
    pub next: *const Op,
    /// Exclusive monitor.
    pub monitor: Monitor,
    /// Program counter; up to date only outside blocks.
    pub pc: u64,
    /// A branch that wants its `link` filled with the next block found.
    pub link_from: *const Op,
    /// Set by a handler that leaves guest execution.
    pub exit: Option<RunExit>,
    /// Set by WFI.
    pub waiting: bool,
    /// Whether it has had little to do.
    pub rest: Rest,
    /// YIELDs executed, to give the host core away now and then.
    pub yields: u32,
    /// Instructions begun that are not told of yet, where they are counted: by
    /// `counting` or by compiled code.
    pub counted: u64,
    /// Processor state.
    pub pstate: Pstate,
    /// Code is looked up for a misaligned stack pointer.
    pub sp_off: bool,
    /// An instruction was stepped; whether it was a load-exclusive.
    pub stepped: Option<bool>,
    /// System registers with plain storage.
    pub sys: SysRegs,
    /// Translation state.
    pub mmu: Mmu,
    /// Decoded blocks.
    pub code: CodeCache,
    /// Generic timers.
    pub timers: VcpuTimers<VmShared>,
    /// Interrupt lines asserted through the ABI (no interrupt controller).
    pub pending_lines: [bool; 2],
    /// Position in the VM.
    pub index: usize,
    /// The memory map as this vCPU knows it.
    pub view: PhysView,
    /// The pages whose writes are to be noted, as this vCPU knows them.
    pub dirty: DirtyView,
    /// Invalidations sent to other vCPUs, to be awaited at the next DSB.
    pub acks: AckWait,
    /// What other threads see of this vCPU.
    pub shared: Arc<VcpuShared>,
    /// The VM.
    pub vm: Arc<VmShared>,
}
