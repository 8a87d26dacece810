//! Output that the guest could not keep.

use std::io;

/// Bytes that are missing from the output of a durable command that was taken up
/// again: the guest could not keep them. A read fails with this inside, once, where
/// they were; the next goes on behind them.
///
/// ```
/// use std::io::Read;
/// use supermachine::{ExecOutput, OutputGap};
///
/// fn rest(output: &mut ExecOutput) -> std::io::Result<Vec<u8>> {
///     let mut text = Vec::new();
///     while let Err(error) = output.read_to_end(&mut text) {
///         match OutputGap::of(&error) {
///             Some(gap) => text.extend(format!("[{} bytes lost]", gap.bytes).bytes()),
///             None => return Err(error),
///         }
///     }
///     Ok(text)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of the command's output were not kept; reading goes on behind them")]
#[non_exhaustive]
pub struct OutputGap {
    /// How many.
    pub bytes: u64,
}

impl OutputGap {
    /// The gap that a read failed for, if it was one.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}
