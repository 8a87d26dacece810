//! Options, as JavaScript has them.

use crate::mounts::{MountSpec, TmpfsSpec, mounts, tmpfs};
use crate::results::MountChange;
use bindings_core as core;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use std::collections::HashMap;

/// What an image is baked from, and how.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct BuildOptions {
    /// The image, as `docker run` names it (`python:3.12-slim`), or `oci:DIR[:TAG]`,
    /// `oci-archive:FILE`, `docker-archive:FILE`, `tar:FILE`, `rootfs:DIR`.
    #[napi(js_name = "ref")]
    pub reference: String,
    /// Name of the snapshot; made of the image and the options by default.
    pub name: Option<String>,
    /// Guest memory in MiB: the most that the guest sees, not what the host gives; 256
    /// by default.
    pub memory_mib: Option<f64>,
    /// Virtual CPUs; 1 by default.
    pub vcpus: Option<f64>,
    /// When the registry is asked for the image; `missing` by default.
    #[napi(ts_type = "'always' | 'missing' | 'never'")]
    pub pull_policy: Option<String>,
    /// The workload, instead of the image's own command.
    pub cmd: Option<Vec<String>>,
    /// The program that commands begin with, instead of the image's.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the workload's environment.
    pub env: Option<HashMap<String, String>>,
    /// Where commands start, instead of the image's directory.
    pub workdir: Option<String>,
    /// Whom commands run as, instead of the image's user.
    pub user: Option<String>,
    /// Labels, beside those of the image.
    pub labels: Option<HashMap<String, String>>,
    /// The port that the workload listens on; 80 by default.
    pub guest_port: Option<f64>,
    /// Capture the machine when its workload listens on that port.
    pub listener_required: Option<bool>,
    /// What may be reached while it is baked. Its machines have a network interface only if
    /// this is said, if only as `{}`; what they reach is said in `start` and `pool`.
    pub network: Option<NetworkOptions>,
    /// Files of the host that become part of the image. What is in them is part of the
    /// snapshot's key: another content, another bake.
    pub extra_files: Option<Vec<ExtraFile>>,
    /// Directories of the host that each machine is given.
    pub mounts: Option<Vec<MountSpec>>,
    /// File systems in the memory of each machine.
    pub tmpfs: Option<Vec<TmpfsSpec>>,
    /// Disks that are baked with the image: mounted, empty, before anything runs, and what
    /// the warm-up leaves there is in the snapshot. Each machine begins with that, and has
    /// what it writes to itself.
    pub volumes: Option<Vec<VolumeSpec>>,
    /// How many volumes that outlive them machines may be given in `start`; none by
    /// default. These are not there while the image is baked.
    pub volume_slots: Option<f64>,
    /// Tells warm-ups apart: another tag, another snapshot; `default` by default.
    pub warmup_tag: Option<String>,
    /// Where snapshots are kept; `~/.local/supermachine-snapshots` by default.
    pub snapshots_dir: Option<String>,
}

/// A file of the host that becomes part of an image.
#[napi(object, object_to_js = false)]
pub struct ExtraFile {
    /// The file.
    pub host_path: String,
    /// Where the guest has it.
    pub guest_path: String,
    /// Permission bits; those of the file by default.
    pub mode: Option<f64>,
}

/// A disk with an ext4 file system: one that is baked with an image, or one that outlives
/// machines and is of one at a time.
#[napi(object, object_to_js = false)]
pub struct VolumeSpec {
    /// Its name. One that outlives machines is made, empty, if there is none.
    pub name: String,
    /// Its least size in MiB; 1,024 by default.
    pub size_mib: Option<f64>,
    /// Where the guest has it.
    pub mount_point: String,
}

/// What a guest may reach. Addresses that are not public are refused unless they are
/// listed.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct NetworkOptions {
    /// Everything public but what is denied; only what is allowed by default.
    pub allow_all: Option<bool>,
    /// Rules, of which the first that fits decides, before `deny` and `allow`.
    pub rules: Option<Vec<NetworkRule>>,
    /// Hosts (`example.com`, `*.example.com`) and networks (`10.1.0.0/16`).
    pub allow: Option<Vec<String>>,
    /// The same of what may not be reached, which counts first.
    pub deny: Option<Vec<String>>,
    /// TCP ports of the host's loopback interface, at `host.supermachine.internal`.
    pub host_ports: Option<Vec<f64>>,
    /// UDP ports of it.
    pub host_udp_ports: Option<Vec<f64>>,
    /// Most bytes a second that the guest gets.
    pub rate_in: Option<f64>,
    /// Most bytes a second that others get from it.
    pub rate_out: Option<f64>,
    /// Bytes beyond a rate that pass at once after a silence; a tenth of a second's by
    /// default.
    pub burst: Option<f64>,
    /// Most connections at a time; 10,000 by default.
    pub max_flows: Option<f64>,
}

