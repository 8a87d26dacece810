//! Emission of host instructions, encoded by `cranelift-assembler-x64`.

use cranelift_assembler_x64::{
    Amode, AmodeOffset, AmodeOffsetPlusKnownOffset, CodeSink, DeferredTarget, KnownOffset,
    Registers, Scale, TrapCode, inst,
};
use std::arch::is_x86_feature_detected;
use std::num::NonZeroU8;

/// What the host can do beyond SSE2.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// FMA, and the operating system keeps its registers.
    pub fma: bool,
    /// AES.
    pub aes: bool,
    /// SHA-256, and what goes with it: shuffles of SSSE3 and SSE4.1.
    pub sha: bool,
    /// Products of polynomials.
    pub pclmul: bool,
    /// Shuffles of bytes.
    pub ssse3: bool,
}

impl Features {
    /// Of this host.
    pub fn here() -> Self {
        Self {
            fma: is_x86_feature_detected!("fma"),
            aes: is_x86_feature_detected!("aes"),
            sha: is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1"),
            pclmul: is_x86_feature_detected!("pclmulqdq"),
            ssse3: is_x86_feature_detected!("ssse3"),
        }
    }
}

/// Instructions that the assembler does not have, of the opcode map 0F 38: the opcode,
/// and whether 66 is in front.
#[derive(Clone, Copy, Debug)]
pub struct Crypto(u8, bool);

#[allow(missing_docs, reason = "named as in manuals")]
impl Crypto {
    pub const AES_IMC: Self = Self(0xdb, true);
    pub const AES_ENC: Self = Self(0xdc, true);
    pub const AES_ENC_LAST: Self = Self(0xdd, true);
    pub const AES_DEC_LAST: Self = Self(0xdf, true);
    pub const SHA256_ROUNDS: Self = Self(0xcb, false);
    pub const SHA256_MSG1: Self = Self(0xcc, false);
    pub const SHA256_MSG2: Self = Self(0xcd, false);
}

/// Names of host registers, by their encoding.
pub mod host {
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
    pub const R8: u8 = 8;
    pub const R9: u8 = 9;
    pub const R10: u8 = 10;
    pub const R11: u8 = 11;
    pub const R12: u8 = 12;
    pub const R13: u8 = 13;
    pub const R14: u8 = 14;
    pub const R15: u8 = 15;
}

/// Registers are what they are: numbers.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Registers for Host {
    type ReadGpr = u8;
    type ReadWriteGpr = u8;
    type WriteGpr = u8;
    type ReadXmm = u8;
    type ReadWriteXmm = u8;
    type WriteXmm = u8;
}

/// Emits one instruction: `emit!(asm, addq_rm, RAX, RCX)`.
macro_rules! emit {
    ($asm:expr, $name:ident $(, $operand:expr)* $(,)?) => {
        ::cranelift_assembler_x64::inst::$name::<$crate::jit::asm::Host>::new($($operand),*)
            .encode(&mut $asm)
    };
}
/// The same of 64 or 32 bits: `sized!(asm, wide, addq_rm, addl_rm, RAX, RCX)`.
macro_rules! sized {
    ($asm:expr, $wide:expr, $long:ident, $short:ident $(, $operand:expr)* $(,)?) => {
        if $wide {
            $crate::jit::asm::emit!($asm, $long $(, $operand)*)
        } else {
            $crate::jit::asm::emit!($asm, $short $(, $operand)*)
        }
    };
}
/// The same with an immediate, by names for 64 bits and a short one, 64, 32 and a
/// short one, 32.
macro_rules! with_imm {
    ($asm:expr, $wide:expr, [$qb:ident, $ql:ident, $lb:ident, $ll:ident], $to:expr, $imm:expr) => {
        match (i8::try_from($imm), $wide) {
            (Ok(short), true) => $crate::jit::asm::emit!($asm, $qb, $to, short),
            (Ok(short), false) => $crate::jit::asm::emit!($asm, $lb, $to, short),
            (Err(_), true) => $crate::jit::asm::emit!($asm, $ql, $to, $imm),
            (Err(_), false) => $crate::jit::asm::emit!($asm, $ll, $to, $imm as u32),
        }
    };
}
/// One instruction by the size of lanes: `by_size!(asm, size, [paddb_a, …], …)`.
macro_rules! by_size {
    ($asm:expr, $size:expr, [$b:ident, $h:ident, $s:ident, $d:ident], $($operand:expr),+ $(,)?) => {
        match $size {
            0 => $crate::jit::asm::emit!($asm, $b, $($operand),+),
            1 => $crate::jit::asm::emit!($asm, $h, $($operand),+),
            2 => $crate::jit::asm::emit!($asm, $s, $($operand),+),
            _ => $crate::jit::asm::emit!($asm, $d, $($operand),+),
        }
    };
}
pub(crate) use {by_size, emit, sized, with_imm};

