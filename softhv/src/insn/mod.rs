//! Instructions as values: what a word says, with its operands read out.
//!
//! [`crate::decode`] makes them from words, without looking at a vCPU or at the
//! level the word is executed at, and [`crate::exec::bind`] chooses the handler that
//! executes one. Whoever wants to know what guest code does (another tier, a tracer,
//! a test) reads these values and not words. The set grows with the instructions
//! that the engine knows, so a `match` from outside the crate needs a last arm.
//!
//! Every immediate is what the operation uses: expanded, scaled, with its sign;
//! offsets of branches count in bytes from the instruction.

mod display;
pub mod float;
pub mod memory;
pub mod operand;
mod query;
pub mod structure;
pub mod system;

pub use float::{FpBinary, FpFormat, FpMove, FpUnary, Rounding};
pub use memory::{Atomic, Load, PairLoad};
pub use operand::{Address, Cond, Extend, Reg, Shift, Size, VReg, VSize, Width};
pub use structure::StructAccess;
pub use system::{Barrier, ByTlb, Call, PstateField, SysOp};

use operand::field_enum;

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "operands are named as in assembly")]
pub enum Insn {
    /// No instruction of this processor.
    Undefined,
    /// AdvSIMD data processing, which is not read out yet: the word itself.
    Word(u32),

    /// ADR: an address in bytes from the instruction.
    Adr { rd: Reg, offset: i32 },
    /// ADRP: an address in bytes from the instruction's page.
    Adrp { rd: Reg, offset: i64 },
    /// ADD, ADDS, SUB, SUBS (immediate).
    AddSubImm {
        op: AddSub,
        width: Width,
        rd: Reg,
        rn: Reg,
        imm: u32,
    },
    /// The same with a shifted register.
    AddSubShifted {
        op: AddSub,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        shift: Shift,
        amount: u8,
    },
    /// The same with an extended register.
    AddSubExtended {
        op: AddSub,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        extend: Extend,
        amount: u8,
    },
    /// ADC, ADCS, SBC, SBCS.
    AddSubCarry {
        op: AddSub,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
    },
    /// AND, ORR, EOR, ANDS (immediate); the immediate is cut to the width.
    LogicImm {
        op: Logic,
        width: Width,
        rd: Reg,
        rn: Reg,
        imm: u64,
    },
    /// The same with a shifted register, and with `invert` BIC, ORN, EON, BICS.
    LogicShifted {
        op: Logic,
        invert: bool,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        shift: Shift,
        amount: u8,
    },
    /// MOVZ and MOVN: the whole value of the register.
    MoveImm { width: Width, rd: Reg, value: u64 },
    /// MOVK: 16 bits at a position, the others staying.
    MoveKeep {
        width: Width,
        rd: Reg,
        imm: u16,
        position: u8,
    },
    /// SBFM, BFM, UBFM.
    Bitfield {
        op: Bitfield,
        width: Width,
        rd: Reg,
        rn: Reg,
        immr: u8,
        imms: u8,
    },
    /// EXTR: bits from `lsb` up of Rn above Rm.
    Extract {
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        lsb: u8,
    },
    /// CCMN and CCMP: compares if the condition holds, else sets `nzcv`.
    CondCompare {
        op: AddSub,
        width: Width,
        rn: Reg,
        with: RegOrImm,
        nzcv: u8,
        cond: Cond,
    },
    /// CSEL, CSINC, CSINV, CSNEG.
    CondSelect {
        op: Select,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        cond: Cond,
    },
    /// RBIT, REV16, REV32, REV, CLZ, CLS.
    OneSource {
        op: OneSource,
        width: Width,
        rd: Reg,
        rn: Reg,
    },
    /// UDIV, SDIV, LSLV, LSRV, ASRV, RORV.
    TwoSource {
        op: TwoSource,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
    },
    /// CRC32 and CRC32C of a value of `size`.
    Crc32 {
        castagnoli: bool,
        size: Size,
        rd: Reg,
        rn: Reg,
        rm: Reg,
    },
    /// MADD and, with `subtract`, MSUB.
    MultiplyAdd {
        subtract: bool,
        width: Width,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        ra: Reg,
    },
    /// SMADDL, SMSUBL, UMADDL, UMSUBL.
    MultiplyAddLong {
        signed: bool,
        subtract: bool,
        rd: Reg,
        rn: Reg,
        rm: Reg,
        ra: Reg,
    },
    /// SMULH, UMULH.
    MultiplyHigh {
        signed: bool,
        rd: Reg,
        rn: Reg,
        rm: Reg,
    },

