//! Waits that somebody may not want any more.

use crate::Error;
use crate::limits::WANTED_LOOK;
use crate::sync::lock;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Tells whether what is waited for is still wanted. Clones are the same.
#[derive(Clone)]
pub struct Wanted {
    is_wanted: Arc<dyn Fn() -> bool + Send + Sync>,
    asked: Arc<Mutex<Instant>>,
}

impl Wanted {
    pub fn new(is_wanted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_wanted: Arc::new(is_wanted),
            asked: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// What is wanted to its end.
    pub fn always() -> Self {
        Self::new(|| true)
    }

    /// Asks, if that was last done long enough ago.
    pub fn is_wanted(&self) -> bool {
        let mut asked = lock(&self.asked);
        if asked.elapsed() < WANTED_LOOK {
            return true;
        }
        *asked = Instant::now();
        drop(asked);
        (self.is_wanted)()
    }

    /// Asks now.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it is not wanted any more.
    pub fn check(&self) -> Result<(), Error> {
        match (self.is_wanted)() {
            true => Ok(()),
            false => Err(Error::Cancelled),
        }
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").finish_non_exhaustive()
    }
}
