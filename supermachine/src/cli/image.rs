//! Options about where images come from, for all commands that take one.

use super::signals::Forwarder;
use crate::image::default_cache;
use crate::pull::{Fetch, PullPolicy};
use crate::{Error, Image};
use oci_bake::{BakeOptions, Platform, Progress};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(clap::Args)]
pub struct ImageArguments {
    /// When to ask the registry for the image
    #[arg(long, value_enum, value_name = "WHEN")]
    pull: Option<When>,
    /// Which image to take of those for several platforms: linux/arm64 is what machines
    /// run
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Registry that may have any certificate, or no TLS; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// File of a public key that the image must be signed by in its registry, as with
    /// `cosign sign --key`
    #[arg(long, value_name = "FILE")]
    verify_key: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum When {
    /// Each time: a tag may mean another image by now
    Always,
    /// If the image is not here
    Missing,
    /// Never
    Never,
}

/// What the command itself has to say about that.
pub struct Load {
    /// When the registry is asked, if the user does not say.
    pub by_default: PullPolicy,
    /// Whether layers in the cache are read whole.
    pub verify: bool,
    /// Who is told of the progress.
    pub progress: Option<Arc<dyn Progress>>,
}

impl ImageArguments {
    /// The image, which a signal can end the loading of.
    pub fn load(&self, reference: &str, load: Load, signals: &Forwarder) -> Result<Image, Error> {
        let (fetch, mut options) = self.fetch(load.by_default)?;
        // A snapshot and the cache share the files of layers.
        options.verify_cached_data = load.verify;
        options.progress = load.progress;
        let cache = default_cache()?;
        signals.prepare(|cancel| {
            options.cancel = cancel.clone();
            Image::load_with(reference, &cache, &fetch, &options)
        })
    }

    /// Where an image comes from; the registry is asked as `by_default` says, if the user
    /// does not.
    pub fn fetch(&self, by_default: PullPolicy) -> Result<(Fetch, BakeOptions), Error> {
        let options = BakeOptions::default();
        if let Some(platform) = &self.platform
            && !options.platform.takes(platform)
        {
            return Err(Error::Unsuitable {
                what: "any --platform but linux/arm64",
                needs: "another kind of machine: leave it out",
            });
        }
        let fetch = Fetch {
            policy: match self.pull {
                Some(When::Always) => PullPolicy::Always,
                Some(When::Missing) => PullPolicy::Missing,
                Some(When::Never) => PullPolicy::Never,
                None => by_default,
            },
            insecure: self.insecure_registry.clone(),
            verify_key: self.verify_key.clone(),
        };
        Ok((fetch, options))
    }
}
