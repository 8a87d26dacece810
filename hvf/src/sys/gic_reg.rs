//! Registers of the in-engine GICv3. Memory-mapped ones are numbered by their
//! offset in the frame (Arm IHI 0069 chapter 12), CPU interface ones by
//! their system register encoding.

/// `hv_gic_distributor_reg_t`: offset in the distributor's frame.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GicDistributorReg(pub u16);

impl GicDistributorReg {
    /// Control.
    pub const CTLR: Self = Self(0x0000);
    /// Interrupt controller type.
    pub const TYPER: Self = Self(0x0004);
    /// First of the group registers, 1 bit an interrupt.
    pub const IGROUPR0: Self = Self(0x0080);
    /// First of the set-enable registers, 1 bit an interrupt.
    pub const ISENABLER0: Self = Self(0x0100);
    /// First of the clear-enable registers, 1 bit an interrupt.
    pub const ICENABLER0: Self = Self(0x0180);
    /// First of the set-pending registers, 1 bit an interrupt.
    pub const ISPENDR0: Self = Self(0x0200);
    /// First of the clear-pending registers, 1 bit an interrupt.
    pub const ICPENDR0: Self = Self(0x0280);
    /// First of the set-active registers, 1 bit an interrupt.
    pub const ISACTIVER0: Self = Self(0x0300);
    /// First of the clear-active registers, 1 bit an interrupt.
    pub const ICACTIVER0: Self = Self(0x0380);
    /// First of the priority registers, 8 bits an interrupt.
    pub const IPRIORITYR0: Self = Self(0x0400);
    /// First of the configuration registers, 2 bits an interrupt.
    pub const ICFGR0: Self = Self(0x0c00);
    /// The routing register of INTID 32; 8 bytes an interrupt.
    pub const IROUTER32: Self = Self(0x6100);
    /// Peripheral identification 2, with the architecture revision.
    pub const PIDR2: Self = Self(0xffe8);
}

/// `hv_gic_redistributor_reg_t`: offset in a vCPU's 128 KiB of frames.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GicRedistributorReg(pub u32);

impl GicRedistributorReg {
    /// Redistributor type, 64 bits.
    pub const TYPER: Self = Self(0x0_0008);
    /// Peripheral identification 2.
    pub const PIDR2: Self = Self(0x0_ffe8);
    /// Groups of interrupts 0 to 31.
    pub const IGROUPR0: Self = Self(0x1_0080);
    /// Set-enable of interrupts 0 to 31.
    pub const ISENABLER0: Self = Self(0x1_0100);
    /// Clear-enable of interrupts 0 to 31.
    pub const ICENABLER0: Self = Self(0x1_0180);
    /// Set-pending of interrupts 0 to 31.
    pub const ISPENDR0: Self = Self(0x1_0200);
    /// Clear-pending of interrupts 0 to 31.
    pub const ICPENDR0: Self = Self(0x1_0280);
    /// Set-active of interrupts 0 to 31.
    pub const ISACTIVER0: Self = Self(0x1_0300);
    /// Clear-active of interrupts 0 to 31.
    pub const ICACTIVER0: Self = Self(0x1_0380);
    /// First of the eight priority registers.
    pub const IPRIORITYR0: Self = Self(0x1_0400);
    /// Configuration of interrupts 0 to 15.
    pub const ICFGR0: Self = Self(0x1_0c00);
    /// Configuration of interrupts 16 to 31.
    pub const ICFGR1: Self = Self(0x1_0c04);
}

/// `hv_gic_icc_reg_t`: CPU interface registers, in [`super::SysReg`] packing.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GicIccReg(pub u16);

impl GicIccReg {
    /// Priority mask.
    pub const PMR_EL1: Self = Self(0xc230);
    /// Binary point, group 0.
    pub const BPR0_EL1: Self = Self(0xc643);
    /// Active priorities, group 0.
    pub const AP0R0_EL1: Self = Self(0xc644);
    /// Active priorities, group 1.
    pub const AP1R0_EL1: Self = Self(0xc648);
    /// Running priority; read only.
    pub const RPR_EL1: Self = Self(0xc65b);
    /// Binary point, group 1.
    pub const BPR1_EL1: Self = Self(0xc663);
    /// Control.
    pub const CTLR_EL1: Self = Self(0xc664);
    /// System register enable.
    pub const SRE_EL1: Self = Self(0xc665);
    /// Group 0 enable.
    pub const IGRPEN0_EL1: Self = Self(0xc666);
    /// Group 1 enable.
    pub const IGRPEN1_EL1: Self = Self(0xc667);
}

/// `hv_gic_msi_reg_t`: offset in the frame of message-signalled interrupts.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GicMsiReg(pub u16);

impl GicMsiReg {
    /// First interrupt and count.
    pub const TYPER: Self = Self(0x0008);
    /// Write an INTID here to send it.
    pub const SET_SPI_NSR: Self = Self(0x0040);
}

/// `hv_gic_intid_t`: interrupts the engine itself raises; the value is the
/// INTID.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GicIntid(pub u16);

impl GicIntid {
    /// The performance monitor.
    pub const PERFORMANCE_MONITOR: Self = Self(23);
    /// The maintenance interrupt; EL2 only.
    pub const MAINTENANCE: Self = Self(25);
    /// The EL2 physical timer; EL2 only.
    pub const EL2_PHYSICAL_TIMER: Self = Self(26);
    /// The virtual timer.
    pub const EL1_VIRTUAL_TIMER: Self = Self(27);
    /// The physical timer.
    pub const EL1_PHYSICAL_TIMER: Self = Self(30);
}
