//! From a request to something that can be spawned, and from a failed spawn to
//! an answer.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use exec_proto::{ErrorKind, ExecRequest, ExitStatus, Failure};

use super::failure::shortened;
use super::files;
use super::groups::{Group, GroupPool};
use super::identity::{self, Identity};
use crate::sys::{self, Credentials, Outcome, Plan, SpawnError, Stage};

/// Search path of a command that brings none.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes taken from the guest's account files.
const ACCOUNT_FILE_LIMIT: u64 = 1 << 20;

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure {
        kind: ErrorKind::BadRequest,
        errno: libc::EINVAL,
        message: "NUL inside a string".to_owned(),
    })
}

fn c_strings(list: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    list.iter().map(|item| c_string(item)).collect()
}

fn variable<'a>(env: &'a [Vec<u8>], name: &[u8]) -> Option<&'a [u8]> {
    env.iter()
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
}

/// Reads the account files only if the request makes it necessary: a command
/// as root costs none of it.
fn identity_of(request: &ExecRequest) -> Result<Identity, Failure> {
    if request.user.is_empty() {
        return Ok(Identity {
            credentials: Credentials::default(),
            home: b"/root".to_vec(),
        });
    }
    let read = |path| files::read_up_to(Path::new(path), ACCOUNT_FILE_LIMIT).unwrap_or_default();
    identity::resolve(&request.user, &read("/etc/passwd"), &read("/etc/group"))
}

/// Paths to try for `program`, as `execvp` would.
fn candidates(program: &[u8], env: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    if program.is_empty() {
        return Ok(Vec::new());
    }
    if program.contains(&b'/') {
        return Ok(vec![c_string(program)?]);
    }
    variable(env, b"PATH")
        .unwrap_or(DEFAULT_PATH)
        .split(|b| *b == b':')
        .map(|dir| {
            // An empty entry has always meant the current directory.
            let dir: &[u8] = if dir.is_empty() { b"." } else { dir };
            c_string(&[dir, b"/", program].concat())
        })
        .collect()
}

/// Prepares the commands of a request, its own first. `own` is the agent's program,
/// for who asks for it.
pub(super) fn plans(request: ExecRequest, own: BorrowedFd<'_>) -> Result<Vec<Plan>, Failure> {
    let executable = request.flags.agent_tool.then(|| own.as_raw_fd());
    let identity = identity_of(&request)?;
    let mut env = request.env;
    if !request.flags.exact_env {
        let mut add = |name: &[u8], value: &[u8]| {
            if variable(&env, name).is_none() {
                env.push([name, b"=", value].concat());
            }
        };
        add(b"PATH", DEFAULT_PATH);
        add(b"HOME", &identity.home);
        if request.flags.tty {
            add(b"TERM", b"xterm");
        }
    }
    let cwd = match request.cwd.as_slice() {
        b"" | b"/" => None,
        path => Some(c_string(path)?),
    };
    let c_env = c_strings(&env)?;
    std::iter::once(request.argv)
        .chain(request.chain)
        .map(|argv| {
            Ok(Plan {
                programs: candidates(argv.first().map_or(b"", Vec::as_slice), &env)?,
                argv: c_strings(&argv)?,
                env: c_env.clone(),
                cwd: cwd.clone(),
                credentials: identity.credentials.clone(),
                executable,
            })
        })
        .collect()
}

/// Where a command's processes go, and what it is started with.
pub(super) struct Start<'a> {
    pub(super) pool: Option<&'a GroupPool>,
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) tty: bool,
    pub(super) create_cwd: bool,
}

impl Start<'_> {
    /// Starts a command in `group`, which is replaced if it does not serve.
    pub(super) fn spawn(
        &self,
        plan: &Plan,
        group: &mut Option<Group>,
    ) -> Result<(i32, OwnedFd), SpawnError> {
        let result = self.spawn_confined(plan, group);
        if self.create_cwd
            && let Err(SpawnError {
                stage: Stage::Cwd,
                errno: libc::ENOENT,
            }) = result
            && let Some(cwd) = &plan.cwd
            && std::fs::create_dir_all(files::guest_path(cwd.as_bytes())).is_ok()
        {
            return self.spawn_confined(plan, group);
        }
        result
    }

    fn spawn_confined(
        &self,
        plan: &Plan,
        group: &mut Option<Group>,
    ) -> Result<(i32, OwnedFd), SpawnError> {
        let spawn = |group: &Option<Group>| {
            let place = group.as_ref().map(Group::confinement);
            sys::spawn(plan, self.stdio, self.tty, place)
        };
        let mut result = spawn(group);
        // A guest's root may have made the group unfit for processes (threaded,
        // with controllers, removed). Another one, then; at worst none.
        if let Err(SpawnError {
            stage: Stage::Clone,
            errno: libc::EBUSY | libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT | libc::EACCES,
        }) = result
            && !group.as_ref().is_some_and(Group::is_limited)
            && group.take().is_some()
        {
            *group = self.pool.and_then(|pool| pool.take().ok());
            result = spawn(group);
            if result.is_err() && group.take().is_some() {
                result = spawn(group);
            }
        }
        result
    }
}