/// For instructions that could trap: these never do.
pub const NO_TRAP: TrapCode = TrapCode(NonZeroU8::MIN);

/// A condition on the host's flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "named as in assembly")]
pub enum Cc {
    O,
    No,
    B,
    Ae,
    E,
    Ne,
    Be,
    A,
    S,
    Ns,
    L,
    Ge,
    Le,
    G,
    P,
    Np,
}

impl Cc {
    /// The opposite.
    pub fn not(self) -> Self {
        match self {
            Self::O => Self::No,
            Self::No => Self::O,
            Self::B => Self::Ae,
            Self::Ae => Self::B,
            Self::E => Self::Ne,
            Self::Ne => Self::E,
            Self::Be => Self::A,
            Self::A => Self::Be,
            Self::S => Self::Ns,
            Self::Ns => Self::S,
            Self::L => Self::Ge,
            Self::Ge => Self::L,
            Self::Le => Self::G,
            Self::G => Self::Le,
            Self::P => Self::Np,
            Self::Np => Self::P,
        }
    }
}

/// A jump whose target is to be settled: where its distance ends.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Jump(usize);

/// `[base + offset]`.
pub fn at(base: u8, offset: i32) -> Amode<u8> {
    Amode::ImmReg {
        base,
        simm32: AmodeOffsetPlusKnownOffset {
            simm32: AmodeOffset::new(offset),
            offset: None,
        },
        trap: None,
    }
}

/// `[base + index << shift]`; `shift` is 3 at most, and `index` not RSP.
pub fn indexed(base: u8, index: u8, shift: u8) -> Amode<u8> {
    Amode::ImmRegRegShift {
        base,
        index: index.into(),
        scale: match shift {
            0 => Scale::One,
            1 => Scale::Two,
            2 => Scale::Four,
            _ => Scale::Eight,
        },
        simm32: AmodeOffset::ZERO,
        trap: None,
    }
}

/// `[base + index + offset]`; `index` is not RSP.
pub fn indexed_by(base: u8, index: u8, offset: i32) -> Amode<u8> {
    Amode::ImmRegRegShift {
        base,
        index: index.into(),
        scale: Scale::One,
        simm32: AmodeOffset::new(offset),
        trap: None,
    }
}

/// Code being emitted.
#[derive(Debug, Default)]
pub struct Asm {
    /// The bytes.
    pub code: Vec<u8>,
}

impl CodeSink for Asm {
    #[inline]
    fn put1(&mut self, value: u8) {
        self.code.push(value);
    }
    #[inline]
    fn put2(&mut self, value: u16) {
        self.code.extend_from_slice(&value.to_le_bytes());
    }
    #[inline]
    fn put4(&mut self, value: u32) {
        self.code.extend_from_slice(&value.to_le_bytes());
    }
    #[inline]
    fn put8(&mut self, value: u64) {
        self.code.extend_from_slice(&value.to_le_bytes());
    }
    // Nothing that is emitted here traps, and nothing is relative to labels.
    fn add_trap(&mut self, _: TrapCode) {}
    fn use_target(&mut self, _: DeferredTarget) {}
    fn known_offset(&self, _: KnownOffset) -> i32 {
        0
    }
}

impl Asm {
    /// Jumps on `cc`.
    pub fn jump_if(&mut self, cc: Cc) -> Jump {
        macro_rules! jump {
            ($name:ident) => {
                inst::$name::new(0).encode(self)
            };
        }
        match cc {
            Cc::O => jump!(jo_d32),
            Cc::No => jump!(jno_d32),
            Cc::B => jump!(jb_d32),
            Cc::Ae => jump!(jae_d32),
            Cc::E => jump!(je_d32),
            Cc::Ne => jump!(jne_d32),
            Cc::Be => jump!(jbe_d32),
            Cc::A => jump!(ja_d32),
            Cc::S => jump!(js_d32),
            Cc::Ns => jump!(jns_d32),
            Cc::L => jump!(jl_d32),
            Cc::Ge => jump!(jge_d32),
            Cc::Le => jump!(jle_d32),
            Cc::G => jump!(jg_d32),
            Cc::P => jump!(jp_d32),
            Cc::Np => jump!(jnp_d32),
        }
        Jump(self.code.len())
    }

