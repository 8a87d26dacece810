//! AdvSIMD data processing: lanes of vector registers.
//!
//! Operations are named as the architecture names them: S and U are signed and
//! unsigned, Q saturates, R rounds, H halves or, behind ADD and SUB, takes the high
//! half, L is long (wider results), W wide, N narrow, P pairwise, V across a vector.

use super::operand::field_enum;

/// The lanes that an instruction works on: of a long, wide or narrowing one the
/// narrow lanes, of which it uses half a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in assembly")]
#[repr(u8)]
pub enum Arrangement {
    /// One lane, the low byte.
    B,
    H,
    S,
    D,
    /// Vectors of 64 bits, then of 128.
    B8,
    H4,
    S2,
    D1,
    B16,
    H8,
    S4,
    D2,
}

impl Arrangement {
    const ALL: [Self; 12] = [
        Self::B,
        Self::H,
        Self::S,
        Self::D,
        Self::B8,
        Self::H4,
        Self::S2,
        Self::D1,
        Self::B16,
        Self::H8,
        Self::S4,
        Self::D2,
    ];

    /// One lane of `1 << size` bytes.
    #[inline]
    #[must_use]
    pub const fn scalar(size: u32) -> Self {
        Self::ALL[(size & 3) as usize]
    }

    /// A vector of lanes of `1 << size` bytes, if `full` of 128 bits, else of 64.
    #[inline]
    #[must_use]
    pub const fn vector(size: u32, full: bool) -> Self {
        Self::ALL[(4 + (size & 3) + 4 * full as u32) as usize]
    }

    /// log2 of the bytes of a lane.
    #[inline]
    #[must_use]
    pub const fn size(self) -> u32 {
        self as u32 & 3
    }

    /// Whether it is one lane.
    #[inline]
    #[must_use]
    pub const fn is_scalar(self) -> bool {
        (self as u8) < 4
    }

    /// Whether it has 128 bits, or of a widened or narrowed operand the high half.
    #[inline]
    #[must_use]
    pub const fn is_full(self) -> bool {
        self as u8 >= 8
    }
}

field_enum! {
    /// An operation on two vectors, or three.
    VecBinary:
    /// `SHADD`.
    Shadd,
    /// `UHADD`.
    Uhadd,
    /// `SQADD`.
    Sqadd,
    /// `UQADD`.
    Uqadd,
    /// `SRHADD`.
    Srhadd,
    /// `URHADD`.
    Urhadd,
    /// `SHSUB`.
    Shsub,
    /// `UHSUB`.
    Uhsub,
    /// `SQSUB`.
    Sqsub,
    /// `UQSUB`.
    Uqsub,
    /// `CMGT`.
    Cmgt,
    /// `CMHI`.
    Cmhi,
    /// `CMGE`.
    Cmge,
    /// `CMHS`.
    Cmhs,
    /// `SSHL`.
    Sshl,
    /// `USHL`.
    Ushl,
    /// `SQSHL`.
    Sqshl,
    /// `UQSHL`.
    Uqshl,
    /// `SRSHL`.
    Srshl,
    /// `URSHL`.
    Urshl,
    /// `SQRSHL`.
    Sqrshl,
    /// `UQRSHL`.
    Uqrshl,
    /// `SMAX`.
    Smax,
    /// `UMAX`.
    Umax,
    /// `SMIN`.
    Smin,
    /// `UMIN`.
    Umin,
    /// `SABD`.
    Sabd,
    /// `UABD`.
    Uabd,
    /// `SABA`.
    Saba,
    /// `UABA`.
    Uaba,
    /// `ADD`.
    Add,
    /// `SUB`.
    Sub,
    /// `CMTST`.
    Cmtst,
    /// `CMEQ`.
    Cmeq,
    /// `MLA`.
    Mla,
    /// `MLS`.
    Mls,
    /// `MUL`.
    Mul,
    /// `PMUL`.
    Pmul,
    /// `SMAXP`.
    Smaxp,
    /// `UMAXP`.
    Umaxp,
    /// `SMINP`.
    Sminp,
    /// `UMINP`.
    Uminp,
    /// `SQDMULH`.
    Sqdmulh,
    /// `SQRDMULH`.
    Sqrdmulh,
    /// `ADDP`.
    Addp,
    /// `SQRDMLAH`.
    Sqrdmlah,
    /// `SQRDMLSH`.
    Sqrdmlsh,
    /// `SDOT`.
    Sdot,
    /// `UDOT`.
    Udot,
    /// `AND`.
    And,
    /// `BIC`.
    Bic,
    /// `ORR`.
    Orr,
    /// `ORN`.
    Orn,
    /// `EOR`.
    Eor,
    /// `BSL`.
    Bsl,
    /// `BIT`.
    Bit,
    /// `BIF`.
    Bif,
    /// `UZP1`.
    Uzp1,
    /// `TRN1`.
    Trn1,
    /// `ZIP1`.
    Zip1,
    /// `UZP2`.
    Uzp2,
    /// `TRN2`.
    Trn2,
    /// `ZIP2`.
    Zip2,
    /// `SADDL`.
    Saddl,
    /// `UADDL`.
    Uaddl,
    /// `SADDW`.
    Saddw,
    /// `UADDW`.
    Uaddw,
    /// `SSUBL`.
    Ssubl,
    /// `USUBL`.
    Usubl,
    /// `SSUBW`.
    Ssubw,
    /// `USUBW`.
    Usubw,
    /// `ADDHN`.
    Addhn,
    /// `RADDHN`.
    Raddhn,
    /// `SUBHN`.
    Subhn,
    /// `RSUBHN`.
    Rsubhn,
    /// `SABAL`.
    Sabal,
    /// `UABAL`.
    Uabal,
    /// `SABDL`.
    Sabdl,
    /// `UABDL`.
    Uabdl,
    /// `SMLAL`.
    Smlal,
    /// `UMLAL`.
    Umlal,
    /// `SMLSL`.
    Smlsl,
    /// `UMLSL`.
    Umlsl,
    /// `SMULL`.
    Smull,
    /// `UMULL`.
    Umull,
    /// `SQDMLAL`.
    Sqdmlal,
    /// `SQDMLSL`.
    Sqdmlsl,
    /// `SQDMULL`.
    Sqdmull,
    /// `PMULL`.
    Pmull,
    /// `SHA1C`.
    Sha1c,
    /// `SHA1P`.
    Sha1p,
    /// `SHA1M`.
    Sha1m,
    /// `SHA1SU0`.
    Sha1su0,
    /// `SHA256H`.
    Sha256h,
    /// `SHA256H2`.
    Sha256h2,
    /// `SHA256SU1`.
    Sha256su1,
}

