//! The generic timers of a vCPU (Arm ARM D12).

use crate::counter::{COUNTER_HZ, NEVER, counter, duration_of};
use crate::link::VcpuShared;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// PPI of the EL1 virtual timer (BSA: 27).
pub const VIRTUAL_TIMER_INTID: u32 = 27;
/// PPI of the EL1 physical timer (BSA: 30).
pub const PHYSICAL_TIMER_INTID: u32 = 30;

/// CNTx_CTL: ENABLE, IMASK and the read-only ISTATUS.
const CTL_ENABLE: u8 = 1;
const CTL_IMASK: u8 = 1 << 1;
const CTL_ISTATUS: u64 = 1 << 2;

/// A timer register the guest can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "architectural names")]
pub enum TimerReg {
    CntvCtl,
    CntvCval,
    CntvTval,
    CntpCtl,
    CntpCval,
    CntpTval,
    Cntvct,
    Cntpct,
    Cntfrq,
}

impl TimerReg {
    /// The register with this `hv_sys_reg_t`-style key
    /// (`op0<<14|op1<<11|CRn<<7|CRm<<3|op2`).
    pub fn from_key(key: u16) -> Option<Self> {
        Some(match key {
            0xdf00 => Self::Cntfrq,
            0xdf01 => Self::Cntpct,
            0xdf02 => Self::Cntvct,
            0xdf10 => Self::CntpTval,
            0xdf11 => Self::CntpCtl,
            0xdf12 => Self::CntpCval,
            0xdf18 => Self::CntvTval,
            0xdf19 => Self::CntvCtl,
            0xdf1a => Self::CntvCval,
            _ => return None,
        })
    }

    /// Whether it belongs to the physical timer, which traps without a GIC.
    pub fn is_physical_timer(self) -> bool {
        matches!(self, Self::CntpCtl | Self::CntpCval | Self::CntpTval)
    }

    /// Whether `MSR` is defined.
    pub fn is_writable(self) -> bool {
        !matches!(self, Self::Cntvct | Self::Cntpct | Self::Cntfrq)
    }
}

/// One comparator. The comparison is of unsigned 64-bit values (Arm ARM D12.2.4).
#[derive(Clone, Copy, Default, Debug)]
struct Timer {
    ctl: u8,
    cval: u64,
}

impl Timer {
    fn is_met(self, count: u64) -> bool {
        count >= self.cval
    }

    /// May raise its interrupt, now or later.
    fn is_live(self) -> bool {
        self.ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE
    }

    fn line(self, count: u64) -> bool {
        self.is_live() && self.is_met(count)
    }

    /// Ticks until the line rises by itself, if it will.
    fn remaining(self, count: u64) -> Option<u64> {
        (self.is_live() && !self.is_met(count)).then(|| self.cval - count)
    }

    fn read_ctl(self, count: u64) -> u64 {
        let met = self.ctl & CTL_ENABLE != 0 && self.is_met(count);
        u64::from(self.ctl) | if met { CTL_ISTATUS } else { 0 }
    }

    fn read_tval(self, count: u64) -> u64 {
        u64::from(self.cval.wrapping_sub(count) as u32)
    }

    fn write_tval(&mut self, count: u64, value: u64) {
        self.cval = count.wrapping_add(i64::from(value as i32) as u64);
    }

    fn write_ctl(&mut self, value: u64) {
        self.ctl = value as u8 & (CTL_ENABLE | CTL_IMASK);
    }
}

/// What timers act on.
pub trait TimerSink {
    /// Moves the lines of the virtual and the physical timer of vCPU `index` at
    /// the interrupt controller; `false` if there is none.
    fn set_timer_lines(&self, index: usize, virt: bool, phys: bool) -> bool;

    /// Sees to it that `vcpu`, whose deadline is already stored, gets
    /// `attention::TIMER` when the counter reaches `deadline`.
    fn set_alarm(&self, vcpu: &VcpuShared, deadline: u64);
}

/// The timers of one vCPU, used by its owning thread only.
#[derive(Debug)]
pub struct VcpuTimers<S> {
    sink: Arc<S>,
    link: Arc<VcpuShared>,
    virt: Timer,
    phys: Timer,
    offset: u64,
    masked: bool,
}