/// A rule of what may be reached: it says either `allow` or `deny`.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct NetworkRule {
    /// A host, a network, or `any`, that may be reached.
    pub allow: Option<String>,
    /// The same of what may not.
    pub deny: Option<String>,
    /// A port, or a range like `8000-8080`; all by default.
    pub ports: Option<String>,
    /// All by default.
    #[napi(ts_type = "'tcp' | 'udp' | 'icmp'")]
    pub protocol: Option<String>,
}

/// A secret that the guest never has: its commands find a placeholder in the variable of
/// that name, which becomes the value in headers of requests by HTTPS to the secret's
/// hosts. It needs a network that reaches these.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct Secret {
    /// The variable in which programs look for it.
    pub name: String,
    /// What it is: 8 to 8,192 printable ASCII characters.
    pub value: String,
    /// Hosts that get it: `api.example.com`, or `api.example.com:8443`.
    pub hosts: Vec<String>,
    /// Headers that it is put into; any by default.
    pub headers: Option<Vec<String>>,
    /// Certificates in PEM format by which its hosts are known; the system's by default.
    pub authorities: Option<String>,
}

/// How machines of a pool are.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct PoolOptions {
    /// Machines kept ready; 1 by default.
    pub min: Option<f64>,
    /// Machines at most; 1 by default, or `min`.
    pub max: Option<f64>,
    /// How long an acquire waits; 60,000 by default, 0 for as long as it takes.
    pub acquire_timeout_ms: Option<f64>,
    /// When an idle machine beyond `min` is ended; never by default.
    pub idle_timeout_ms: Option<f64>,
    /// Whether a machine goes back to the snapshot when it is released; true by default.
    pub restore_on_release: Option<bool>,
    /// Guest memory in MiB; the image's by default.
    pub memory_mib: Option<f64>,
    /// Virtual CPUs; the image's by default.
    pub vcpus: Option<f64>,
    /// How long a restore may take; 30,000 by default.
    pub restore_timeout_ms: Option<f64>,
    /// What the guests may reach; nothing by default.
    pub network: Option<NetworkOptions>,
    /// Secrets that the guests use and never have.
    pub secrets: Option<Vec<Secret>>,
    /// Directories of the host, for the tags that the image was baked with.
    pub mounts: Option<Vec<MountSpec>>,
    /// File systems in the guests' memory, beside those of the image.
    pub tmpfs: Option<Vec<TmpfsSpec>>,
}

/// How a machine is, beyond its image.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct StartOptions {
    /// Guest memory in MiB; the image's by default.
    pub memory_mib: Option<f64>,
    /// Virtual CPUs; the image's by default.
    pub vcpus: Option<f64>,
    /// Its name, by which `supermachine exec` finds it.
    pub name: Option<String>,
    /// The guest's host name.
    pub hostname: Option<String>,
    /// Labels, by which `supermachine ps` tells machines apart.
    pub labels: Option<HashMap<String, String>>,
    /// What the guest may reach; nothing by default.
    pub network: Option<NetworkOptions>,
    /// Secrets that the guest uses and never has.
    pub secrets: Option<Vec<Secret>>,
    /// Directories of the host, for the tags that the image was baked with.
    pub mounts: Option<Vec<MountSpec>>,
    /// File systems in the guest's memory, beside those of the image.
    pub tmpfs: Option<Vec<TmpfsSpec>>,
    /// Volumes that outlive the machine, at most `volumeSlots` of the image.
    pub volumes: Option<Vec<VolumeSpec>>,
    /// The directory that these are kept in: that of a `VolumeStore`; the user's by default.
    pub volumes_dir: Option<String>,
}

/// Columns and rows of a terminal.
#[napi(object, object_to_js = false)]
pub struct WinSize {
    /// Columns.
    pub cols: f64,
    /// Rows.
    pub rows: f64,
}

/// A file that is written before a command starts.
#[napi(object, object_to_js = false)]
pub struct StagedFile {
    /// Where in the guest.
    pub path: String,
    /// What is in it.
    #[napi(ts_type = "Uint8Array | string")]
    pub contents: Buffer,
    /// Permission bits; 0o644 by default.
    pub mode: Option<f64>,
}

