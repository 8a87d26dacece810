//! The parts of a VM that its vCPUs and device threads share.

use crate::ahead::shared::Ahead;
use crate::alarm::Alarm;
use crate::dirty::{self, CodePages, DirtyLog};
use crate::gic::Gic;
use crate::held::Presence;
use crate::phys::{MemoryFlags, PhysError, PhysMap};
use crate::timer::{PHYSICAL_TIMER_INTID, TimerSink, VIRTUAL_TIMER_INTID};

use crate::link::{AckWait, CodeRange, State, TlbInvalidate, VcpuShared, attention};
use crate::page::PAGE_SIZE;
use crate::tier::{CodeMemory, Tier};
use crate::work::Work;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Most vCPUs a VM can have.
pub const MAX_VCPUS: usize = 64;

/// One VM: its memory map, interrupt controller, alarm clock and vCPUs.
#[derive(Debug)]
pub struct VmShared {
    /// The IPA map. Edit it through [`Self::map`], [`Self::unmap`] and
    /// [`Self::protect`], which also tell the vCPUs.
    pub phys: PhysMap,
    /// Wakes running vCPUs at their timer deadlines.
    pub alarm: Alarm,
    /// The pages vCPUs wrote.
    pub dirty: DirtyLog,
    /// The pages vCPUs decoded code of.
    pub code_pages: CodePages,
    /// What is decoded for the first of them before it needs it.
    pub ahead: Ahead,
    /// How much of what they compiled they keep.
    pub code_memory: Arc<CodeMemory>,
    /// How vCPUs execute code.
    pub tier: Tier,
    /// How long they worked on code before they could execute it.
    pub work: Work,
    gic: OnceLock<Gic>,
    vcpus: RwLock<Arc<Vec<Arc<VcpuShared>>>>,
    count: AtomicUsize,
    ipa_bits: u32,
}

impl VmShared {
    /// A VM without memory, interrupt controller and vCPUs.
    pub fn new(ipa_bits: u32, tier: Tier) -> Self {
        Self {
            phys: PhysMap::new(ipa_bits),
            alarm: Alarm::new(),
            dirty: DirtyLog::default(),
            code_pages: CodePages::new(),
            ahead: Ahead::default(),
            code_memory: Arc::default(),
            tier,
            work: Work::default(),
            gic: OnceLock::new(),
            vcpus: RwLock::default(),
            count: AtomicUsize::new(0),
            ipa_bits,
        }
    }

    /// Guest physical address bits.
    pub fn ipa_bits(&self) -> u32 {
        self.ipa_bits
    }

    /// The interrupt controller, if the VM has one.
    #[inline]
    pub fn gic(&self) -> Option<&Gic> {
        self.gic.get()
    }

    /// Gives the VM its interrupt controller; `false` if it already has one.
    pub fn install_gic(&self, gic: Gic) -> bool {
        self.gic.set(gic).is_ok()
    }

