//! What calls give, as JavaScript has it.

use bindings_core as core;
use napi::bindgen_prelude::Buffer;
use napi_derive::napi;

/// A whole number as JavaScript has it; beyond 2^53 it is not exact.
#[allow(clippy::cast_precision_loss)]
pub fn number(value: u64) -> f64 {
    value as f64
}

/// What a command wrote and how it ended.
#[napi(object, object_from_js = false)]
pub struct ExecOutput {
    /// Standard output; everything, with a terminal.
    pub stdout: Buffer,
    /// Standard error.
    pub stderr: Buffer,
    /// Exit code; -1 if a signal or the time limit ended it.
    pub exit_code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Its memory limit ended it.
    pub oom: bool,
    /// Largest resident set of the command and its descendants, in KiB.
    pub peak_rss_kib: f64,
    /// Time it took in the guest, in milliseconds.
    pub duration_ms: f64,
    /// Which command of a chain ended last; 0 for the first.
    pub step: u32,
    /// More was written than `maxOutputBytes`, and is not here.
    pub truncated: bool,
}

impl From<core::ExecOutcome> for ExecOutput {
    fn from(outcome: core::ExecOutcome) -> Self {
        let end = ExecWaitResult::from(outcome.status);
        Self {
            stdout: outcome.stdout.into(),
            stderr: outcome.stderr.into(),
            exit_code: end.exit_code,
            signal: end.signal,
            timed_out: end.timed_out,
            oom: end.oom,
            peak_rss_kib: number(outcome.peak_rss_kib),
            duration_ms: end.duration_ms,
            step: end.step,
            truncated: outcome.truncated,
        }
    }
}

/// How a command ended.
#[napi(object, object_from_js = false)]
pub struct ExecWaitResult {
    /// Exit code; -1 if a signal or the time limit ended it.
    pub exit_code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The time limit ended it.
    pub timed_out: bool,
    /// Its memory limit ended it.
    pub oom: bool,
    /// Largest resident set of the command and its descendants, in KiB.
    #[napi(ts_type = "number | null")]
    pub peak_rss_kib: Option<f64>,
    /// Time it took in the guest, in milliseconds.
    pub duration_ms: f64,
    /// Which command of a chain ended last; 0 for the first.
    pub step: u32,
}

impl From<core::ExecStatus> for ExecWaitResult {
    fn from(status: core::ExecStatus) -> Self {
        let ended = status.code.filter(|_| !status.timed_out);
        Self {
            exit_code: ended.unwrap_or(-1),
            signal: status.signal,
            timed_out: status.timed_out,
            oom: status.oom,
            peak_rss_kib: Some(number(status.peak_rss_kib)),
            duration_ms: status.duration.as_secs_f64() * 1e3,
            step: status.step,
        }
    }
}

/// How many machines a pool has, and what they do.
#[napi(object, object_from_js = false)]
pub struct PoolStats {
    /// All that there are.
    pub alive: f64,
    /// Those that somebody has acquired.
    pub in_use: f64,
    /// Those that wait to be acquired.
    pub idle: f64,
    /// Callers that wait for one.
    pub waiting: f64,
    /// Machines kept ready.
    pub min: f64,
    /// Machines at most.
    pub max: f64,
}

impl From<core::PoolStats> for PoolStats {
    fn from(stats: core::PoolStats) -> Self {
        let number = |count: usize| number(count as u64);
        Self {
            alive: number(stats.alive),
            in_use: number(stats.in_use),
            idle: number(stats.idle),
            waiting: number(stats.waiting),
            min: number(stats.min),
            max: number(stats.max),
        }
    }
}

/// What the guest says of a file.
#[napi(object, object_from_js = false)]
pub struct FileInfo {
    /// Its name in the directory that was listed; empty if it was asked for by path.
    pub name: String,
    /// What it is.
    #[napi(
        ts_type = "'file' | 'directory' | 'symlink' | 'char-device' | 'block-device' | 'fifo' | 'socket'"
    )]
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: f64,
    /// When its content was changed last, in milliseconds since 1970.
    pub mtime_ms: f64,
    /// Where it leads, if it is a symbolic link.
    pub target: Option<String>,
}

