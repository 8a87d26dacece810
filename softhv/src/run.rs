//! The run loop of a vCPU: attention, interrupts, and finding blocks.

use crate::ahead::helper;
use crate::counting;
use crate::cpu::op::Op;
use crate::cpu::{Cpu, DAIF_I, DAIF_MASK, Monitor, Pstate, RunExit};
use crate::dispatch::{self, StackLimit};
use crate::exception::class;
use crate::exec::branch::stale;
use crate::faults::FAULTS;
use crate::gic::IccReg;
use crate::inherit;
use crate::link::round::Round;
use crate::link::{AckWait, TlbBatch, TlbInvalidate, VcpuShared, attention};
use crate::mmu::Mmu;
use crate::page::PAGE_MASK;
use crate::regs::Regs;
use crate::rest::Rest;
use crate::sys_regs::SysRegs;
use crate::timer::{TimerReg, VcpuTimers};
use crate::translate::Target;
use crate::vm::VmShared;
use crate::walk::{Access, fsc, strip_tag};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// SCTLR_EL1 after reset: RES1 bits, everything off.
const SCTLR_RESET: u64 = 0x30d0_0800;
/// ISS of a trapped WFI: CV = 1, COND = always, TI = 0.
const WFI_ISS: u64 = 0x1e0_0000;
impl Cpu {
    /// A vCPU in reset state. Boxed, because handlers keep addresses into it.
    pub fn new(vm: Arc<VmShared>, shared: Arc<VcpuShared>) -> Box<Self> {
        let index = shared.index();
        let view = vm.phys.view();
        let dirty = vm.dirty.view();
        let mut cpu = Box::new(Self {
            regs: Regs::default(),
            tlb: std::ptr::null_mut(),
            tlb_user: std::ptr::null_mut(),
            attention: &raw const shared.attention,
            jump: std::ptr::null_mut(),
            context: [0; 2],
            stack_limit: StackLimit::default(),
            #[cfg(compiles)]
            overflow: 1 << 63,
            #[cfg(compiles)]
            constants: crate::constants::Constants::NEW,
            #[cfg(not(tail_calls))]
            next: std::ptr::null(),
            monitor: Monitor::default(),
            pc: 0,
            link_from: std::ptr::null(),
            exit: None,
            waiting: false,
            rest: Rest::new(),
            yields: 0,
            counted: 0,
            sp_off: false,
            stepped: None,
            pstate: Pstate {
                el: 1,
                sp_sel: true,
                daif: DAIF_MASK,
                pan: false,
                il: false,
                ss: false,
            },
            sys: SysRegs {
                sctlr: SCTLR_RESET,
                // Aff0 in clusters of 16, so that SGI target lists reach all.
                mpidr: 1 << 31 | (index as u64 >> 4) << 8 | (index as u64 & 15),
                ..SysRegs::default()
            },
            mmu: Mmu::new(Arc::clone(&shared)),
            code: {
                let mut code = crate::code::CodeCache::new(stale);
                code.set_tier(counting::compiler(vm.tier, &vm.code_memory));
                code
            },
            timers: VcpuTimers::new(Arc::clone(&vm), Arc::clone(&shared)),
            pending_lines: [false; 2],
            index,
            view,
            dirty,
            acks: AckWait::default(),
            shared,
            vm,
        });
        cpu.code_replaced();
        cpu.space_changed();
        cpu
    }

    /// Executes guest code until something is for the caller.
    pub fn run(&mut self) -> RunExit {
        let is_first = !self.shared.has_run.load(Ordering::Relaxed);
        self.shared.enter();
        if is_first {
            self.inherit();
        }
        self.link_from = std::ptr::null();
        self.stack_limit = StackLimit::here();
        // As an exception return to the guest would (Arm ARM B2.12.1): what
        // was loaded before may be of another life by now.
        self.monitor.host = 0;
        if self.timers.poll() {
            self.shared.leave();
            return RunExit::VtimerActivated;
        }
        // The monitor may have set a stack pointer.
        self.refresh_context();
        self.interrupts_changed();
        let exit = loop {
            if self.shared.attention.load(Ordering::Acquire) != 0
                && let Some(exit) = self.attend()
            {
                break exit;
            }
            if self.is_stepping() {
                self.step();
            } else if let Some(op) = self.next_block() {
                // SAFETY: a live block of this vCPU, owned by this thread.
                unsafe { dispatch::execute(self, op) };
            }
            if let Some(exit) = self.exit.take() {
                break exit;
            }
            if self.waiting {
                self.waiting = false;
                if let Some(exit) = self.wait_for_interrupt() {
                    break exit;
                }
            }
            if self.may_interrupt() {
                self.take_irq();
            }
        };
        self.send_code();
        self.tell_counted();
        // Lines asserted through the ABI hold for one run.
        self.pending_lines = [false; 2];
        self.shared.leave();
        exit
    }

    /// Starts with the code of the vCPU this one was forked from, if it was.
    fn inherit(&mut self) {
        // Memory was mapped since it was made, which is no change of code.
        self.take_mail();
        if let Some(code) = inherit::claim(self.index, &self.vm) {
            self.code = code;
            self.code_replaced();
        }
    }

