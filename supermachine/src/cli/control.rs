//! What other processes of the tool ask of the one that owns a machine: only that one
//! can make the machine stand still.
//!
//! The owner listens on a socket in the machine's directory, which only this user can
//! enter. A connection carries one request and its answer, framed as between owner and
//! worker.

use super::detached::Going;
use super::detached::clients::Attachable;
use crate::error::with_causes;
use crate::exec::{ExecId, StreamOffsets};
use crate::limits::cli::{CONTROL_REQUEST_TIMEOUT, CONTROL_TIMEOUT};
use crate::link::protocol::{receive, send};
use crate::running::RunningVm;
use crate::{Error, Vm};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// The socket's name in the machine's directory.
const SOCKET: &str = "control";
/// Changes with the messages: machines outlive the tool that started them.
const VERSION: u32 = 3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    version: u32,
    request: Request,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Request {
    /// A snapshot in this directory.
    Snapshot(PathBuf),
    /// The same, for copies that go on with the command.
    Fork(PathBuf),
    /// The command's streams, in frames from the answer on.
    Attach,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Answer {
    /// The generation's directory. It stays until the connection is closed.
    Snapshot(PathBuf),
    /// That, the command, and what was told of its outputs before.
    Forked(PathBuf, ExecId, StreamOffsets),
    Attached {
        tty: bool,
        interactive: bool,
    },
    Failed(String),
}

/// Serves other processes from here on, as long as the machine lives. A command that
/// nobody attends can be attached to.
pub fn serve(vm: &Arc<Vm>, command: Option<Arc<Attachable>>) -> Result<(), Error> {
    let path = vm.exec_path().with_file_name(SOCKET);
    let listener = UnixListener::bind(&path).map_err(Error::host("cannot listen on", &path))?;
    let vm = Arc::downgrade(vm);
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                let (vm, command) = (vm.clone(), command.clone());
                // A client that is not served sees the connection end.
                let _ = std::thread::Builder::new()
                    .name("request".into())
                    .spawn(move || serve_one(&vm, command.as_deref(), stream));
            }
        })
        .map(drop)
        .map_err(Error::system("start a thread"))
}

fn serve_one(
    vm: &Weak<Vm>,
    command: Option<&Attachable>,
    mut stream: UnixStream,
) -> io::Result<()> {
    stream.set_read_timeout(Some(CONTROL_REQUEST_TIMEOUT))?;
    let Some(asked) = receive::<Asked>(&stream)? else {
        return Ok(());
    };
    let Some(vm) = vm.upgrade() else {
        return Ok(());
    };
    if asked.version != VERSION {
        let message = "it was started by another version of this tool".to_owned();
        return send(&stream, &Answer::Failed(message));
    }
    let (directory, going) = match (asked.request, command) {
        (Request::Snapshot(directory), _) => (directory, None),
        // Taken before the snapshot: what is written meanwhile is the copies' as well.
        (Request::Fork(directory), Some(command)) => {
            (directory, Some((command.id, command.told())))
        }
        (Request::Attach, Some(command)) => {
            drop(vm);
            let answer = Answer::Attached {
                tty: command.tty,
                interactive: command.interactive,
            };
            return command.serve(&stream, || send(&stream, &answer));
        }
        (Request::Attach | Request::Fork(_), None) => {
            let message = "somebody attends its command".to_owned();
            return send(&stream, &Answer::Failed(message));
        }
    };
    match vm.snapshot(directory) {
        Ok(image) => {
            let generation = image.snapshot_path().map(Path::to_owned);
            let generation = generation.unwrap_or_default();
            let answer = match going {
                None => Answer::Snapshot(generation),
                Some((id, from)) => Answer::Forked(generation, id, from),
            };
            send(&stream, &answer)?;
            // Until whoever asked has opened it, it is in use here.
            stream.set_read_timeout(Some(CONTROL_REQUEST_TIMEOUT))?;
            stream.read(&mut [0]).map(drop)
        }
        Err(error) => send(&stream, &Answer::Failed(with_causes(&error))),
    }
}

/// A snapshot that was just made, and nobody removes as long as this is there.
pub struct Made {
    /// Directory of the generation.
    pub generation: PathBuf,
    _held: UnixStream,
}

/// Asks a machine's owner to make a snapshot of it in `directory`.
///
/// # Errors
/// [`Error::Unsuitable`] if it has no owner that listens, [`Error::Refused`] with the
/// owner's reason.
pub fn snapshot(vm: &RunningVm, directory: PathBuf) -> Result<Made, Error> {
    let (answer, held) = ask(vm, Request::Snapshot(directory))?;
    match answer {
        Answer::Snapshot(generation) => Ok(Made {
            generation,
            _held: held,
        }),
        answer => Err(refused(answer)),
    }
}

/// Asks a machine's owner to make a snapshot of it in `directory`, for copies that go
/// on with its command.
///
/// # Errors
/// As [`snapshot()`].
pub fn fork(vm: &RunningVm, directory: PathBuf) -> Result<(Made, Going), Error> {
    let (answer, held) = ask(vm, Request::Fork(directory))?;
    match answer {
        Answer::Forked(generation, id, from) => Ok((
            Made {
                generation,
                _held: held,
            },
            Going { id, from },
        )),
        answer => Err(refused(answer)),
    }
}

/// A command's streams.
pub struct Attached {
    pub tty: bool,
    pub interactive: bool,
    pub stream: UnixStream,
}

/// Attaches to a machine's command.
///
/// # Errors
/// As [`snapshot()`].
pub fn attach(vm: &RunningVm) -> Result<Attached, Error> {
    let (answer, stream) = ask(vm, Request::Attach)?;
    match answer {
        Answer::Attached { tty, interactive } => {
            let forever = stream.set_read_timeout(None);
            forever.map_err(Error::system("wait for a command"))?;
            Ok(Attached {
                tty,
                interactive,
                stream,
            })
        }
        answer => Err(refused(answer)),
    }
}

fn refused(answer: Answer) -> Error {
    let message = match answer {
        Answer::Failed(message) => message,
        _ => "its owner answered something else".to_owned(),
    };
    Error::Refused { message }
}

fn ask(vm: &RunningVm, request: Request) -> Result<(Answer, UnixStream), Error> {
    let broken = || Error::connection("asking the machine's owner");
    let stream = UnixStream::connect(vm.dir().join(SOCKET)).map_err(|_| Error::Unsuitable {
        what: "this",
        needs: "a machine that `supermachine run` has started",
    })?;
    let timeout = stream.set_read_timeout(Some(CONTROL_TIMEOUT));
    timeout.map_err(broken())?;
    let asked = Asked {
        version: VERSION,
        request,
    };
    send(&stream, &asked).map_err(broken())?;
    let answer = receive(&stream).map_err(broken())?;
    let answer = answer.ok_or_else(|| broken()(io::ErrorKind::UnexpectedEof.into()))?;
    Ok((answer, stream))
}
