//! What the owner of a pool does in its machines.

use crate::{Error, Vm};
use std::fmt;
use std::sync::Arc;

/// What the owner of a pool does in its machines.
#[derive(Clone, Default)]
pub struct Hooks {
    pub created: Option<Arc<dyn PoolHook>>,
    pub handed_out: Option<Arc<dyn PoolHook>>,
    pub released: Option<Arc<dyn PoolHook>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("created", &self.created.is_some())
            .field("handed_out", &self.handed_out.is_some())
            .field("released", &self.released.is_some())
            .finish()
    }
}

/// Something that is done in a machine of a pool.
pub trait PoolHook: Fn(&Vm) -> Result<(), Error> + Send + Sync + 'static {}

impl<F: Fn(&Vm) -> Result<(), Error> + Send + Sync + 'static> PoolHook for F {}
