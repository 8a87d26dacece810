//! passt, one of the two networks that ours is measured beside.

use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for its socket.
const PATIENCE: Duration = Duration::from_secs(100);

/// passt, for one guest. Dropping it ends it.
#[derive(Debug)]
pub struct Passt {
    child: Child,
    socket: PathBuf,
}

impl Passt {
    /// Starts it, for a guest that is 10.0.2.15 and reaches the host as `host`.
    pub fn start(host: &str) -> Result<Self> {
        // As root it becomes another user, who can write only here.
        let name = format!("supermachine-bench-{}.sock", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&socket);
        let child = Command::new("passt")
            .args(["--foreground", "--quiet", "--mtu", "1500", "--socket"])
            .arg(&socket)
            .args([
                "--address",
                "10.0.2.15",
                "--netmask",
                "24",
                "--gateway",
                host,
            ])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run passt")?;
        let mut started = Self { child, socket };
        let begun = Instant::now();
        while !started.socket.exists() {
            if let Some(status) = started.child.try_wait()? {
                bail!("passt ended: {status}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("passt makes no socket");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    /// What QEMU is told of it.
    pub fn netdev(&self) -> String {
        let path = self.socket.display();
        format!("stream,id=net,server=off,addr.type=unix,addr.path={path}")
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // All fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
