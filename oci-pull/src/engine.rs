//! Images out of a container engine on this machine: Docker, or podman's service.
//!
//! One request over the engine's socket, in HTTP/1.0: engines answer that with plain
//! bytes to the end of the connection. What comes is an archive of `docker save`, which
//! is read as one from a file is.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use supermachine_oci_bake::{
    BakeError, BakeOptions, BakedImage, Cancel, ImageError, Store, bake_saved,
};
use tracing::debug;

use crate::error::{PullError, show};

/// Names a socket: `unix://PATH`.
const HOST_VARIABLE: &str = "DOCKER_HOST";
/// Where engines listen: Docker, podman's service of the system.
const SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];
/// Below the user's runtime directory: podman's own service, Docker without root.
const OF_USER: [&str; 2] = ["podman/podman.sock", "docker.sock"];
/// Below the user's home, on a Mac: Docker Desktop, Colima, OrbStack.
const OF_HOME: [&str; 3] = [
    ".docker/run/docker.sock",
    ".colima/default/docker.sock",
    ".orbstack/run/docker.sock",
];
/// Longest name or id of an image.
const MAX_NAME_BYTES: usize = 512;
/// Longest head of an answer, and what is read of an error.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_MESSAGE_BYTES: u64 = 16 << 10;
/// How long an engine may be silent: it gathers an image before it sends a byte.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long it may take to notice that somebody cancels.
const PERIOD: Duration = Duration::from_millis(100);

/// A container engine that listens on a socket of this machine.
#[derive(Debug, Clone)]
pub struct ContainerEngine {
    socket: PathBuf,
}