impl VecBinary {
    /// The bitwise ones, in the order of U and size.
    pub const LOGIC: [Self; 8] = [
        Self::And,
        Self::Bic,
        Self::Orr,
        Self::Orn,
        Self::Eor,
        Self::Bsl,
        Self::Bit,
        Self::Bif,
    ];

    /// Whether the operands or the result are wider than the lanes named.
    #[inline]
    #[must_use]
    pub const fn changes_size(self) -> bool {
        self as u8 >= Self::Saddl as u8 && self as u8 <= Self::Pmull as u8
    }
}

field_enum! {
    /// An operation on one vector.
    VecUnary:
    /// `SUQADD`.
    Suqadd,
    /// `USQADD`.
    Usqadd,
    /// `SQABS`.
    Sqabs,
    /// `SQNEG`.
    Sqneg,
    /// `CMGT` with zero.
    CmgtZero,
    /// `CMGE` with zero.
    CmgeZero,
    /// `CMEQ` with zero.
    CmeqZero,
    /// `CMLE` with zero.
    CmleZero,
    /// `CMLT` with zero.
    CmltZero,
    /// `ABS`.
    Abs,
    /// `NEG`.
    Neg,
    /// `REV64`.
    Rev64,
    /// `REV32`.
    Rev32,
    /// `REV16`.
    Rev16,
    /// `SADDLP`.
    Saddlp,
    /// `UADDLP`.
    Uaddlp,
    /// `CLS`.
    Cls,
    /// `CLZ`.
    Clz,
    /// `CNT`.
    Cnt,
    /// `SADALP`.
    Sadalp,
    /// `UADALP`.
    Uadalp,
    /// `XTN`.
    Xtn,
    /// `SQXTUN`.
    Sqxtun,
    /// `SQXTN`.
    Sqxtn,
    /// `UQXTN`.
    Uqxtn,
    /// `SHLL`.
    Shll,
    /// `NOT`.
    Not,
    /// `RBIT`.
    Rbit,
    /// `SADDLV`.
    Saddlv,
    /// `UADDLV`.
    Uaddlv,
    /// `SMAXV`.
    Smaxv,
    /// `UMAXV`.
    Umaxv,
    /// `SMINV`.
    Sminv,
    /// `UMINV`.
    Uminv,
    /// `ADDV`.
    Addv,
    /// `ADDP` of two doublewords.
    AddPair,
    /// `AESE`.
    Aese,
    /// `AESD`.
    Aesd,
    /// `AESMC`.
    Aesmc,
    /// `AESIMC`.
    Aesimc,
    /// `SHA1H`.
    Sha1h,
    /// `SHA1SU1`.
    Sha1su1,
    /// `SHA256SU0`.
    Sha256su0,
}

