//! The counts of [`crate::Tier::Census`]: what compiled code executes, and how much of that
//! the interpreter does for it.
//!
//! What is executed is counted by each vCPU. What the interpreter does is counted for the
//! process, and vCPUs that do so at the same time lose some.

use crate::insn::Insn;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Kinds of instructions that are told apart; the last stands for all further ones.
const SLOTS: usize = 2048;
const FURTHER: usize = SLOTS - 1;

/// What the interpreter executed, by slot.
static BY_INTERPRETER: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// Which slot has what.
static NAMES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// The slot of what is called `name`.
pub fn slot(name: String) -> &'static AtomicU64 {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let next = names.len();
    if next >= FURTHER && !names.contains_key(&name) {
        return &BY_INTERPRETER[FURTHER];
    }
    &BY_INTERPRETER[*names.entry(name).or_insert(next)]
}

/// What was counted, in lines, as many as fit in `room` bytes: first all that was
/// `executed`, then the rest by number.
#[must_use]
pub fn census(executed: u64, room: usize) -> String {
    let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let further = ("no-template others", FURTHER);
    let named = names.iter().map(|(name, slot)| (name.as_str(), *slot));
    let mut lines: Vec<(u64, &str)> = named
        .chain([further])
        .map(|(name, slot)| (BY_INTERPRETER[slot].load(Ordering::Relaxed), name))
        .filter(|(count, _)| *count > 0)
        .collect();
    lines.sort_unstable_by(|a, b| b.cmp(a));
    lines.insert(0, (executed, "executed"));
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
pub fn name_of(insn: &Insn) -> String {
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
    /// That of the block of `words` at byte `offset` of its page.
    pub fn of(words: &[u32], offset: u16) -> Self {
        Self {
            words: words.to_vec(),
            offset,
        }
    }

    /// The words from byte `offset` of the page on.
    pub fn from(&self, offset: u16) -> Option<&[u32]> {
        let index = usize::from(offset.wrapping_sub(self.offset) / 4);
        self.words.get(index..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

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
        let all = census(9, 1 << 14);
        assert!(all.lines().any(|line| line == "7 no-template a"), "{all}");
        assert!(all.starts_with("9 executed\n"), "{all}");
        let first = all.find('\n').unwrap() + 1;
        assert_eq!(census(9, first + 3), all[..first]);
        assert_eq!(census(9, 1), "");
    }
}
