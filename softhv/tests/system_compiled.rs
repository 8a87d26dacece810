//! The tests of `system`, with every block compiled as soon as it is entered.
#![allow(dead_code, clippy::cast_possible_truncation)]

#[path = "a64/assembler.rs"]
mod assembler;
#[path = "system/exceptions.rs"]
mod exceptions;
#[path = "system/execution.rs"]
mod execution;
#[path = "system/exits.rs"]
mod exits;
#[path = "system/layout.rs"]
mod layout;
#[path = "system/litmus.rs"]
mod litmus;
#[path = "system/machine.rs"]
mod machine;
#[path = "system/rewriting.rs"]
mod rewriting;
#[path = "system/stack.rs"]
mod stack;
#[path = "system/stepping.rs"]
mod stepping;
#[path = "system/translation.rs"]
mod translation;

/// What the engine compiles here.
const TIER: supermachine_softhv::Tier = supermachine_softhv::Tier::Compile;