field_enum! {
    /// A shift by an immediate.
    VecShift:
    /// `SSHR`.
    Sshr,
    /// `USHR`.
    Ushr,
    /// `SSRA`.
    Ssra,
    /// `USRA`.
    Usra,
    /// `SRSHR`.
    Srshr,
    /// `URSHR`.
    Urshr,
    /// `SRSRA`.
    Srsra,
    /// `URSRA`.
    Ursra,
    /// `SRI`.
    Sri,
    /// `SHL`.
    Shl,
    /// `SLI`.
    Sli,
    /// `SQSHLU`.
    Sqshlu,
    /// `SQSHL`.
    Sqshl,
    /// `UQSHL`.
    Uqshl,
    /// `SSHLL`.
    Sshll,
    /// `USHLL`.
    Ushll,
    /// `SHRN`.
    Shrn,
    /// `RSHRN`.
    Rshrn,
    /// `SQSHRUN`.
    Sqshrun,
    /// `SQRSHRUN`.
    Sqrshrun,
    /// `SQSHRN`.
    Sqshrn,
    /// `UQSHRN`.
    Uqshrn,
    /// `SQRSHRN`.
    Sqrshrn,
    /// `UQRSHRN`.
    Uqrshrn,
}

impl VecShift {
    /// Whether the result's lanes are wider or narrower than the operand's.
    #[inline]
    #[must_use]
    pub const fn changes_size(self) -> bool {
        self as u8 >= Self::Sshll as u8
    }
}

field_enum! {
    /// What is done with an immediate.
    VecImm:
    /// It is the value.
    Move,
    /// Its bits are set.
    Or,
    /// Its zeros are cleared.
    And,
}

field_enum! {
    /// A floating-point operation on two vectors, or three.
    VecFpBinary:
    /// FMAXNM.
    MaxNum,
    /// FMLA.
    Mla,
    /// FADD.
    Add,
    /// FMULX.
    MulX,
    /// FCMEQ.
    CmpEq,
    /// FMAX.
    Max,
    /// FRECPS.
    RecipStep,
    /// FMINNM.
    MinNum,
    /// FMLS.
    Mls,
    /// FSUB.
    Sub,
    /// FMIN.
    Min,
    /// FRSQRTS.
    RootStep,
    /// FMAXNMP.
    MaxNumPair,
    /// FADDP.
    AddPair,
    /// FMUL.
    Mul,
    /// FCMGE.
    CmpGe,
    /// FACGE.
    AbsGe,
    /// FMAXP.
    MaxPair,
    /// FDIV.
    Div,
    /// FMINNMP.
    MinNumPair,
    /// FABD.
    AbsDiff,
    /// FCMGT.
    CmpGt,
    /// FACGT.
    AbsGt,
    /// FMINP.
    MinPair,
}

impl VecFpBinary {
    /// Whether it exists on scalars.
    #[inline]
    #[must_use]
    pub const fn has_scalar(self) -> bool {
        matches!(
            self,
            Self::MulX
                | Self::CmpEq
                | Self::RecipStep
                | Self::RootStep
                | Self::CmpGe
                | Self::AbsGe
                | Self::AbsDiff
                | Self::CmpGt
                | Self::AbsGt
        )
    }
}

field_enum! {
    /// A floating-point operation on one vector.
    VecFpUnary:
    /// FCMGT with zero.
    CmpGtZero,
    /// FCMEQ with zero.
    CmpEqZero,
    /// FCMLT with zero.
    CmpLtZero,
    /// FCMGE with zero.
    CmpGeZero,
    /// FCMLE with zero.
    CmpLeZero,
    /// FABS.
    Abs,
    /// FNEG.
    Neg,
    /// FSQRT.
    Sqrt,
    /// FRECPE.
    RecipEstimate,
    /// FRSQRTE.
    RootEstimate,
    /// FRECPX.
    RecipExponent,
    /// URECPE.
    UnsignedRecipEstimate,
    /// URSQRTE.
    UnsignedRootEstimate,
    /// FCVTL.
    Widen,
    /// FCVTN.
    Narrow,
    /// FCVTXN.
    NarrowOdd,
    /// FMAXNMV.
    MaxNumAcross,
    /// FMINNMV.
    MinNumAcross,
    /// FMAXV.
    MaxAcross,
    /// FMINV.
    MinAcross,
    /// FMAXNMP to a scalar.
    MaxNumPair,
    /// FMINNMP to a scalar.
    MinNumPair,
    /// FADDP to a scalar.
    AddPair,
    /// FMAXP to a scalar.
    MaxPair,
    /// FMINP to a scalar.
    MinPair,
}
