//! From a block's words to host code.

use super::asm::host::RAX;
use super::asm::{Cc, emit};
use super::branch::{Branch, Way};
use super::flags;
use super::looping::{self, Survey};
use super::state::State;
use super::tally::Tally;
use crate::cpu::op::{self, Handler, Op};
use crate::decode;
use crate::exec::bind::{self, Context};
use crate::exec::branch::{FAR, NEAR};
use crate::exec::{system, tier};
use crate::insn::{Insn, Reg};
use crate::mode::Mode;
use crate::tier::Place;
use std::ptr;

/// A block that was decoded.
pub struct Source<'a> {
    /// Its first op, which has an op for each word behind it.
    pub first: *const Op,
    /// Its words.
    pub words: &'a [u32],
    /// What follows them, if that is not the op behind their ops.
    pub next: Option<*const Op>,
    /// What it was decoded for.
    pub mode: Mode,
    /// Whether the code counts what it executes.
    pub counts: bool,
    /// Whether the vCPU has recorded an inexact result by now: then code of floating
    /// point takes it for granted, and is left where it is not so.
    pub inexact: bool,
}

/// Instructions without a template, one after the other: the interpreter executes
/// copies of their ops, and then an op that leads back.
#[derive(Default)]
struct Aside {
    copies: Vec<Op>,
    /// The op of the first of them in the block itself.
    first: Option<*const Op>,
}

/// How an instruction was dealt with.
enum Done {
    /// Emitted.
    Inline,
    /// Emitted, and nothing follows.
    End,
    /// Not at all.
    Not,
}

/// What a block becomes.
pub struct Translated {
    /// Host code, to be put where [`Way::base`] says.
    pub code: Vec<u8>,
    /// Instructions that the interpreter executes.
    pub aside: usize,
}

/// Translates `source`. `place` keeps ops, which must stay where they are as long
/// as the code may be executed; there may be no room.
pub fn translate(source: &Source<'_>, way: Way, place: &mut Place<'_>) -> Option<Translated> {
    let mut state = State::new(way.gap);
    state.tally = source.counts.then(|| tally(source));
    state.fp_expects_inexact = source.inexact;
    if let Some(survey) = survey(source, way) {
        // SAFETY: as below.
        state.begin_loop(source.words, unsafe { &*source.first }, &survey);
    }
    let mut aside = Aside::default();
    let mut asides = 0;
    let mut at = source.first;
    let mut words = source.words.iter();
    while let Some(word) = words.next() {
        let insn = decode::instruction(*word);
        // SAFETY: a block has an op for each of its words, in order.
        let op = unsafe { &*at };
        state.count_one();
        let is_far =
            matches!(insn, Insn::LoadUser { .. } | Insn::StoreUser { .. }) && !source.mode.user;
        if is_far && aside.first.is_none() {
            let behind = words
                .as_slice()
                .first()
                .map(|word| decode::instruction(*word));
            state.next();
            state.settle();
            if behind.is_some_and(|behind| state.user_pair(&insn, &behind, at)) {
                words.next();
                state.flags = None;
                state.count_one();
                // SAFETY: the op of the second, and what is behind that: neither ends
                // the block, nor moves the stack pointer.
                at = unsafe { at.add(2) };
                continue;
            }
        }
        state.next();
        state.flags_are_unused = flags::sets(&insn) && flags::are_overwritten(words.as_slice());
        let done = instruction(&mut state, &mut aside, &insn, op, source.mode, way, place)?;
        match done {
            Done::End => return finish(state, asides, way, place),
            Done::Inline => {}
            Done::Not => {
                asides += 1;
                let bound = bind::bind(&insn, context(source.mode, op));
                state.flush();
                state.count_aside(&insn);
                aside.first.get_or_insert(at);
                if bound.ends {
                    state.leave(aside.first.unwrap_or(at));
                    return finish(state, asides, way, place);
                }
                let mut copy = bound.op;
                copy.pc_offset = op.pc_offset;
                aside.copies.push(copy);
            }
        }
        let is_aside = aside.first.is_some();
        // SAFETY: what does not end a block has an op behind it.
        at = unsafe { at.add(1) };
        // SAFETY: as above.
        let look = unsafe { &*at };
        if looks_at_stack(look, op) {
            if is_aside {
                aside.copies.push(look.clone());
            } else {
                look_at_stack(&mut state, at);
            }
            // SAFETY: it does not end a block.
            at = unsafe { at.add(1) };
        }
    }
    // What just continues: the op behind the last.
    // SAFETY: as above.
    let last = unsafe { &*at };
    state.flush();
    match (source.next, aside.first) {
        (None, Some(first)) => state.leave(first),
        (None, None) => {
            let kind = if last.pc_offset < 4092 { NEAR } else { FAR };
            state.take(at, kind, way);
        }
        (Some(next), None) => state.leave(next),
        (Some(next), Some(_)) => {
            let on = Op::new(tier::pass);
            on.link.set(next);
            aside.copies.push(on);
            let copies = place(&mut aside.copies)?;
            state.leave(copies);
        }
    }
    finish(state, asides, way, place)
}