    /// Serves the attention word.
    fn attend(&mut self) -> Option<RunExit> {
        // Mail may remap the page of the branch that led here.
        self.link_from = std::ptr::null();
        let bits = self.shared.attention.load(Ordering::Acquire);
        if bits & attention::MAIL != 0 {
            self.take_mail();
        }
        if bits & attention::TIMER != 0 {
            self.shared.take(attention::TIMER);
            if self.timers.poll() {
                return Some(RunExit::VtimerActivated);
            }
        }
        if bits & attention::KICK != 0 {
            self.shared.take(attention::KICK);
            return Some(RunExit::Canceled);
        }
        if bits & attention::IRQ != 0 {
            self.shared.take(attention::IRQ);
        }
        self.interrupts_changed();
        None
    }

    /// Takes a pending interrupt if it is not masked.
    fn interrupts_changed(&mut self) {
        if self.may_interrupt() || (self.pending_lines[0] && self.pstate.daif & DAIF_I == 0) {
            self.take_irq();
        } else if self.pending_lines[1] && self.pstate.daif & DAIF_I >> 1 == 0 {
            self.take_fiq();
        }
    }

    /// Applies what other threads sent, until there is nothing more.
    pub fn take_mail(&mut self) {
        while self.shared.attention.load(Ordering::Acquire) & attention::MAIL != 0 {
            let rounds = self.take_mail_once();
            if rounds.is_empty() {
                continue;
            }
            // Its sender sleeps and waits for others yet, which may have no
            // host core but this one. Nobody needs to wait for this vCPU.
            self.shared.pause();
            rounds.iter().for_each(|round| round.sit_out());
            self.shared.resume();
        }
    }

    fn take_mail_once(&mut self) -> Vec<Arc<Round>> {
        let mail = self.shared.take_mail();
        if mail.map_changed {
            self.view.refresh(&self.vm.phys);
            self.monitor.host = 0;
            self.translation_changed();
        }
        if mail.writes_revoked {
            self.dirty = self.vm.dirty.view();
            self.mmu.revoke_writes();
        }
        match &mail.tlb {
            TlbBatch::Each(list) => list.iter().for_each(|what| self.invalidate(*what)),
            TlbBatch::Everything => self.invalidate(TlbInvalidate::All),
        }
        mail.code
            .iter()
            .for_each(|range| self.code.invalidate(range));
        self.shared.acknowledge(mail)
    }

    /// Sleeps until there is something to do. Without an interrupt controller
    /// waiting is the monitor's, as in the framework.
    fn wait_for_interrupt(&mut self) -> Option<RunExit> {
        if self.vm.gic().is_none() || FAULTS.wfi_exits.load(Ordering::Relaxed) {
            self.pc = self.pc.wrapping_sub(4);
            return Some(RunExit::Exception {
                syndrome: class::WFX << 26 | crate::mem::ESR_IL | WFI_ISS,
                virtual_address: 0,
                physical_address: 0,
            });
        }
        self.send_code();
        self.tell_counted();
        self.rest.begin();
        loop {
            let left = self.timers.until_deadline();
            let timer = left.is_some_and(|left| left.is_zero());
            self.timers.poll();
            let bits = self.shared.attention.load(Ordering::Acquire);
            if self.interrupt_waits() || bits & attention::KICK != 0 {
                self.end_rest(timer);
                return None;
            }
            self.shared.take(attention::IRQ | attention::TIMER);
            // A wake between the look above and here set its bit again, and
            // parking looks at the bits.
            if self.interrupt_waits() {
                self.end_rest(timer);
                return None;
            }
            let sleep = self.longest_sleep();
            self.shared.park(sleep);
            self.take_mail();
        }
    }

    fn end_rest(&mut self, timer: bool) {
        if self.rest.end(timer) && self.index == 0 {
            helper::again(&self.vm);
        }
    }

    /// How long to sleep. Who has hardly worked for a while gives back what it
    /// can do without.
    fn longest_sleep(&mut self) -> Option<Duration> {
        let deadline = self.timers.until_deadline();
        let eager = FAULTS.eager_release.load(Ordering::Relaxed);
        if !self.code.is_large() && !eager {
            return deadline;
        }
        let left = self.rest.left(self.vm.vcpu_count() == 1);
        if left.is_zero() || eager {
            self.release_caches();
            self.rest.released();
            return deadline;
        }
        Some(deadline.map_or(left, |deadline| deadline.min(left)))
    }

    fn interrupt_waits(&self) -> bool {
        self.vm.gic().is_some_and(|gic| gic.wakes(self.index))
    }

