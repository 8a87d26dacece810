//! Interrupt lines that lead to a machine.

use std::sync::Arc;

use devices::IrqLine;

use crate::hypervisor::DynVm;

/// One interrupt of a machine, by its absolute number.
pub(super) struct VmLine {
    pub(super) vm: Arc<dyn DynVm>,
    pub(super) intid: u32,
}

impl IrqLine for VmLine {
    fn set_level(&self, high: bool) {
        // It fails only for numbers outside the range checked at the start.
        let _ = self.vm.set_irq(self.intid, high);
    }

    fn pulse(&self) {
        let _ = self.vm.set_irq(self.intid, true);
    }
}