impl From<core::FileInfo> for FileInfo {
    fn from(info: core::FileInfo) -> Self {
        let mtime_ms = match info.modified.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => after.as_secs_f64() * 1e3,
            Err(before) => before.duration().as_secs_f64() * -1e3,
        };
        Self {
            name: info.name.to_string_lossy().into_owned(),
            kind: core::file_word(info.kind).to_owned(),
            mode: info.mode,
            uid: info.uid,
            gid: info.gid,
            size: number(info.bytes),
            mtime_ms,
            target: info.target.map(|path| path.to_string_lossy().into_owned()),
        }
    }
}

/// What was copied.
#[napi(object, object_from_js = false)]
pub struct Copied {
    /// Files and directories.
    pub entries: f64,
    /// Bytes of content.
    pub bytes: f64,
    /// Sockets and devices, which are left out.
    pub skipped: f64,
}

impl From<core::Copied> for Copied {
    fn from(copied: core::Copied) -> Self {
        Self {
            entries: number(copied.entries),
            bytes: number(copied.bytes),
            skipped: number(copied.skipped),
        }
    }
}

/// How a file of a copy-on-write mount is different in the guest.
#[napi(object)]
pub struct MountChange {
    /// Its path in the mount. What is no UTF-8 in it is shown as U+FFFD, and then it is
    /// applied and exported only with all others.
    pub path: String,
    /// How it is different.
    #[napi(ts_type = "'added' | 'changed' | 'deleted'")]
    pub kind: String,
    /// What the guest has there; not there if it was deleted.
    #[napi(
        ts_type = "'file' | 'directory' | 'symlink' | 'char-device' | 'block-device' | 'fifo' | 'socket'"
    )]
    pub file: Option<String>,
    /// How many bytes the guest says that it has.
    pub size: f64,
}

impl From<core::MountChange> for MountChange {
    fn from(change: core::MountChange) -> Self {
        Self {
            path: change.path.to_string_lossy().into_owned(),
            kind: core::change_word(change.kind).to_owned(),
            file: change.file.map(|kind| core::file_word(kind).to_owned()),
            size: number(change.bytes),
        }
    }
}

/// What is known of a volume.
#[napi(object, object_from_js = false)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: String,
    /// Its size for the guest, in bytes.
    pub size: f64,
    /// What it takes of the host's disk, in bytes.
    pub disk_bytes: f64,
    /// When it was made or last written to, in milliseconds since 1970.
    pub changed_ms: f64,
    /// Who has it now: the machine, and the process that started it.
    pub in_use_by: Option<String>,
}

impl From<core::VolumeInfo> for VolumeInfo {
    fn from(info: core::VolumeInfo) -> Self {
        Self {
            name: info.name,
            path: info.path.to_string_lossy().into_owned(),
            size: number(info.size_bytes),
            disk_bytes: number(info.disk_bytes),
            changed_ms: number(info.changed_unix_ms),
            in_use_by: info.in_use_by,
        }
    }
}

/// How a machine's workload is doing.
#[napi(object, object_from_js = false)]
pub struct WorkloadStatus {
    /// What has become of it.
    #[napi(ts_type = "'not-started' | 'running' | 'exited'")]
    pub state: String,
    /// How it ended, if it has.
    pub exit: Option<ExecWaitResult>,
    /// All that it has written, in bytes.
    pub output_bytes: f64,
    /// The last of that, at most 64 KiB.
    pub tail: Buffer,
}

impl From<core::WorkloadStatus> for WorkloadStatus {
    fn from(status: core::WorkloadStatus) -> Self {
        let (state, exit) = match status.state {
            core::WorkloadState::Exited(exit) => ("exited", Some(exit.into())),
            core::WorkloadState::Running { .. } => ("running", None),
            _ => ("not-started", None),
        };
        Self {
            state: state.to_owned(),
            exit,
            output_bytes: number(status.output_bytes),
            tail: status.tail.into(),
        }
    }
}