/// What the loop of `source` uses, if that is one, and everything in it has a template.
fn survey(source: &Source<'_>, way: Way) -> Option<Survey> {
    if looping::length(source.words) == 0 {
        return None;
    }
    let mut state = State::new(0);
    state.fp_expects_inexact = source.inexact;
    let mut at = source.first;
    for word in source.words {
        let insn = decode::instruction(*word);
        // SAFETY: a block has an op for each of its words, in order.
        let op = unsafe { &*at };
        state.next();
        state.settle();
        match template(&mut state, &insn, op, source.mode, way) {
            Done::Inline => {}
            Done::End => break,
            Done::Not => return None,
        }
        // SAFETY: what does not end a block has an op behind it.
        at = unsafe { at.add(1) };
        // SAFETY: as above.
        let look = unsafe { &*at };
        if looks_at_stack(look, op) {
            look_at_stack(&mut state, at);
            // SAFETY: it does not end a block.
            at = unsafe { at.add(1) };
        }
    }
    Some(Survey {
        general: state.general,
        vectors: state.vectors,
        uses_float: state.fp_controls_known,
        is_inexact: state.fp_inexact_known,
    })
}

/// Whether `look`, the op behind `op`, looks at what that did to the stack pointer.
fn looks_at_stack(look: &Op, op: &Op) -> bool {
    look.pc_offset == op.pc_offset && ptr::fn_addr_eq(look.run, system::stack_moved as Handler)
}

fn finish(mut state: State, aside: usize, way: Way, place: &mut Place<'_>) -> Option<Translated> {
    state.finish(way, place)?;
    if state.general.is_short || state.vectors.is_short {
        return None;
    }
    Some(Translated {
        code: state.asm.code,
        aside,
    })
}

fn tally(source: &Source<'_>) -> Tally {
    // SAFETY: a block has ops.
    let offset = unsafe { (*source.first).pc_offset };
    Tally::of(source.words, offset)
}

fn context(mode: Mode, op: &Op) -> Context {
    Context {
        mode,
        offset: op.pc_offset,
    }
}

/// Emits `insn` and, before it, the way back from what is aside. `None` if there
/// is no room for ops.
fn instruction(
    state: &mut State,
    aside: &mut Aside,
    insn: &Insn,
    op: &Op,
    mode: Mode,
    way: Way,
    place: &mut Place<'_>,
) -> Option<Done> {
    if !state.leaves_flags(insn, op.pc_offset) {
        state.settle();
    }
    if aside.first.is_none() {
        return Some(template(state, insn, op, mode, way));
    }
    let before = state.asm.code.len();
    // Where the copies are is known once they are needed.
    let operand = state.away();
    let back = way.base + state.asm.code.len();
    state.forget();
    let done = template(state, insn, op, mode, way);
    if matches!(done, Done::Not) {
        state.asm.code.truncate(before);
        state.forget();
        return Some(done);
    }
    aside.copies.push(Op::new(super::handler_at(back)));
    let copies = place(&mut aside.copies)?;
    state.asm.set_operand(operand, copies.addr() as u64);
    aside.first = None;
    Some(done)
}

fn template(state: &mut State, insn: &Insn, op: &Op, mode: Mode, way: Way) -> Done {
    let flags = state.flags.take();
    let (at, offset) = (ptr::from_ref(op), op.pc_offset);
    match state.branch(insn, at, offset, flags, way) {
        Branch::End => return Done::End,
        Branch::Conditional => return Done::Inline,
        Branch::Not => {}
    }
    let inline = if insn.is_memory() {
        !(mode.fp_traps && insn.is_vector()) && state.memory(insn, at, offset, mode.user)
    } else if let Insn::ReadSys { rt, .. } = *insn {
        let bound = bind::bind(insn, context(mode, op)).op;
        let is_plain = ptr::fn_addr_eq(bound.run, system::mrs_plain as Handler);
        if is_plain {
            emit!(
                state.asm,
                movq_rm,
                RAX,
                super::asm::at(super::asm::host::RDI, bound.imm as i32)
            );
            state.set(rt, RAX);
        }
        is_plain
    } else if let Insn::Barrier { .. } = *insn {
        let run = bind::bind(insn, context(mode, op)).op.run;
        let is_full = ptr::fn_addr_eq(run, system::dmb as Handler);
        if is_full {
            state.fence();
        }
        // Any order of the host's is what the weak ones ask for.
        is_full || ptr::fn_addr_eq(run, system::dmb_weak as Handler)
    } else if let Insn::Hint { number } = *insn {
        // NOP and what is one here; YIELD, WFE and WFI are not.
        !(1..=3).contains(&number)
    } else if insn.is_vector() {
        let mut alone = bind::bind(insn, context(mode, op)).op;
        alone.pc_offset = offset;
        state.alone = Some(alone);
        let inline = !mode.fp_traps && (state.float(insn, op, flags) || state.vectors(insn, op));
        state.come_back();
        inline
    } else {
        state.integer(insn, offset, flags)
    };
    if inline { Done::Inline } else { Done::Not }
}

/// Behind an instruction that may have moved the stack pointer off its
/// alignment, which blocks are decoded for: `look` finds out whether it matters.
fn look_at_stack(state: &mut State, look: *const Op) {
    state.next();
    state.settle();
    state.flags = None;
    let sp = state.read_slot(op::SP);
    const { assert!(op::SP == Reg::SP.number()) };
    emit!(state.asm, testl_mi, sp, 15u32);
    let off = state.asm.jump_if(Cc::Ne);
    state.leave_at(off, look);
}
