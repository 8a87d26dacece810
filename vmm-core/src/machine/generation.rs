//! What tells a guest that it is another machine now: the generation id, and the
//! word by which its kernel holds programs until they may see that.
//!
//! The id is 16 random bytes (Virtual Machine Generation ID, as Linux's
//! `microsoft,vmgenid` device tree binding has it). The word is ours
//! (kernel/patches/README.md). Both are in a page of their own.

use vm_memory::{Bytes, GuestAddress};

use super::error::{MachineError, no_random};
use crate::arch::Layout;
use crate::hypervisor::{Access, DynVm};
use crate::memory::{GuestMemory, MAPPING_UNIT_BYTES};

/// From the word that holds programs to the one with which the guest's kernel says
/// that it obeys it.
const OBEYED: u64 = 4;

/// The page, mapped into the guest.
pub(super) struct Generation {
    layout: &'static Layout,
    page: GuestMemory,
}

impl Generation {
    /// Maps the page, with a first id in it.
    pub(super) fn new(vm: &dyn DynVm, layout: &'static Layout) -> Result<Self, MachineError> {
        let page = GuestMemory::allocate(layout.generation, MAPPING_UNIT_BYTES as u64)?;
        for lease in page.leases() {
            vm.map(lease, Access::ReadWriteExecute)?;
        }
        let generation = Self { layout, page };
        generation.write(layout.generation, &random()?);
        Ok(generation)
    }

    /// Gives a paused machine a new id, tells its guest, and has programs held from
    /// when their vCPUs look at the word: they do at the interrupt that the layout
    /// names, which the caller makes pending on each. `obeys` says whether the
    /// guest's kernel does that.
    pub(super) fn renew(&self, vm: &dyn DynVm, obeys: bool) -> Result<[u8; 16], MachineError> {
        let id = random()?;
        self.write(self.layout.generation, &id);
        self.write(self.layout.hold, &1_u32.to_le_bytes());
        let obeyed = self.layout.hold + OBEYED;
        self.write(obeyed, &u32::from(obeys).to_le_bytes());
        vm.set_irq(self.layout.generation_line, true)?;
        Ok(id)
    }

    /// Whether the guest's kernel holds the programs of a copy.
    pub(super) fn obeys(&self) -> bool {
        let mut word = [0; 4];
        let address = GuestAddress(self.layout.hold + OBEYED);
        let read = self.page.ram().read_slice(&mut word, address);
        read.is_ok() && word != [0; 4]
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.page
            .ram()
            .write_slice(bytes, GuestAddress(address))
            .expect("what the layout names is in the page");
    }
}

fn random() -> Result<[u8; 16], MachineError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(no_random)?;
    Ok(id)
}
