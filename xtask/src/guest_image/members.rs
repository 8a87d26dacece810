//! Debian packages read one after the other as one layer.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The files of several packages as one tar stream.
pub(super) struct Packages {
    waiting: Vec<PathBuf>,
    current: Option<(Child, ChildStdout)>,
    /// Bytes of the current member's content still to pass on.
    content: u64,
    /// A block that was read to be looked at.
    block: Vec<u8>,
}

const BLOCK: usize = 512;

impl Packages {
    pub(super) fn new(mut files: Vec<PathBuf>) -> Self {
        files.reverse();
        Self {
            waiting: files,
            current: None,
            content: 0,
            block: Vec::new(),
        }
    }

    /// Starts the next package; false after the last.
    fn advance(&mut self) -> io::Result<bool> {
        self.finish()?;
        let Some(path) = self.waiting.pop() else {
            return Ok(false);
        };
        let mut child = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no output"))?;
        self.current = Some((child, stdout));
        Ok(true)
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some((mut child, mut stdout)) = self.current.take() else {
            return Ok(());
        };
        io::copy(&mut stdout, &mut io::sink())?;
        let status = child.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("dpkg-deb: {status}")));
        }
        Ok(())
    }

    /// Reads the next header into `block`; leaves it empty after the last
    /// package.
    fn next_header(&mut self) -> io::Result<()> {
        loop {
            if let Some((_, stdout)) = &mut self.current {
                let mut header = [0; BLOCK];
                let read = stdout.read_exact(&mut header);
                // An archive ends with blocks of zeroes, or just ends.
                if read.is_ok() && header != [0; BLOCK] {
                    self.content = content_bytes(&header)?;
                    self.block = header.to_vec();
                    return Ok(());
                }
            }
            if !self.advance()? {
                return Ok(());
            }
        }
    }
}

/// The member's content with its padding, from the octal size field.
fn content_bytes(header: &[u8; BLOCK]) -> io::Result<u64> {
    let digits = header[124..136]
        .iter()
        .copied()
        .take_while(|byte| byte.is_ascii_digit());
    let size = digits.fold(0u64, |size, digit| size << 3 | u64::from(digit - b'0'));
    if size > 1 << 33 {
        return Err(io::Error::other("a package member of over 8 GiB"));
    }
    Ok(size.next_multiple_of(BLOCK as u64))
}

impl Read for Packages {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && self.content == 0 {
            self.next_header()?;
        }
        if !self.block.is_empty() {
            let count = self.block.len().min(buffer.len());
            buffer[..count].copy_from_slice(&self.block[..count]);
            self.block.drain(..count);
            return Ok(count);
        }
        let Some((_, stdout)) = &mut self.current else {
            return Ok(0);
        };
        let most = usize::try_from(self.content).unwrap_or(usize::MAX);
        let room = buffer.len().min(most);
        let count = stdout.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_sizes_are_octal_and_padded() {
        let mut header = [0; BLOCK];
        header[124..136].copy_from_slice(b"00000001001\0");
        assert_eq!(content_bytes(&header).unwrap(), 1024);
        header[124..136].copy_from_slice(b"00000000000\0");
        assert_eq!(content_bytes(&header).unwrap(), 0);
    }
}
