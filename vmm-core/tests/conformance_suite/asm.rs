//! The few A64 instructions that the suite's guests are made of
//! (Arm ARM DDI 0487, C6.2).

/// A guest program under construction.
#[derive(Default)]
pub struct Program(Vec<u32>);

/// System registers as op0, op1, CRn, CRm, op2.
pub type SysReg = [u32; 5];
pub const PMCR_EL0: SysReg = [3, 3, 9, 12, 0];
pub const OSLAR_EL1: SysReg = [2, 0, 1, 0, 4];
pub const CNTVCT_EL0: SysReg = [3, 3, 14, 0, 2];
pub const CNTV_TVAL_EL0: SysReg = [3, 3, 14, 3, 0];
pub const CNTV_CTL_EL0: SysReg = [3, 3, 14, 3, 1];
pub const MPIDR_EL1: SysReg = [3, 0, 0, 0, 5];
pub const CPACR_EL1: SysReg = [3, 0, 1, 0, 2];
pub const SCTLR_EL1: SysReg = [3, 0, 1, 0, 0];
pub const TTBR0_EL1: SysReg = [3, 0, 2, 0, 0];
pub const TCR_EL1: SysReg = [3, 0, 2, 0, 2];
pub const MAIR_EL1: SysReg = [3, 0, 10, 2, 0];
pub const ICC_PMR_EL1: SysReg = [3, 0, 4, 6, 0];
pub const ICC_IAR1_EL1: SysReg = [3, 0, 12, 12, 0];
pub const ICC_EOIR1_EL1: SysReg = [3, 0, 12, 12, 1];
pub const ICC_SRE_EL1: SysReg = [3, 0, 12, 12, 5];
pub const ICC_IGRPEN1_EL1: SysReg = [3, 0, 12, 12, 7];

