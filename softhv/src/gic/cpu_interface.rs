//! One vCPU's side of the controller: its SGIs and PPIs, and the registers of
//! its CPU interface.

use super::bank::{Bank, Candidate, PRIORITY_MASK};
use super::icc::IccReg;
use crate::link::{VcpuShared, attention};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// INTID of "nothing to acknowledge" (IHI 0069, 2.2.1).
pub(super) const SPURIOUS: u64 = 1023;
/// Idle running priority, less urgent than any interrupt.
const IDLE_PRIORITY: u8 = 0xff;
/// SGIs are edge-triggered, PPIs level-sensitive; neither can be changed.
pub(super) const PRIVATE_EDGES: u32 = 0xffff;
/// ICC_BPR0 minimum for 5 priority bits; ICC_BPR1 is one above (IHI 0069, 4.8.2).
const MIN_BPR0: u8 = 2;
const MIN_BPR1: u8 = MIN_BPR0 + 1;

/// ICC_CTLR: binary point of group 0 governs both groups.
const CTLR_CBPR: u8 = 1;
/// ICC_CTLR: EOIR drops priority only, DIR deactivates.
const CTLR_EOIMODE: u8 = 1 << 1;
/// ICC_CTLR: PRIbits = 5 - 1, A3V.
const CTLR_FIXED: u64 = 4 << 8 | 1 << 15;

/// Affinity of a slot without a vCPU.
pub(super) const NO_AFFINITY: u64 = u64::MAX;

/// What a state change obliges the caller to do once its locks are gone.
#[must_use = "the vCPU sleeps on without it"]
#[derive(Debug)]
pub(super) struct Notice(Option<Arc<VcpuShared>>);

impl Notice {
    /// Tells the vCPU that its line rose, if it did.
    pub(super) fn send(self) {
        if let Some(link) = self.0 {
            link.raise(attention::IRQ);
        }
    }
}

/// State behind the lock of a [`Slot`].
#[derive(Debug)]
pub(super) struct Interface {
    link: Option<Arc<VcpuShared>>,
    /// SGIs and PPIs.
    pub(super) bank: Bank,
    /// GICR_WAKER.ProcessorSleep. Kept for the guest; delivery ignores it,
    /// since a register-level restore has no way to clear it.
    pub(super) asleep: bool,
    /// The most urgent SPI routed here; kept current under the distributor lock.
    pub(super) spi: Option<Candidate>,
    /// GICD_CTLR.EnableGrp1.
    pub(super) forwarding: bool,
    pmr: u8,
    bpr0: u8,
    bpr1: u8,
    ctlr: u8,
    group0: bool,
    group1: bool,
    ap0: u32,
    ap1: u32,
}

impl Interface {
    fn new() -> Self {
        Self {
            link: None,
            bank: Bank::new(PRIVATE_EDGES),
            asleep: true,
            spi: None,
            forwarding: false,
            pmr: 0,
            bpr0: MIN_BPR0,
            bpr1: MIN_BPR1,
            ctlr: 0,
            group0: false,
            group1: false,
            ap0: 0,
            ap1: 0,
        }
    }

    /// Reset values, keeping the connection and the input lines.
    fn reset(&mut self) {
        let level = self.bank.level;
        *self = Self {
            link: self.link.take(),
            ..Self::new()
        };
        self.bank.level = level;
    }