    /// B and, with `link`, BL.
    Branch { link: bool, offset: i32 },
    /// B.cond.
    BranchCond { cond: Cond, offset: i32 },
    /// CBZ and, with `nonzero`, CBNZ.
    CompareBranch {
        nonzero: bool,
        width: Width,
        rt: Reg,
        offset: i32,
    },
    /// TBZ and, with `set`, TBNZ.
    TestBranch {
        set: bool,
        rt: Reg,
        bit: u8,
        offset: i32,
    },
    /// BR, BLR, RET.
    BranchReg { how: BranchReg, rn: Reg },
    /// ERET.
    ExceptionReturn,
    /// SVC, HVC, SMC, BRK.
    Call { to: Call, imm: u16 },

    /// NOP, YIELD, WFE, WFI and other hints, by number.
    Hint { number: u8 },
    /// CLREX.
    ClearExclusive,
    /// DSB, DMB, ISB, with the option field.
    Barrier { what: Barrier, option: u8 },
    /// MSR (immediate).
    WritePstate { field: PstateField, imm: u8 },
    /// MRS; `key` as [`crate::sysreg_key::key`] packs it.
    ReadSys { key: u16, rt: Reg },
    /// MSR (register).
    WriteSys { key: u16, rt: Reg },
    /// IC, DC, AT, TLBI: a SYS of operation `key`.
    Sys { op: SysOp, key: u16, rt: Reg },

    /// LDR and its kin, of a general register.
    Load {
        what: Load,
        rt: Reg,
        address: Address,
    },
    /// STR and its kin.
    Store {
        size: Size,
        rt: Reg,
        address: Address,
    },
    /// LDR of a vector register, whose rest becomes zero.
    LoadVec {
        size: VSize,
        rt: VReg,
        address: Address,
    },
    /// STR of a vector register.
    StoreVec {
        size: VSize,
        rt: VReg,
        address: Address,
    },
    /// LDTR and its kin: with the rights of EL0.
    LoadUser {
        what: Load,
        rt: Reg,
        address: Address,
    },
    /// STTR and its kin.
    StoreUser {
        size: Size,
        rt: Reg,
        address: Address,
    },
    /// PRFM.
    Prefetch { hint: u8, address: Address },
    /// LDP, LDPSW and, with `streaming`, LDNP.
    LoadPair {
        what: PairLoad,
        streaming: bool,
        rt: Reg,
        rt2: Reg,
        address: Address,
    },
    /// STP and, with `streaming`, STNP.
    StorePair {
        width: Width,
        streaming: bool,
        rt: Reg,
        rt2: Reg,
        address: Address,
    },
    /// LDP of vector registers.
    LoadVecPair {
        size: VSize,
        streaming: bool,
        rt: VReg,
        rt2: VReg,
        address: Address,
    },
    /// STP of vector registers.
    StoreVecPair {
        size: VSize,
        streaming: bool,
        rt: VReg,
        rt2: VReg,
        address: Address,
    },
    /// LDXR and, with `acquire`, LDAXR.
    LoadExclusive {
        size: Size,
        acquire: bool,
        rt: Reg,
        base: Reg,
    },
    /// STXR and, with `release`, STLXR; `status` gets 0 if it stored.
    StoreExclusive {
        size: Size,
        release: bool,
        status: Reg,
        rt: Reg,
        base: Reg,
    },
    /// LDXP and, with `acquire`, LDAXP.
    LoadExclusivePair {
        width: Width,
        acquire: bool,
        rt: Reg,
        rt2: Reg,
        base: Reg,
    },
    /// STXP and, with `release`, STLXP.
    StoreExclusivePair {
        width: Width,
        release: bool,
        status: Reg,
        rt: Reg,
        rt2: Reg,
        base: Reg,
    },
    /// LDAR and, `weak` towards earlier stores with release, LDAPR.
    LoadAcquire {
        size: Size,
        weak: bool,
        rt: Reg,
        base: Reg,
    },
    /// STLR.
    StoreRelease { size: Size, rt: Reg, base: Reg },
    /// CAS, CASA, CASL, CASAL: `rs` is compared with, and gets what was there.
    CompareSwap {
        size: Size,
        acquire: bool,
        release: bool,
        rs: Reg,
        rt: Reg,
        base: Reg,
    },
    /// CASP and its kin, of `rs` and `rt` and the registers after them.
    CompareSwapPair {
        width: Width,
        acquire: bool,
        release: bool,
        rs: Reg,
        rt: Reg,
        base: Reg,
    },
    /// LDADD and its kin, SWP: `rs` is the operand, `rt` gets what was there.
    Update {
        op: Atomic,
        size: Size,
        acquire: bool,
        release: bool,
        rs: Reg,
        rt: Reg,
        base: Reg,
    },
    /// LD1 to LD4, ST1 to ST4, LD1R to LD4R.
    Structure(StructAccess),

