use serde::{Deserialize, Serialize};

use crate::arch::aarch64::registers;

/// A stopped vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// The guest's counter, in ticks.
    pub counter: u64,
    /// What else there is, by architecture.
    pub registers: Registers,
}

/// The registers of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registers {
    /// Of 64-bit Arm.
    Aarch64(Box<registers::Registers>),
}