    /// The most urgent pending interrupt of an enabled group.
    fn top(&self) -> Option<Candidate> {
        if !(self.forwarding && self.group1) {
            return None;
        }
        let own = self.bank.best(self.bank.candidates(), 0);
        match (own, self.spi) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// [`Self::top`] if it may interrupt what runs now.
    pub(super) fn signalled(&self) -> Option<Candidate> {
        self.top().filter(|c| {
            c.priority < self.pmr && c.priority & self.group_mask() < self.running_priority()
        })
    }

    /// The bits of a priority that decide preemption.
    fn group_mask(&self) -> u8 {
        let shift = if self.ctlr & CTLR_CBPR != 0 {
            self.bpr0 + 1
        } else {
            self.bpr1
        };
        (0xff_u32 << shift) as u8
    }

    fn running_priority(&self) -> u8 {
        match self.ap0 | self.ap1 {
            0 => IDLE_PRIORITY,
            bits => (bits.trailing_zeros() << 3) as u8,
        }
    }

    /// Notes that `taken` runs now.
    pub(super) fn activate_priority(&mut self, taken: Candidate) {
        self.ap1 |= 1 << ((taken.priority & self.group_mask()) >> 3);
    }

    fn drop_priority(&mut self) {
        if self.ap1 != 0 && self.ap1.trailing_zeros() <= self.ap0.trailing_zeros() {
            self.ap1 &= self.ap1 - 1;
        }
    }

    /// Whether EOIR deactivates too.
    fn eoi_deactivates(&self) -> bool {
        self.ctlr & CTLR_EOIMODE == 0
    }

    fn read(&self, reg: IccReg) -> u64 {
        match reg {
            IccReg::Pmr => u64::from(self.pmr),
            IccReg::Bpr0 => u64::from(self.bpr0),
            IccReg::Bpr1 if self.ctlr & CTLR_CBPR != 0 => u64::from((self.bpr0 + 1).min(7)),
            IccReg::Bpr1 => u64::from(self.bpr1),
            IccReg::Ap0r0 => u64::from(self.ap0),
            IccReg::Ap1r0 => u64::from(self.ap1),
            IccReg::Rpr => u64::from(self.running_priority()),
            IccReg::Ctlr => CTLR_FIXED | u64::from(self.ctlr),
            // System registers are the only access, bypass is off.
            IccReg::Sre => 7,
            IccReg::Igrpen0 => u64::from(self.group0),
            IccReg::Igrpen1 => u64::from(self.group1),
            IccReg::Hppir1 => self.top().map_or(SPURIOUS, |c| u64::from(c.intid)),
            IccReg::Iar0 | IccReg::Hppir0 => SPURIOUS,
            _ => 0,
        }
    }

    fn write(&mut self, reg: IccReg, value: u64) {
        let low = value as u8;
        match reg {
            IccReg::Pmr => self.pmr = low & PRIORITY_MASK,
            IccReg::Bpr0 => self.bpr0 = (low & 7).max(MIN_BPR0),
            IccReg::Bpr1 if self.ctlr & CTLR_CBPR == 0 => self.bpr1 = (low & 7).max(MIN_BPR1),
            IccReg::Ap0r0 => self.ap0 = value as u32,
            IccReg::Ap1r0 => self.ap1 = value as u32,
            IccReg::Ctlr => self.ctlr = low & (CTLR_CBPR | CTLR_EOIMODE),
            IccReg::Igrpen0 => self.group0 = low & 1 != 0,
            IccReg::Igrpen1 => self.group1 = low & 1 != 0,
            _ => {}
        }
    }
}

/// One vCPU's place in the controller.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Slot {
    /// The virtual IRQ line: [`Interface::signalled`] as of the last change.
    line: AtomicBool,
    /// Mirror of the PPI lines, so that an unchanged line costs no lock.
    levels: AtomicU32,
    /// Aff3.Aff2.Aff1.Aff0 in bits 31:0, or [`NO_AFFINITY`].
    affinity: AtomicU64,
    interface: Mutex<Interface>,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            line: AtomicBool::new(false),
            levels: AtomicU32::new(0),
            affinity: AtomicU64::new(NO_AFFINITY),
            interface: Mutex::new(Interface::new()),
        }
    }

    #[inline]
    pub(super) fn line(&self) -> bool {
        self.line.load(Ordering::Relaxed)
    }

    pub(super) fn affinity(&self) -> u64 {
        self.affinity.load(Ordering::Relaxed)
    }

    pub(super) fn set_affinity(&self, affinity: u64) {
        self.affinity.store(affinity, Ordering::Relaxed);
    }

    pub(super) fn is_attached(&self) -> bool {
        self.affinity() != NO_AFFINITY
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Interface> {
        self.interface
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attach(&self, link: &Arc<VcpuShared>, forwarding: bool) {
        let mut interface = self.lock();
        *interface = Interface::new();
        interface.link = Some(Arc::clone(link));
        interface.forwarding = forwarding;
        self.levels.store(0, Ordering::Relaxed);
        self.line.store(false, Ordering::Relaxed);
    }

    pub(super) fn detach(&self) {
        *self.lock() = Interface::new();
        self.affinity.store(NO_AFFINITY, Ordering::Relaxed);
        self.line.store(false, Ordering::Relaxed);
    }

    pub(super) fn reset(&self) {
        let mut interface = self.lock();
        interface.reset();
        self.settle(&interface).send();
    }

    /// Recomputes the line after a change of `interface`, which the caller
    /// has locked, and says whom to wake once it is unlocked.
    pub(super) fn settle(&self, interface: &Interface) -> Notice {
        let now = interface.signalled().is_some();
        let rose = now && !self.line();
        self.line.store(now, Ordering::Relaxed);
        Notice(interface.link.clone().filter(|_| rose))
    }

    /// Runs `change` under the lock, then settles and notifies.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Interface) -> R) -> R {
        let mut interface = self.lock();
        let result = change(&mut interface);
        let notice = self.settle(&interface);
        drop(interface);
        notice.send();
        result
    }

    /// Moves the line of a PPI.
    pub(super) fn set_ppi(&self, bit: u32, high: bool) {
        if (self.levels.load(Ordering::Relaxed) >> bit) & 1 == u32::from(high) {
            return;
        }
        self.update(|interface| {
            interface.bank.set_line(bit, high);
            self.levels.store(interface.bank.level, Ordering::Relaxed);
        });
    }

    /// Makes an SGI pending, if it is a Group 1 one as SGI1R requires.
    pub(super) fn send_sgi(&self, bit: u32) {
        self.update(|interface| interface.bank.latch |= interface.bank.group & 1 << bit);
    }

    /// Acknowledges the most urgent interrupt. `Err` names an SPI: its state is
    /// the distributor's, so nothing happened yet.
    pub(super) fn acknowledge(&self) -> Result<u64, Candidate> {
        let mut interface = self.lock();
        let Some(taken) = interface.signalled() else {
            return Ok(SPURIOUS);
        };
        if taken.intid >= 32 {
            return Err(taken);
        }
        interface.bank.acknowledge(u32::from(taken.intid));
        interface.activate_priority(taken);
        // Only lower-priority work is left: the line cannot rise here.
        let notice = self.settle(&interface);
        drop(interface);
        notice.send();
        Ok(u64::from(taken.intid))
    }

    /// EOIR1. `true` if the caller must deactivate SPI `intid`.
    pub(super) fn end_of_interrupt(&self, intid: u64) -> bool {
        self.update(|interface| {
            interface.drop_priority();
            let deactivate = interface.eoi_deactivates();
            if deactivate && intid < 32 {
                interface.bank.deactivate(intid as u32);
            }
            deactivate && intid >= 32
        })
    }

    /// DIR. `true` if the caller must deactivate SPI `intid`.
    pub(super) fn deactivate(&self, intid: u64) -> bool {
        self.update(|interface| {
            if interface.eoi_deactivates() {
                return false;
            }
            if intid < 32 {
                interface.bank.deactivate(intid as u32);
            }
            intid >= 32
        })
    }

    pub(super) fn read(&self, reg: IccReg) -> u64 {
        self.lock().read(reg)
    }

    pub(super) fn write(&self, reg: IccReg, value: u64) {
        self.update(|interface| interface.write(reg, value));
    }

    /// Puts saved private interrupt state in place. The lines stay as they
    /// are: timers own them and move them on entry to a run.
    pub(super) fn restore(&self, bank: Bank, asleep: bool) {
        self.update(|interface| {
            let level = interface.bank.level;
            interface.bank = Bank {
                level,
                edge: PRIVATE_EDGES,
                ..bank
            };
            interface.asleep = asleep;
        });
    }
}
