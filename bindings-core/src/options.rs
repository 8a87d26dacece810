//! Options as other languages have them: all fields public, most of them absent,
//! numbers of one kind.

use std::path::PathBuf;
use std::time::Duration;

use supermachine::{
    Command, ExtraFile, OciImageBuilder, PoolBuilder, PullPolicy, VmConfig, VolumeSpec,
};

use crate::mounts::{MountOptions, TmpfsOptions};
use crate::network::{NetworkOptions, SecretOptions};
use crate::numbers::{fitting, milliseconds, optional};
use crate::{BindingError, Result, installation};

/// Names and values.
pub type Assign = Vec<(String, String)>;

/// What an image is baked from, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildOptions {
    /// The image, as `docker run` names it, or `oci:DIR` and its kin.
    pub reference: String,
    /// The snapshot's name.
    pub name: Option<String>,
    /// Guest memory.
    pub memory_mib: Option<f64>,
    /// Virtual CPUs.
    pub vcpus: Option<f64>,
    /// `always`, `missing` or `never`.
    pub pull_policy: Option<String>,
    /// The workload, instead of the image's.
    pub cmd: Option<Vec<String>>,
    /// The program that commands begin with, instead of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the workload's environment.
    pub env: Assign,
    /// Where commands start.
    pub workdir: Option<String>,
    /// Whom commands run as.
    pub user: Option<String>,
    /// Labels, beside those of the image.
    pub labels: Assign,
    /// Where the workload listens.
    pub guest_port: Option<f64>,
    /// Capture the machine when its workload listens.
    pub listener_required: bool,
    /// What may be reached while it is baked. Machines of it have a network interface only
    /// if this is said.
    pub network: Option<NetworkOptions>,
    /// Files of the host that become part of the image.
    pub extra_files: Vec<ExtraFileOptions>,
    /// Directories of the host.
    pub mounts: Vec<MountOptions>,
    /// Memory that guests have as file systems.
    pub tmpfs: Vec<TmpfsOptions>,
    /// Volumes that are baked.
    pub volumes: Vec<VolumeOptions>,
    /// Room for volumes that outlive machines.
    pub volume_slots: Option<f64>,
    /// Tells warm-ups apart.
    pub warmup_tag: Option<String>,
    /// Where snapshots are kept.
    pub snapshots_dir: Option<PathBuf>,
}

impl BuildOptions {
    /// The builder of a bake.
    pub(crate) fn builder(self) -> Result<OciImageBuilder> {
        if self.reference.is_empty() {
            return Err(BindingError::invalid("ref must name an image"));
        }
        let mut config = installation::config();
        if let Some(network) = self.network {
            config = config.with_network(network.network()?);
        }
        for tmpfs in self.tmpfs {
            config = config.with_tmpfs(tmpfs.spec()?);
        }
        let mut builder = supermachine::Image::builder(self.reference)
            .vm_config(config)
            .listener_required(self.listener_required);
        if let Some(name) = self.name {
            builder = builder.name(name);
        }
        if let Some(mib) = optional("memoryMib", self.memory_mib, 1)? {
            builder = builder.memory_mib(mib);
        }
        if let Some(vcpus) = optional("vcpus", self.vcpus, 1)? {
            builder = builder.vcpus(vcpus);
        }
        if let Some(policy) = &self.pull_policy {
            builder = builder.pull_policy(pull_policy(policy)?);
        }
        if let Some(cmd) = self.cmd {
            builder = builder.cmd(cmd);
        }
        if let Some(entrypoint) = self.entrypoint {
            builder = builder.entrypoint(entrypoint);
        }
        for (name, value) in self.env {
            builder = builder.env(name, value);
        }
        if let Some(directory) = self.workdir {
            builder = builder.workdir(directory);
        }
        if let Some(user) = self.user {
            builder = builder.user(user);
        }
        builder = builder.labels(self.labels);
        if let Some(port) = optional("guestPort", self.guest_port, 1)? {
            builder = builder.guest_port(port);
        }
        for file in self.extra_files {
            builder = builder.extra_files([file.file()?]);
        }
        for mount in self.mounts {
            builder = builder.with_mount(mount.spec()?);
        }
        for volume in self.volumes {
            builder = builder.with_volume(volume.spec()?);
        }
        let slots = optional("volumeSlots", self.volume_slots, 0)?;
        builder = builder.volume_slots(slots.unwrap_or(0));
        if let Some(tag) = self.warmup_tag {
            builder = builder.with_warmup_tag(tag);
        }
        if let Some(dir) = self.snapshots_dir {
            builder = builder.snapshots_dir(dir);
        }
        Ok(builder)
    }
}

