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
pub mod integer;
pub mod memory;
pub mod operand;
mod query;
pub mod simd;
pub mod structure;
pub mod system;

pub use float::{FpBinary, FpFormat, FpMove, FpUnary, Rounding};
pub use integer::{AddSub, Bitfield, BranchReg, Logic, OneSource, RegOrImm, Select, TwoSource};
pub use memory::{Atomic, Load, PairLoad};
pub use operand::{Address, Cond, Extend, Reg, Shift, Size, VReg, VSize, Width};
pub use simd::{Arrangement, VecBinary, VecFpBinary, VecFpUnary, VecImm, VecShift, VecUnary};
pub use structure::StructAccess;
pub use system::{Barrier, ByTlb, Call, PstateField, SysOp};

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "operands are named as in assembly")]
pub enum Insn {
    /// No instruction of this processor.
    Undefined,

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

    /// An operation on two vectors, or on them and the destination.
    VecBinary {
        op: VecBinary,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
        rm: VReg,
    },
    /// The same with one element of Rm.
    VecElement {
        op: VecBinary,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        index: u8,
    },
    /// An operation on one vector, or on it and the destination.
    VecUnary {
        op: VecUnary,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
    },
    /// A shift by an immediate.
    VecShift {
        op: VecShift,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
        amount: u8,
    },
    /// MOVI, MVNI, FMOV, ORR, BIC (immediate): `bits` for each doubleword.
    VecImm {
        op: VecImm,
        full: bool,
        rd: VReg,
        bits: u64,
    },
    /// DUP: one element to every lane, or to a scalar.
    VecDup {
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
        index: u8,
    },
    /// DUP of a general register.
    VecDupGeneral {
        arrangement: Arrangement,
        rd: VReg,
        rn: Reg,
    },
    /// INS: the element `from` of Rn to the lane `index`.
    VecInsert {
        element: Arrangement,
        rd: VReg,
        index: u8,
        rn: VReg,
        from: u8,
    },
    /// INS of a general register.
    VecInsertGeneral {
        element: Arrangement,
        rd: VReg,
        index: u8,
        rn: Reg,
    },
    /// SMOV, UMOV.
    VecToGeneral {
        element: Arrangement,
        signed: bool,
        width: Width,
        rd: Reg,
        rn: VReg,
        index: u8,
    },
    /// EXT: bytes from `position` on, of Rn and of Rm behind it.
    VecExtract {
        full: bool,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        position: u8,
    },
    /// TBL and, with `keep` for what is out of range, TBX in `registers` from Rn on.
    VecTable {
        keep: bool,
        full: bool,
        registers: u8,
        rd: VReg,
        rn: VReg,
        rm: VReg,
    },
    /// A floating-point operation on two vectors, or on them and the destination.
    VecFpBinary {
        op: VecFpBinary,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
        rm: VReg,
    },
    /// The same with one element of Rm.
    VecFpElement {
        op: VecFpBinary,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
        rm: VReg,
        index: u8,
    },
    /// A floating-point operation on one vector.
    VecFpUnary {
        op: VecFpUnary,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
    },
    /// FRINTN and its kin, as [`Insn::FpRound`].
    VecFpRound {
        to: Rounding,
        exact: bool,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
    },
    /// FCVTNS and its kin to lanes of the same size.
    VecFpToInt {
        signed: bool,
        rounding: Rounding,
        fraction: u8,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
    },
    /// SCVTF, UCVTF of lanes.
    VecFpFromInt {
        signed: bool,
        fraction: u8,
        arrangement: Arrangement,
        rd: VReg,
        rn: VReg,
    },
}

// Decoding writes one for each instruction of a block.
const _: () = assert!(size_of::<Insn>() == 16);
