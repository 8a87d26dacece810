//! AES, SHA-256 and products of polynomials, where the host has instructions for them:
//! what [`crate::simd`]'s handlers for such hosts do.

use super::asm::{Crypto, emit};
use super::memory::{XMM0, XMM1, XMM2};
use super::state::State;
use crate::insn::{Insn, VReg, VecBinary, VecUnary};

/// The order of lanes turned around.
const TURNED: u8 = 0b00_01_10_11;

impl State {
    /// Emits `insn`; false if it is none of these, or not on this host.
    pub fn crypto(&mut self, insn: &Insn) -> bool {
        match *insn {
            Insn::VecUnary { op, rd, rn, .. } => match op {
                VecUnary::Aese | VecUnary::Aesd | VecUnary::Aesmc | VecUnary::Aesimc => {
                    self.host.aes && self.aes(op, rd, rn)
                }
                VecUnary::Sha256su0 if self.host.sha => {
                    let [d, n] = [rd, rn].map(|reg| self.v_read(reg));
                    emit!(self.asm, movaps_a, XMM0, d);
                    self.asm.crypto(Crypto::SHA256_MSG1, XMM0, n);
                    self.put_vector(rd, true);
                    true
                }
                _ => false,
            },
            Insn::VecBinary {
                op,
                arrangement,
                rd,
                rn,
                rm,
            } => match op {
                VecBinary::Sha256h if self.host.sha => self.sha256_rounds(rd, [rd, rn], rm, true),
                VecBinary::Sha256h2 if self.host.sha => self.sha256_rounds(rd, [rn, rd], rm, false),
                VecBinary::Sha256su1 if self.host.sha => {
                    let [d, n, m] = [rd, rn, rm].map(|reg| self.v_read(reg));
                    emit!(self.asm, movaps_a, XMM0, m);
                    emit!(self.asm, palignr_a, XMM0, n, 4u8);
                    emit!(self.asm, paddd_a, XMM0, d);
                    self.asm.crypto(Crypto::SHA256_MSG2, XMM0, m);
                    self.put_vector(rd, true);
                    true
                }
                VecBinary::Pmull if arrangement.size() == 3 && self.host.pclmul => {
                    let [n, m] = [rn, rm].map(|reg| self.v_read(reg));
                    emit!(self.asm, movaps_a, XMM0, n);
                    let halves = if arrangement.is_full() { 0x11 } else { 0 };
                    self.asm.polynomials(XMM0, m, halves);
                    self.put_vector(rd, true);
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn aes(&mut self, op: VecUnary, rd: VReg, rn: VReg) -> bool {
        let n = self.v_read(rn);
        emit!(self.asm, pxor_a, XMM1, XMM1);
        match op {
            VecUnary::Aese | VecUnary::Aesd => {
                let d = self.v_read(rd);
                emit!(self.asm, movaps_a, XMM0, d);
                emit!(self.asm, pxor_a, XMM0, n);
                let last = if op == VecUnary::Aese {
                    Crypto::AES_ENC_LAST
                } else {
                    Crypto::AES_DEC_LAST
                };
                self.asm.crypto(last, XMM0, XMM1);
            }
            VecUnary::Aesmc => {
                // The inverse of everything that a round does besides MixColumns, then
                // a round.
                emit!(self.asm, movaps_a, XMM0, n);
                self.asm.crypto(Crypto::AES_DEC_LAST, XMM0, XMM1);
                self.asm.crypto(Crypto::AES_ENC, XMM0, XMM1);
            }
            _ => self.asm.crypto(Crypto::AES_IMC, XMM0, n),
        }
        self.put_vector(rd, true);
        true
    }

    /// `rd` = a to d after four rounds if `first`, else e to h. The host keeps the state
    /// as a, b, e, f and c, d, g, h, each from the highest lane down, and does two rounds
    /// at a time, after which the old a, b, e, f are the new c, d, g, h. It takes the
    /// words from XMM0.
    fn sha256_rounds(
        &mut self,
        rd: VReg,
        [abcd, efgh]: [VReg; 2],
        words: VReg,
        first: bool,
    ) -> bool {
        const { assert!(XMM0 == 0) };
        let [abcd, efgh, words] = [abcd, efgh, words].map(|reg| self.v_read(reg));
        emit!(self.asm, pshufd_a, XMM1, efgh, TURNED);
        emit!(self.asm, pshufd_a, XMM2, abcd, TURNED);
        emit!(self.asm, movaps_a, XMM0, XMM1);
        emit!(self.asm, punpckhqdq_a, XMM0, XMM2);
        emit!(self.asm, punpcklqdq_a, XMM1, XMM2);
        emit!(self.asm, movaps_a, XMM2, XMM0);
        // XMM1 is c, d, g, h now, and XMM2 the others.
        emit!(self.asm, movaps_a, XMM0, words);
        self.asm.crypto(Crypto::SHA256_ROUNDS, XMM1, XMM2);
        emit!(self.asm, punpckhqdq_a, XMM0, XMM0);
        self.asm.crypto(Crypto::SHA256_ROUNDS, XMM2, XMM1);
        if first {
            emit!(self.asm, punpckhqdq_a, XMM1, XMM2);
        } else {
            emit!(self.asm, punpcklqdq_a, XMM1, XMM2);
        }
        emit!(self.asm, pshufd_a, XMM0, XMM1, TURNED);
        self.put_vector(rd, true);
        true
    }
}