fn system([op0, op1, crn, crm, op2]: SysReg) -> u32 {
    (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

impl Program {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, instruction: u32) -> Self {
        self.0.push(instruction);
        self
    }

    /// `Xd = value`, always four instructions.
    pub fn set(mut self, d: u32, value: u64) -> Self {
        for half in 0..4 {
            let bits = u32::try_from(value >> (16 * half) & 0xffff).unwrap();
            let opcode: u32 = if half == 0 { 0xd280_0000 } else { 0xf280_0000 };
            self.0.push(opcode | half << 21 | bits << 5 | d);
        }
        self
    }

    pub fn str_w(self, t: u32, n: u32) -> Self {
        self.raw(0xb900_0000 | n << 5 | t)
    }
    pub fn str_x(self, t: u32, n: u32) -> Self {
        self.raw(0xf900_0000 | n << 5 | t)
    }
    pub fn strh(self, t: u32, n: u32) -> Self {
        self.raw(0x7900_0000 | n << 5 | t)
    }
    pub fn strb(self, t: u32, n: u32) -> Self {
        self.raw(0x3900_0000 | n << 5 | t)
    }
    pub fn ldr_w(self, t: u32, n: u32) -> Self {
        self.raw(0xb940_0000 | n << 5 | t)
    }
    pub fn ldr_x(self, t: u32, n: u32) -> Self {
        self.raw(0xf940_0000 | n << 5 | t)
    }
    pub fn ldrsb_x(self, t: u32, n: u32) -> Self {
        self.raw(0x3980_0000 | n << 5 | t)
    }
    pub fn ldrsh_w(self, t: u32, n: u32) -> Self {
        self.raw(0x79c0_0000 | n << 5 | t)
    }
    pub fn ldp_x(self, t: u32, t2: u32, n: u32) -> Self {
        self.raw(0xa940_0000 | t2 << 10 | n << 5 | t)
    }
    /// `STR Wt, [Xn], #4`: write-back, so no syndrome describes it.
    pub fn str_w_post(self, t: u32, n: u32) -> Self {
        self.raw(0xb800_4400 | n << 5 | t)
    }
    /// `MOV Vd.D[0], Xn`.
    pub fn ins_d0(self, d: u32, n: u32) -> Self {
        self.raw(0x4e08_1c00 | n << 5 | d)
    }
    /// `STP Xt, Xt2, [Xn]`.
    pub fn stp_x(self, t: u32, t2: u32, n: u32) -> Self {
        self.raw(0xa900_0000 | t2 << 10 | n << 5 | t)
    }
    /// `STUR Xt, [Xn, #-4]`.
    pub fn stur_x_minus_4(self, t: u32, n: u32) -> Self {
        self.raw(0xf81f_c000 | n << 5 | t)
    }
    /// `STR Qt, [Xn]`.
    pub fn str_q(self, t: u32, n: u32) -> Self {
        self.raw(0x3d80_0000 | n << 5 | t)
    }
    /// `STLR Xt, [Xn]`.
    pub fn stlr_x(self, t: u32, n: u32) -> Self {
        self.raw(0xc89f_fc00 | n << 5 | t)
    }
    /// `LDXR Xt, [Xn]`.
    pub fn ldxr_x(self, t: u32, n: u32) -> Self {
        self.raw(0xc85f_7c00 | n << 5 | t)
    }
    /// `STXR Ws, Xt, [Xn]`.
    pub fn stxr_x(self, s: u32, t: u32, n: u32) -> Self {
        self.raw(0xc800_7c00 | s << 16 | n << 5 | t)
    }
    /// `LDADD Xs, Xt, [Xn]`.
    pub fn ldadd_x(self, s: u32, t: u32, n: u32) -> Self {
        self.raw(0xf820_0000 | s << 16 | n << 5 | t)
    }
    /// `CAS Xs, Xt, [Xn]`.
    pub fn cas_x(self, s: u32, t: u32, n: u32) -> Self {
        self.raw(0xc8a0_7c00 | s << 16 | n << 5 | t)
    }
    /// `DC ZVA, Xt`.
    pub fn dc_zva(self, t: u32) -> Self {
        self.raw(0xd50b_7420 | t)
    }
    /// `CBNZ Wt` over `instructions`, backwards if negative.
    pub fn cbnz_w(self, t: u32, instructions: i32) -> Self {
        self.raw(0x3500_0000 | (instructions.cast_unsigned() & 0x7_ffff) << 5 | t)
    }
    /// `B` over `instructions`, backwards if negative.
    pub fn b(self, instructions: i32) -> Self {
        self.raw(0x1400_0000 | instructions.cast_unsigned() & 0x3ff_ffff)
    }
    /// `BLR Xn`.
    pub fn blr(self, n: u32) -> Self {
        self.raw(0xd63f_0000 | n << 5)
    }
    /// `RET`.
    pub fn ret(self) -> Self {
        self.raw(0xd65f_03c0)
    }
    /// Instructions so far.
    pub fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap()
    }

    pub fn hvc(self) -> Self {
        self.raw(0xd400_0002)
    }
    pub fn smc(self) -> Self {
        self.raw(0xd400_0003)
    }
    pub fn wfi(self) -> Self {
        self.raw(0xd503_207f)
    }
    pub fn isb(self) -> Self {
        self.raw(0xd503_3fdf)
    }
    /// `B .`
    pub fn spin(self) -> Self {
        self.raw(0x1400_0000)
    }
    /// `WFI; B` back to it.
    pub fn sleep_forever(self) -> Self {
        self.wfi().raw(0x17ff_ffff)
    }
    pub fn mrs(self, t: u32, register: SysReg) -> Self {
        self.raw(0xd530_0000 | system(register) | t)
    }
    pub fn msr(self, register: SysReg, t: u32) -> Self {
        self.raw(0xd510_0000 | system(register) | t)
    }

    /// `[address] = value`, 32 bits, through X1 and X2.
    pub fn poke(self, address: u64, value: u32) -> Self {
        self.set(1, address).set(2, u64::from(value)).str_w(2, 1)
    }

    /// Calls the firmware with X0 to X3.
    pub fn firmware(self, call: [u64; 4]) -> Self {
        (0..)
            .zip(call)
            .fold(self, |program, (n, value)| program.set(n, value))
            .hvc()
    }

    /// Turns the machine off.
    pub fn off(self) -> Self {
        self.firmware([0x8400_0008, 0, 0, 0])
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}
