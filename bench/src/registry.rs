//! Debian's docker-registry on a port of this host.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Host and port.
    pub host: String,
}

impl Registry {
    /// Starts one whose files are in `place`.
    pub fn start(program: &Path, place: &Path) -> Result<Self> {
        fs::create_dir_all(place)?;
        let configuration = place.join("registry.yml");
        let data = place.join("registry");
        fs::write(
            &configuration,
            format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
                data.display()
            ),
        )?;
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let log = child.stderr.take().context("the registry has no log")?;
        let mut lines = BufReader::new(log).lines();
        // It says which port it got, and then that of each request.
        let host = lines.by_ref().flatten().find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split('"').next()?.to_owned())
        });
        std::thread::spawn(move || lines.for_each(drop));
        match host {
            Some(host) => Ok(Self { child, host }),
            None => bail!("the registry ended: {:?}", child.wait()),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
