//! Keeping all other programs from running while the machine is copied.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use exec_proto::{ErrorKind, Failure};

use super::failure::not_permitted;

/// Of our kernel (kernel/patches): only process 1 may write.
const SWITCH: &str = "/proc/sys/kernel/hold_user_mode";

/// The kernel's switch, and how many want it on.
#[derive(Debug)]
pub(super) struct Hold {
    switch: Option<File>,
    /// Lists the processes, where there is no switch.
    processes: &'static Path,
    holders: Mutex<u32>,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            switch: None,
            processes: Path::new("/proc"),
            holders: Mutex::new(0),
        }
    }
}

impl Hold {
    /// Opens the switch, before a guest can hide it.
    pub(super) fn open() -> Self {
        Self {
            switch: OpenOptions::new().write(true).open(SWITCH).ok(),
            ..Self::default()
        }
    }

    /// Returns when no CPU runs another program. Several may hold; programs go
    /// on when all have let go.
    ///
    /// Without a switch it succeeds only while there is no other program.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        let mut holders = self.holders();
        if *holders == 0 {
            match &self.switch {
                Some(switch) => turn(switch, true)?,
                None => self.require_solitude()?,
            }
        }
        *holders = holders.saturating_add(1);
        Ok(())
    }

    /// One lets go. Of what nobody holds that is no mistake: a host that gave up
    /// waiting does not know how far its request came.
    pub(super) fn end(&self) -> Result<(), Failure> {
        let mut holders = self.holders();
        let left = holders.saturating_sub(1);
        self.set(&mut holders, left)
    }

    /// Leaves none, or one: for a copy, where whoever held the machine it was
    /// copied from is not there.
    pub(super) fn leave(&self, left: u32) -> Result<(), Failure> {
        let mut holders = self.holders();
        let left = left.min(*holders);
        self.set(&mut holders, left)
    }

    fn holders(&self) -> MutexGuard<'_, u32> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are `left` holders from now on, and not more than before.
    fn set(&self, holders: &mut u32, left: u32) -> Result<(), Failure> {
        if *holders > 0
            && left == 0
            && let Some(switch) = &self.switch
        {
            turn(switch, false)?;
        }
        *holders = left;
        Ok(())
    }

    fn require_solitude(&self) -> Result<(), Failure> {
        match programs(self.processes) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure {
                kind: ErrorKind::NotPermitted,
                errno: 0,
                message: "the guest kernel has no kernel.hold_user_mode, which copies of a \
                          machine with running programs need: use the kernel of cargo xtask \
                          assets, or make copies before the first program is started"
                    .to_owned(),
            }),
            Err(error) => Err(not_permitted(&error, "cannot list the processes")),
        }
    }
}

fn turn(switch: &File, on: bool) -> Result<(), Failure> {
    // At any other offset the kernel would ignore it.
    let written = switch.write_all_at(if on { b"1\n" } else { b"0\n" }, 0);
    let what = match on {
        true => "cannot hold the programs",
        false => "cannot release the programs",
    };
    written.map_err(|error| not_permitted(&error, what))
}

/// How many processes there are that are neither the first nor the kernel's.
fn programs(list: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(list)? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != 1) else {
            continue;
        };
        // One that has ended meanwhile has no text.
        let stat = fs::read(list.join(&name).join("stat")).unwrap_or_default();
        if !stat.is_empty() && !is_kernels(pid, &stat) {
            count += 1;
        }
    }
    Ok(count)
}

/// Whether a process is the kernel's: process 2, or a child of it.
fn is_kernels(pid: u32, stat: &[u8]) -> bool {
    // The name is in brackets and may contain any.
    let after_name = stat.rsplit(|byte| *byte == b')').next();
    let mut fields = after_name
        .unwrap_or_default()
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    pid == 2 || fields.nth(1) == Some(b"2")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sm-hold-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A hold whose switch is an ordinary file, which shows the last word.
    fn with_switch(name: &str) -> (Hold, PathBuf) {
        let path = scratch(name).join("switch");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let hold = Hold {
            switch: Some(file),
            ..Hold::default()
        };
        (hold, path)
    }

    #[test]
    fn programs_go_on_when_the_last_holder_lets_go() {
        let (hold, path) = with_switch("last");
        let word = || fs::read_to_string(&path).unwrap();
        hold.end().unwrap();
        assert_eq!(word(), "", "nobody held");
        hold.begin().unwrap();
        hold.begin().unwrap();
        assert_eq!(word(), "1\n");
        hold.end().unwrap();
        assert_eq!(word(), "1\n");
        hold.end().unwrap();
        assert_eq!(word(), "0\n");
    }

    #[test]
    fn copy_has_no_holders_but_its_own() {
        let (hold, path) = with_switch("copy");
        let word = || fs::read_to_string(&path).unwrap();
        hold.begin().unwrap();
        hold.begin().unwrap();
        hold.leave(1).unwrap();
        assert_eq!(word(), "1\n");
        hold.end().unwrap();
        assert_eq!(word(), "0\n");
        hold.begin().unwrap();
        hold.leave(0).unwrap();
        assert_eq!(word(), "0\n");
        hold.leave(1).unwrap();
        hold.begin().unwrap();
        assert_eq!(word(), "1\n", "what nobody held did not count");
    }

    #[test]
    fn kernel_that_cannot_hold_is_no_matter_without_programs() {
        let list = scratch("list").leak();
        let hold = Hold {
            processes: list,
            ..Hold::default()
        };
        let process = |pid: &str, stat: &str| {
            fs::create_dir_all(list.join(pid)).unwrap();
            fs::write(list.join(pid).join("stat"), stat).unwrap();
        };
        process("1", "1 (init) S 0 1 1");
        process("2", "2 (kthreadd) S 0 0 0");
        process("7", "7 (kworker/0:1 ) x) I 2 0 0");
        fs::create_dir_all(list.join("sys")).unwrap();
        hold.begin().unwrap();
        hold.end().unwrap();
        process("30", "30 (2 2) S 1 30 30");
        let failure = hold.begin().unwrap_err();
        assert_eq!(failure.kind, ErrorKind::NotPermitted);
        assert!(failure.message.contains("hold_user_mode"), "{failure}");
    }
}
