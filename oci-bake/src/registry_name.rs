//! Names of images in registries, as users of Docker write them.

use std::fmt;

use crate::digest::Digest;

/// The registry that a name without one means.
const DOCKER_HUB: &str = "docker.io";
/// Another name of it, which old configurations have.
const DOCKER_HUB_INDEX: &str = "index.docker.io";
/// Where Docker Hub keeps images whose names are one word.
const OFFICIAL: &str = "library";
/// The tag that a name without tag and digest means.
const DEFAULT_TAG: &str = "latest";
/// Longest repository, and longest registry, as the distribution project has them.
const MAX_NAME_BYTES: usize = 255;
/// Longest tag (OCI distribution specification, "Pulling manifests").
const MAX_TAG_BYTES: usize = 128;

/// An image in a registry: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, in full.
///
/// A first part with a dot, a colon or an upper-case letter, or `localhost`, is a
/// host; without one the registry is Docker Hub, where a name of one word is in
/// `library/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryName {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl RegistryName {
    /// Parses a name; what is wrong with it otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digest = digest.parse().map_err(
                    |_| "behind @ there must be sha256: or sha512: and lower-case hexadecimal digits",
                )?;
                (name, Some(digest))
            }
        };
        let (registry, rest) = split_registry(name);
        let (repository, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        if repository.is_empty() {
            return Err("the name is empty");
        }
        if repository.len() > MAX_NAME_BYTES || registry.len() > MAX_NAME_BYTES {
            return Err("the name is longer than 255 characters");
        }
        if !is_registry(registry) {
            return Err("the part in front of the first slash is no host name");
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("the name must be lower case");
        }
        if !repository.split('/').all(is_component) {
            return Err(
                "a name consists of letters, digits, and single ., _, __ or dashes between them",
            );
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(
                "a tag has up to 128 letters, digits, _, . and -, and begins with none of the last two",
            );
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        let is_hub = ["", DOCKER_HUB, DOCKER_HUB_INDEX]
            .iter()
            .any(|name| registry.eq_ignore_ascii_case(name));
        let registry = if is_hub { DOCKER_HUB } else { registry };
        let repository = match repository.contains('/') || registry != DOCKER_HUB {
            true => repository.to_owned(),
            false => format!("{OFFICIAL}/{repository}"),
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// Host, and port if one was given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name inside the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither tag nor digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the image's manifest or index must have, if one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// The registry, empty if there is none, and what follows.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("", name),
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`; or nothing.
fn is_registry(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
            match (is_address, rest.strip_prefix(':')) {
                (false, _) => return false,
                (true, port) if port.is_some() || rest.is_empty() => ("localhost", port),
                _ => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_label = |label: &str| {
        label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Words of lower-case letters and digits with one separator between two.
fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(*first)
        && is_word(*last)
        && text
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| {
                matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
            })
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|first| is_word(*first))
        && bytes.len() <= MAX_TAG_BYTES
        && bytes.iter().all(|b| is_word(*b) || b".-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::distribution;

    const HEX: &str = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c";

    #[test]
    fn what_docker_adds_is_added() {
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27-alpine", "docker.io/library/nginx:1.27-alpine"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("ghcr.io/o/i:tag", "ghcr.io/o/i:tag"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b/c:d", "localhost:5000/a/b/c:d"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("Registry/x", "Registry/x:latest"),
        ] {
            assert_eq!(
                RegistryName::parse(text).unwrap().to_string(),
                full,
                "{text}"
            );
        }
        let pinned = RegistryName::parse(&format!("host:5000/x@sha256:{HEX}")).unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.digest().unwrap().hex(), HEX);
        let both = RegistryName::parse(&format!("x:v1@sha256:{HEX}")).unwrap();
        assert_eq!(both.tag(), Some("v1"));
        assert!(both.digest().is_some());
    }

    #[test]
    fn names_that_no_registry_takes_are_refused() {
        let long = "a".repeat(256);
        let tag = format!("x:{}", "a".repeat(129));
        for text in [
            "",
            "/",
            "x/",
            "/x",
            "a//b",
            "A",
            "a/B",
            "a..b",
            "a___b",
            ".a",
            "a-",
            "x:",
            "x:.t",
            "x:-t",
            "x: t",
            "x@",
            "x@sha256:00",
            "x@md5:00",
            "host:port/x",
            "host:0/x",
            "host:99999/x",
            "-h.io/x",
            "h..io/x",
            "[::1/x",
            "[zz]:1/x",
            "a/../b",
            "a b",
            "é",
            &long,
            &tag,
        ] {
            assert!(RegistryName::parse(text).is_err(), "{text}");
        }
    }

    /// The OCI project's own parser, which is asked about everything both take.
    #[test]
    fn ours_agrees_with_the_reference_of_oci_spec() {
        let words = [
            "nginx",
            "a.b",
            "localhost",
            "h:5000",
            "library",
            "x__y",
            "A",
            "docker.io",
            "a-b",
            "",
        ];
        let ends = [
            "",
            ":latest",
            ":v1.2-x",
            ":_",
            ":-",
            "@sha256:00",
            &format!("@sha256:{HEX}"),
        ];
        let mut both = 0;
        for first in words {
            for second in words {
                for end in ends {
                    let text = match second {
                        "" => format!("{first}{end}"),
                        second => format!("{first}/{second}{end}"),
                    };
                    let ours = RegistryName::parse(&text);
                    let theirs = text.parse::<distribution::Reference>();
                    // Theirs takes a host in upper case for a user of Docker Hub.
                    if first == "A" && !second.is_empty() {
                        continue;
                    }
                    assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} {theirs:?}");
                    if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                        assert_eq!(ours.to_string(), theirs.whole(), "{text}");
                        both += 1;
                    }
                }
            }
        }
        assert!(both > 50, "{both}");
    }
}
