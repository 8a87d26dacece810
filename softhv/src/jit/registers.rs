//! Guest registers in host registers.
//!
//! What an instruction sets stays in a host register, and is stored to the vCPU
//! wherever the block is left: behind each jump that leads away there are the stores
//! of what is dirty at the jump. So the vCPU's memory is right at each instruction
//! that anybody else gets to see.

use super::asm::host::{RAX, RDI, RDX};
use super::asm::{at, emit};
use super::bank::{Hosts, NONE, Spill};
use super::state::{State, slot_offset, vector_offset};
use crate::insn::{Reg, VReg};
use cranelift_assembler_x64::Amode;

/// The host registers with a guest register, and which.
fn pairs(hosts: Hosts) -> impl Iterator<Item = (u8, u8)> {
    (0u8..).zip(hosts).filter(|(_, slot)| *slot != NONE)
}

impl State {
    /// What has to be stored if the block is left here.
    pub fn spill(&self) -> Spill {
        Spill {
            general: self.general.dirty(),
            vectors: self.vectors.dirty(),
        }
    }

    /// The same but for what is pinned.
    pub fn spill_unpinned(&self) -> Spill {
        Spill {
            general: self.general.dirty_unpinned(),
            vectors: self.vectors.dirty_unpinned(),
        }
    }

    /// All that host registers have.
    pub fn held(&self) -> Spill {
        Spill {
            general: self.general.held(),
            vectors: self.vectors.held(),
        }
    }

    /// Stores `spill`, without touching the flags.
    pub fn store_all(&mut self, spill: Spill) {
        for (host, slot) in pairs(spill.general) {
            emit!(self.asm, movq_mr, at(RDI, slot_offset(slot)), host);
        }
        for (host, slot) in pairs(spill.vectors) {
            emit!(self.asm, movups_b, at(RDI, v_offset(slot)), host);
        }
    }

    /// Loads it.
    pub fn load_all(&mut self, held: Spill) {
        for (host, slot) in pairs(held.general) {
            emit!(self.asm, movq_rm, host, at(RDI, slot_offset(slot)));
        }
        for (host, slot) in pairs(held.vectors) {
            emit!(self.asm, movups_a, host, at(RDI, v_offset(slot)));
        }
    }

    /// Stores all that is dirty: the block is left here.
    pub fn flush(&mut self) {
        self.settle();
        let spill = Spill {
            general: self.general.clean_all(),
            vectors: self.vectors.clean_all(),
        };
        self.store_all(spill);
    }

    fn pick(&mut self, slot: u8) -> u8 {
        let (host, before) = self.general.take(slot);
        if let Some(before) = before {
            emit!(self.asm, movq_mr, at(RDI, slot_offset(before)), host);
        }
        host
    }

    /// The host register that has register slot `slot`, for this instruction.
    pub fn read_slot(&mut self, slot: u8) -> u8 {
        if let Some(host) = self.general.find(slot) {
            return host;
        }
        let host = self.pick(slot);
        emit!(self.asm, movq_rm, host, at(RDI, slot_offset(slot)));
        host
    }

    /// The host register that has `reg`, for this instruction.
    pub fn read(&mut self, reg: Reg) -> u8 {
        self.read_slot(reg.number())
    }

    /// The host register that is to get `rd`, none of those in `not`.
    /// [`State::done`] makes it so; until then the block must not be left.
    pub fn destination(&mut self, rd: Reg, not: &[u8]) -> u8 {
        if rd.is_zr() {
            return RAX;
        }
        let slot = rd.number();
        match self.general.find(slot) {
            Some(host) if !not.contains(&host) => return host,
            Some(_) if !self.general.release(slot) => return RDX,
            _ => {}
        }
        self.pick(slot)
    }

    /// What `host`, which [`State::destination`] gave, has is `rd`.
    pub fn done(&mut self, rd: Reg, host: u8) {
        if rd.is_zr() {
            return;
        }
        let slot = rd.number();
        if let Some(place) = self.general.place(slot) {
            self.asm.copy(place, host);
        }
        self.general.mark(slot);
    }

    /// Sets `rd` to what a register for one instruction has.
    pub fn set(&mut self, rd: Reg, from: u8) {
        if rd.is_zr() {
            return;
        }
        let host = self.destination(rd, &[]);
        self.asm.copy(host, from);
        self.done(rd, host);
    }

    fn v_pick(&mut self, slot: u8) -> u8 {
        let (host, before) = self.vectors.take(slot);
        if let Some(before) = before {
            emit!(self.asm, movups_b, at(RDI, v_offset(before)), host);
        }
        host
    }

    /// The host vector register that has all of `reg`, for this instruction.
    pub fn v_read(&mut self, reg: VReg) -> u8 {
        let slot = reg.number();
        if let Some(host) = self.vectors.find(slot) {
            return host;
        }
        let host = self.v_pick(slot);
        emit!(self.asm, movups_a, host, at(RDI, v_offset(slot)));
        host
    }

    /// The host vector register that gets all of `reg` at once.
    pub fn v_set(&mut self, reg: VReg) -> u8 {
        let slot = reg.number();
        let host = match self.vectors.find(slot) {
            Some(host) => host,
            None => self.v_pick(slot),
        };
        self.vectors.mark(slot);
        host
    }

    /// Where `reg` is in memory, to be read in part.
    pub fn v_memory(&mut self, reg: VReg, by: i32) -> Amode<u8> {
        if let Some(host) = self.vectors.clean(reg.number()) {
            emit!(self.asm, movups_b, at(RDI, vector_offset(reg)), host);
        }
        at(RDI, vector_offset(reg) + by)
    }

    /// `reg` was changed in memory.
    pub fn v_changed(&mut self, reg: VReg) {
        let slot = reg.number();
        if !self.vectors.release(slot)
            && let Some(host) = self.vectors.place(slot)
        {
            emit!(self.asm, movups_a, host, at(RDI, vector_offset(reg)));
        }
    }

    /// Host register `to` = the low 64 bits of `reg`, or the low 32.
    pub fn v_low(&mut self, wide: bool, to: u8, reg: VReg) {
        let Some(host) = self.vectors.find(reg.number()) else {
            let from = at(RDI, vector_offset(reg));
            return super::asm::sized!(self.asm, wide, movq_rm, movl_rm, to, from);
        };
        super::asm::sized!(self.asm, wide, movq_b, movd_b, to, host);
    }
}

/// The offset of vector register `slot`.
fn v_offset(slot: u8) -> i32 {
    vector_offset(VReg::new(slot.into()))
}