impl<S: TimerSink> VcpuTimers<S> {
    /// Disabled timers.
    pub fn new(sink: Arc<S>, link: Arc<VcpuShared>) -> Self {
        Self {
            sink,
            link,
            virt: Timer::default(),
            phys: Timer::default(),
            offset: 0,
            masked: false,
        }
    }

    /// The virtual counter; the inline form of reading `CNTVCT_EL0`.
    #[inline]
    pub fn cntvct(&self) -> u64 {
        counter().wrapping_sub(self.offset)
    }

    /// `MRS`.
    pub fn read_sysreg(&self, reg: TimerReg) -> u64 {
        self.read_at(reg, counter())
    }

    /// `MSR`. Moves the interrupt lines and the deadline at once.
    pub fn write_sysreg(&mut self, reg: TimerReg, value: u64) {
        let now = counter();
        self.write_at(reg, value, now);
        // Without a GIC the exit is taken at the next poll.
        if self.update(now) {
            self.link.raise(crate::link::attention::TIMER);
        }
    }

    /// Looks at the clock: moves PPI lines 27 and 30 and sets the alarm. Call on
    /// `attention::TIMER`, on entry to a run, before a WFI sleeps and after
    /// it slept (the alarm ignores sleepers).
    /// `true` only without a GIC: the run must exit with `VTIMER_ACTIVATED`
    /// (the mask is then already set).
    pub fn poll(&mut self) -> bool {
        let fires = self.update(counter());
        self.masked |= fires;
        fires
    }

    /// Time until the earliest deadline, for `VcpuShared::park`.
    pub fn until_deadline(&self) -> Option<Duration> {
        match self.link.deadline.load(Ordering::Relaxed) {
            NEVER => None,
            deadline => Some(duration_of(deadline.saturating_sub(counter()))),
        }
    }

    /// `CNTVOFF`: the virtual counter is `counter() - offset`.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sets `CNTVOFF`.
    pub fn set_offset(&mut self, offset: u64) {
        self.offset = offset;
        self.update(counter());
    }

    /// Whether `VTIMER_ACTIVATED` exits are masked.
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    /// Masks or unmasks `VTIMER_ACTIVATED` exits. With a GIC the timer is an
    /// interrupt and there are no such exits.
    pub fn set_masked(&mut self, masked: bool) {
        self.masked = masked;
        self.update(counter());
    }

    fn read_at(&self, reg: TimerReg, now: u64) -> u64 {
        let count = now.wrapping_sub(self.offset);
        match reg {
            TimerReg::CntvCtl => self.virt.read_ctl(count),
            TimerReg::CntvCval => self.virt.cval,
            TimerReg::CntvTval => self.virt.read_tval(count),
            TimerReg::CntpCtl => self.phys.read_ctl(now),
            TimerReg::CntpCval => self.phys.cval,
            TimerReg::CntpTval => self.phys.read_tval(now),
            TimerReg::Cntvct => count,
            TimerReg::Cntpct => now,
            TimerReg::Cntfrq => COUNTER_HZ,
        }
    }

    fn write_at(&mut self, reg: TimerReg, value: u64, now: u64) {
        let count = now.wrapping_sub(self.offset);
        match reg {
            TimerReg::CntvCtl => self.virt.write_ctl(value),
            TimerReg::CntvCval => self.virt.cval = value,
            TimerReg::CntvTval => self.virt.write_tval(count, value),
            TimerReg::CntpCtl => self.phys.write_ctl(value),
            TimerReg::CntpCval => self.phys.cval = value,
            TimerReg::CntpTval => self.phys.write_tval(now, value),
            TimerReg::Cntvct | TimerReg::Cntpct | TimerReg::Cntfrq => {}
        }
    }

