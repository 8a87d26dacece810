//! The system level: exceptions, translation, traps and exits to the monitor,
//! by small programs at EL1 and EL0.
#![allow(dead_code, clippy::cast_possible_truncation)]

#[path = "../a64/assembler.rs"]
mod assembler;
/// What the engine compiles here: nothing. `system_compiled` has the other half.
const TIER: supermachine_softhv::Tier = supermachine_softhv::Tier::Interpret;
mod exceptions;
mod execution;
mod exits;
mod layout;
mod litmus;
mod machine;
mod rewriting;
mod stack;
mod stepping;
mod translation;
