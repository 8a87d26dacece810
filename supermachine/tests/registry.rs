//! Images from a registry that is not ours: Debian's docker-registry, filled by skopeo.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use oci_bake::{BakeError, BakeOptions, BakedImage, Reference, Store};
use oci_pull::{Client, ClientConfig, PullError, PullPolicy, Secret};
use support::*;

/// A registry on a port of its own, which ends with this.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one whose files are in `sandbox`.
    fn start(sandbox: &Sandbox) -> Self {
        Self::with(sandbox, "")
    }

    /// The same with more in its configuration: of `http` first.
    fn with(sandbox: &Sandbox, more: &str) -> Self {
        let configuration = sandbox.files.join("registry.yml");
        let data = sandbox.files.join("registry");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{more}",
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
            Some(rest.split(['"', ',']).next()?.to_owned())
        });
        std::thread::spawn(move || log.for_each(drop));
        let host = host.expect("the registry ended before it listened");
        Self { child, host }
    }

    /// Copies the busybox image there.
    fn push(&self, name: &str) -> String {
        self.push_with(name, &["--dest-tls-verify=false"])
    }

    fn push_with(&self, name: &str, options: &[&str]) -> String {
        let to = format!("docker://{}/{name}", self.host);
        let status = Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy"])
            .args(options)
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

/// The user `user` with the password `hunter2`, as `htpasswd -B` writes it.
const USERS: &str = "user:$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

/// Settings that know nothing of this machine but these places of the sandbox.
fn settings(sandbox: &Sandbox) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.credentials.files = vec![sandbox.files.join("config.json")];
    config
}

/// Pulls into a cache of its own, and boots nothing.
fn pull(sandbox: &Sandbox, config: &ClientConfig, name: &str) -> Result<BakedImage, BakeError> {
    let reference = Reference::parse(name).unwrap();
    let store = Store::open(sandbox.files.join("images")).unwrap();
    let client = Client::new(config.clone());
    let name = reference.registry_name().unwrap();
    client.pull(name, PullPolicy::Always, &BakeOptions::default(), &store)
}

#[test]
fn a_registry_with_passwords_gives_an_image_to_who_is_logged_in() {
    let sandbox = Sandbox::new();
    let users = sandbox.files.join("users");
    fs::write(&users, USERS).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        users.display()
    );
    let registry = Registry::with(&sandbox, &auth);
    let options = ["--dest-tls-verify=false", "--dest-creds=user:hunter2"];
    let name = registry.push_with("some/busybox:v1", &options);
    let config = settings(&sandbox);
    let refused = pull(&sandbox, &config, &name).unwrap_err();
    let refused = PullError::of(refused).unwrap();
    assert!(
        matches!(refused, PullError::LoginNeeded { .. }),
        "{refused}"
    );
    let login = |password: &str| {
        oci_pull::login(&config, &registry.host, "user", &Secret::new(password)).map(drop)
    };
    let wrong = login("hunter3").unwrap_err();
    assert!(matches!(wrong, PullError::Denied { .. }), "{wrong}");
    login("hunter2").unwrap();
    let baked = pull(&sandbox, &config, &name).unwrap();
    assert_eq!(baked.layers.len(), 2);
}

#[test]
fn a_registry_with_a_certificate_of_its_own_authority_is_trusted_where_that_is_said() {
    let sandbox = Sandbox::new();
    let certificates = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../oci-pull/tests/certificates"
    );
    let tls = format!(
        "  tls:\n    certificate: {certificates}/server.crt\n    key: {certificates}/server.key\n"
    );
    let registry = Registry::with(&sandbox, &tls);
    let trusted = sandbox.files.join("certs.d");
    let of_host = trusted.join(&registry.host);
    fs::create_dir_all(&of_host).unwrap();
    fs::copy(
        format!("{certificates}/authority.crt"),
        of_host.join("authority.crt"),
    )
    .unwrap();
    let option = format!("--dest-cert-dir={}", of_host.display());
    let name = registry.push_with("some/busybox:v1", &[&option]);
    let mut config = settings(&sandbox);
    let refused = pull(&sandbox, &config, &name).unwrap_err();
    let refused = PullError::of(refused).unwrap();
    assert!(matches!(refused, PullError::Untrusted { .. }), "{refused}");
    config.certificate_directories = vec![trusted];
    let baked = pull(&sandbox, &config, &name).unwrap();
    assert_eq!(baked.layers.len(), 2);
}
