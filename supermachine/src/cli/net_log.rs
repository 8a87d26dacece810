//! `--net-log`: what became of the guest's flows, as lines of JSON.

use crate::Error;
use crate::error::with_causes;
use crate::life::flows_since;
use crate::limits::cli::NET_LOG_PAUSE;
use crate::network::NetworkFlow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use tracing::warn;

/// Bytes of a file, after which it goes on in another: what was before is kept as
/// `FILE.1`.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// Writes a machine's flows down until it is dropped, those that have ended by then
/// included.
pub struct NetLog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NetLog {
    /// Begins with the flows of the machine of a runtime directory.
    pub fn start(dir: &Path, file: &Path) -> Result<Self, Error> {
        let mut writer = Writer::open(file, MAX_FILE_BYTES)
            .map_err(Error::host("cannot write the network's log", file))?;
        let dir = dir.to_owned();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("net-log".into());
        let write = move || {
            loop {
                let is_last = stopped.recv_timeout(NET_LOG_PAUSE) != Err(RecvTimeoutError::Timeout);
                if let Err(error) = writer.follow(&dir)
                    && is_last
                {
                    warn!(
                        error = with_causes(&error),
                        "the network's log is not complete"
                    );
                }
                if is_last {
                    return;
                }
            }
        };
        let thread = thread
            .spawn(write)
            .map_err(Error::system("start a thread"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for NetLog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
    /// The number of the flow that comes next.
    next: u64,
}

impl Writer {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            limit,
            next: 0,
        })
    }

    /// Writes what there is.
    fn follow(&mut self, dir: &Path) -> Result<(), Error> {
        loop {
            let found = flows_since(dir, self.next)?;
            let before = self.next;
            if found.flows.is_empty() {
                return Ok(());
            }
            self.next = found.next;
            self.write(&found.flows, before)
                .map_err(Error::host("cannot write the network's log", &self.path))?;
        }
    }

    /// Writes flows, of which that number was expected first.
    fn write(&mut self, flows: &[NetworkFlow], mut expected: u64) -> io::Result<()> {
        let mut text = Vec::new();
        for flow in flows {
            let lost = flow.number.saturating_sub(expected);
            if lost > 0 {
                writeln!(text, "{}", serde_json::json!({ "lost": lost }))?;
            }
            expected = flow.number.saturating_add(1);
            serde_json::to_writer(&mut text, flow)?;
            text.push(b'\n');
        }
        let length = text.len() as u64;
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            (self.file, self.bytes) = (append(&self.path)?, 0);
        }
        self.file.write_all(&text)?;
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }
}

/// Opens a file to write at its end, for this user alone if it is new.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(number: u64) -> NetworkFlow {
        serde_json::from_value(serde_json::json!({
            "number": number, "ended_unix_ms": 5, "lasted_us": 6, "name": "example.com",
            "address": "192.0.2.1", "port": 443, "protocol": "tcp", "verdict": "allow",
            "cause": "default", "sent_bytes": 1, "received_bytes": 2, "end": "closed",
        }))
        .unwrap()
    }

    #[test]
    fn files_are_bounded_and_say_what_is_missing() {
        let dir = std::env::temp_dir().join(format!("smnetlog-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        let mut writer = Writer::open(&path, 1000).unwrap();
        writer.write(&[flow(0), flow(3)], 0).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            (&lines[0]["number"], &lines[1]["lost"]),
            (&0.into(), &2.into())
        );
        for number in 4..40 {
            writer.write(&[flow(number)], number).unwrap();
        }
        let length = |name: &str| dir.join(name).metadata().unwrap().len();
        assert!(length("log") <= 1000 && length("log.1") <= 1000);
        // It goes on where another run has ended.
        let before = length("log");
        let again = Writer::open(&path, 1000).unwrap();
        assert_eq!(again.bytes, before);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
