//! Which words are instructions at all, against `aarch64-linux-gnu-objdump`.

use crate::cases::Random;
use crate::op_of;
use std::process::Command;

/// Mnemonics of FP extensions that are not advertised.
const NOT_ADVERTISED: [&str; 6] = ["fcmla", "fcadd", "frint32", "frint64", "fmlal", "fmlsl"];

/// Whether `text`, as disassembled, is an instruction that the decoder must
/// know: floating point, without half-precision arithmetic.
fn is_ours(text: &str) -> bool {
    let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let float = name.starts_with('f') || ["scvtf", "ucvtf", "urecpe", "ursqrte"].contains(&name);
    if !float || NOT_ADVERTISED.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    // Between formats half precision is base architecture.
    let converts = ["fcvt", "fcvtl", "fcvtl2", "fcvtn", "fcvtn2"].contains(&name);
    let half = operands
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .any(|operand| {
            let scalar = operand.strip_prefix('h');
            scalar.is_some_and(|n| n.parse::<u8>().is_ok())
                || [".4h", ".8h", ".h"]
                    .iter()
                    .any(|kind| operand.ends_with(kind))
        });
    // FMOV of an immediate to a vector is an integer move.
    let vector_move = name == "fmov" && operands.starts_with('v') && operands.contains('#');
    (converts || !half) && !vector_move
}

/// The instruction text of every word of a file of words.
fn disassemble(words: &[u32]) -> Vec<(u32, String)> {
    let path = std::env::temp_dir().join(format!("fp-words-{}.bin", std::process::id()));
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
        .expect("aarch64-linux-gnu-objdump runs (package binutils-aarch64-linux-gnu)");
    let _ = std::fs::remove_file(&path);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("objdump prints text");
    text.lines()
        .filter_map(|line| {
            // Address, word, text, separated by tabs.
            let mut columns = line.split('\t');
            let word = columns.nth(1)?.trim();
            let word = u32::from_str_radix(word, 16).ok()?;
            Some((word, columns.collect::<Vec<_>>().join(" ")))
        })
        .collect()
}

/// Compares allocation over seeded words from the floating-point classes.
pub fn compare(seed: u64, count: usize) {
    let mut random = Random::new(seed);
    let words: Vec<u32> = (0..count)
        .map(|_| {
            let word = random.next().to_le_bytes();
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            // Bits 28:24 of the classes; registers often zero, where fields
            // that must be zero lie.
            let class = random.choose([0x0e, 0x0f, 0x1e, 0x1e, 0x1f]);
            let cleared = random.choose([0, 0x0000_03c0, 0x001e_0000, 0x8000_0000, 0xa000_0000]);
            (word & !(0x1f << 24) | class << 24) & !cleared
        })
        .collect();
    let listing = disassemble(&words);
    assert_eq!(listing.len(), words.len());
    let wrong: Vec<_> = listing
        .iter()
        .filter(|(word, text)| op_of(*word).is_some() != is_ours(text))
        .take(20)
        .collect();
    assert!(wrong.is_empty(), "allocation differs: {wrong:x?}");
}