fn pull_policy(text: &str) -> Result<PullPolicy> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err(BindingError::invalid(format!(
            "pullPolicy must be always, missing or never, not {text:?}"
        ))),
    }
}

/// A file of the host that becomes part of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExtraFileOptions {
    /// The file.
    pub host_path: PathBuf,
    /// Where the guest has it.
    pub guest_path: String,
    /// Permission bits; those of the file if absent.
    pub mode: Option<f64>,
}

impl ExtraFileOptions {
    fn file(self) -> Result<ExtraFile> {
        let file = ExtraFile::new(self.host_path, self.guest_path);
        Ok(match optional("mode", self.mode, 0)? {
            Some(mode) => file.with_mode(mode),
            None => file,
        })
    }
}

/// A disk that outlives machines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VolumeOptions {
    /// Its name; it is made if there is none.
    pub name: String,
    /// Its least size.
    pub size_mib: Option<f64>,
    /// Where the guest has it.
    pub mount_point: String,
}

impl VolumeOptions {
    fn spec(self) -> Result<VolumeSpec> {
        let spec = VolumeSpec::new(self.name, self.mount_point);
        Ok(match optional("sizeMib", self.size_mib, 1)? {
            Some(mib) => spec.with_size_mib(mib),
            None => spec,
        })
    }
}

/// How machines of a pool are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolOptions {
    /// Machines kept ready.
    pub min: Option<f64>,
    /// Machines at most.
    pub max: Option<f64>,
    /// How long an acquire waits; 0 for as long as it takes.
    pub acquire_timeout_ms: Option<f64>,
    /// When an idle machine beyond `min` is ended.
    pub idle_timeout_ms: Option<f64>,
    /// Whether a machine goes back to the snapshot when it is released.
    pub restore_on_release: Option<bool>,
    /// How long a restore may take.
    pub restore_timeout_ms: Option<f64>,
    /// What each machine is.
    pub machine: StartOptions,
}

impl PoolOptions {
    pub(crate) fn apply(self, mut builder: PoolBuilder) -> Result<PoolBuilder> {
        // As the npm page has them.
        let min = optional("min", self.min, 0)?.unwrap_or(1);
        let max = optional("max", self.max, 1)?.unwrap_or(min.max(1));
        builder = builder.min(min).max(max);
        if let Some(timeout) = milliseconds("acquireTimeoutMs", self.acquire_timeout_ms)? {
            builder = builder.acquire_timeout(timeout);
        }
        if let Some(timeout) = milliseconds("idleTimeoutMs", self.idle_timeout_ms)? {
            builder = builder.idle_timeout(timeout);
        }
        if let Some(restore) = self.restore_on_release {
            builder = builder.restore_on_release(restore);
        }
        builder = builder.vm_config(self.machine.config()?);
        if let Some(timeout) = milliseconds("restoreTimeoutMs", self.restore_timeout_ms)? {
            builder = builder.restore_timeout(timeout);
        }
        Ok(builder)
    }
}