/// How a process ended, as the host is told.
pub(super) fn exit_status(outcome: Outcome) -> ExitStatus {
    match outcome {
        Outcome::Code(code) => ExitStatus::Code(code),
        Outcome::Signal(signal) => ExitStatus::Signal(signal),
    }
}

/// What to tell the host about a command that did not start.
pub(super) fn explain(plan: &Plan, error: SpawnError) -> Failure {
    let name =
        |text: Option<&CString>| text.map_or_else(String::new, |text| shortened(text.to_bytes()));
    let why = std::io::Error::from_raw_os_error(error.errno);
    let (kind, subject) = match (error.stage, error.errno) {
        (_, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC) => {
            (ErrorKind::Resources, "cannot start a process".to_owned())
        }
        (Stage::Clone | Stage::Setup, _) => {
            (ErrorKind::Internal, "cannot start a process".to_owned())
        }
        (Stage::Identity, _) => (ErrorKind::NotPermitted, "cannot change user".to_owned()),
        (Stage::Cwd, _) => (
            ErrorKind::NoSuchCwd,
            format!("working directory {}", name(plan.cwd.as_ref())),
        ),
        (Stage::Exec, libc::ENOENT | libc::ENOTDIR) => {
            let program = name(plan.argv.first());
            let message = if program.contains('/') {
                format!("{program}: no such program, or its interpreter is missing")
            } else {
                format!("{program}: not found in PATH")
            };
            return Failure {
                kind: ErrorKind::NotFound,
                errno: error.errno,
                message,
            };
        }
        (Stage::Exec, libc::ENOEXEC) => {
            return Failure {
                kind: ErrorKind::NotExecutable,
                errno: error.errno,
                message: format!("{}: exec format error", name(plan.argv.first())),
            };
        }
        (Stage::Exec, _) => (ErrorKind::NotExecutable, name(plan.argv.first())),
    };
    Failure {
        kind,
        errno: error.errno,
        message: format!("{subject}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn plans(request: ExecRequest) -> Result<Vec<Plan>, Failure> {
        super::plans(request, std::io::stdin().as_fd())
    }

    fn env_of(request: ExecRequest) -> Vec<String> {
        let plans = plans(request).unwrap();
        plans[0]
            .env
            .iter()
            .map(|entry| entry.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn missing_variables_are_filled_in_and_present_ones_kept() {
        let mut request = ExecRequest::new(["true"]);
        request.env = vec![b"HOME=/x".to_vec(), b"PATHS=no".to_vec()];
        request.flags.tty = true;
        let env = env_of(request.clone());
        assert_eq!(env[0], "HOME=/x");
        assert!(env[2].starts_with("PATH=/usr/local/sbin:"), "{env:?}");
        assert_eq!(env[3], "TERM=xterm");
        request.flags.exact_env = true;
        assert_eq!(env_of(request).len(), 2);
    }

    #[test]
    fn program_is_searched_in_the_path_of_the_request() {
        let env = vec![b"PATH=/a::/b".to_vec()];
        let names = |program: &[u8]| -> Vec<String> {
            let found = candidates(program, &env).unwrap();
            found.iter().map(|c| c.to_str().unwrap().into()).collect()
        };
        assert_eq!(names(b"x"), ["/a/x", "./x", "/b/x"]);
        assert_eq!(names(b"./x"), ["./x"]);
        assert!(names(b"").is_empty());
    }

    #[test]
    fn errors_repeat_names_of_any_length_in_part() {
        let plan = |program: &[u8]| {
            let mut request = ExecRequest::new([program.to_vec()]);
            request.cwd = program.to_vec();
            plans(request).unwrap().remove(0)
        };
        for stage in [Stage::Exec, Stage::Cwd] {
            for errno in [libc::ENOENT, libc::ENOEXEC, libc::EACCES] {
                let long = explain(&plan(&[b'/'; 1 << 20]), SpawnError { stage, errno });
                assert!(long.message.len() <= exec_proto::MAX_MESSAGE_BYTES);
                assert!(long.message.contains("/…"), "{}", long.message);
                let short = explain(&plan(b"/no/such"), SpawnError { stage, errno });
                assert!(short.message.contains("/no/such"));
                assert!(!short.message.contains('…'));
            }
        }
    }

    #[test]
    fn chain_shares_environment_and_directory() {
        let mut request = ExecRequest::new(["a"]);
        request.chain = vec![vec![b"b".to_vec(), b"c".to_vec()]];
        request.cwd = b"/srv".to_vec();
        let plans = plans(request).unwrap();
        assert_eq!(plans.len(), 2);
        assert_eq!(plans[1].cwd.as_deref(), Some(c"/srv"));
        assert_eq!(plans[1].argv.len(), 2);
        assert_eq!(plans[0].env, plans[1].env);
    }
}