    /// FMOV, FABS, FNEG, FSQRT.
    FpUnary {
        op: FpUnary,
        format: FpFormat,
        rd: VReg,
        rn: VReg,
    },
    /// FRINTN, P, M, Z, A, I and, with `exact`, which reports lost digits, X.
    FpRound {
        to: Rounding,
        exact: bool,
        format: FpFormat,
        rd: VReg,
        rn: VReg,
    },
    /// FCVT.
    FpConvert {
        from: FpFormat,
        to: FpFormat,
        rd: VReg,
        rn: VReg,
    },
    /// FADD and its kin.
    FpBinary {
        op: FpBinary,
        format: FpFormat,
        rd: VReg,
        rn: VReg,
        rm: VReg,
    },
    /// FMADD, FMSUB, FNMADD, FNMSUB: Ra plus Rn times Rm, rounded once.
    FpMultiplyAdd {
        negate_addend: bool,
        negate_product: bool,
        format: FpFormat,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        ra: VReg,
    },
    /// FCMP and, with `signal` for every NaN, FCMPE; without `rm`, with zero.
    FpCompare {
        signal: bool,
        format: FpFormat,
        rn: VReg,
        rm: Option<VReg>,
    },
    /// FCCMP, FCCMPE.
    FpCondCompare {
        signal: bool,
        format: FpFormat,
        rn: VReg,
        rm: VReg,
        nzcv: u8,
        cond: Cond,
    },
    /// FCSEL.
    FpSelect {
        format: FpFormat,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        cond: Cond,
    },
    /// FMOV (immediate): the bits of the number.
    FpImm {
        format: FpFormat,
        rd: VReg,
        bits: u64,
    },
    /// SCVTF, UCVTF from a number with so many fraction bits.
    FpFromInt {
        format: FpFormat,
        width: Width,
        signed: bool,
        fraction: u8,
        rd: VReg,
        rn: Reg,
    },
    /// FCVTNS and its kin.
    FpToInt {
        format: FpFormat,
        width: Width,
        signed: bool,
        rounding: Rounding,
        fraction: u8,
        rd: Reg,
        rn: VReg,
    },
    /// FJCVTZS: from double to 32 bits as JavaScript has it.
    FpToIntJs { rd: Reg, rn: VReg },
    /// FMOV to a general register.
    FpToGeneral { part: FpMove, rd: Reg, rn: VReg },
    /// FMOV from a general register.
    FpFromGeneral { part: FpMove, rd: VReg, rn: Reg },
}

field_enum! {
    /// An addition or subtraction.
    AddSub:
    /// Sum.
    Add,
    /// Sum that sets the flags.
    Adds,
    /// Difference.
    Sub,
    /// Difference that sets the flags.
    Subs,
}

impl AddSub {
    /// Whether it subtracts.
    #[inline]
    #[must_use]
    pub const fn is_sub(self) -> bool {
        matches!(self, Self::Sub | Self::Subs)
    }

    /// Whether it sets the flags.
    #[inline]
    #[must_use]
    pub const fn sets_flags(self) -> bool {
        matches!(self, Self::Adds | Self::Subs)
    }
}

field_enum! {
    /// A bitwise operation.
    Logic:
    /// And.
    And,
    /// Inclusive or.
    Orr,
    /// Exclusive or.
    Eor,
    /// And that sets the flags.
    Ands,
}

field_enum! {
    /// What a bitfield move does with the rest of the register.
    Bitfield:
    /// SBFM: copies of the field's sign above it, zeros below.
    Signed,
    /// BFM: the destination's old bits.
    Insert,
    /// UBFM: zeros.
    Unsigned,
}

field_enum! {
    /// What becomes of the second operand of a conditional select.
    Select:
    /// CSEL: nothing.
    Plain,
    /// CSINC: plus 1.
    Increment,
    /// CSINV: all bits inverted.
    Invert,
    /// CSNEG: negated.
    Negate,
}

field_enum! {
    /// An operation on one general register.
    OneSource:
    /// Bits in opposite order.
    Rbit,
    /// Bytes of each halfword in opposite order.
    Rev16,
    /// Bytes of each word in opposite order, in 64 bits.
    Rev32,
    /// Bytes in opposite order.
    Rev,
    /// Leading zeros.
    Clz,
    /// Leading copies of the sign.
    Cls,
}

field_enum! {
    /// An operation on two general registers.
    TwoSource:
    /// Unsigned quotient.
    Udiv,
    /// Signed quotient.
    Sdiv,
    /// Shift left.
    Lslv,
    /// Shift right, zeros in.
    Lsrv,
    /// Shift right, copies of the sign in.
    Asrv,
    /// Rotate right.
    Rorv,
}

field_enum! {
    /// What a branch to a register does besides.
    BranchReg:
    /// BR: nothing.
    Jump,
    /// BLR: X30 gets the return address.
    Call,
    /// RET: nothing, but it returns.
    Return,
}

/// A register or a small immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegOrImm {
    /// A register.
    Reg(Reg),
    /// An immediate.
    Imm(u8),
}

// Decoding writes one for each instruction of a block.
const _: () = assert!(size_of::<Insn>() == 16);
