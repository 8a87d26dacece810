//! That the same sources make the same archives, wherever they are.

use super::Dist;
use crate::{process, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes everything once more, of a copy of the sources in another place and with
/// nothing that was built before, and compares.
pub fn compare(dist: &Dist) -> Result<()> {
    let sums = |dir: &Path| {
        let path = dir.join("SHA256SUMS");
        fs::read_to_string(path).context("nothing is there to compare: run cargo xtask dist first")
    };
    let first = sums(&dist.out)?;
    let own = workspace::target_dir()?.join("dist-again");
    let _ = fs::remove_dir_all(&own);
    let again = Dist {
        platform: dist.platform,
        root: own.join("sources"),
        out: own.join("out"),
        scratch: own.join("scratch"),
        built: own.join("build"),
        version: dist.version.clone(),
        epoch: dist.epoch.clone(),
    };
    copy(&dist.root, &again.root)?;
    again.make()?;
    let second = sums(&again.out)?;
    let differ: Vec<&str> = differences(&first, &second);
    if !differ.is_empty() {
        bail!(
            "made twice, and not the same: {}; one is in {}, the other in {}",
            differ.join(", "),
            dist.out.display(),
            again.out.display()
        );
    }
    eprintln!("made twice, and the same:\n{}", first.trim_end());
    fs::remove_dir_all(&own).context("cannot tidy up")
}

/// Names of what has not the same checksum in both.
fn differences<'a>(first: &'a str, second: &'a str) -> Vec<&'a str> {
    let lines = |text: &'a str, other: &'a str| {
        text.lines()
            .filter(move |line| !other.lines().any(|there| there == *line))
            .filter_map(|line| line.split_whitespace().last())
    };
    let mut names: Vec<&str> = lines(first, second).chain(lines(second, first)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Copies what is a source: what git has, also where that was changed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others"])
        .arg("--exclude-standard")
        .current_dir(from)
        .output()
        .context("cannot run git")?;
    ensure!(git.status.success(), "git does not list the sources");
    let (list, archive) = (to.with_extension("list"), to.with_extension("tar"));
    fs::write(&list, git.stdout)?;
    process::shown(
        Command::new("tar")
            .arg("--null")
            .arg("--files-from")
            .arg(&list)
            .arg("-cf")
            .arg(&archive)
            .current_dir(from),
    )?;
    let mut unpack = Command::new("tar");
    process::shown(unpack.arg("-xf").arg(&archive).arg("-C").arg(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_and_what_is_in_one_only_is_named() {
        let first = "aa  same\nbb  changed\ncc  gone\n";
        let second = "aa  same\nbd  changed\ndd  new\n";
        assert_eq!(differences(first, second), ["changed", "gone", "new"]);
        assert!(differences(first, first).is_empty());
    }
}
