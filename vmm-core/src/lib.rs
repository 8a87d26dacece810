//! The virtual machine: engines, boot, interrupts, devices and lifecycle.
