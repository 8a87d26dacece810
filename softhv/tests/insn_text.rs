//! Instructions as values say what the GNU disassembler says of their words: every
//! encoding class but AdvSIMD data processing, operands included.

#![allow(clippy::cast_possible_truncation)]

#[path = "a64/classes.rs"]
#[allow(dead_code, reason = "what only streams need is in it, too")]
mod classes;
mod simd_harness;

use classes::{CLASSES, Kind};
use simd_harness::{Random, disassemble};
use std::collections::BTreeSet;
use supermachine_softhv::decode::instruction;
use supermachine_softhv::insn::Insn;

/// Encoding classes that instruction streams do not have, since they branch, trap
/// or change the system's state: fixed bits and their values.
const MORE: &[(u32, u32)] = &[
    (0x7c00_0000, 0x1400_0000), // b, bl
    (0xff00_0010, 0x5400_0000), // b.cond
    (0x7e00_0000, 0x3400_0000), // cbz, cbnz
    (0x7e00_0000, 0x3600_0000), // tbz, tbnz
    (0xfe1f_fc1f, 0xd61f_0000), // br, blr, ret, eret
    (0xff00_0000, 0xd400_0000), // exceptions
    (0xfffe_001c, 0xd400_0000),
    (0xffff_f01f, 0xd503_201f), // hints
    (0xffff_f01f, 0xd503_301f), // barriers
    (0xfff8_f01f, 0xd500_401f), // msr, immediate
    (0xffd0_0000, 0xd510_0000), // mrs, msr
    (0xfff8_f000, 0xd508_7000), // ic, dc, at
    (0xfff8_f000, 0xd508_8000), // tlbi
    (0x3b00_0000, 0x1800_0000), // literals
    (0xbfa0_0000, 0x8820_0000), // exclusive pairs
    (0x3f20_fc00, 0x3820_c000), // ldapr
    (0x3b00_0000, 0x3800_0000), // loads and stores of every kind
    (0x3a00_0000, 0x2800_0000),
    (0x1e00_0000, 0x0a00_0000), // data processing, register
    (0x1c00_0000, 0x1000_0000), // data processing, immediate
    (0x5f00_0000, 0x1e00_0000), // scalar floating point
    (0x3f00_0000, 0x0800_0000), // exclusive and ordered
];

/// Words of each class, the small ones as often as the large ones.
fn words() -> Vec<u32> {
    let vector = |(mask, value, kind, _): &(u32, u32, Kind, u32)| {
        let is_simd = *kind == Kind::Vector && value & 0x0e00_0000 == 0x0e00_0000;
        (!is_simd || value & 0x5000_0000 == 0x1000_0000).then_some((*mask, *value))
    };
    let mut random = Random(7);
    let mut words = Vec::new();
    for (mask, value) in CLASSES
        .iter()
        .filter_map(vector)
        .chain(MORE.iter().copied())
    {
        for _ in 0..4000 {
            let word = random.next() as u32 & !mask | value;
            // Registers 31 and small fields come too rarely by chance.
            words.push(match random.below(8) {
                0 => word | 0x1f & !mask,
                1 => word | 0x3e0 & !mask,
                2 => word & (!0x001f_fc00 | mask),
                _ => word,
            });
        }
    }
    words
}

