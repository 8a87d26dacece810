//! The generation id: 16 random bytes in a page of their own that tell a guest
//! whether it is still the machine it was (Virtual Machine Generation ID, as
//! Linux's `microsoft,vmgenid` device tree binding has it).

use vm_memory::{Bytes, GuestAddress};

use super::error::{MachineError, no_random};
use crate::arch::Layout;
use crate::hypervisor::{Access, DynVm};
use crate::memory::{GuestMemory, MAPPING_UNIT_BYTES};

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
        generation.write(&random()?);
        Ok(generation)
    }

    /// Gives a paused machine a new id and tells its guest.
    pub(super) fn renew(&self, vm: &dyn DynVm) -> Result<[u8; 16], MachineError> {
        let id = random()?;
        self.write(&id);
        vm.set_irq(self.layout.generation_line, true)?;
        Ok(id)
    }

    fn write(&self, id: &[u8; 16]) {
        self.page
            .ram()
            .write_slice(id, GuestAddress(self.layout.generation))
            .expect("the page is longer than the id");
    }
}

fn random() -> Result<[u8; 16], MachineError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(no_random)?;
    Ok(id)
}
