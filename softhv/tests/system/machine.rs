//! A bare machine: RAM, one or more vCPUs, programs assembled on the spot.

use crate::assembler::assemble;
use hvf::sys::{MemoryFlags, Reg, SysReg, VcpuExit};
use hvf::{ExceptionClass, Vcpu, Vm};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use supermachine_softhv::jit::IS_BUILT;
use supermachine_softhv::{Tier, api_with};

/// Where RAM is, as on QEMU's virt machine.
pub const RAM: u64 = 0x4000_0000;
/// Bytes of RAM.
pub const RAM_BYTES: usize = 0x40_0000;
/// Where programs are.
pub const PROGRAM: u64 = 0x4020_0000;
/// EL1h, interrupts masked.
pub const EL1H: u64 = 0x3c5;

/// One VM per process: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A VM with RAM.
pub struct Machine {
    vm: Option<Vm>,
    ram: NonNull<u8>,
    _turn: MutexGuard<'static, ()>,
}

// SAFETY: the RAM is plain memory, which vCPU threads share by design.
unsafe impl Sync for Machine {}

fn layout() -> Layout {
    Layout::from_size_align(RAM_BYTES, 0x4000).expect("a valid layout")
}

impl Machine {
    /// A machine with nothing in its RAM, and a GIC if asked for.
    pub fn new(gic: bool) -> Self {
        Self::empty(crate::TIER, gic)
    }

    fn empty(tier: Tier, gic: bool) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the layout has a size.
        let ram = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout()) }).expect("memory");
        // Without a compiler there are no machines that compile everything.
        let tier = if IS_BUILT { tier } else { Tier::Auto };
        let vm = Vm::new(api_with(tier), None).expect("a VM");
        // SAFETY: the memory outlives the VM, see `drop`, and is as long.
        unsafe { vm.map(ram, RAM, RAM_BYTES, MemoryFlags::RWX) }.expect("mapped");
        if gic {
            let addresses = hvf::GicAddresses {
                distributor: 0x0800_0000,
                redistributors: 0x080a_0000,
            };
            vm.create_gic(addresses).expect("a GIC");
        }
        Self {
            vm: Some(vm),
            ram,
            _turn: turn,
        }
    }

    /// A machine with the program of `source`.
    pub fn with(source: &str, symbols: &[(&str, u64)]) -> Self {
        Self::of(crate::TIER, source, symbols)
    }

    /// The same, of another tier than those of this file.
    pub fn of(tier: Tier, source: &str, symbols: &[(&str, u64)]) -> Self {
        let machine = Self::empty(tier, false);
        machine.put(PROGRAM, &assemble(source, PROGRAM, symbols));
        machine
    }

    /// The VM.
    pub fn vm(&self) -> &Vm {
        self.vm.as_ref().expect("there until dropped")
    }

    /// Writes to guest physical address `at`.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let offset = (at - RAM) as usize;
        assert!(offset + bytes.len() <= RAM_BYTES);
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: inside the block. Volatile, because a guest may look.
            unsafe { self.ram.as_ptr().add(offset + i).write_volatile(*byte) };
        }
    }

    /// Reads a word at guest physical address `at`.
    pub fn word(&self, at: u64) -> u64 {
        let offset = (at - RAM) as usize;
        assert!(offset + 8 <= RAM_BYTES && offset.is_multiple_of(8));
        // SAFETY: inside the block and aligned. Volatile, because a guest may
        // write.
        unsafe { self.ram.as_ptr().add(offset).cast::<u64>().read_volatile() }
    }

    /// A vCPU of this thread at the start of the program.
    pub fn vcpu(&self, index: u64) -> Vcpu {
        let mut vcpu = self.vm().create_vcpu().expect("a vCPU");
        vcpu.set_sys_reg(SysReg::MPIDR_EL1, 1 << 31 | index)
            .expect("MPIDR_EL1");
        vcpu.set_reg(Reg::CPSR, EL1H).expect("CPSR");
        vcpu.set_reg(Reg::PC, PROGRAM).expect("PC");
        vcpu.set_general(0, index).expect("X0");
        vcpu
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.vm = None;
        // SAFETY: allocated with this layout, and no guest is left.
        unsafe { std::alloc::dealloc(self.ram.as_ptr(), layout()) };
    }
}

/// Runs `source` on one vCPU until it leaves for the monitor.
pub fn exit_of(source: &str, symbols: &[(&str, u64)]) -> (VcpuExit, Vec<u64>) {
    exit_of_machine(&Machine::with(source, symbols))
}

fn exit_of_machine(machine: &Machine) -> (VcpuExit, Vec<u64>) {
    let mut vcpu = machine.vcpu(0);
    let exit = vcpu.run().expect("a run");
    let registers = (0..31).map(|n| vcpu.general(n).expect("a register"));
    let pc = vcpu.reg(Reg::PC).expect("PC");
    (exit, registers.chain([pc]).collect())
}

/// The registers after running `source` to its HVC.
pub fn result_of(source: &str, symbols: &[(&str, u64)]) -> Vec<u64> {
    result_of_machine(&Machine::with(source, symbols))
}

/// The same of a machine with its program.
pub fn result_of_machine(machine: &Machine) -> Vec<u64> {
    let (exit, registers) = exit_of_machine(machine);
    assert_eq!(
        exit.exception_class(),
        Some(ExceptionClass::HVC),
        "{exit:x?} {registers:x?}"
    );
    registers
}
