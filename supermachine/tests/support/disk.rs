//! A disk of a test, which it can fill.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file system in memory that only this test sees, gone with it.
pub struct Disk {
    holder: Child,
    pub path: PathBuf,
}

impl Disk {
    /// Nothing where unprivileged users may not make one.
    pub fn new(mib: u32) -> Option<Self> {
        let script =
            format!("mount -t tmpfs -o size={mib}m none /mnt && echo made && exec sleep 600");
        let mut holder = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = [0; 5];
        let made = holder.stdout.as_mut()?.read_exact(&mut said);
        let path = Path::new("/proc")
            .join(holder.id().to_string())
            .join("root/mnt");
        let disk = Self { holder, path };
        made.ok().map(|()| disk)
    }

    pub fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.path).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Leaves so much.
    pub fn leave(&self, bytes: u64) {
        let fill = self.path.join("fill");
        let size = self.free_bytes().checked_sub(bytes).unwrap();
        let filled = fs::write(fill, vec![1; usize::try_from(size).unwrap()]);
        filled.unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
