//! The engine's side: one vCPU at EL0 under a kernel of three instructions,
//! driven through the C ABI.

use super::{Batch, Outcome, READ_ONLY, STREAM_BYTES, STREAMS, State, Stop, WINDOW, WRITABLE};
use hvf::sys::{MemoryFlags, Reg, SimdReg, SysReg};
use hvf::{ExceptionClass, Vcpu, Vm};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use supermachine_softhv::jit::IS_BUILT;
use supermachine_softhv::{Tier, api_with};

/// Guest physical address of the memory.
const RAM: u64 = 0x8000_0000;
/// Virtual address of its first half for EL1, where no stream looks by chance.
const KERNEL: u64 = 0x75_4320_0000;
/// Bytes of it: kernel, tables and window in the first half, streams in the
/// second, which is one translation block.
const RAM_BYTES: usize = 2 * STREAM_BYTES as usize;
const VECTORS: usize = 0;
const FLUSH: usize = 0x1000;
const TABLES: usize = 0x4000;
/// Window page n is here: neighbours are apart, so that an access across two
/// pages that treats them as one shows.
const fn frame(page: u64) -> usize {
    0x1_0000 + 0x2000 * ((page as usize * 5) % 8)
}
const CODE: usize = STREAM_BYTES as usize;

/// Access flag, inner shareable, attribute 0.
const PAGE: u64 = 0x700;
const TABLE: u64 = 3;
const USER: u64 = 1 << 6;
const READ: u64 = 1 << 7;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;

/// One VM per process: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct Ram(NonNull<u8>);

impl Ram {
    fn layout() -> Layout {
        Layout::from_size_align(RAM_BYTES, 0x4000).expect("a valid layout")
    }

    fn new() -> Self {
        // SAFETY: the layout has a size.
        let block = unsafe { std::alloc::alloc_zeroed(Self::layout()) };
        Self(NonNull::new(block).expect("memory"))
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= RAM_BYTES);
        // SAFETY: inside the block, and no guest runs meanwhile.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_ptr().add(at), bytes.len())
        };
    }

    fn page(&self, at: usize) -> &[u8] {
        assert!(at + 4096 <= RAM_BYTES);
        // SAFETY: inside the block; the guest runs on this thread only, and
        // not while the result is used.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(at), 4096) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.0.as_ptr(), Self::layout()) };
    }
}

/// Runs `with` on a machine of `tier` that can execute batches.
pub fn machine<R>(tier: Tier, with: impl FnOnce(&mut Machine) -> R) -> R {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Without a compiler there are no machines that compile everything.
    let tier = if IS_BUILT { tier } else { Tier::Auto };
    let ram = Ram::new();
    let vm = Vm::new(api_with(tier), None).expect("a VM");
    // SAFETY: `ram` is dropped after the VM, and is as long.
    unsafe { vm.map(ram.0, RAM, RAM_BYTES, MemoryFlags::RWX) }.expect("mapped");
    let vcpu = vm.create_vcpu().expect("a vCPU");
    let mut machine = Machine { ram: &ram, vcpu };
    machine.set_up();
    let result = with(&mut machine);
    drop(machine);
    drop(vm);
    result
}

/// A vCPU with its memory.
pub struct Machine<'a> {
    ram: &'a Ram,
    vcpu: Vcpu,
}

