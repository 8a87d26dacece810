//! How a handler continues with the next op.
//!
//! In optimised builds it calls the next handler as the last thing it does, and
//! the compiler turns the call into a jump (`tail.rs`). Nothing in
//! the language promises that, so two things do not rely on it: every branch
//! backwards or to another page looks how deep the host stack is, and returns
//! to the run loop where it is too deep; and `cargo xtask handlers` reads the
//! executables for handlers that call.
//!
//! In builds without optimisation, where the call would stay a call, a handler
//! returns the next op instead, to a loop (`trampoline.rs`): the same results,
//! several times slower. `build.rs` chooses, by the level that this crate is
//! compiled at.

#[cfg_attr(tail_calls, path = "tail.rs")]
#[cfg_attr(not(tail_calls), path = "trampoline.rs")]
mod form;

#[cfg(tail_calls)]
#[cfg_attr(target_arch = "x86_64", path = "stack_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "stack_aarch64.rs")]
mod stack;

#[cfg(compiles)]
#[path = "enter_x86_64.rs"]
mod enter;

#[cfg(test)]
mod tests;

pub use form::{StackLimit, execute, go_on};