impl ContainerEngine {
    /// The engine that `DOCKER_HOST` names, or the first one there is of Docker's and
    /// podman's.
    ///
    /// # Errors
    /// [`PullError::Engine`] if there is none, [`PullError::Setting`] if the variable
    /// names none on this machine.
    pub fn from_environment() -> Result<Self, PullError> {
        if let Ok(host) = std::env::var(HOST_VARIABLE)
            && !host.is_empty()
        {
            return match host.strip_prefix("unix://") {
                Some(path) if path.starts_with('/') => Ok(Self::at(path)),
                _ => Err(PullError::Setting {
                    what: HOST_VARIABLE,
                    value: host,
                    reason: "is no socket of this machine; set it to unix:///PATH, or pull \
                             the image from a registry",
                }),
            };
        }
        let below = |dir: Option<PathBuf>, names: &[&str]| -> Vec<PathBuf> {
            dir.iter()
                .flat_map(|dir| names.iter().map(|name| dir.join(name)))
                .collect()
        };
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let mut places: Vec<PathBuf> = SOCKETS.iter().map(PathBuf::from).collect();
        places.extend(below(runtime, &OF_USER));
        places.extend(below(std::env::home_dir(), &OF_HOME));
        let found = places
            .iter()
            .find(|path| std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()));
        match found {
            Some(socket) => Ok(Self::at(socket)),
            None => Err(PullError::Engine {
                socket: places.swap_remove(0),
                reason: "neither Docker nor podman's service listens there or in another \
                         usual place"
                    .to_owned(),
            }),
        }
    }

    /// An engine by its socket.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Bakes an image of the engine by its name or id.
    ///
    /// # Errors
    /// As [`bake_saved`]; the cause of [`ImageError::Source`] is a [`PullError`].
    pub fn bake(
        &self,
        name: &str,
        options: &BakeOptions,
        store: &Store,
    ) -> Result<BakedImage, BakeError> {
        let source = |error| BakeError::Image(ImageError::Source(Box::new(error)));
        let cancelled = || options.cancel.is_cancelled();
        let saved = self.save(name, &options.cancel);
        let mut archive = saved.map_err(|error| match cancelled() {
            true => BakeError::Cancelled,
            false => source(error),
        })?;
        debug!(image = name, socket = %self.socket.display(), "the engine has it");
        bake_saved(&mut archive, options, store).map_err(|error| match archive.failed.take() {
            // What was read of it is the lesser reason.
            Some(failed) if !cancelled() => source(failed),
            _ => error,
        })
    }

    /// Asks for an image as an archive of `docker save`.
    fn save(&self, name: &str, cancel: &Cancel) -> Result<Archive, PullError> {
        if !is_name(name) {
            return Err(PullError::Setting {
                what: "the image",
                value: name.to_owned(),
                reason: "is no name that a container engine has; correct it",
            });
        }
        let failed = |error: io::Error| self.failed(&error.to_string());
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        let timeouts = stream
            .set_read_timeout(Some(PERIOD))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        timeouts.map_err(failed)?;
        let request = format!(
            "GET /images/{name}/get HTTP/1.0\r\nHost: localhost\r\nUser-Agent: supermachine/{}\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut archive = Archive {
            stream,
            socket: self.socket.clone(),
            cancel: cancel.clone(),
            start: io::Cursor::default(),
            left: None,
            failed: None,
        };
        let head = archive.head().map_err(failed)?;
        match head.status {
            200 => {
                archive.left = head.bytes;
                Ok(archive)
            }
            404 => Err(PullError::NotInEngine {
                socket: self.socket.clone(),
                name: show(name),
            }),
            status => {
                let mut text = Vec::new();
                // What can be had of it.
                let _ = archive.take(MAX_MESSAGE_BYTES).read_to_end(&mut text);
                let message = serde_json::from_slice(&text).map_or_else(
                    |_| String::from_utf8_lossy(&text).into_owned(),
                    |Message { message }| message,
                );
                Err(self.failed(&format!("it answers {status}: {}", show(message.trim()))))
            }
        }
    }

    fn failed(&self, reason: &str) -> PullError {
        PullError::Engine {
            socket: self.socket.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// What an engine says when something is wrong.
#[derive(Deserialize)]
struct Message {
    message: String,
}

/// Whether it can be part of an address as it is, and an image can be called so.
fn is_name(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let parts = || name.split('/');
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(is_fine)
        && parts().all(|part| part != ".." && part != "." && !part.is_empty())
}

struct Head {
    status: u16,
    bytes: Option<u64>,
}

/// An archive that comes from an engine.
#[derive(Debug)]
struct Archive {
    stream: UnixStream,
    socket: PathBuf,
    cancel: Cancel,
    /// What came with the head.
    start: io::Cursor<Vec<u8>>,
    /// Bytes to come, if the engine has said how many.
    left: Option<u64>,
    /// Why it ended before its end.
    failed: Option<PullError>,
}

impl Archive {
    /// Reads up to the content.
    fn head(&mut self) -> io::Result<Head> {
        const END: &[u8] = b"\r\n\r\n";
        let mut text = Vec::new();
        let end = loop {
            if let Some(at) = text.windows(END.len()).position(|window| window == END) {
                break at;
            }
            if text.len() > MAX_HEAD_BYTES {
                return Err(io::Error::other("its answer is no HTTP"));
            }
            let mut chunk = [0; 4096];
            let n = self.wait(&mut chunk)?;
            if n == 0 {
                return Err(io::Error::other(
                    "it ended the connection without an answer",
                ));
            }
            text.extend_from_slice(&chunk[..n]);
        };
        self.start = io::Cursor::new(text.split_off(end + END.len()));
        let text = String::from_utf8_lossy(&text[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| io::Error::other("its answer is no HTTP"))?;
        let mut bytes = None;
        for line in lines {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                let length = value.parse();
                bytes = Some(length.map_err(|_| io::Error::other("its answer has no length"))?);
            }
            // It was asked in a version that has none.
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(io::Error::other("it sends in pieces what was to be whole"));
            }
        }
        Ok(Head { status, bytes })
    }

    /// Reads some bytes, however long the engine takes, but not for ever.
    fn wait(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("cancelled"));
            }
            match self.stream.read(buf) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) =>
                {
                    if begun.elapsed() > PATIENCE {
                        return Err(io::Error::other("it sent nothing for ten minutes"));
                    }
                }
                read => return read,
            }
        }
    }

    fn more(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match self.start.read(buf)? {
            0 => self.wait(buf)?,
            n => n,
        };
        if let Some(left) = &mut self.left {
            if n == 0 && *left > 0 {
                return Err(io::Error::other("it ended the connection half way"));
            }
            *left = left.saturating_sub(n as u64);
        }
        Ok(n)
    }
}

impl Read for Archive {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || self.left == Some(0) {
            return Ok(0);
        }
        self.more(buf).inspect_err(|error| {
            self.failed = Some(PullError::Engine {
                socket: self.socket.clone(),
                reason: error.to_string(),
            });
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_to_other_addresses_of_the_engine() {
        for name in ["nginx", "a/b:1", "localhost:5000/x@sha256:00", "0123abcd"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "a b",
            "../containers/x",
            "a/../b",
            "a?b",
            "a%2fb",
            "a\r\nX: y",
            "/a",
        ] {
            assert!(!is_name(name), "{name}");
        }
        assert!(!is_name(&"a".repeat(MAX_NAME_BYTES + 1)));
    }
}
