//! The newest QEMU that the distribution offers as the benches' peer: its backports have
//! a newer one than its release.
//!
//! It is unpacked in the user's cache directory, not installed: the tests compare with
//! the release's, and installing would replace other packages of the system. Its
//! libraries are those of the release's QEMU, which is installed.

use crate::{packages, process};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the machine emulator is made of, beside libraries.
const PACKAGES: &[&str] = &["qemu-system-arm", "qemu-system-common", "qemu-system-data"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The program of that QEMU; `None`, and a line that says why, if there is only the one
/// that is installed.
pub fn ensure() -> Option<PathBuf> {
    match unpacked() {
        Ok(program) => Some(program),
        Err(error) => {
            eprintln!("the peer is the installed QEMU, since there is no newer one: {error:#}");
            None
        }
    }
}

fn unpacked() -> Result<PathBuf> {
    let listed = packages::lists("$(REPO_URI) $(CODENAME) $(LABEL)")?;
    let Release { from, codename } =
        release(&listed).context("apt's sources have no release of Debian")?;
    let suite = format!("{codename}-backports");
    let place = kernel::cached(&format!("qemu-{suite}"))?;
    let program = place.join("root/usr/bin/qemu-system-aarch64");
    // Written last: what was interrupted is done again.
    let complete = place.join("complete");
    if complete.is_file() {
        return Ok(program);
    }
    // What an interrupted attempt left.
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.join("lists/partial"))?;
    fs::create_dir_all(place.join("archives/partial"))?;
    let sources = place.join("sources.list");
    fs::write(
        &sources,
        format!("deb [signed-by={KEYRING}] {from} {suite} main\n"),
    )?;
    process::output(apt(&place, &sources).args(["update", "-qq"]))?;
    process::output(
        apt(&place, &sources)
            .args(["download", "-qq"])
            .args(PACKAGES)
            .current_dir(place.join("archives")),
    )?;
    for file in fs::read_dir(place.join("archives"))? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let root = place.join("root");
            process::output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root))?;
        }
    }
    // Not with libraries that are missing, or too old.
    process::output(Command::new(&program).arg("--version"))?;
    fs::write(complete, "")?;
    Ok(program)
}

/// apt-get with these sources alone, and nothing of the system's state changed.
fn apt(place: &Path, sources: &Path) -> Command {
    let mut command = Command::new("apt-get");
    for (name, value) in [
        ("Dir::Etc::SourceList", sources),
        ("Dir::Etc::SourceParts", Path::new("/dev/null")),
        ("Dir::State::Lists", &place.join("lists")),
        ("Dir::Cache", place),
    ] {
        command.arg("-o").arg(format!("{name}={}", value.display()));
    }
    command.args(["-o", "APT::Sandbox::User=root"]);
    command
}

/// Where Debian's release comes from here, and what it is called.
#[derive(Debug, PartialEq, Eq)]
struct Release<'a> {
    from: &'a str,
    codename: &'a str,
}

/// The first release of Debian in lines of an address, a name and a label.
fn release(listed: &str) -> Option<Release<'_>> {
    listed.lines().find_map(|line| {
        let (from, rest) = line.split_once(' ')?;
        let (codename, label) = rest.split_once(' ')?;
        // Updates and backports are called after the release.
        (label == "Debian" && !codename.contains('-')).then_some(Release { from, codename })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_told_from_updates_and_others() {
        let listed = "http://a/security/ bookworm-security Debian-Security\n\
                      http://c/debian/ bookworm-updates Debian\n\
                      http://b/debian/ bookworm Debian\n";
        let expected = Release {
            from: "http://b/debian/",
            codename: "bookworm",
        };
        assert_eq!(release(listed), Some(expected));
        assert_eq!(release("http://u/ubuntu/ noble Ubuntu\n"), None);
        assert_eq!(release(""), None);
    }
}
