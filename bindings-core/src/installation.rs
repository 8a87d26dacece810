//! Where a binding's package has what machines are made of.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use supermachine::{AssetPaths, VmConfig};

/// Files that came with a binding. What is absent is looked for where a Rust program
/// would look for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// The executable of workers.
    pub worker: Option<PathBuf>,
    /// A directory with `kernel` and `init-oci`.
    pub assets: Option<PathBuf>,
}

static INSTALLATION: RwLock<Installation> = RwLock::new(Installation {
    worker: None,
    assets: None,
});

/// Uses these files from now on, in this process.
pub fn install(installation: Installation) {
    *INSTALLATION.write().unwrap_or_else(PoisonError::into_inner) = installation;
}

/// What every machine of this process begins with.
pub(crate) fn config() -> VmConfig {
    let installation = INSTALLATION.read().unwrap_or_else(PoisonError::into_inner);
    let mut config = VmConfig::new();
    if let Some(worker) = &installation.worker {
        config = config.with_worker(worker);
    }
    if let Some(assets) = &installation.assets {
        config = config.with_assets(AssetPaths::from_dir(assets));
    }
    config
}
