//! The content of a blob, which survives broken connections and failing mirrors.

use std::io::{self, Read};

use supermachine_oci_bake::Descriptor;
use ureq::BodyReader;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use ureq::http::{HeaderMap, Response};

use crate::error::PullError;
use crate::host::{Endpoint, Pacing};
use crate::network::Network;

/// Bytes after which a connection was of use: failures before that count no more.
const PROGRESS_BYTES: u64 = 64 << 10;

/// Reads a blob from the first of some endpoints that has it. After a failure it goes
/// on where it was, at the same endpoint or the next. The content is not checked here.
#[derive(Debug)]
pub(crate) struct Blob<'a> {
    network: &'a Network,
    endpoints: &'a [Endpoint],
    descriptor: Descriptor,
    /// Bytes given so far, or not wanted.
    offset: u64,
    /// The endpoint in use.
    at: usize,
    pacing: Pacing<'a>,
    body: Option<Body>,
    /// Whether the endpoint can go on in the middle.
    resumes: bool,
}

struct Body {
    reader: BodyReader<'static>,
    host: String,
    /// Bytes that were given already and come again.
    to_skip: u64,
    /// Bytes of use so far.
    gained: u64,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl<'a> Blob<'a> {
    /// A blob that some endpoint has begun to give, from byte `offset` on.
    pub(crate) fn open(
        network: &'a Network,
        endpoints: &'a [Endpoint],
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Self, PullError> {
        let mut blob = Self {
            network,
            endpoints,
            descriptor: descriptor.clone(),
            offset,
            at: 0,
            pacing: Pacing::new(network),
            body: None,
            resumes: true,
        };
        blob.connect()?;
        Ok(blob)
    }

    /// Makes a connection that goes on where this is.
    fn connect(&mut self) -> Result<(), PullError> {
        while self.body.is_none() {
            match self.request() {
                Ok(body) => self.body = Some(body),
                Err(error) => self.failed(error)?,
            }
        }
        Ok(())
    }

    /// Gets ready for the next attempt, at this endpoint or the next.
    fn failed(&mut self, error: PullError) -> Result<(), PullError> {
        self.body = None;
        if error.is_final() {
            return Err(error);
        }
        let endpoint = &self.endpoints[self.at];
        let Err(error) = self.pacing.after(endpoint, error) else {
            return Ok(());
        };
        if error.is_final() || self.at + 1 == self.endpoints.len() {
            return Err(error);
        }
        tracing::warn!("trying another registry: {error}");
        self.at += 1;
        self.pacing.progressed();
        self.resumes = true;
        Ok(())
    }

    fn request(&mut self) -> Result<Body, PullError> {
        let endpoint = &self.endpoints[self.at];
        let digest = &self.descriptor.digest;
        let path = format!("{}/blobs/{digest}", endpoint.repository());
        let range = format!("bytes={}-", self.offset);
        let mut headers = vec![("accept", "*/*")];
        let resume = self.resumes && self.offset > 0;
        if resume {
            headers.push(("range", &range));
        }
        let what = format!("blob {digest}");
        let wanted: &[u16] = if resume { &[200, 206, 416] } else { &[200] };
        let answer = endpoint.get_once(self.network, &path, &headers, &what, wanted)?;
        let host = answer.host.clone();
        let to_skip = match answer.response.status().as_u16() {
            206 => match range_start(answer.response.headers()) {
                Some((start, total)) if start == self.offset => {
                    if let Some(actual) = total.filter(|total| *total != self.descriptor.size) {
                        return Err(self.wrong_length(host, actual));
                    }
                    0
                }
                // Another part than asked for, or nobody knows which.
                _ => return self.without_ranges(),
            },
            416 => return self.without_ranges(),
            _ => {
                self.check_length(&host, &answer.response)?;
                self.offset
            }
        };
        Ok(Body {
            reader: answer.response.into_body().into_reader(),
            host,
            to_skip,
            gained: 0,
        })
    }

    /// The same request for all of the blob.
    fn without_ranges(&mut self) -> Result<Body, PullError> {
        self.resumes = false;
        self.request()
    }

    /// Whether all of the blob is as long as it must be, if the host says so before.
    fn check_length(&self, host: &str, response: &Response<ureq::Body>) -> Result<(), PullError> {
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            Some(actual) if actual != self.descriptor.size => {
                Err(self.wrong_length(host.to_owned(), actual))
            }
            _ => Ok(()),
        }
    }

    fn wrong_length(&self, host: String, actual: u64) -> PullError {
        PullError::WrongLength {
            host,
            digest: self.descriptor.digest.clone(),
            expected: self.descriptor.size,
            actual,
        }
    }

    /// Some bytes of the connection there is; none at its end.
    fn read_body(&mut self, buf: &mut [u8]) -> Result<usize, PullError> {
        let Some(body) = &mut self.body else {
            return Ok(0);
        };
        let broken = |error: io::Error, host: &str| self.network.broken(host.to_owned(), &error);
        while body.to_skip > 0 {
            let want = usize::try_from(body.to_skip)
                .unwrap_or(usize::MAX)
                .min(buf.len());
            let n = body
                .reader
                .read(&mut buf[..want])
                .map_err(|e| broken(e, &body.host))?;
            if n == 0 {
                return Ok(0);
            }
            body.to_skip -= n as u64;
        }
        let n = body.reader.read(buf).map_err(|e| broken(e, &body.host))?;
        body.gained += n as u64;
        self.offset += n as u64;
        if body.gained >= PROGRESS_BYTES {
            self.pacing.progressed();
        }
        Ok(n)
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.body.is_none() {
                if self.offset >= self.descriptor.size {
                    return Ok(0);
                }
                self.connect().map_err(io::Error::other)?;
            }
            let error = match self.read_body(buf) {
                // More than there should be is for the reader to see.
                Ok(0) if self.offset >= self.descriptor.size => return Ok(0),
                Ok(0) => PullError::Network {
                    host: self.endpoints[self.at].authority(),
                    reason: "it ended before all was there".into(),
                },
                Ok(n) => return Ok(n),
                Err(error) => error,
            };
            self.failed(error).map_err(io::Error::other)?;
        }
    }
}

/// Where a part begins, and how long the whole is, of `bytes 0-9/100` or `bytes 0-9/*`.
fn range_start(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (part, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = part.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start.trim().parse().ok()?, total))
}
