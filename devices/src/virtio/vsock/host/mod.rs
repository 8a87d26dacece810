//! Writing to a socket whose reader left, without a signal for the process:
//! an embedder need not ignore SIGPIPE for us.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(target_vendor = "apple")]
pub(super) use apple::{prepare, send};

#[cfg(not(target_vendor = "apple"))]
mod unix;
#[cfg(not(target_vendor = "apple"))]
pub(super) use unix::{prepare, send};
