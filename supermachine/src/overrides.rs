//! What a bake changes of its image's config: all copies have it so.

use crate::Error;
use oci_bake::ImageConfig;
use serde::Serialize;
use std::collections::BTreeMap;

/// Instead of what the image says; nothing is changed that is not set.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Overrides {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Overrides {
    /// The config of an image with the changes.
    pub(crate) fn apply(&self, image: &ImageConfig) -> Result<ImageConfig, Error> {
        let mut config = image.clone();
        if let Some(entrypoint) = &self.entrypoint {
            config.entrypoint.clone_from(entrypoint);
            // It was written for another program.
            config.cmd.clear();
        }
        if let Some(working_dir) = &self.working_dir {
            config.working_dir.clone_from(working_dir);
        }
        if let Some(user) = &self.user {
            config.user.clone_from(user);
        }
        let labels = self.labels.iter();
        config
            .labels
            .extend(labels.map(|(name, value)| (name.clone(), value.clone())));
        Ok(config.checked()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        let mut config = ImageConfig::default();
        config.entrypoint = vec!["old".into()];
        config.cmd = vec!["argument".into()];
        config.working_dir = "/".into();
        config.labels = [("a".into(), "1".into()), ("b".into(), "2".into())].into();
        config
    }

    #[test]
    fn what_is_set_replaces_what_the_image_says_and_the_rest_stays() {
        assert_eq!(Overrides::default().apply(&image()).unwrap(), image());
        let overrides = Overrides {
            entrypoint: Some(vec!["new".into()]),
            user: Some("7:8".into()),
            labels: [("b".into(), "3".into())].into(),
            ..Overrides::default()
        };
        let changed = overrides.apply(&image()).unwrap();
        assert_eq!(changed.command(None, None).unwrap(), ["new"]);
        assert_eq!((&*changed.user, &*changed.working_dir), ("7:8", "/"));
        let labels: Vec<_> = changed.labels.into_values().collect();
        assert_eq!(labels, ["1", "3"]);
    }

    #[test]
    fn what_no_process_could_be_given_is_refused() {
        let overrides = Overrides {
            user: Some("a\0b".into()),
            ..Overrides::default()
        };
        assert!(overrides.apply(&image()).is_err());
    }
}