/// How a machine is, beyond its image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StartOptions {
    /// Guest memory.
    pub memory_mib: Option<f64>,
    /// Virtual CPUs.
    pub vcpus: Option<f64>,
    /// Its name, by which other processes find it.
    pub name: Option<String>,
    /// The guest's host name.
    pub hostname: Option<String>,
    /// Labels, by which other processes tell machines apart.
    pub labels: Assign,
    /// What the guest may reach; nothing if absent.
    pub network: Option<NetworkOptions>,
    /// Secrets that the guest uses and never has.
    pub secrets: Vec<SecretOptions>,
    /// Directories of the host, for the tags that the image was baked with.
    pub mounts: Vec<MountOptions>,
    /// Memory that the guest has as file systems.
    pub tmpfs: Vec<TmpfsOptions>,
    /// Volumes that outlive the machine, as many as the image has room for.
    pub volumes: Vec<VolumeOptions>,
    /// Where these are kept; with those of the user if absent.
    pub volumes_dir: Option<PathBuf>,
}

impl StartOptions {
    pub(crate) fn config(self) -> Result<VmConfig> {
        let mut config = installation::config();
        if let Some(mib) = optional("memoryMib", self.memory_mib, 1)? {
            config = config.with_memory_mib(mib);
        }
        if let Some(vcpus) = optional("vcpus", self.vcpus, 1)? {
            config = config.with_vcpus(vcpus);
        }
        if let Some(name) = self.name {
            config = config.with_name(name);
        }
        if let Some(hostname) = self.hostname {
            config = config.with_hostname(hostname);
        }
        for (name, value) in self.labels {
            config = config.with_label(name, value);
        }
        if let Some(network) = self.network {
            config = config.with_network(network.network()?);
        }
        for secret in self.secrets {
            config = config.with_secret(secret.secret());
        }
        for mount in self.mounts {
            config = config.with_mount(mount.spec()?);
        }
        for tmpfs in self.tmpfs {
            config = config.with_tmpfs(tmpfs.spec()?);
        }
        for volume in self.volumes {
            config = config.with_volume(volume.spec()?);
        }
        if let Some(dir) = self.volumes_dir {
            config = config.with_volumes_dir(dir);
        }
        Ok(config)
    }
}

/// A file that is written before a command starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StagedFile {
    /// Where.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Permission bits; 0644 if absent.
    pub mode: Option<f64>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExecOptions {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Files that are written first.
    pub staged: Vec<StagedFile>,
    /// Its time limit; 0 for none.
    pub timeout_ms: Option<f64>,
    /// Added to its environment.
    pub env: Assign,
    /// Where it starts.
    pub cwd: Option<String>,
    /// Whom it runs as.
    pub user: Option<String>,
    /// Commands that run after it, each if the one before it exits with 0.
    pub chain: Vec<Vec<String>>,
    /// Give it a terminal.
    pub tty: bool,
    /// Columns and rows of that.
    pub winsize: Option<(f64, f64)>,
    /// Its whole standard input.
    pub stdin: Option<Vec<u8>>,
    /// Most memory it may have, with its descendants.
    pub max_memory_bytes: Option<f64>,
    /// Most processes.
    pub max_processes: Option<f64>,
    /// Most processors, also parts of one.
    pub max_cpus: Option<f64>,
    /// Most bytes of each output that are collected.
    pub max_output_bytes: Option<f64>,
    /// Drop what is beyond that, and let the command go on.
    pub truncates: bool,
    /// It goes on without who started it.
    pub durable: bool,
}

