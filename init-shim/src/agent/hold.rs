//! Letting programs go on that the kernel holds in a copy of the machine.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use exec_proto::{ErrorKind, Failure};

use super::failure::not_permitted;

/// Of our kernel (kernel/patches): only process 1 may write.
const SWITCH: &str = "/proc/sys/kernel/hold_user_mode";

/// The kernel's switch. The host has it on in a copy from the first instruction.
#[derive(Debug, Default)]
pub(super) struct Hold {
    switch: Option<File>,
}

impl Hold {
    /// Opens the switch, before a guest can hide it.
    pub(super) fn open() -> Self {
        Self {
            switch: OpenOptions::new().write(true).open(SWITCH).ok(),
        }
    }

    /// Lets all programs go on. A kernel without the switch holds none.
    pub(super) fn release(&self) -> Result<(), Failure> {
        let Some(switch) = &self.switch else {
            return Ok(());
        };
        // At any other offset the kernel would ignore it.
        switch
            .write_all_at(b"0\n", 0)
            .map_err(|error| not_permitted(&error, "cannot release the programs"))
    }
}

/// Fails if there is a program; `processes` is where the kernel lists them.
pub(super) fn require_no_programs(processes: &Path) -> Result<(), Failure> {
    match programs(processes) {
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

    #[test]
    fn programs_go_on_by_a_word_at_the_switch_s_beginning() {
        let dir = scratch("switch");
        let path = dir.join("switch");
        fs::write(&path, "1\n").unwrap();
        let hold = Hold {
            switch: OpenOptions::new().write(true).open(&path).ok(),
        };
        for _ in 0..2 {
            hold.release().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "0\n");
        }
        let full = Hold {
            switch: OpenOptions::new().write(true).open("/dev/full").ok(),
        };
        assert_eq!(full.release().unwrap_err().errno, libc::ENOSPC);
        Hold::default().release().unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_the_kernel_s_own_processes_are_no_programs() {
        let list = scratch("list");
        let process = |pid: &str, stat: &str| {
            fs::create_dir_all(list.join(pid)).unwrap();
            fs::write(list.join(pid).join("stat"), stat).unwrap();
        };
        process("1", "1 (init) S 0 1 1");
        process("2", "2 (kthreadd) S 0 0 0");
        process("7", "7 (kworker/0:1 ) x) I 2 0 0");
        fs::create_dir_all(list.join("sys")).unwrap();
        require_no_programs(&list).unwrap();
        process("30", "30 (2 2) S 1 30 30");
        let failure = require_no_programs(&list).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::NotPermitted);
        assert!(failure.message.contains("hold_user_mode"), "{failure}");
        assert!(require_no_programs(Path::new("/nowhere")).is_err());
        fs::remove_dir_all(list).unwrap();
    }
}