    /// Jumps.
    pub fn jump(&mut self) -> Jump {
        inst::jmp_d32::new(0).encode(self);
        Jump(self.code.len())
    }

    /// Jumps unless RCX is zero, whatever the flags are, which stay.
    pub fn skip_if_rcx_is_zero(&mut self) -> Jump {
        // jrcxz, over a jump of five bytes.
        self.code.extend_from_slice(&[0xe3, 5]);
        self.jump()
    }

    /// Vector register `to` = the low 64 bits of `from`; its upper half becomes zero.
    pub fn low_half(&mut self, to: u8, from: u8) {
        // movq xmm, xmm, which the assembler has for general registers only.
        let rex = 0x40 | (to >> 3) << 2 | from >> 3;
        self.code.push(0xf3);
        if rex != 0x40 {
            self.code.push(rex);
        }
        let operands = 0xc0 | (to & 7) << 3 | from & 7;
        self.code.extend_from_slice(&[0x0f, 0x7e, operands]);
    }

    /// An instruction of the map 0F 38 on vector registers.
    pub fn crypto(&mut self, what: Crypto, to: u8, from: u8) {
        self.two_vectors(what.1, &[0x0f, 0x38, what.0], to, from);
    }

    /// `to` = the product of a half of `to` and one of `from`, as polynomials: the upper
    /// ones if `halves` is 11 (hexadecimal), the lower if 0.
    pub fn polynomials(&mut self, to: u8, from: u8, halves: u8) {
        self.two_vectors(true, &[0x0f, 0x3a, 0x44], to, from);
        self.code.push(halves);
    }

    fn two_vectors(&mut self, prefix: bool, opcode: &[u8], to: u8, from: u8) {
        if prefix {
            self.code.push(0x66);
        }
        let rex = 0x40 | (to >> 3) << 2 | from >> 3;
        if rex != 0x40 {
            self.code.push(rex);
        }
        self.code.extend_from_slice(opcode);
        self.code.push(0xc0 | (to & 7) << 3 | from & 7);
    }

    /// Lets `jump` lead to what is emitted next.
    pub fn land(&mut self, jump: Jump) {
        let here = self.code.len() as i32;
        self.aim(jump, here);
    }

    /// Lets `jump` lead to `target`, in bytes from the first that was emitted.
    pub fn aim(&mut self, jump: Jump, target: i32) {
        let distance = target.wrapping_sub(jump.0 as i32);
        self.code[jump.0 - 4..jump.0].copy_from_slice(&distance.to_le_bytes());
    }

    /// Sets the eight bytes of an operand that is at `place`.
    pub fn set_operand(&mut self, place: usize, value: u64) {
        self.code[place..place + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// `register = value`, without touching the flags.
    pub fn constant(&mut self, register: u8, value: u64) {
        if let Ok(short) = u32::try_from(value) {
            emit!(*self, movl_oi, register, short);
        } else if let Ok(signed) = i32::try_from(value as i64) {
            emit!(*self, movq_mi_sxl, register, signed);
        } else {
            emit!(*self, movabsq_oi, register, value);
        }
    }

    /// Moves 64 bits between registers.
    pub fn copy(&mut self, to: u8, from: u8) {
        if to != from {
            emit!(*self, movq_rm, to, from);
        }
    }

    /// `to = on cc ? from : to`.
    pub fn select(&mut self, cc: Cc, to: u8, from: u8) {
        macro_rules! select {
            ($name:ident) => {
                emit!(*self, $name, to, from)
            };
        }
        match cc {
            Cc::O => select!(cmovoq_rm),
            Cc::No => select!(cmovnoq_rm),
            Cc::B => select!(cmovbq_rm),
            Cc::Ae => select!(cmovaeq_rm),
            Cc::E => select!(cmoveq_rm),
            Cc::Ne => select!(cmovneq_rm),
            Cc::Be => select!(cmovbeq_rm),
            Cc::A => select!(cmovaq_rm),
            Cc::S => select!(cmovsq_rm),
            Cc::Ns => select!(cmovnsq_rm),
            Cc::L => select!(cmovlq_rm),
            Cc::Ge => select!(cmovgeq_rm),
            Cc::Le => select!(cmovleq_rm),
            Cc::G => select!(cmovgq_rm),
            Cc::P => select!(cmovpq_rm),
            Cc::Np => select!(cmovnpq_rm),
        }
    }
}
