//! Image references as users type them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::ImageError;
use crate::registry_name::RegistryName;

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
    /// An archive that is the only layer of an image without documents.
    Tar,
    /// A directory that is.
    Rootfs,
    /// An image of a container engine on this machine.
    Engine,
    /// An image in a registry.
    Registry,
}

/// What skopeo writes in front of the name of an image in a registry.
const REGISTRY_SCHEME: &str = "docker://";
/// What may be in front of the name of an image of a container engine; skopeo writes the
/// longer one.
const ENGINE_SCHEMES: [&str; 2] = ["docker:", "docker-daemon:"];
/// The forms that name something on this machine.
const LOCAL_FORMS: &str = "use oci:DIR[:TAG], oci-archive:FILE[:TAG], \
     docker-archive:FILE[:NAME:TAG], tar:FILE, rootfs:DIR, docker:NAME or the name of an image \
     in a registry";

impl Transport {
    const OF_PATHS: [Self; 5] = [
        Self::OciLayout,
        Self::OciArchive,
        Self::DockerArchive,
        Self::Tar,
        Self::Rootfs,
    ];

    /// The text in front of the first colon; of a name in a registry, which needs
    /// none, what may be in front of it.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::OciLayout => "oci",
            Self::OciArchive => "oci-archive",
            Self::DockerArchive => "docker-archive",
            Self::Tar => "tar",
            Self::Rootfs => "rootfs",
            Self::Engine | Self::Registry => "docker",
        }
    }
}

/// A parsed reference: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
/// `docker-archive:FILE[:NAME:TAG]`, `tar:FILE`, `rootfs:DIR`, `docker:NAME` of an image that
/// Docker or podman has on this machine, or an image in a registry as users of Docker
/// write it, with or without `docker://` in front.
///
/// As in skopeo, the path ends at the first colon, so a path with a colon in
/// it cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    transport: Transport,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Path { path: PathBuf, tag: Option<String> },
    Engine(String),
    Registry(RegistryName),
}

impl Reference {
    /// Parses a reference; nothing is opened.
    ///
    /// # Errors
    /// [`ImageError::InvalidReference`].
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
        let in_engine = ENGINE_SCHEMES
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        if let Some(name) = in_engine.filter(|name| !name.starts_with("//")) {
            // The engine knows more names than registries have, such as ids.
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(invalid("the name of an image follows"));
            }
            return Ok(Self {
                transport: Transport::Engine,
                place: Place::Engine(name.to_owned()),
            });
        }
        let known = text.split_once(':').and_then(|(scheme, rest)| {
            let mut transports = Transport::OF_PATHS.into_iter();
            Some((transports.find(|t| t.scheme() == scheme)?, rest))
        });
        let Some((transport, rest)) = known else {
            return Self::in_registry(text).map_err(invalid);
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(invalid("the path is empty"));
        }
        if tag.is_some() && matches!(transport, Transport::Tar | Transport::Rootfs) {
            return Err(invalid(
                "it has no tags, and a path ends at the first colon",
            ));
        }
        if tag.is_some_and(str::is_empty) {
            return Err(invalid("the tag after the last colon is empty"));
        }
        Ok(Self {
            transport,
            place: Place::Path {
                path: PathBuf::from(path),
                tag: tag.map(str::to_owned),
            },
        })
    }

    fn in_registry(text: &str) -> Result<Self, &'static str> {
        let name = text.strip_prefix(REGISTRY_SCHEME).unwrap_or(text);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            return Err(LOCAL_FORMS);
        }
        Ok(Self {
            transport: Transport::Registry,
            place: Place::Registry(RegistryName::parse(name)?),
        })
    }

    /// The kind of source.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The directory or file, if the image is in one.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Path { path, .. } => Some(path),
            Place::Engine(_) | Place::Registry(_) => None,
        }
    }

    /// The tag, or for `docker-archive` the image name, if one was given.
    pub fn tag(&self) -> Option<&str> {
        match &self.place {
            Place::Path { tag, .. } => tag.as_deref(),
            Place::Engine(_) => None,
            Place::Registry(name) => name.tag(),
        }
    }

    /// The name in full, if the image is in a registry.
    pub fn registry_name(&self) -> Option<&RegistryName> {
        match &self.place {
            Place::Path { .. } | Place::Engine(_) => None,
            Place::Registry(name) => Some(name),
        }
    }

    /// The name or id, if the image is that of a container engine.
    pub fn engine_name(&self) -> Option<&str> {
        match &self.place {
            Place::Engine(name) => Some(name),
            Place::Path { .. } | Place::Registry(_) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Engine(name) => write!(f, "{}{name}", ENGINE_SCHEMES[0]),
            Place::Registry(name) => {
                // A host may have the name of a scheme.
                let host = name.registry().split(':').next();
                let mut schemes = Transport::OF_PATHS.iter().map(|t| t.scheme());
                let engine = Transport::Engine.scheme();
                if schemes.any(|scheme| Some(scheme) == host) || host == Some(engine) {
                    f.write_str(REGISTRY_SCHEME)?;
                }
                name.fmt(f)
            }
            Place::Path { path, tag } => {
                write!(f, "{}:{}", self.transport.scheme(), path.display())?;
                match tag {
                    Some(tag) => write!(f, ":{tag}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::str::FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_parsed() {
        let plain = Reference::parse("oci:target/demo/busybox").unwrap();
        assert_eq!(plain.transport(), Transport::OciLayout);
        assert_eq!(plain.path(), Some(Path::new("target/demo/busybox")));
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
            "tar:f",
            "rootfs:d",
            "docker.io/library/nginx:latest",
            "docker://oci:5000/x:latest",
            "docker://docker:5000/x:latest",
            "docker:nginx",
            "docker:localhost/a/b:1",
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_other_name_is_one_in_a_registry() {
        for name in [
            "alpine",
            "alpine:3.20",
            "docker://alpine",
            "docker://docker:24-dind",
            "docker",
            "localhost:5000/a",
        ] {
            let reference = Reference::parse(name).unwrap();
            assert_eq!(reference.transport(), Transport::Registry, "{name}");
            assert_eq!(reference.path(), None);
            assert!(reference.registry_name().is_some(), "{name}");
        }
    }

    #[test]
    fn images_of_a_container_engine_are_named_as_it_names_them() {
        for (text, name) in [
            ("docker:nginx", "nginx"),
            ("docker-daemon:a/b:1", "a/b:1"),
            ("docker:sha256:0123", "sha256:0123"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.transport(), Transport::Engine);
            assert_eq!(reference.engine_name(), Some(name));
            assert_eq!((reference.path(), reference.registry_name()), (None, None));
        }
        assert_eq!(Reference::parse("nginx").unwrap().engine_name(), None);
    }

    #[test]
    fn nonsense_is_invalid() {
        for text in [
            "",
            "oci:",
            "oci::t",
            "oci:d:",
            "./dir",
            "/dir",
            "a b",
            "oci:a\nb",
            "://",
            "docker://",
            "docker:",
            "docker-daemon:a b",
            "tar:f:t",
            "rootfs:d:t",
            "rootfs:",
            "ghcr.io/o/i@sha256:00",
            "http://host/x",
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(
                matches!(error, ImageError::InvalidReference { .. }),
                "{text}"
            );
        }
    }
}
