//! What snapshots have in common: a machine which has booted and has nothing of any
//! image in it.
//!
//! Most of a small machine's memory is its kernel's, and the same in all of
//! them. It is captured once for each size of machine and number of layers, as a snapshot
//! of its own in a directory beside the others, and they leave it out. What is baked
//! is a copy of it where that can be: it waits, with disks without content, to be told
//! that its layers are there.

use crate::capture::{self, About, FirstSteps};
use crate::exec::Wanted;
use crate::limits::BAKE_LOCK_TIMEOUT;
use crate::random::hex;
use crate::template::{LayerFiles, Template, Workload};
use crate::unfinished::Unfinished;
use crate::{Error, Image, Vm, VmConfig};
use sha2::{Digest, Sha256};
use snapshot::{SnapshotError, Stamp, Store};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use vmm_core::machine::STATE_VERSION;

/// Changes when the same options would make another snapshot.
pub const RECIPE: &str = "supermachine bake 4";
/// Where bases are, among snapshots: no image can have that name.
const DIRECTORY: &str = ".bases";

/// The base for machines that `config` describes with so many layers, with its image's
/// snapshots in `root`. It is made if there is none.
pub fn find(
    root: &Path,
    config: &VmConfig,
    layers: usize,
    here: &Stamp,
) -> Result<Template, Error> {
    let store = Store::new(root.join(DIRECTORY))?;
    let (memory_mib, vcpus) = (config.boot_memory_mib(), config.boot_vcpus());
    let network = if config.network.is_on() {
        "-network"
    } else {
        ""
    };
    let name = format!("{memory_mib}-mib-{vcpus}-vcpus-{layers}-layers{network}");
    let parts = serde_json::json!([
        RECIPE,
        STATE_VERSION,
        memory_mib,
        vcpus,
        here,
        network,
        layers
    ]);
    let key = hex(&Sha256::digest(parts.to_string()));
    let unfinished = Unfinished::begin(&store, &name);
    let mut published = None;
    let baked = store.bake(&name, &key, here, BAKE_LOCK_TIMEOUT, |draft| {
        let bare = VmConfig {
            hostname: Some("base".into()),
            name: None,
            console: false,
            mounts: Vec::new(),
            volumes: Vec::new(),
            kept_volumes: Vec::new(),
            volume_slots: 0,
            layer_slots: layers,
            tmpfs: Vec::new(),
            ..config.clone()
        };
        let vm = Vm::boot(&Image::bare(), &bare)?;
        unfinished.written_by(vm.instance().process().clone());
        capture::quiet(&vm, &Wanted::always())?;
        let about = About {
            workload: &Workload::None,
            layers: &LayerFiles::new(),
            key: &key,
            here,
        };
        let (number, no_exit) = capture::write(&vm, draft, &about, &Wanted::always(), |vm, _| {
            vm.instance().go_on()?;
            Ok(FirstSteps::default())
        })?;
        published = Some(no_exit);
        Ok::<u64, Error>(number)
    })?;
    drop(published);
    Ok(Template::new(baked.into_snapshot(), here)?.cached_in(store, name))
}

/// Where the bases of a directory of snapshots are.
pub fn directory(root: &Path) -> std::path::PathBuf {
    root.join(DIRECTORY)
}

/// Whether a snapshot has the memory of a base in common with it: it has a further name of
/// the file then.
pub fn is_shared(store: &Store, name: &str) -> bool {
    let found = store.inspect(name);
    let memory = found.map(|base| std::fs::metadata(base.path().join("mem.bin")));
    matches!(memory, Ok(Ok(memory)) if memory.nlink() > 1)
}

/// Removes the bases of a directory that has no snapshots of images any more.
///
/// One that is being made or used by now stays.
pub fn prune(root: &Path) -> Result<(), Error> {
    let directory = root.join(DIRECTORY);
    if !std::fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir())
        || !Store::new(root)?.names()?.is_empty()
    {
        return Ok(());
    }
    let store = Store::new(&directory)?;
    for name in store.names()? {
        match store.lock(&name, Duration::ZERO) {
            Ok(lock) if !lock.is_in_use()? => lock.remove()?,
            Ok(_) | Err(SnapshotError::Locked { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Unless somebody has just begun the next.
    let _ = std::fs::remove_dir(directory);
    Ok(())
}
