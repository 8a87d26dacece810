//! Image references as users type them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::ImageError;

/// Which kind of image source a reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A directory in OCI image layout.
    OciLayout,
    /// A tar archive of such a directory.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
}

impl Transport {
    const ALL: [Self; 3] = [Self::OciLayout, Self::OciArchive, Self::DockerArchive];

    /// The text in front of the first colon.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::OciLayout => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
        }
    }
}

/// A parsed reference: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or
/// `docker-archive:FILE[:NAME:TAG]`.
///
/// As in skopeo, the path ends at the first colon, so a path with a colon in
/// it cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    transport: Transport,
    path: PathBuf,
    tag: Option<String>,
}

impl Reference {
    /// Parses a reference; nothing is opened.
    ///
    /// # Errors
    /// [`ImageError::RegistryUnsupported`] for what looks like a registry
    /// name, [`ImageError::InvalidReference`] for anything else.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let invalid = |reason| ImageError::InvalidReference {
            reference: text.chars().take(200).collect(),
            reason,
        };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.contains(|c: char| c.is_control()) {
            return Err(invalid("it contains a control character"));
        }
        let known = text.split_once(':').and_then(|(scheme, rest)| {
            let transport = Transport::ALL.into_iter().find(|t| t.scheme() == scheme)?;
            Some((transport, rest))
        });
        let Some((transport, rest)) = known else {
            return Err(match looks_like_registry(text) {
                true => ImageError::RegistryUnsupported {
                    name: text.trim_start_matches("docker://").to_owned(),
                },
                false => invalid(
                    "use oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME:TAG]",
                ),
            });
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(invalid("the path is empty"));
        }
        if tag.is_some_and(str::is_empty) {
            return Err(invalid("the tag after the last colon is empty"));
        }
        Ok(Self {
            transport,
            path: PathBuf::from(path),
            tag: tag.map(str::to_owned),
        })
    }

    /// The kind of source.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The directory or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tag, or for `docker-archive` the image name, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.scheme(), self.path.display())?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text)
    }
}

/// Whether the text has the shape of `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
fn looks_like_registry(text: &str) -> bool {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let starts_as_name = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts_as_name && name.chars().all(allowed) && !name.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_parsed() {
        let plain = Reference::parse("oci:target/demo/busybox").unwrap();
        assert_eq!(plain.transport(), Transport::OciLayout);
        assert_eq!(plain.path(), Path::new("target/demo/busybox"));
        assert_eq!(plain.tag(), None);
        let tagged = Reference::parse("oci-archive:/a/b.tar:v1").unwrap();
        assert_eq!(tagged.tag(), Some("v1"));
        let docker = Reference::parse("docker-archive:x.tar:docker.io/library/a:1").unwrap();
        assert_eq!(docker.transport(), Transport::DockerArchive);
        assert_eq!(docker.tag(), Some("docker.io/library/a:1"));
    }

    #[test]
    fn display_round_trips() {
        for text in [
            "oci:d",
            "oci:d:t",
            "oci-archive:f.tar",
            "docker-archive:f:n:t",
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn registry_names_get_an_error_that_names_the_working_forms() {
        for name in [
            "alpine",
            "alpine:3.20",
            "ghcr.io/o/i@sha256:00",
            "docker://alpine",
            "localhost:5000/a",
        ] {
            let error = Reference::parse(name).unwrap_err();
            assert!(
                matches!(error, ImageError::RegistryUnsupported { .. }),
                "{name}"
            );
            assert!(error.to_string().contains("oci:DIR"));
            assert!(error.to_string().contains("later release"));
        }
    }

    #[test]
    fn nonsense_is_invalid() {
        for text in [
            "", "oci:", "oci::t", "oci:d:", "./dir", "/dir", "a b", "oci:a\nb", "://",
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(
                matches!(error, ImageError::InvalidReference { .. }),
                "{text}"
            );
        }
    }
}
