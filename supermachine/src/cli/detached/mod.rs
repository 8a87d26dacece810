//! Machines that outlive the tool: each has a process of the tool of its own,
//! its supervisor, and a directory with what is known of it and what its command
//! wrote, until that is removed.

pub mod clients;
pub mod log;
mod record;
mod start;
mod supervise;

pub use record::{About, Record, State, all};
pub use start::{Attended, attend, start};
pub use supervise::{Going, Supervised, Work, supervise};