/// A command.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct ExecOptions {
    /// Program and arguments. The program is looked up in the guest's PATH.
    pub argv: Vec<String>,
    /// Files that are written first, by path, with mode 0o644: at most 256 MiB each.
    #[napi(ts_type = "Record<string, Uint8Array | string>")]
    pub stage_files: Option<HashMap<String, Buffer>>,
    /// The same with a mode for each.
    pub stage_files_mode: Option<Vec<StagedFile>>,
    /// When the command is killed: 60,000 by default in `exec` and never in `spawn`;
    /// 0 for never.
    pub timeout_ms: Option<f64>,
    /// Added to the environment.
    pub env: Option<HashMap<String, String>>,
    /// Where it starts; the image's directory by default.
    pub cwd: Option<String>,
    /// Whom it runs as; the image's user by default.
    pub user: Option<String>,
    /// A command, or several, to run one after the other if the one before exits with 0.
    #[napi(ts_type = "string[] | string[][]")]
    pub chain: Option<Vec<Vec<String>>>,
    /// Give it a terminal: all output is standard output then.
    pub tty: Option<bool>,
    /// Size of that.
    pub winsize: Option<WinSize>,
    /// Its whole standard input.
    #[napi(ts_type = "Uint8Array | string")]
    pub stdin: Option<Buffer>,
    /// Most memory that it and its descendants may have, in bytes.
    pub max_memory_bytes: Option<f64>,
    /// Most processes.
    pub max_processes: Option<f64>,
    /// Most processors, also parts of one.
    pub max_cpus: Option<f64>,
    /// Most bytes of each output that are collected; 256 MiB by default.
    pub max_output_bytes: Option<f64>,
    /// Drop what is beyond that and let the command go on, instead of killing it.
    pub truncate_output: Option<bool>,
    /// Let it go on when nothing refers to it any more, also in copies of the machine:
    /// `vm.attach` takes its streams up again.
    pub durable: Option<bool>,
}

/// From where on the streams of a durable command are taken up.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct AttachOptions {
    /// Bytes of its standard output that are left out; none by default.
    pub stdout: Option<f64>,
    /// The same of its standard error.
    pub stderr: Option<f64>,
    /// Leave out all that it has written so far.
    pub latest: Option<bool>,
}

impl From<AttachOptions> for core::AttachOptions {
    fn from(from: AttachOptions) -> Self {
        Self {
            stdout: from.stdout,
            stderr: from.stderr,
            latest: from.latest.unwrap_or_default(),
        }
    }
}

fn pairs(map: Option<HashMap<String, String>>) -> core::Assign {
    map.unwrap_or_default().into_iter().collect()
}

fn rules(rules: Option<Vec<NetworkRule>>) -> Vec<core::NetworkRuleOptions> {
    let rules = rules.unwrap_or_default().into_iter();
    rules
        .map(|rule| core::NetworkRuleOptions {
            allow: rule.allow,
            deny: rule.deny,
            ports: rule.ports,
            protocol: rule.protocol,
        })
        .collect()
}

fn secrets(secrets: Option<Vec<Secret>>) -> Vec<core::SecretOptions> {
    let secrets = secrets.unwrap_or_default().into_iter();
    secrets
        .map(|secret| core::SecretOptions {
            name: secret.name,
            value: secret.value,
            hosts: secret.hosts,
            headers: secret.headers.unwrap_or_default(),
            authorities: secret.authorities,
        })
        .collect()
}

fn volumes(volumes: Option<Vec<VolumeSpec>>) -> Vec<core::VolumeOptions> {
    let volumes = volumes.unwrap_or_default().into_iter();
    volumes
        .map(|volume| core::VolumeOptions {
            name: volume.name,
            size_mib: volume.size_mib,
            mount_point: volume.mount_point,
        })
        .collect()
}

/// Changes that somebody wants, of what they were told.
pub fn wanted(changes: Option<Vec<MountChange>>) -> Option<Vec<core::WantedChange>> {
    let wanted = |change: MountChange| core::WantedChange {
        path: change.path.into(),
        kind: change.kind,
        file: change.file,
    };
    changes.map(|changes| changes.into_iter().map(wanted).collect())
}