impl Machine<'_> {
    fn word(&self, at: usize, value: u64) {
        self.ram.put(at, &value.to_le_bytes());
    }

    fn set_up(&mut self) {
        let ram = |at: usize| RAM + at as u64;
        // Synchronous exception from EL0, and from EL1: hvc #1, hvc #2.
        self.ram.put(VECTORS + 0x400, &0xd400_0022u32.to_le_bytes());
        self.ram.put(VECTORS + 0x200, &0xd400_0042u32.to_le_bytes());
        // ic iallu; dsb ish; isb; hvc #3
        for (i, word) in [0xd508_751f_u32, 0xd503_3b9f, 0xd503_3fdf, 0xd400_0062]
            .iter()
            .enumerate()
        {
            self.ram.put(FLUSH + 4 * i, &word.to_le_bytes());
        }
        let [l1, low, window, kernel] = [0, 1, 2, 3].map(|n| TABLES + 0x1000 * n);
        self.word(l1, ram(low) | TABLE);
        self.word(l1 + 8 * (KERNEL >> 30) as usize, ram(kernel) | TABLE);
        self.word(
            kernel + 8 * (KERNEL >> 21 & 511) as usize,
            RAM | PAGE | READ | UXN | 1,
        );
        self.word(
            low + 8 * (STREAMS as usize >> 21),
            ram(CODE) | PAGE | READ | USER | PXN | 1,
        );
        self.word(low + 8 * (WINDOW as usize >> 21), ram(window) | TABLE);
        for (n, _) in WRITABLE {
            self.word(
                window + 8 * n as usize,
                ram(frame(n)) | PAGE | USER | UXN | PXN | 3,
            );
        }
        let fixed = READ | USER | UXN | PXN;
        self.word(
            window + 8 * READ_ONLY as usize,
            ram(frame(READ_ONLY)) | PAGE | fixed | 3,
        );
        self.ram
            .put(frame(READ_ONLY), &super::inputs::read_only_page());
        let registers = [
            (SysReg::MAIR_EL1, 0xff),
            // 39-bit lower half, no upper half, top byte ignored, 40-bit PA.
            (
                SysReg::TCR_EL1,
                25 | 0x3500 | 25 << 16 | 1 << 23 | 2 << 30 | 2 << 32 | 1 << 37,
            ),
            (SysReg::TTBR0_EL1, ram(l1)),
            (SysReg::VBAR_EL1, KERNEL + VECTORS as u64),
            (SysReg::CPACR_EL1, 3 << 20),
            // MMU, caches, and what Linux lets EL0 do; SP alignment unchecked,
            // which QEMU's user mode does not do either.
            (
                SysReg::SCTLR_EL1,
                0x30d0_0800 | 0x1005 | 1 << 26 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18,
            ),
        ];
        for (register, value) in registers {
            self.vcpu.set_sys_reg(register, value).expect("a register");
        }
    }

    /// Executes the batch.
    pub fn run(&mut self, batch: &Batch) -> Vec<Outcome> {
        self.load(batch);
        let addresses = batch.addresses();
        let run = |&(stream, state): &(usize, usize)| {
            self.run_one(addresses[stream], &batch.states[state], &batch.image)
        };
        batch.runs.iter().map(run).collect()
    }

    /// Puts the streams into memory.
    pub fn load(&mut self, batch: &Batch) {
        self.ram.put(CODE, &batch.code());
        self.vcpu.set_reg(Reg::CPSR, 0x3c5).expect("CPSR");
        self.vcpu
            .set_reg(Reg::PC, KERNEL + FLUSH as u64)
            .expect("PC");
        let exit = self.vcpu.run().expect("a run");
        assert_eq!(exit.exception.syndrome & 0xffff, 3, "{exit:?}");
    }

    fn set_state(&mut self, state: &State) -> Result<(), hvf::HvfError> {
        for (n, &value) in (0..).zip(&state.x) {
            self.vcpu.set_general(n, value)?;
        }
        for (n, value) in (0..).zip(&state.v) {
            self.vcpu.set_simd(SimdReg(n), value.to_le_bytes())?;
        }
        self.vcpu.set_reg(Reg::FPCR, u64::from(state.fpcr))?;
        self.vcpu.set_reg(Reg::FPSR, u64::from(state.fpsr))?;
        self.vcpu.set_reg(Reg::CPSR, state.nzcv)?;
        self.vcpu.set_sys_reg(SysReg::SP_EL0, state.sp)?;
        self.vcpu.set_sys_reg(SysReg::TPIDR_EL0, state.tpidr)
    }

    fn state(&self) -> Result<State, hvf::HvfError> {
        let mut state = State {
            x: [0; 31],
            sp: self.vcpu.sys_reg(SysReg::SP_EL0)?,
            nzcv: self.vcpu.sys_reg(SysReg::SPSR_EL1)? & 0xf000_0000,
            fpcr: self.vcpu.reg(Reg::FPCR)? as u32,
            fpsr: self.vcpu.reg(Reg::FPSR)? as u32,
            v: [0; 32],
            tpidr: 0,
        };
        for (n, value) in (0..).zip(&mut state.x) {
            *value = self.vcpu.general(n)?;
        }
        for (n, value) in (0..).zip(&mut state.v) {
            *value = u128::from_le_bytes(self.vcpu.simd(SimdReg(n))?);
        }
        Ok(state)
    }

    /// The content of the writable pages of the window.
    pub fn window(&self) -> Vec<u8> {
        let pages = WRITABLE.map(|(n, _)| self.ram.page(frame(n)));
        pages.concat()
    }

    /// Executes the stream at `pc` from `state`.
    pub fn run_one(&mut self, pc: u64, state: &State, image: &[u8]) -> Outcome {
        for (page, at) in WRITABLE {
            self.ram.put(frame(page), &image[at..at + 4096]);
        }
        self.set_state(state).expect("registers are settable");
        self.vcpu.set_reg(Reg::PC, pc).expect("PC");
        let exit = self.vcpu.run().expect("a run");
        let class = exit.exception_class();
        let number = exit.exception.syndrome & 0xffff;
        let mut sums = [0; 16];
        for (page, _) in WRITABLE {
            super::sum(&mut sums, self.ram.page(frame(page)));
        }
        let read = |register| self.vcpu.sys_reg(register).expect("a register");
        let stop = if class == Some(ExceptionClass::HVC) && number == 1 {
            stop(read(SysReg::ESR_EL1), read(SysReg::FAR_EL1))
        } else {
            Stop::Other(exit.exception.syndrome)
        };
        Outcome {
            stop,
            pc: read(SysReg::ELR_EL1),
            state: self.state().expect("registers are readable"),
            sums,
        }
    }
}

/// An exception from EL0 as Linux tells a process of it.
fn stop(esr: u64, far: u64) -> Stop {
    let at = far & (u64::MAX >> 8);
    match (esr >> 26, esr & 0x3f) {
        (0x3c, _) => Stop::Break,
        // Undefined, and trapped system instructions.
        (0 | 0x18, _) => Stop::Undefined,
        (0x20 | 0x24, 0x21) | (0x22, _) => Stop::Unaligned(at),
        (0x20 | 0x24, 0..=7) => Stop::Unmapped(at),
        (0x20 | 0x24, 0xc..=0xf) => Stop::Denied(at),
        (class, _) => Stop::Other(class),
    }
}
