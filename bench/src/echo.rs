//! Another process that sends back what it is sent: what a round trip between two
//! processes costs on this host at this time.

use anyhow::{Context as _, Result, bail};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The argument that makes this program the other process.
pub const ARGUMENT: &str = "--echo-back";
/// About what a short command takes there and back.
const BYTES: usize = 64;

/// The other process. Dropping it ends it.
#[derive(Debug)]
pub struct Echo {
    child: Child,
    stream: UnixStream,
}

impl Echo {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let own = std::env::current_exe().context("which executable is this?")?;
        let (stream, its) = UnixStream::pair()?;
        let child = Command::new(own)
            .arg(ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(its)))
            .spawn()
            .context("cannot start the echo")?;
        Ok(Self { child, stream })
    }

    /// One round trip, in microseconds.
    pub fn round_trip(&mut self) -> Result<f64> {
        let mut bytes = [7; BYTES];
        let begun = Instant::now();
        self.stream.write_all(&bytes)?;
        self.stream.read_exact(&mut bytes)?;
        let elapsed = begun.elapsed().as_secs_f64() * 1e6;
        if bytes != [7; BYTES] {
            bail!("the echo said something else");
        }
        Ok(elapsed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends back what comes, until the other side is gone.
pub fn serve() -> Result<()> {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut bytes = [0; BYTES];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count])?,
        }
    }
}