impl From<BuildOptions> for core::BuildOptions {
    fn from(from: BuildOptions) -> Self {
        // Variables in one order, whatever order the map has: the snapshot's key.
        let mut env = pairs(from.env);
        env.sort();
        let mut labels = pairs(from.labels);
        labels.sort();
        Self {
            reference: from.reference,
            name: from.name,
            memory_mib: from.memory_mib,
            vcpus: from.vcpus,
            pull_policy: from.pull_policy,
            cmd: from.cmd,
            entrypoint: from.entrypoint,
            env,
            workdir: from.workdir,
            user: from.user,
            labels,
            guest_port: from.guest_port,
            listener_required: from.listener_required.unwrap_or_default(),
            network: from.network.map(Into::into),
            extra_files: from
                .extra_files
                .unwrap_or_default()
                .into_iter()
                .map(|file| core::ExtraFileOptions {
                    host_path: file.host_path.into(),
                    guest_path: file.guest_path,
                    mode: file.mode,
                })
                .collect(),
            mounts: mounts(from.mounts),
            tmpfs: tmpfs(from.tmpfs),
            volumes: volumes(from.volumes),
            volume_slots: from.volume_slots,
            warmup_tag: from.warmup_tag,
            snapshots_dir: from.snapshots_dir.map(Into::into),
        }
    }
}

impl From<NetworkOptions> for core::NetworkOptions {
    fn from(from: NetworkOptions) -> Self {
        Self {
            allow_all: from.allow_all.unwrap_or_default(),
            allow: from.allow.unwrap_or_default(),
            deny: from.deny.unwrap_or_default(),
            host_ports: from.host_ports.unwrap_or_default(),
            host_udp_ports: from.host_udp_ports.unwrap_or_default(),
            rules: rules(from.rules),
            rate_in: from.rate_in,
            rate_out: from.rate_out,
            burst: from.burst,
            max_flows: from.max_flows,
        }
    }
}

impl From<StartOptions> for core::StartOptions {
    fn from(from: StartOptions) -> Self {
        Self {
            memory_mib: from.memory_mib,
            vcpus: from.vcpus,
            name: from.name,
            hostname: from.hostname,
            labels: pairs(from.labels),
            network: from.network.map(Into::into),
            secrets: secrets(from.secrets),
            mounts: mounts(from.mounts),
            tmpfs: tmpfs(from.tmpfs),
            volumes: volumes(from.volumes),
            volumes_dir: from.volumes_dir.map(Into::into),
        }
    }
}

impl From<PoolOptions> for core::PoolOptions {
    fn from(from: PoolOptions) -> Self {
        Self {
            min: from.min,
            max: from.max,
            acquire_timeout_ms: from.acquire_timeout_ms,
            idle_timeout_ms: from.idle_timeout_ms,
            restore_on_release: from.restore_on_release,
            restore_timeout_ms: from.restore_timeout_ms,
            machine: core::StartOptions {
                memory_mib: from.memory_mib,
                vcpus: from.vcpus,
                network: from.network.map(Into::into),
                secrets: secrets(from.secrets),
                mounts: mounts(from.mounts),
                tmpfs: tmpfs(from.tmpfs),
                ..core::StartOptions::default()
            },
        }
    }
}

impl From<ExecOptions> for core::ExecOptions {
    fn from(from: ExecOptions) -> Self {
        let plain = from.stage_files.unwrap_or_default().into_iter();
        let plain = plain.map(|(path, contents)| core::StagedFile {
            path,
            bytes: contents.to_vec(),
            mode: None,
        });
        let with_mode = from.stage_files_mode.unwrap_or_default().into_iter();
        let with_mode = with_mode.map(|file| core::StagedFile {
            path: file.path,
            bytes: file.contents.to_vec(),
            mode: file.mode,
        });
        Self {
            argv: from.argv,
            staged: plain.chain(with_mode).collect(),
            timeout_ms: from.timeout_ms,
            env: pairs(from.env),
            cwd: from.cwd,
            user: from.user,
            chain: from.chain.unwrap_or_default(),
            tty: from.tty.unwrap_or_default(),
            winsize: from.winsize.map(|size| (size.cols, size.rows)),
            stdin: from.stdin.map(|bytes| bytes.to_vec()),
            max_memory_bytes: from.max_memory_bytes,
            max_processes: from.max_processes,
            max_cpus: from.max_cpus,
            max_output_bytes: from.max_output_bytes,
            truncates: from.truncate_output.unwrap_or_default(),
            durable: from.durable.unwrap_or_default(),
        }
    }
}