    /// The block at the program counter; `None` if an exception was taken
    /// instead, which moved the program counter.
    fn next_block(&mut self) -> Option<*const Op> {
        let from = std::mem::replace(&mut self.link_from, std::ptr::null());
        let pc = self.pc;
        if self.pstate.il {
            self.raise(class::ILLEGAL_STATE, 0, pc);
            return None;
        }
        let context = self.context[(pc >> 63) as usize];
        let epoch = self.code.epoch;
        let op = match self.code.jumps().get(pc, context) {
            Some(op) => op,
            None => self.look_up(pc)?,
        };
        self.regs.page = self.pc & PAGE_MASK;
        // The branch may have been served an interrupt first, or its block may
        // be gone with a cache restart: then this is not its successor.
        if !from.is_null() && epoch == self.code.epoch {
            // SAFETY: set by the branch that returned to the run loop, whose
            // block lives until the epoch changes.
            unsafe { (*from).link.set(op) };
        }
        Some(op)
    }

    #[cold]
    fn look_up(&mut self, pc: u64) -> Option<*const Op> {
        let (physical, host) = self.fetch_place(pc)?;
        let canonical = self.pc;
        let op = self.block_at(physical, host);
        let context = self.context[(canonical >> 63) as usize];
        self.code.jumps().remember(canonical, context, op);
        Some(op)
    }

    /// Physical and host address of the instruction at `pc`, whose tag goes.
    fn fetch_place(&mut self, pc: u64) -> Option<(u64, u64)> {
        let canonical = strip_tag(pc, self.sys.tcr);
        self.pc = canonical;
        if canonical & 3 != 0 {
            self.raise_pc_alignment(canonical);
            return None;
        }
        self.fetch_cached(canonical)
            .or_else(|| self.fetch_walk(canonical))
    }

    /// The instruction at the program counter and its offset in the page;
    /// `None` if an exception was taken instead.
    pub fn fetch_one(&mut self) -> Option<(u32, u16)> {
        let pc = self.pc;
        if self.pstate.il {
            self.raise(class::ILLEGAL_STATE, 0, pc);
            return None;
        }
        let (physical, host) = self.fetch_place(pc)?;
        // SAFETY: the host copy of a mapped page; aligned. Volatile, as the
        // guest may be writing there from another thread.
        let word = unsafe { (host as *const u32).read_volatile() };
        Some((word, (physical & !PAGE_MASK) as u16))
    }

    /// Translates `pc` for a fetch; on a fault takes the exception.
    fn fetch_walk(&mut self, pc: u64) -> Option<(u64, u64)> {
        let user = self.pstate.el == 0;
        match self.translate(pc, Access::Fetch, user) {
            Ok(Target {
                physical,
                host: Some(host),
                ..
            }) => Some((physical, host)),
            Ok(target) => {
                self.fetch_exit(pc, target.physical);
                None
            }
            Err(fault) => {
                self.raise_instruction_abort(pc, fault.0);
                None
            }
        }
    }

    /// A fetch from where no memory is mapped: the monitor's, as a stage 2
    /// translation fault.
    fn fetch_exit(&mut self, pc: u64, physical: u64) {
        self.exit = Some(RunExit::Exception {
            syndrome: class::INSTRUCTION_ABORT << 26
                | crate::mem::ESR_IL
                | u64::from(fsc::TRANSLATION | 3),
            virtual_address: pc,
            physical_address: physical,
        });
    }

    /// ISR_EL1: pending interrupts, masked or not.
    pub fn interrupt_status(&self) -> u64 {
        let irq = self.vm.gic().is_some_and(|gic| gic.irq_line(self.index));
        u64::from(irq || self.pending_lines[0]) << 7 | u64::from(self.pending_lines[1]) << 6
    }

    /// Reads an ICC register; `None` without an interrupt controller.
    pub fn read_icc(&mut self, key: u16) -> Option<u64> {
        let register = IccReg::from_key(key).filter(|r| r.is_readable())?;
        let gic = self.vm.gic()?;
        Some(gic.icc_read(self.index, register))
    }

    /// Writes an ICC register; false without an interrupt controller.
    pub fn write_icc(&mut self, key: u16, value: u64) -> bool {
        match (
            IccReg::from_key(key).filter(|r| r.is_writable()),
            self.vm.gic(),
        ) {
            (Some(register), Some(gic)) => {
                gic.icc_write(self.index, register, value);
                true
            }
            _ => false,
        }
    }

    /// Reads the timer register `key`.
    pub fn read_timer(&mut self, key: u16) -> u64 {
        timer_register(key).map_or(0, |register| self.timers.read_sysreg(register))
    }

    /// Writes the timer register `key`.
    pub fn write_timer(&mut self, key: u16, value: u64) {
        if let Some(register) = timer_register(key) {
            self.timers.write_sysreg(register, value);
        }
    }
}

/// CRm and op2 of a generic timer register name it.
fn timer_register(key: u16) -> Option<TimerReg> {
    Some(match (key >> 3 & 15, key & 7) {
        (0, 1) => TimerReg::Cntpct,
        (0, 2) => TimerReg::Cntvct,
        (2, 0) => TimerReg::CntpTval,
        (2, 1) => TimerReg::CntpCtl,
        (2, 2) => TimerReg::CntpCval,
        (3, 0) => TimerReg::CntvTval,
        (3, 1) => TimerReg::CntvCtl,
        (3, 2) => TimerReg::CntvCval,
        _ => return None,
    })
}