impl ExecOptions {
    /// The command.
    pub(crate) fn command(self) -> Result<Command> {
        if self.argv.is_empty() || self.chain.iter().any(Vec::is_empty) {
            return Err(BindingError::invalid("argv must name a program"));
        }
        let mut command = Command::new(self.argv)
            .tty(self.tty)
            .truncate_output(self.truncates)
            .durable(self.durable);
        for file in self.staged {
            let mode = optional("mode", file.mode, 0)?.unwrap_or(0o644);
            command = command.stage_file_mode(file.path, file.bytes, mode);
        }
        if let Some(timeout) = milliseconds("timeoutMs", self.timeout_ms)? {
            // The library has a limit of its own where none is named.
            let for_ever = timeout.is_zero();
            command = command.timeout(if for_ever { Duration::MAX } else { timeout });
        }
        for (name, value) in self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(BindingError::invalid(format!(
                    "{name:?} can be no variable of an environment"
                )));
            }
            command = command.env(name, value);
        }
        if let Some(cwd) = self.cwd {
            command = command.cwd(cwd);
        }
        if let Some(user) = self.user {
            command = command.user(user);
        }
        for argv in self.chain {
            command = command.chain(argv);
        }
        if let Some((columns, rows)) = self.winsize {
            command = command.winsize(fitting("cols", columns, 0)?, fitting("rows", rows, 0)?);
        }
        if let Some(bytes) = self.stdin {
            command = command.stdin(bytes);
        }
        if let Some(bytes) = optional("maxMemoryBytes", self.max_memory_bytes, 1)? {
            command = command.max_memory_bytes(bytes);
        }
        if let Some(count) = optional("maxProcesses", self.max_processes, 1)? {
            command = command.max_processes(count);
        }
        if let Some(cpus) = self.max_cpus {
            if !(cpus.is_finite() && cpus > 0.0) {
                return Err(BindingError::invalid(format!(
                    "maxCpus must be more than 0, not {cpus}"
                )));
            }
            command = command.max_cpus(cpus);
        }
        if let Some(bytes) = optional("maxOutputBytes", self.max_output_bytes, 0)? {
            command = command.max_output_bytes(bytes);
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn commands_are_what_their_options_say() {
        let options = ExecOptions {
            argv: argv(&["sh", "-c", "true"]),
            staged: vec![StagedFile {
                path: "/tmp/x".into(),
                bytes: b"hi".to_vec(),
                mode: Some(f64::from(0o755)),
            }],
            env: vec![("A".into(), "1".into())],
            chain: vec![argv(&["echo", "done"])],
            ..ExecOptions::default()
        };
        let expected = Command::new(["sh", "-c", "true"])
            .stage_file_mode("/tmp/x", "hi", 0o755)
            .env("A", "1")
            .chain(["echo", "done"]);
        assert_eq!(options.clone().command().unwrap(), expected);
        let for_ever = ExecOptions {
            timeout_ms: Some(0.0),
            ..options
        };
        let unlimited = expected.timeout(Duration::MAX);
        assert_eq!(for_ever.command().unwrap(), unlimited);
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_name() {
        let exec = |change: fn(&mut ExecOptions)| {
            let mut options = ExecOptions {
                argv: argv(&["true"]),
                ..ExecOptions::default()
            };
            change(&mut options);
            options.command().unwrap_err().message
        };
        assert!(exec(|o| o.argv.clear()).contains("argv"));
        assert!(exec(|o| o.chain.push(Vec::new())).contains("argv"));
        assert!(exec(|o| o.timeout_ms = Some(-1.0)).contains("timeoutMs"));
        assert!(exec(|o| o.timeout_ms = Some(f64::NAN)).contains("timeoutMs"));
        assert!(exec(|o| o.max_cpus = Some(f64::NAN)).contains("maxCpus"));
        assert!(exec(|o| o.winsize = Some((1e6, 1.0))).contains("cols"));
        assert!(exec(|o| o.env.push(("A=B".into(), String::new()))).contains("A=B"));
        let build = |change: fn(&mut BuildOptions)| {
            let mut options = BuildOptions {
                reference: "x".into(),
                ..BuildOptions::default()
            };
            change(&mut options);
            options.builder().unwrap_err().message
        };
        assert!(build(|o| o.reference.clear()).contains("ref"));
        assert!(build(|o| o.memory_mib = Some(0.0)).contains("memoryMib"));
        assert!(build(|o| o.guest_port = Some(70_000.0)).contains("guestPort"));
        assert!(build(|o| o.pull_policy = Some("often".into())).contains("pullPolicy"));
    }
}
