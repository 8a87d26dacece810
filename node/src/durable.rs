//! Durable commands, as the machine tells of them.

use crate::results::{ExecWaitResult, number};
use bindings_core as core;
use napi_derive::napi;

/// A durable command.
#[napi(object, object_from_js = false)]
pub struct ExecInfo {
    /// For `vm.attach`; the same in copies of the machine.
    pub id: String,
    /// Program and arguments, cut after about a thousand bytes.
    pub argv: Vec<String>,
    /// What has become of it.
    #[napi(ts_type = "'running' | 'exited'")]
    pub state: String,
    /// Its process in the guest, while it runs.
    pub pid: Option<u32>,
    /// How it ended, if it has.
    pub exit: Option<ExecWaitResult>,
    /// Time in the guest since it was started, in milliseconds.
    pub since_start_ms: f64,
    /// It has a terminal.
    pub tty: bool,
    /// Somebody has its streams.
    pub attached: bool,
    /// Bytes that it has written to its standard output.
    pub stdout_bytes: f64,
    /// Bytes that it has written to its standard error.
    pub stderr_bytes: f64,
}

impl From<core::ExecInfo> for ExecInfo {
    fn from(info: core::ExecInfo) -> Self {
        let (state, pid, exit) = match info.state {
            core::ExecState::Running { pid } => ("running", Some(pid), None),
            core::ExecState::Exited(status) => ("exited", None, Some(status.into())),
            _ => ("exited", None, None),
        };
        let argv = info.argv.iter();
        Self {
            id: info.id.to_string(),
            argv: argv
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            state: state.to_owned(),
            pid,
            exit,
            since_start_ms: info.since_start.as_secs_f64() * 1e3,
            tty: info.tty,
            attached: info.is_attached,
            stdout_bytes: number(info.written.stdout),
            stderr_bytes: number(info.written.stderr),
        }
    }
}