    /// The vCPUs that exist now, in order of their index.
    pub fn vcpus(&self) -> Arc<Vec<Arc<VcpuShared>>> {
        let guard = self.vcpus.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&guard)
    }

    /// How many vCPUs exist.
    #[inline]
    pub fn vcpu_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The vCPU with this index.
    pub fn vcpu(&self, index: usize) -> Option<Arc<VcpuShared>> {
        let list = self.vcpus();
        let at = list.binary_search_by_key(&index, |v| v.index()).ok()?;
        list.get(at).cloned()
    }

    /// Makes the shared part of a new vCPU owned by the calling thread, with
    /// the lowest free index; `None` if the VM has [`MAX_VCPUS`] already.
    pub fn add_vcpu(&self) -> Option<Arc<VcpuShared>> {
        let mut guard = self.vcpus.write().unwrap_or_else(PoisonError::into_inner);
        let index = (0..MAX_VCPUS).find(|i| guard.get(*i).is_none_or(|v| v.index() != *i))?;
        let link = Arc::new(VcpuShared::new(index));
        let mut list = Vec::clone(&guard);
        list.insert(index, Arc::clone(&link));
        self.count.store(list.len(), Ordering::Relaxed);
        *guard = Arc::new(list);
        self.alarm.add(&link);
        if let Some(gic) = self.gic() {
            gic.attach(&link);
        }
        Some(link)
    }

    /// Removes a vCPU.
    pub fn remove_vcpu(&self, link: &Arc<VcpuShared>) {
        let mut guard = self.vcpus.write().unwrap_or_else(PoisonError::into_inner);
        let list: Vec<_> = guard
            .iter()
            .filter(|v| !Arc::ptr_eq(v, link))
            .cloned()
            .collect();
        self.count.store(list.len(), Ordering::Relaxed);
        *guard = Arc::new(list);
        self.alarm.remove(link);
        if let Some(gic) = self.gic() {
            gic.detach(link.index());
        }
    }

    /// Posts a TLB invalidation to every vCPU but `sender` that may hold some of
    /// it. The sender must wait for `acks` at its next DSB.
    pub fn broadcast_tlb(&self, sender: usize, message: TlbInvalidate, acks: &mut AckWait) {
        if self.vcpu_count() == 1 {
            return;
        }
        // What the guest wrote before comes before the look at what others hold.
        fence(Ordering::SeqCst);
        for target in self.vcpus().iter().filter(|v| v.index() != sender) {
            let may_use = match target.held.presence(&message) {
                Presence::Nowhere => continue,
                Presence::InSpace(asid) => Some(asid),
                Presence::Anywhere => None,
            };
            let ticket = target.post_tlb(message);
            // Posting is a full barrier.
            if may_use.is_none_or(|asid| target.held.space.is(asid)) {
                acks.add(target, ticket);
            }
        }
    }

    /// Posts a code invalidation to every vCPU but `sender` that may hold some
    /// of it. Nobody waits for it: see [`crate::link`].
    pub fn broadcast_code(&self, sender: usize, range: CodeRange) {
        if self.vcpu_count() == 1 {
            return;
        }
        fence(Ordering::SeqCst);
        for target in self.vcpus().iter().filter(|v| v.index() != sender) {
            if target.held.may_hold_code(range) {
                target.post_code(range);
            }
        }
    }

    /// Maps host memory; see [`PhysMap::map`].
    ///
    /// # Errors
    /// As [`PhysMap::map`].
    pub fn map(
        &self,
        host: usize,
        ipa: u64,
        size: u64,
        flags: MemoryFlags,
    ) -> Result<(), PhysError> {
        self.phys.map(host, ipa, size, flags)?;
        // Nothing cached can be wrong but "no memory here", which vCPUs forget
        // at their next block: no need to wait.
        drop(self.tell_map_change(ipa, size));
        Ok(())
    }

    /// Unmaps memory. On return no vCPU uses it and the host may free it, so
    /// this must not be called by a vCPU that is executing guest code.
    ///
    /// # Errors
    /// As [`PhysMap::unmap`].
    pub fn unmap(&self, ipa: u64, size: u64) -> Result<(), PhysError> {
        self.phys.unmap(ipa, size)?;
        self.ahead.end();
        self.tell_map_change(ipa, size).wait();
        Ok(())
    }

    /// Changes permissions. On return every vCPU obeys them.
    ///
    /// # Errors
    /// As [`PhysMap::protect`].
    pub fn protect(&self, ipa: u64, size: u64, flags: MemoryFlags) -> Result<(), PhysError> {
        self.phys.protect(ipa, size, flags)?;
        self.tell_map_change(ipa, size).wait();
        Ok(())
    }

    fn tell_map_change(&self, pa: u64, bytes: u64) -> AckWait {
        let mut acks = AckWait::default();
        for target in self.vcpus().iter() {
            acks.add(target, target.post_map(CodeRange { pa, bytes }));
        }
        acks
    }

    /// Whether no vCPU is in a run.
    pub fn is_stopped(&self) -> bool {
        self.vcpus().iter().all(|v| v.state() == State::Outside)
    }

    /// Follows writes to a range from now on, all of it clean. No vCPU may
    /// run.
    ///
    /// # Errors
    /// [`PhysError::BadArgument`], or [`PhysError::Hole`] if any of it is
    /// unmapped.
    pub fn follow_writes(&self, ipa: u64, size: u64) -> Result<(), PhysError> {
        if !dirty::is_whole(ipa, size) {
            return Err(PhysError::BadArgument);
        }
        if !self.phys.is_mapped(ipa, size) {
            return Err(PhysError::Hole);
        }
        self.dirty.start(ipa, size);
        self.revoke_writes();
        Ok(())
    }

    /// Takes the marks of a followed range; see [`DirtyLog::take`]. No vCPU
    /// may run. `false` if there is no such range.
    pub fn take_written(&self, ipa: u64, size: u64, out: &mut [u64]) -> bool {
        match self.dirty.take(ipa, size, out) {
            None => return false,
            Some(false) => {}
            Some(true) => self.revoke_writes(),
        }
        true
    }

    fn revoke_writes(&self) {
        for vcpu in self.vcpus().iter() {
            vcpu.post_dirty();
        }
    }

    /// Makes vCPUs forget code they decoded of a range whose content the host
    /// replaced. No vCPU may run.
    pub fn content_replaced(&self, ipa: u64, size: u64) {
        let end = ipa.saturating_add(size);
        let mut stale: Vec<CodeRange> = Vec::new();
        let mut pa = ipa & !(PAGE_SIZE - 1);
        while pa < end {
            if self.code_pages.may_hold(pa) {
                match stale.last_mut() {
                    Some(last) if last.pa + last.bytes == pa => last.bytes += PAGE_SIZE,
                    _ => stale.push(CodeRange {
                        pa,
                        bytes: PAGE_SIZE,
                    }),
                }
            }
            pa = pa.saturating_add(PAGE_SIZE);
        }
        if !stale.is_empty() {
            for vcpu in self.vcpus().iter() {
                vcpu.post_replaced(&stale);
            }
        }
    }

    /// Makes vCPUs forget all code, and notes what they decode from then on. No vCPU may
    /// run.
    pub fn note_code(&self) {
        let all = [CodeRange {
            pa: 0,
            bytes: u64::MAX,
        }];
        self.ahead.end();
        for vcpu in self.vcpus().iter() {
            vcpu.post_replaced(&all);
        }
        self.ahead.note();
    }

    /// Makes the runs of `indices` return `CANCELED`, now or at their next
    /// start. `false` if one of them does not exist; the others are kicked.
    pub fn kick(&self, indices: &[u64]) -> bool {
        let list = self.vcpus();
        let mut all = true;
        for wanted in indices {
            match list.iter().find(|v| v.index() as u64 == *wanted) {
                Some(vcpu) => vcpu.raise(attention::KICK),
                None => all = false,
            }
        }
        all
    }
}

impl TimerSink for VmShared {
    fn set_timer_lines(&self, index: usize, virt: bool, phys: bool) -> bool {
        let Some(gic) = self.gic() else {
            return false;
        };
        gic.set_ppi(index, VIRTUAL_TIMER_INTID, virt);
        gic.set_ppi(index, PHYSICAL_TIMER_INTID, phys);
        true
    }

    fn set_alarm(&self, vcpu: &VcpuShared, deadline: u64) {
        self.alarm.set(vcpu, deadline);
    }
}
