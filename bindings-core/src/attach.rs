//! Where the streams of durable commands are taken up.

use supermachine::StreamOffsets;

use crate::numbers::optional;
use crate::{BindingError, Result};

/// From where on the streams of a durable command are taken up.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// Bytes of its standard output that are left out; none by default.
    pub stdout: Option<f64>,
    /// The same of its standard error.
    pub stderr: Option<f64>,
    /// Leave out all that it has written so far.
    pub latest: bool,
}

impl AttachOptions {
    pub(crate) fn offsets(self) -> Result<StreamOffsets> {
        let said = [self.stdout, self.stderr];
        if self.latest && said.iter().any(Option::is_some) {
            return Err(BindingError::invalid(
                "either latest, or places in the outputs",
            ));
        }
        if self.latest {
            return Ok(StreamOffsets::LATEST);
        }
        Ok(StreamOffsets {
            stdout: optional("stdout", self.stdout, 0)?.unwrap_or_default(),
            stderr: optional("stderr", self.stderr, 0)?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbers_or_the_latest() {
        let from = |stdout, latest| AttachOptions {
            stdout,
            latest,
            ..AttachOptions::default()
        };
        assert_eq!(from(None, true).offsets().unwrap(), StreamOffsets::LATEST);
        assert_eq!(from(Some(7.0), false).offsets().unwrap().stdout, 7);
        assert!(from(Some(7.0), true).offsets().is_err());
        assert!(from(Some(-1.0), false).offsets().is_err());
    }
}