/// The operand that begins with `#`, as a number.
fn immediate(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('#')?;
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// MOVZ and MOVN as the value that they move.
fn moved(mnemonic: &str, operands: &str) -> Option<String> {
    let mut parts = operands.split(", ");
    let (register, imm) = (parts.next()?, immediate(parts.next()?)?);
    let shift = parts
        .next()
        .and_then(|s| immediate(s.strip_prefix("lsl ")?));
    let value = imm << shift.unwrap_or(0);
    let value = match mnemonic {
        "movz" => value,
        _ if register.starts_with('w') => !value & 0xffff_ffff,
        _ => !value,
    };
    Some(format!("mov {register}, #{value:#x}"))
}

/// What the disassembler says of the word at `at`, without what values do not keep:
/// how an offset was encoded, where the word is, names of registers.
fn normal(mnemonic: &str, operands: &str, at: u64) -> String {
    let operands = operands.split("//").next().unwrap_or("").trim();
    let mnemonic = match mnemonic {
        _ if mnemonic.starts_with("ldur") || mnemonic.starts_with("stur") => {
            mnemonic.replacen("ur", "r", 1)
        }
        "prfum" => "prfm".to_owned(),
        _ => mnemonic.to_owned(),
    };
    let name = mnemonic.as_str();
    if let "movz" | "movn" = name {
        return moved(name, operands).expect("a register and an immediate");
    }
    let (before, last) = operands.rsplit_once(", ").unwrap_or(("", operands));
    // A place, which only branches, literals, ADR and ADRP have.
    if let Some(target) = last.strip_prefix("0x")
        && let Ok(target) = u64::from_str_radix(target, 16)
    {
        let from = if name == "adrp" { at & !0xfff } else { at };
        let comma = if before.is_empty() { "" } else { ", " };
        let by = target.wrapping_sub(from).cast_signed();
        return shorten(name, &format!("{before}{comma}.{by:+}"));
    }
    if name == "fmov" && last.starts_with('#') {
        let value: f64 = last[1..].parse().expect("a number");
        return format!("fmov {before}, #{value}");
    }
    shorten(name, operands)
}

/// Cuts off what one side only has, on both sides.
fn shorten(mnemonic: &str, operands: &str) -> String {
    match mnemonic {
        "ret" if operands.is_empty() => "ret x30".to_owned(),
        // Options and names of system registers.
        "isb" | "dsb" | "dmb" | "clrex" | "mrs" | "hint" => mnemonic.to_owned(),
        "msr" => {
            let last = operands.rsplit(", ").next().unwrap_or("");
            let number = immediate(last).map(|imm| format!("#{imm:#x}"));
            format!("msr {}", number.as_deref().unwrap_or(last))
        }
        "prfm" => {
            let address = operands.split_once(", ").map_or("", |(_, rest)| rest);
            format!("prfm {}", plain(address))
        }
        "" => operands.to_owned(),
        _ if operands.is_empty() => mnemonic.to_owned(),
        _ => format!("{mnemonic} {}", plain(operands)),
    }
}

/// Without shifts by nothing.
fn plain(operands: &str) -> String {
    operands
        .replace(", lsl #0]", "]")
        .replace("x #0]", "x]")
        .replace("w #0]", "w]")
        .replace("#0x0, lsl #12", "#0x0")
}

/// Instructions of extensions that the ID registers do not announce, of debug state,
/// and SYS operations that do nothing here.
const ABSENT: &[&str] = &[
    "abs", "addg", "axflag", "bfcvt", "cfinv", "cnt", "ctz", "dcps1", "dcps2", "dcps3", "drps",
    "dsb", "frint32x", "frint32z", "frint64x", "frint64z", "gmi", "hlt", "irg", "ldlar", "ldlarb",
    "ldlarh", "ldraa", "ldrab", "msr", "pacga", "sb", "smax", "smin", "smstart", "smstop",
    "st64bv", "st64bv0", "stgp", "stllr", "stllrb", "stllrh", "subg", "subp", "sys", "tcancel",
    "tcommit", "umax", "umin", "xaflag",
];

/// Whether `text` is an instruction that this processor does not have.
fn is_absent(text: &str) -> bool {
    let (name, operands) = text.split_once(' ').unwrap_or((text, ""));
    let mut registers = operands.split(", ");
    // Arithmetic of half precision, which conversions between formats are not.
    let half = registers.any(|r| r.starts_with('h') && r[1..].parse::<u8>().is_ok());
    half && name != "fcvt" || ABSENT.contains(&name)
}

/// Whether `ours` has bits that should be others, which processors ignore and the
/// disassembler does not, or is unpredictable where registers are the same.
fn is_lenient(ours: &str, theirs: &str) -> bool {
    match ours.split(' ').next() {
        Some("ldar" | "ldarb" | "ldarh" | "ldpsw") => theirs == "undefined",
        // To PAN and SPSel, which have one bit.
        Some("msr") => theirs == "msr xzr",
        _ => false,
    }
}

#[test]
fn instructions_read_as_the_disassembler_shows_them() {
    let words = words();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (n, (&word, text)) in words.iter().zip(disassemble(&words, "text")).enumerate() {
        let insn = instruction(word);
        if matches!(insn, Insn::Word(_)) {
            continue;
        }
        let theirs = text.map_or("undefined".to_owned(), |(mnemonic, operands)| {
            normal(&mnemonic, &operands, 4 * n as u64)
        });
        let full = insn.to_string();
        let (mnemonic, operands) = full.split_once(' ').unwrap_or((&full, ""));
        let ours = shorten(mnemonic, operands);
        let agree = match insn {
            Insn::Undefined => theirs == "undefined" || is_absent(&theirs),
            _ => ours == theirs || is_lenient(&ours, &theirs),
        };
        if !agree {
            wrong.push(format!("{word:08x} {ours} | {theirs}"));
        }
        seen.insert(mnemonic.to_owned());
    }
    let shown = &wrong[..wrong.len().min(60)];
    assert!(wrong.is_empty(), "{} wrong: {shown:#?}", wrong.len());
    assert!(
        seen.len() > 300,
        "only {} mnemonics were generated",
        seen.len()
    );
}