    /// Moves lines and deadline to what they are at `now`; `true` if without a
    /// GIC the virtual timer demands an exit.
    fn update(&mut self, now: u64) -> bool {
        let count = now.wrapping_sub(self.offset);
        let virt_line = self.virt.line(count);
        let mut virt_remaining = self.virt.remaining(count);
        let mut phys_remaining = self.phys.remaining(now);
        let mut fires = false;
        let (index, phys_line) = (self.link.index(), self.phys.line(now));
        if !self.sink.set_timer_lines(index, virt_line, phys_line) {
            fires = virt_line && !self.masked;
            virt_remaining = virt_remaining.filter(|_| !self.masked);
            // The physical timer is the VMM's to emulate.
            phys_remaining = None;
        }
        let remaining = match (virt_remaining, phys_remaining) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let deadline = remaining.map_or(NEVER, |ticks| now.saturating_add(ticks));
        self.link.deadline.store(deadline, Ordering::SeqCst);
        if deadline != NEVER {
            self.sink.set_alarm(&self.link, deadline);
        }
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gic::{Gic, GicConfig, IccReg};
    use crate::vm::VmShared;

    const NOW: u64 = 1_000_000;

    fn timers(with_gic: bool) -> VcpuTimers<VmShared> {
        let vm = Arc::new(VmShared::new(36, crate::jit::Tier::Auto));
        if with_gic {
            vm.install_gic(Gic::new(GicConfig {
                distributor: 0x0800_0000,
                redistributor: 0x080a_0000,
                msi: None,
            }));
        }
        let link = vm.add_vcpu().unwrap();
        VcpuTimers::new(vm, link)
    }

    fn line(timers: &VcpuTimers<VmShared>, intid: u32) -> bool {
        let gic = timers.sink.gic().unwrap();
        gic.redistributor_read(0, 0x1_0200) >> intid & 1 != 0
    }

    #[test]
    fn counter_runs_at_24_mhz_and_never_back() {
        // Bracketed by the clock, so that losing the processor cannot fail it.
        let reading = || {
            let before = std::time::Instant::now();
            (before, counter(), std::time::Instant::now())
        };
        let ticks = |d: Duration| d.as_nanos() as u64 * 3 / 125;
        let (first, start, second) = reading();
        let mut last = start;
        while first.elapsed() < Duration::from_millis(20) {
            let now = counter();
            assert!(now >= last);
            last = now;
        }
        let (third, end, fourth) = reading();
        assert!(end - start >= ticks(third - second) - 1);
        assert!(end - start <= ticks(fourth - first) + 1);
    }

    #[test]
    fn durations_round_up() {
        assert_eq!(duration_of(0), Duration::ZERO);
        assert_eq!(duration_of(1), Duration::from_nanos(42));
        assert_eq!(duration_of(3), Duration::from_nanos(125));
        assert_eq!(duration_of(COUNTER_HZ), Duration::from_secs(1));
        assert!(duration_of(NEVER) > Duration::from_secs(1 << 39));
    }

    #[test]
    fn tval_is_a_signed_32_bit_distance() {
        let mut t = timers(true);
        t.write_at(TimerReg::CntvTval, 0xffff_ffff, NOW);
        assert_eq!(t.read_at(TimerReg::CntvCval, NOW), NOW - 1);
        t.write_at(TimerReg::CntvTval, 0x7fff_ffff, NOW);
        assert_eq!(t.read_at(TimerReg::CntvCval, NOW), NOW + 0x7fff_ffff);
        t.write_at(TimerReg::CntpTval, 10, NOW);
        assert_eq!(t.read_at(TimerReg::CntpTval, NOW + 4), 6);
        assert_eq!(t.read_at(TimerReg::CntpTval, NOW + 12), 0xffff_fffe);
        assert_eq!(t.read_at(TimerReg::CntvTval, NOW), 0x7fff_ffff);
    }

    #[test]
    fn istatus_needs_enable_and_ignores_imask() {
        let mut t = timers(true);
        t.write_at(TimerReg::CntvCval, NOW, NOW);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW), 0);
        t.write_at(TimerReg::CntvCtl, 1, NOW);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW - 1), 1);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW), 5);
        t.write_at(TimerReg::CntvCtl, 0xffff, NOW);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW), 7);
    }

    #[test]
    fn line_follows_the_condition_in_both_directions() {
        let mut t = timers(true);
        t.write_at(TimerReg::CntvCtl, 1, NOW);
        t.write_at(TimerReg::CntvCval, NOW + 10, NOW);
        t.update(NOW + 9);
        assert!(!line(&t, 27));
        t.update(NOW + 10);
        assert!(line(&t, 27));
        assert!(!line(&t, 30));
        t.write_at(TimerReg::CntvCtl, 3, NOW);
        t.update(NOW + 11);
        assert!(!line(&t, 27));
        t.write_at(TimerReg::CntpCtl, 1, NOW);
        t.update(NOW + 11);
        assert!(line(&t, 30));
    }

    #[test]
    fn comparison_is_unsigned_so_a_far_value_never_fires() {
        let mut t = timers(true);
        t.write_at(TimerReg::CntvCtl, 1, NOW);
        t.write_at(TimerReg::CntvCval, u64::MAX, NOW);
        t.update(NOW);
        assert!(!line(&t, 27));
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW), 1);
        // The deadline saturates instead of wrapping into the past.
        assert!(t.link.deadline.load(Ordering::Relaxed) > NOW);
    }

    #[test]
    fn virtual_count_wraps_around_the_offset() {
        let mut t = timers(true);
        t.offset = NOW + 5;
        assert_eq!(t.read_at(TimerReg::Cntvct, NOW), u64::MAX - 4);
        assert_eq!(t.read_at(TimerReg::Cntpct, NOW), NOW);
        t.write_at(TimerReg::CntvCtl, 1, NOW);
        t.write_at(TimerReg::CntvCval, 3, NOW);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW), 5);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW + 5), 1);
        assert_eq!(t.read_at(TimerReg::CntvCtl, NOW + 8), 5);
    }

    #[test]
    fn without_a_gic_the_timer_asks_for_one_exit_until_unmasked() {
        let mut t = timers(false);
        t.write_sysreg(TimerReg::CntvCval, 0);
        t.write_sysreg(TimerReg::CntvCtl, 1);
        assert!(t.poll());
        assert!(t.is_masked());
        assert!(!t.poll());
        t.set_masked(false);
        assert!(t.poll());
    }

    #[test]
    fn with_a_gic_the_timer_interrupt_reaches_the_cpu_interface() {
        let mut t = timers(true);
        let gic = t.sink.gic().unwrap();
        gic.distributor_write(0, 2);
        gic.redistributor_write(0, 0x1_0100, 1 << 27);
        gic.icc_write(0, IccReg::Pmr, 0xf0);
        gic.icc_write(0, IccReg::Igrpen1, 1);
        t.write_sysreg(TimerReg::CntvCval, 0);
        t.write_sysreg(TimerReg::CntvCtl, 1);
        assert!(!t.poll());
        let gic = t.sink.gic().unwrap();
        assert!(gic.irq_line(0));
        assert_eq!(gic.icc_read(0, IccReg::Iar1), 27);
        assert!(!gic.irq_line(0));
        gic.icc_write(0, IccReg::Eoir1, 27);
        assert!(gic.irq_line(0), "level still high");
        t.write_sysreg(TimerReg::CntvCtl, 2);
        assert!(!t.sink.gic().unwrap().irq_line(0));
    }

    #[test]
    fn every_register_key_follows_the_packing_rule() {
        let key = |op2: u16, crm: u16| 3 << 14 | 3 << 11 | 14 << 7 | crm << 3 | op2;
        let all = [
            (key(0, 0), TimerReg::Cntfrq),
            (key(1, 0), TimerReg::Cntpct),
            (key(2, 0), TimerReg::Cntvct),
            (key(0, 2), TimerReg::CntpTval),
            (key(1, 2), TimerReg::CntpCtl),
            (key(2, 2), TimerReg::CntpCval),
            (key(0, 3), TimerReg::CntvTval),
            (key(1, 3), TimerReg::CntvCtl),
            (key(2, 3), TimerReg::CntvCval),
        ];
        for (key, reg) in all {
            assert_eq!(TimerReg::from_key(key), Some(reg));
        }
    }
}
