//! The allocated AdvSIMD encodings are the ones that the GNU disassembler knows.

#![allow(clippy::cast_possible_truncation)]

mod simd_harness;

use simd_harness::{CLASSES, Random, disassemble, structure};
use std::collections::HashSet;
use supermachine_softhv::insn::structure::{MAX_BYTES, StructAccess};
use supermachine_softhv::simd;

/// Canonical mnemonics of the instructions that `simd::decode` covers, without
/// aliases. Those of the "2" forms are left out: a final 2 is dropped first.
const MNEMONICS: &str = "
    shadd uhadd srhadd urhadd shsub uhsub sqadd uqadd sqsub uqsub suqadd usqadd
    and bic orr orn eor bsl bit bif not mvni movi
    cmgt cmhi cmge cmhs cmeq cmle cmlt cmtst
    sshl ushl sqshl uqshl srshl urshl sqrshl uqrshl
    smax umax smin umin sabd uabd saba uaba add sub mla mls mul pmul
    smaxp umaxp sminp uminp addp sqdmulh sqrdmulh sqrdmlah sqrdmlsh sdot udot
    saddl uaddl saddw uaddw ssubl usubl ssubw usubw addhn raddhn subhn rsubhn
    sabal uabal sabdl uabdl smlal umlal smlsl umlsl smull umull pmull
    sqdmlal sqdmlsl sqdmull
    rev64 rev32 rev16 saddlp uaddlp cls clz cnt rbit sadalp uadalp sqabs sqneg
    abs neg xtn sqxtn sqxtun uqxtn shll
    saddlv uaddlv smaxv umaxv sminv uminv addv
    sshr ushr ssra usra srshr urshr srsra ursra sri shl sli sqshlu
    shrn rshrn sqshrn sqrshrn uqshrn uqrshrn sqshrun sqrshrun sshll ushll
    dup ins smov umov zip1 uzp1 trn1 ext tbl tbx zip uzp trn
    aese aesd aesmc aesimc sha1c sha1p sha1m sha1h sha1su0 sha1su1
    sha256h sha256su0 sha256su1
";

#[test]
fn decoder_allocates_what_the_disassembler_knows() {
    let mut random = Random(1);
    // bits 28:25 are x111; bit 31 and, with bit 28, not bit 30 belong to
    // scalar floating point
    let anywhere = (0x8e00_0000, 0x0e00_0000);
    let mut words = Vec::new();
    for (mask, value) in std::iter::once(anywhere).chain(CLASSES) {
        for _ in 0..20_000 {
            let word = random.next() as u32 & !mask | value;
            let scalar = word >> 28 & 1 == 1;
            words.push(if scalar { word | 1 << 30 } else { word });
        }
    }
    let known: HashSet<&str> = MNEMONICS.split_whitespace().collect();
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    for (&word, text) in words.iter().zip(disassemble(&words, "decode")) {
        let expected = text.as_ref().is_some_and(|(mnemonic, _)| {
            let base = mnemonic.strip_suffix('2').unwrap_or(mnemonic);
            let is_vector_fmov = mnemonic == "fmov" && word & 0x9ff8_0c00 == 0x0f00_0400;
            let listed = known.contains(base) || known.contains(mnemonic.as_str());
            if listed {
                seen.insert(mnemonic.clone());
            }
            listed || is_vector_fmov
        });
        if simd::decode(word).is_some() != expected {
            wrong.push(format!("{word:08x} expected {expected}: {text:?}"));
        }
    }
    let missing: Vec<_> = known
        .iter()
        .filter(|name| {
            !seen.contains(**name)
                && !seen
                    .iter()
                    .any(|s| s.strip_suffix(['1', '2']) == Some(name))
        })
        .collect();
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(60)]
    );
    assert!(missing.is_empty(), "never generated: {missing:?}");
}

/// The structure access in the disassembler's words.
fn describe(access: &StructAccess) -> (String, String) {
    let text = access.to_string();
    let (mnemonic, operands) = text.split_once(' ').expect("operands");
    (mnemonic.to_owned(), operands.to_owned())
}

#[test]
fn structure_accesses_read_as_the_disassembler_shows_them() {
    let mut random = Random(2);
    let words: Vec<u32> = (0..200_000)
        .map(|_| {
            // mostly without bits in the fields that must be zero
            let word = random.next() as u32 & 0x41ff_ffff | 0x0c00_0000;
            match random.below(8) {
                0 => word,
                1..4 => word & !0x00bf_0000,
                4 => word & !0x0020_0000 | 0x0080_0000,
                _ => word | 0x0080_0000 & !0x0020_0000,
            }
        })
        .collect();
    let mut seen = HashSet::new();
    for (&word, text) in words.iter().zip(disassemble(&words, "struct")) {
        let access = structure(word);
        seen.extend(access.map(|access| describe(&access).0));
        assert_eq!(
            access.as_ref().map(describe),
            text,
            "{word:08x}: {access:?}"
        );
        if let Some(access) = access {
            assert!((1..=MAX_BYTES).contains(&access.total_bytes()));
        }
    }
    assert_eq!(seen.len(), 12, "LD1..LD4, ST1..ST4, LD1R..LD4R");
}
