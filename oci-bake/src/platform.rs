//! Which machine an image is for.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// An operating system, a processor architecture and, where it has several,
/// the variant of it, as Go and the OCI image specification name them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `v7`, or nothing.
    #[serde(default)]
    pub variant: Option<String>,
}

/// The text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as linux/arm64"
)]
pub struct InvalidPlatform {
    /// The text.
    text: String,
}

impl Default for Platform {
    /// linux/arm64.
    fn default() -> Self {
        Self::new("linux", "arm64")
    }
}

impl Platform {
    /// A platform without a variant: what every processor of the architecture
    /// can run.
    #[must_use]
    pub fn new(os: impl Into<String>, architecture: impl Into<String>) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    /// The same with a variant.
    #[must_use]
    pub fn with_variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Whether an image for `image` is one for this platform: the same system,
    /// architecture and variant, however they are spelled. An image that names
    /// a variant other than the least is never taken for one that names none.
    #[must_use]
    pub fn takes(&self, image: &Self) -> bool {
        let variant = |platform: &Self| match platform.variant.as_deref() {
            // The least of its architecture, by either spelling.
            Some("v8" | "8") if platform.canonical_architecture() == "arm64" => None,
            Some("v1") if platform.canonical_architecture() == "amd64" => None,
            None | Some("") => None,
            Some(other) => Some(other.trim_start_matches('v').to_owned()),
        };
        self.os == image.os
            && self.canonical_architecture() == image.canonical_architecture()
            && variant(self) == variant(image)
    }

    /// Go's name of the architecture.
    fn canonical_architecture(&self) -> &str {
        match self.architecture.as_str() {
            "aarch64" => "arm64",
            "x86_64" => "amd64",
            other => other,
        }
    }

    /// Whether it says that there is none, as attestations do.
    pub(crate) fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |text: &'_ str| if text.is_empty() { "unknown" } else { text }.to_owned();
        let (os, architecture) = (or_unknown(&self.os), or_unknown(&self.architecture));
        write!(f, "{os}/{architecture}")?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match parts[..] {
            [os, architecture] if parts.iter().all(is_word) => Ok(Self::new(os, architecture)),
            [os, architecture, variant] if parts.iter().all(is_word) => {
                Ok(Self::new(os, architecture).with_variant(variant))
            }
            _ => Err(InvalidPlatform {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_platform_are_one_and_others_are_not() {
        let arm64 = Platform::default();
        for same in [
            "linux/arm64",
            "linux/aarch64",
            "linux/arm64/v8",
            "linux/arm64/8",
        ] {
            assert!(arm64.takes(&platform(same)), "{same}");
            assert!(platform(same).takes(&arm64), "{same}");
        }
        for other in [
            "linux/amd64",
            "linux/arm64/v9",
            "linux/arm/v7",
            "windows/arm64",
        ] {
            assert!(!arm64.takes(&platform(other)), "{other}");
        }
        assert!(platform("linux/amd64").takes(&platform("linux/x86_64/v1")));
        assert!(platform("linux/arm/v7").takes(&platform("linux/arm/7")));
        assert!(!platform("linux/arm").takes(&platform("linux/arm/v7")));
    }

    #[test]
    fn text_round_trips_and_other_text_is_refused() {
        for good in ["linux/arm64", "linux/arm/v7"] {
            assert_eq!(platform(good).to_string(), good);
        }
        for bad in ["", "linux", "linux/", "linux/arm/v7/x", "linux/ar m"] {
            let error = bad.parse::<Platform>().unwrap_err();
            assert!(error.to_string().contains("linux/arm64"), "{error}");
        }
        assert_eq!(Platform::new("", "").to_string(), "unknown/unknown");
    }
}
