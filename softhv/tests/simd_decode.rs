//! The allocated AdvSIMD encodings are the ones that the GNU disassembler knows.

#![allow(clippy::cast_possible_truncation)]

mod simd_harness;

use simd_harness::Random;
use std::collections::HashSet;
use std::process::Command;
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

/// Disassembles `words`, one mnemonic and operand string each; `None` where
/// the disassembler knows no instruction.
fn disassemble(words: &[u32], name: &str) -> Vec<Option<(String, String)>> {
    let path = std::env::temp_dir().join(format!("softhv-{name}-{}", std::process::id()));
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(&path, bytes).expect("write the words");
    let output = Command::new("aarch64-linux-gnu-objdump")
        .args([
            "-D",
            "-z",
            "-b",
            "binary",
            "-m",
            "aarch64",
            "-M",
            "no-aliases",
        ])
        .arg(&path)
        .output()
        .expect("run aarch64-linux-gnu-objdump");
    std::fs::remove_file(&path).expect("remove the words");
    let text = String::from_utf8(output.stdout).expect("text");
    let parsed: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            fields.next()?.trim().strip_suffix(':')?;
            fields.next()?;
            let mnemonic = fields.next()?.trim();
            let operands = fields.next().unwrap_or("").to_owned();
            Some(
                (mnemonic != ".inst" && !operands.contains("undefined"))
                    .then(|| (mnemonic.to_owned(), operands)),
            )
        })
        .collect();
    assert_eq!(parsed.len(), words.len(), "one line per word");
    parsed
}

#[test]
fn decoder_allocates_what_the_disassembler_knows() {
    let mut random = Random(1);
    let words: Vec<u32> = (0..400_000)
        .map(|_| {
            // bits 28:25 are x111; bit 31 and, with bit 28, not bit 30 belong
            // to scalar floating point
            let word = random.next() as u32 & 0x7fff_ffff | 0x0e00_0000;
            if word >> 28 & 1 == 1 {
                word | 1 << 30
            } else {
                word
            }
        })
        .collect();
    let known: HashSet<&str> = MNEMONICS.split_whitespace().collect();
    let mut seen = HashSet::new();
    let mut wrong = Vec::new();
    for (&word, text) in words.iter().zip(disassemble(&words, "decode")) {
        let expected = text.as_ref().is_some_and(|(mnemonic, operands)| {
            let base = mnemonic.strip_suffix('2').unwrap_or(mnemonic);
            let is_vector_fmov = mnemonic == "fmov" && word & 0x9ff8_0c00 == 0x0f00_0400;
            let listed = known.contains(base) || known.contains(mnemonic.as_str());
            if listed {
                seen.insert(mnemonic.clone());
            }
            (listed || is_vector_fmov) && !operands.contains("sysreg")
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
