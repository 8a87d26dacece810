//! Names of the CPU interface registers.

/// A CPU interface register, as `MRS`/`MSR` and `hv_gic_*_icc_reg` name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "architectural names")]
pub enum IccReg {
    Pmr,
    Iar0,
    Eoir0,
    Hppir0,
    Bpr0,
    Ap0r0,
    Ap1r0,
    Dir,
    Rpr,
    Sgi1r,
    Asgi1r,
    Sgi0r,
    Iar1,
    Eoir1,
    Hppir1,
    Bpr1,
    Ctlr,
    Sre,
    Igrpen0,
    Igrpen1,
}

impl IccReg {
    /// The register with this `hv_sys_reg_t`-style key
    /// (`op0<<14|op1<<11|CRn<<7|CRm<<3|op2`).
    pub fn from_key(key: u16) -> Option<Self> {
        Some(match key {
            0xc230 => Self::Pmr,
            0xc640 => Self::Iar0,
            0xc641 => Self::Eoir0,
            0xc642 => Self::Hppir0,
            0xc643 => Self::Bpr0,
            0xc644 => Self::Ap0r0,
            0xc648 => Self::Ap1r0,
            0xc659 => Self::Dir,
            0xc65b => Self::Rpr,
            0xc65d => Self::Sgi1r,
            0xc65e => Self::Asgi1r,
            0xc65f => Self::Sgi0r,
            0xc660 => Self::Iar1,
            0xc661 => Self::Eoir1,
            0xc662 => Self::Hppir1,
            0xc663 => Self::Bpr1,
            0xc664 => Self::Ctlr,
            0xc665 => Self::Sre,
            0xc666 => Self::Igrpen0,
            0xc667 => Self::Igrpen1,
            _ => return None,
        })
    }

    /// Whether `MRS` is defined.
    pub fn is_readable(self) -> bool {
        !matches!(
            self,
            Self::Eoir0 | Self::Eoir1 | Self::Dir | Self::Sgi1r | Self::Asgi1r | Self::Sgi0r
        )
    }

    /// Whether `MSR` is defined.
    pub fn is_writable(self) -> bool {
        !matches!(
            self,
            Self::Iar0 | Self::Iar1 | Self::Hppir0 | Self::Hppir1 | Self::Rpr
        )
    }

    /// Whether `hv_gic_get_icc_reg` knows it: plain state, no side effects.
    pub fn is_state(self) -> bool {
        matches!(
            self,
            Self::Pmr
                | Self::Bpr0
                | Self::Ap0r0
                | Self::Ap1r0
                | Self::Rpr
                | Self::Bpr1
                | Self::Ctlr
                | Self::Sre
                | Self::Igrpen0
                | Self::Igrpen1
        )
    }
}
