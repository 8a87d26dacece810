//! `--read-only` and `--tmpfs`: what of a machine's files a command can change.

use crate::Error;
use crate::exec::Opens;
use crate::files::mounts::{Tmpfs, make_root_read_only, mount_tmpfs};
use crate::tmpfs::{MS_NODEV, MS_NOEXEC, MS_NOSUID, USUAL_FLAGS};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Linux's `sys/mount.h`.
const MS_RDONLY: u64 = 1;
/// As /tmp has it: everybody writes, and removes their own.
const USUAL_MODE: &str = "mode=1777";

#[derive(clap::Args)]
pub struct Mounts {
    /// Have the machine's root refuse writes; /dev, /run, /dev/shm and what --tmpfs
    /// mounts take them
    #[arg(long)]
    read_only: bool,
    /// Mount memory there, as PATH or PATH:size=64m,mode=700,exec; may be repeated
    #[arg(long, value_name = "PATH[:OPTIONS]",
          value_parser = clap::builder::TypedValueParser::try_map(
              clap::builder::OsStringValueParser::new(), |text| tmpfs(&text)))]
    tmpfs: Vec<Tmpfs>,
}

impl Mounts {
    /// Mounts what was asked for in a machine in which no command runs yet.
    /// `working_dir` is where it will.
    pub fn apply(&self, on: &dyn Opens, working_dir: Option<&OsStr>) -> Result<(), Error> {
        for tmpfs in &self.tmpfs {
            mount_tmpfs(on, tmpfs)?;
        }
        if self.read_only {
            let own = working_dir.map(OsStr::as_bytes);
            let image = on.image_config().working_dir.as_bytes();
            make_root_read_only(on, own.unwrap_or(image))?;
        }
        Ok(())
    }
}

/// `PATH`, or `PATH:OPTION,…`.
fn tmpfs(text: &OsStr) -> Result<Tmpfs, String> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let (path, options) = match colon {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    if path.first() != Some(&b'/') || path == b"/" {
        return Err("expected the absolute path of a directory, and not the root".to_owned());
    }
    let options = OsString::from_vec(options.to_vec());
    let options = options.to_str().ok_or("options are text")?;
    let mut tmpfs = Tmpfs {
        path: path.to_vec(),
        flags: USUAL_FLAGS,
        options: USUAL_MODE.to_owned(),
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply_option(&mut tmpfs, option)?;
    }
    Ok(tmpfs)
}

fn apply_option(tmpfs: &mut Tmpfs, option: &str) -> Result<(), String> {
    let switches = [
        ("ro", "rw", MS_RDONLY),
        ("nosuid", "suid", MS_NOSUID),
        ("nodev", "dev", MS_NODEV),
        ("noexec", "exec", MS_NOEXEC),
    ];
    for (on, off, flag) in switches {
        if option == on {
            tmpfs.flags |= flag;
            return Ok(());
        }
        if option == off {
            tmpfs.flags &= !flag;
            return Ok(());
        }
    }
    let is_number =
        |digits: &str, base| !digits.is_empty() && u64::from_str_radix(digits, base).is_ok();
    let fits = match option.split_once('=') {
        // The kernel's own units (mm/shmem.c), and a share of the memory.
        Some(("size", size)) => is_number(
            size.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G', '%']),
            10,
        ),
        Some(("nr_inodes", count)) => is_number(count, 10),
        Some(("mode", mode)) => is_number(mode, 8),
        Some(("uid" | "gid", id)) => id.parse::<u32>().is_ok(),
        _ => false,
    };
    if !fits {
        return Err(format!(
            "`{option}` is no option: use size=64m, mode=700, uid=1000, gid=1000, nr_inodes=1000, \
             ro, exec, suid or dev"
        ));
    }
    tmpfs.options.push(',');
    tmpfs.options.push_str(option);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_docker_s_and_refuse_what_the_kernel_would_take_otherwise() {
        let parsed = |text: &str| tmpfs(OsStr::new(text));
        let usual = parsed("/scratch").unwrap();
        assert_eq!(
            (usual.flags, usual.options.as_str()),
            (USUAL_FLAGS, "mode=1777")
        );
        assert_eq!(usual.path, b"/scratch");
        let all = parsed("/s:rw,exec,size=64m,mode=700,uid=7").unwrap();
        assert_eq!(all.flags, MS_NOSUID | MS_NODEV);
        assert_eq!(all.options, "mode=1777,size=64m,mode=700,uid=7");
        assert_eq!(parsed("/s:ro,dev,suid,exec").unwrap().flags, MS_RDONLY);
        for bad in [
            "",
            "s",
            "/",
            "relative/x",
            "/s:size=",
            "/s:size=x",
            "/s:mode=9",
            "/s:bind",
            "/s:size=1m mode=7",
            "/s:uid=-1",
            "/s:mpol=bind",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
