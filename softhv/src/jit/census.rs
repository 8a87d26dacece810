//! What compiled code executes, and how much of that the interpreter does for it: the
//! code of [`crate::Tier::Census`] counts.
//!
//! The counts are of the process, and vCPUs that count at the same time lose some.

use super::asm::host::{RDX, RSI};
use super::asm::{at, emit};
use super::state::State;
use super::translate::Source;
use crate::cpu::op::Op;
use crate::decode;
use crate::insn::Insn;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Kinds of instructions that are told apart; the last stands for all further ones.
const SLOTS: usize = 2048;
const FURTHER: usize = SLOTS - 1;

/// All instructions that compiled code executed.
static EXECUTED: AtomicU64 = AtomicU64::new(0);
/// Those of them that the interpreter executed, by slot.
static BY_INTERPRETER: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// Which slot has what.
static NAMES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// The slot of what is called `name`.
fn slot(name: String) -> &'static AtomicU64 {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let next = names.len();
    if next >= FURTHER && !names.contains_key(&name) {
        return &BY_INTERPRETER[FURTHER];
    }
    &BY_INTERPRETER[*names.entry(name).or_insert(next)]
}

/// What was counted, in lines, as many as fit in `room` bytes: first all, then the rest
/// by number.
#[must_use]
pub fn census(room: usize) -> String {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let further = ("no-template others", FURTHER);
    let named = names.iter().map(|(name, slot)| (name.as_str(), *slot));
    let mut lines: Vec<(u64, &str)> = named
        .chain([further])
        .map(|(name, slot)| (BY_INTERPRETER[slot].load(Ordering::Relaxed), name))
        .filter(|(count, _)| *count > 0)
        .collect();
    lines.sort_unstable_by(|a, b| b.cmp(a));
    lines.insert(0, (EXECUTED.load(Ordering::Relaxed), "executed"));
    let mut text = String::new();
    for (count, name) in lines {
        let before = text.len();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{count} {name}");
        if text.len() > room {
            text.truncate(before);
            break;
        }
    }
    text
}

/// The instruction's name, and its arrangement if it has one.
fn name_of(insn: &Insn) -> String {
    let text = insn.to_string();
    // What prints as the value's own form names the operation in it.
    let field = |name: &str| {
        let (_, behind) = text.split_once(name)?;
        behind.split([',', ' ']).next()
    };
    if let Some(op) = field("op: ") {
        let arrangement = field("arrangement: ").unwrap_or_default();
        return format!("{op}.{arrangement}");
    }
    let mut words = text.split([' ', ',']);
    let name = words.next().unwrap_or_default();
    let operand = words.find(|word| !word.is_empty()).unwrap_or_default();
    match operand.split_once('.') {
        Some((register, kind)) if register.trim_start_matches('{').starts_with('v') => {
            let kind = kind.split(['[', '}']).next().unwrap_or(kind);
            format!("{name}.{kind}")
        }
        _ => name.to_owned(),
    }
}

/// A block whose code counts.
#[derive(Debug)]
pub struct Tally {
    words: Vec<u32>,
    offset: u16,
}

impl Tally {
    /// That of `source`.
    pub fn of(source: &Source<'_>) -> Self {
        Self {
            words: source.words.to_vec(),
            // SAFETY: a block has ops.
            offset: unsafe { (*source.first).pc_offset },
        }
    }
}

impl State {
    /// Counts one instruction, at whose start this is. The host's flags stay.
    pub fn count_one(&mut self) {
        if self.tally.is_none() {
            return;
        }
        // Nothing is in registers for one instruction behind it.
        self.settle();
        self.asm
            .constant(RSI, ptr::from_ref(&EXECUTED).expose_provenance() as u64);
        emit!(self.asm, movq_rm, RDX, at(RSI, 0));
        emit!(self.asm, leaq_rm, RDX, at(RDX, 1));
        emit!(self.asm, movq_mr, at(RSI, 0), RDX);
    }

    /// Counts `insn`, which the interpreter executes. The host's flags are of no use.
    pub fn count_aside(&mut self, insn: &Insn) {
        if self.tally.is_some() {
            self.add(slot(format!("no-template {}", name_of(insn))), 1);
        }
    }

    /// Counts the instruction of `op`, which the interpreter executes because of what it
    /// met, and if it does the `rest` of the block as well, that too.
    pub fn count_declined(&mut self, op: *const Op, rest: bool) {
        let Some(tally) = &self.tally else {
            return;
        };
        // SAFETY: an op of the block, or of one instruction of it.
        let offset = unsafe { (*op).pc_offset };
        let index = usize::from(offset.wrapping_sub(tally.offset) / 4);
        let Some(behind) = tally.words.get(index..) else {
            return;
        };
        let name = behind.first().map(|word| decode::instruction(*word));
        let name = name.map_or_else(String::new, |insn| name_of(&insn));
        let rest = if rest { behind.len() - 1 } else { 0 };
        // The rest was not counted yet as executed.
        self.add(&EXECUTED, rest);
        self.add(slot(format!("declined {name}")), 1 + rest);
    }

    /// Adds `count` at `to`, by RSI alone, and spoils the host's flags.
    fn add(&mut self, to: &'static AtomicU64, count: usize) {
        if count > 0 {
            let address = ptr::from_ref(to).expose_provenance();
            self.asm.constant(RSI, address as u64);
            // A block has 64 instructions at most.
            emit!(self.asm, addq_mi_sxb, at(RSI, 0), count as i8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_called_by_name_and_arrangement() {
        // add x1, x2, #3; ldr x1, [x2]; b .+8; add v0.4s, v1.4s, v2.4s
        let words = [0x9100_0c41, 0xf940_0041, 0x1400_0002, 0x4ea2_8420];
        let names = words.map(|word: u32| name_of(&decode::instruction(word)));
        assert_eq!(names, ["add", "ldr", "b", "Add.S4"]);
    }

    #[test]
    fn no_line_is_cut() {
        slot("no-template a".to_owned()).fetch_add(7, Ordering::Relaxed);
        let all = census(1 << 14);
        assert!(all.lines().any(|line| line == "7 no-template a"), "{all}");
        let first = all.find('\n').unwrap() + 1;
        assert_eq!(census(first + 3), all[..first]);
        assert_eq!(census(1), "");
    }
}
