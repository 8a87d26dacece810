//! Debian's docker-registry, which tests pull from. Its package is unpacked and not
//! installed: that would start a registry of the machine's own.

use crate::{process, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const PACKAGE: &str = "docker-registry";

/// The program, below the target directory, where tests look for it.
pub fn ensure() -> Result<PathBuf> {
    let dir = workspace::target_dir()?.join("registry");
    let program = dir.join(PACKAGE);
    if program.is_file() {
        return Ok(program);
    }
    let scratch = dir.join("unfinished");
    // What an interrupted run left.
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let mut download = Command::new("apt-get");
    process::shown(download.args(["download", PACKAGE]).current_dir(&scratch))?;
    let package = fs::read_dir(&scratch)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get downloaded no package")?;
    let root = scratch.join("root");
    let mut extract = Command::new("dpkg-deb");
    process::shown(extract.arg("--extract").arg(package).arg(&root))?;
    fs::rename(root.join("usr/bin").join(PACKAGE), &program)?;
    fs::remove_dir_all(&scratch)?;
    Ok(program)
}

/// A registry on a port of its own, which ends with this.
pub struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one whose files are in a directory.
    pub fn start(dir: &Path) -> Result<Self> {
        let configuration = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n",
            dir.join("registry").display()
        );
        fs::write(&configuration, text)?;
        let child = Command::new(ensure()?)
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the registry")?;
        let mut started = Self {
            child,
            host: String::new(),
        };
        // It says which port it got, and then that of each request.
        let log = started.child.stderr.take().context("no log")?;
        let mut lines = BufReader::new(log).lines().map_while(Result::ok);
        let host = lines.find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ',']).next()?.to_owned())
        });
        started.host = host.context("the registry ended before it listened")?;
        std::thread::spawn(move || lines.for_each(drop));
        Ok(started)
    }

    /// Copies an image there; the reference that it has then.
    pub fn push(&self, image: &str, name: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.host);
        process::shown(
            Command::new("skopeo")
                .args([
                    "copy",
                    "--quiet",
                    "--insecure-policy",
                    "--dest-tls-verify=false",
                ])
                .arg(image)
                .arg(format!("docker://{reference}")),
        )?;
        Ok(reference)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
