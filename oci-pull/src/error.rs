//! Errors, by what the reader can do about them.

use std::path::PathBuf;
use std::time::Duration;

use supermachine_oci_bake::{BakeError, Digest, ImageError, LayerError};

/// Text of a server for a message: bounded, and with anything that could speak to a
/// terminal escaped.
pub(crate) fn show(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(char::escape_default)
        .collect()
}

/// Why an image could not be got from a registry. No text of it has a password, a
/// token or the query of an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The image is not here, and must not be got.
    #[error("`{name}` is not here, and the pull policy is `never`; pull it first")]
    NotHere {
        /// The image.
        name: String,
    },
    /// There is no such image, or part of one.
    #[error("{host} has no {what}; check the name, and whether it needs a login")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry wants to know who asks.
    #[error("{host} does not let anyone pull {repository}; run `supermachine login {registry}`")]
    LoginNeeded {
        /// The host that said so.
        host: String,
        /// The image's name there.
        repository: String,
        /// What to log in to.
        registry: String,
    },
    /// The registry knows who asks and refuses.
    #[error(
        "{host} does not accept the credentials for {registry} ({status}{message}); \
         run `supermachine login {registry}` with others"
    )]
    Denied {
        /// The host that said so.
        host: String,
        /// Whose credentials were sent.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// What else it said.
        message: String,
    },
    /// An answer that is no image and no known error.
    #[error("{host} answered {status}{message} for {what}; see whether it is a registry")]
    Status {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What else it said.
        message: String,
        /// What was asked for.
        what: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The host asks for more patience than there is.
    #[error(
        "{host} asks to be left alone for {} s; try again then, or log in if it limits anonymous users",
        wait.as_secs()
    )]
    TooBusy {
        /// The host.
        host: String,
        /// How long it said.
        wait: Duration,
    },
    /// The connection could not be made, or broke.
    #[error("cannot talk to {host}: {reason}; check the network and the name")]
    Network {
        /// The host.
        host: String,
        /// What the system or TLS says.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for {} s; try again", limit.as_secs())]
    Stalled {
        /// The host.
        host: String,
        /// The limit that was passed.
        limit: Duration,
    },
    /// TLS found the host not to be who it says.
    #[error(
        "{host} has a certificate that is not trusted here ({reason}); put its authority \
         into certs.d/{host}/ca.crt, or name it with --insecure-registry"
    )]
    Untrusted {
        /// The host.
        host: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// A redirection that is not followed.
    #[error(
        "{host} redirects to {}: {reason}; report it to its operator",
        show(to)
    )]
    Redirect {
        /// The host.
        host: String,
        /// Where to, without its query.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// The token server is not one that may get a password.
    #[error(
        "{host} wants tokens from {}: {reason}; report it to its operator",
        show(realm)
    )]
    Realm {
        /// The registry.
        host: String,
        /// The address, without its query.
        realm: String,
        /// Why not.
        reason: &'static str,
    },
    /// Something else than what a registry answers.
    #[error("{host} sent {what} that is not valid: {reason}; see whether it is a registry")]
    Answer {
        /// The host.
        host: String,
        /// What it was to be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A document larger than any real one.
    #[error("{host} sent {what} of more than {limit} bytes; use another image")]
    TooLarge {
        /// The host.
        host: String,
        /// Which document.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A blob of another length.
    #[error(
        "{host} has {actual} bytes for {digest}, which has {expected}; report it to its operator"
    )]
    WrongLength {
        /// The host.
        host: String,
        /// The blob.
        digest: Digest,
        /// Bytes according to the image.
        expected: u64,
        /// Bytes according to the host.
        actual: u64,
    },
    /// A file with credentials or certificates.
    #[error("cannot use {}: {reason}; correct it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A credential helper.
    #[error("the credential helper {program} {reason}; see to it, or log in again")]
    Helper {
        /// Its name.
        program: String,
        /// What is wrong.
        reason: String,
    },
    /// A container engine on this machine does not give an image.
    #[error(
        "cannot get images from the container engine at {}: {reason}; start it, set \
         DOCKER_HOST, or use docker://NAME for an image in a registry",
        socket.display()
    )]
    Engine {
        /// Its socket.
        socket: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A container engine on this machine has no such image.
    #[error(
        "the container engine at {} has no image `{name}`; pull or build it there, or use \
         docker://{name} for the one in a registry",
        socket.display()
    )]
    NotInEngine {
        /// Its socket.
        socket: PathBuf,
        /// The image.
        name: String,
    },
    /// An image that must be signed by a key, and is not.
    #[error(
        "`{name}` ({digest}) is not known to be signed by the key: {reason}; use an image \
         that is, or another key"
    )]
    Unverified {
        /// The image.
        name: String,
        /// What the name leads to.
        digest: Digest,
        /// What is missing.
        reason: String,
    },
    /// A setting that means nothing.
    #[error("{what} `{}` {reason}", show(value))]
    Setting {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// This processor is older than the cryptography.
    #[error(
        "this processor lacks instructions that TLS is built on here; build supermachine with \
         its feature `ring`, or use a registry on this machine"
    )]
    Processor,
    /// It was asked to stop.
    #[error("pulling was cancelled; start it again")]
    Cancelled,
}

impl PullError {
    /// The error of this crate that a bake ended with, if it ended with one.
    ///
    /// # Errors
    /// Any other error, as it was.
    pub fn of(error: BakeError) -> Result<Self, BakeError> {
        let of_image = |error| match error {
            ImageError::Source(source) => match source.downcast::<Self>() {
                Ok(own) => Ok(*own),
                Err(source) => Err(ImageError::Source(source)),
            },
            error => Err(error),
        };
        let of_read = |error: std::io::Error| error.downcast::<Self>();
        match error {
            BakeError::Image(error) => of_image(error).map_err(BakeError::Image),
            BakeError::Layer { diff_id, source } => {
                let own = match source {
                    LayerError::Content(error) => {
                        of_image(*error).map_err(|error| LayerError::Content(Box::new(error)))
                    }
                    LayerError::Io(error) => of_read(error).map_err(LayerError::Io),
                    error => Err(error),
                };
                own.map_err(|source| BakeError::Layer { diff_id, source })
            }
            error => Err(error),
        }
    }

    /// Whether the same may work a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// Whether another mirror would say the same.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Processor)
    }

    /// How long the host wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
