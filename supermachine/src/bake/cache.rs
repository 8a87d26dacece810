//! Finding a bake that is there already, and what it is found by.

use super::OciImageBuilder;
use crate::base::RECIPE;
use crate::image::default_cache;
use crate::limits::BAKE_LOCK_TIMEOUT;
use crate::random::hex;
use crate::template::layer_resources;
use crate::unfinished::Unfinished;
use crate::{Error, Image, Vm, aside, base, mount};
use sha2::{Digest, Sha256};
use snapshot::{Baked, Stamp, Store};
use std::path::PathBuf;
use std::sync::Arc;
use vmm_core::machine::STATE_VERSION;

/// The readable part of a snapshot's name, made of the reference it comes from.
fn readable_name(reference: &str) -> String {
    let last = reference.trim_end_matches('/').rsplit('/').next();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = last
        .unwrap_or_default()
        .chars()
        .map(plain)
        .take(40)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "image" } else { name }.to_owned()
}

impl OciImageBuilder {
    pub(super) fn cache_dir(&self) -> Result<PathBuf, Error> {
        match &self.cache {
            Some(cache) => Ok(cache.clone()),
            None => default_cache(),
        }
    }

    /// The snapshot of that name if it is of this image and these options, else
    /// a new one and the machine it was made of.
    pub(super) fn find_or_bake(
        &self,
        image: &Image,
        store: &Store,
        name: &str,
        here: &Stamp,
    ) -> Result<(Baked, Option<Vm>), Error> {
        let key = self.key(image, here);
        let (mut kept, mut published) = (None, None);
        let unfinished = Unfinished::begin(store, name);
        let baked = store.bake(name, &key, here, BAKE_LOCK_TIMEOUT, |mut draft| {
            let layers = image.layers().len();
            let base = Arc::new(base::find(store.root(), &self.config, layers, here)?);
            draft.share(base.snapshot())?;
            let (number, vm, no_exit) = self.bake(image, &base, &key, here, draft, &unfinished)?;
            (kept, published) = (Some(vm), Some(no_exit));
            Ok::<u64, Error>(number)
        });
        if baked.is_err() {
            // Of a first bake that failed nothing is left.
            let _ = base::prune(store.root());
        }
        let mut baked = baked?;
        if let Baked::New(_, older) = &mut baked {
            older.take().into_iter().for_each(aside::remove);
        }
        drop(published);
        Ok((baked, kept))
    }

    /// A name for the snapshot, another one for other references and options, so
    /// that those who use an image with different memory do not bake it in
    /// turns. What a later version of the same has (content of the image, kernel,
    /// code of the warm-up) replaces what was there under the name.
    pub(super) fn default_name(&self, here: &Stamp) -> String {
        let parts = serde_json::json!([
            self.reference,
            self.config.boot_memory_mib(),
            self.config.boot_vcpus(),
            self.config.network.is_on(),
            self.config.hostname,
            mount::points(&self.config.mounts),
            self.config.volume_slots(),
            self.config.kept_volumes,
            self.config.tmpfs,
            self.cmd,
            self.overrides,
            self.env,
            self.guest_port,
            format!("{:?}", self.trigger),
            self.warmup.is_some(),
            here.engine,
            self.places(),
        ]);
        let digest = hex(&Sha256::digest(parts.to_string()));
        format!("{}-{}", readable_name(&self.reference), &digest[..8])
    }

    /// Where extra files go. What is in them is in the name of their layer.
    fn places(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.guest.as_str()).collect()
    }

    /// Digest of everything that decides what is in the snapshot.
    pub(super) fn key(&self, image: &Image, here: &Stamp) -> String {
        let parts = serde_json::json!([
            RECIPE,
            STATE_VERSION,
            image.digest(),
            layer_resources(image.layers()),
            self.config.boot_memory_mib(),
            self.config.boot_vcpus(),
            self.config.network.is_on(),
            self.config.hostname,
            mount::points(&self.config.mounts),
            self.config.volume_slots(),
            self.config.kept_volumes,
            self.config.tmpfs,
            self.config.max_processes,
            self.cmd,
            self.overrides,
            self.env,
            self.guest_port,
            format!("{:?}", self.trigger),
            self.warmup.is_some(),
            self.warmup_tag,
            here,
        ]);
        hex(&Sha256::digest(parts.to_string()))
    }
}
