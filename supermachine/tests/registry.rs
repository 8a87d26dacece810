//! Images from a registry that is not ours: Debian's docker-registry, filled by skopeo.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::*;

/// A registry on a port of its own, which ends with this.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one whose files are in `sandbox`.
    fn start(sandbox: &Sandbox) -> Self {
        let configuration = sandbox.files.join("registry.yml");
        let data = sandbox.files.join("registry");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            data.display()
        );
        fs::write(&configuration, text).unwrap();
        let mut child = Command::new(program())
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says which port it got, and then that of each request.
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = log.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split('"').next()?.to_owned())
        });
        std::thread::spawn(move || log.for_each(drop));
        let host = host.expect("the registry ended before it listened");
        Self { child, host }
    }

    /// Copies the busybox image there.
    fn push(&self, name: &str) -> String {
        let to = format!("docker://{}/{name}", self.host);
        let status = Command::new("skopeo")
            .args([
                "copy",
                "--quiet",
                "--insecure-policy",
                "--dest-tls-verify=false",
            ])
            .args([busybox(), &to])
            .status()
            .expect("skopeo is one of the packages of `cargo xtask test setup`");
        assert!(status.success());
        format!("{}/{name}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let mut places = executable
        .ancestors()
        .map(|dir| dir.join("registry/docker-registry"));
    places
        .find(|path| path.is_file())
        .expect("run `cargo xtask test setup` once: it unpacks the registry of these tests")
}

/// What the tool says with an empty cache of its own.
fn run(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let mut command = sandbox.command(arguments);
    command
        .env("XDG_CACHE_HOME", sandbox.files.join("cache"))
        .env("DOCKER_CONFIG", sandbox.files.join("docker"))
        .env("XDG_CONFIG_HOME", sandbox.files.join("config"));
    finish(command.spawn().unwrap(), PATIENCE)
}

#[test]
fn an_image_runs_from_a_registry_and_without_it_from_then_on() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox);
    let reference = registry.push("some/busybox:v1");
    let echo = |options: &[&str]| {
        let mut arguments = vec!["run"];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[&reference, "--", "echo", "hello"]);
        run(&sandbox, &arguments)
    };
    echo(&["--pull", "never"]).assert_refused(125, &["not here", "some/busybox:v1"]);
    let first = echo(&[]);
    assert_eq!((first.code(), &*first.out()), (0, "hello\n"), "{first:?}");

    let other = format!("{}/some/other:v1", registry.host);
    let finished = run(&sandbox, &["run", &other, "--", "true"]);
    finished.assert_refused(125, &[&registry.host, "some/other:v1", "check the name"]);

    // What a tag means now is asked by `pull`, which finds all layers here.
    let pulled = run(&sandbox, &["pull", &reference]);
    assert_eq!(pulled.code(), 0, "{pulled:?}");
    assert!(pulled.err().contains("an image of 2 layers"), "{pulled:?}");
    drop(registry);
    let again = echo(&[]);
    assert_eq!((again.code(), &*again.out()), (0, "hello\n"), "{again:?}");
    run(&sandbox, &["pull", &reference]).assert_refused(125, &["127.0.0.1"]);
}
