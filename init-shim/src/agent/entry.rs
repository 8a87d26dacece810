//! A machine that was booted before its image was known: its host says when the layers
//! are on its disks.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use exec_proto::{ErrorKind, Failure};

use super::Agent;
use super::failure::bad_request;
use super::groups::GroupPool;

/// Makes the layers on the disks the root, as options of a kernel's command line say. Gives
/// control groups for commands, if there are any, or says why there is no such root.
pub type EnterRoot = Box<dyn FnOnce(&str) -> Result<Option<GroupPool>, String> + Send>;

/// What is to be done when the host says so; nothing in a machine that has its root.
#[derive(Default)]
pub(super) struct Entry(Mutex<Option<EnterRoot>>);

impl Entry {
    pub(super) fn new(enter: EnterRoot) -> Self {
        Self(Mutex::new(Some(enter)))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

/// Enters the root, once: a program that runs by then has another.
pub(super) fn enter(agent: &Agent, options: &[u8]) -> Result<(), Failure> {
    agent.require_machine_control()?;
    let options = std::str::from_utf8(options)
        .map_err(|_| bad_request("options that are not a command line"))?;
    let mut entry = agent.entry.0.lock().unwrap_or_else(PoisonError::into_inner);
    let enter = entry
        .take()
        .ok_or_else(|| bad_request("the machine has a root already"))?;
    match enter(options) {
        Ok(Some(groups)) => {
            agent.use_groups(groups);
            Ok(())
        }
        Ok(None) => Ok(()),
        // Where it stands now is no root, and nothing more comes of the machine.
        Err(message) => Err(Failure {
            kind: ErrorKind::Resources,
            errno: 0,
            message,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_entered_once_and_by_who_controls_the_machine() {
        let of = |machine_control| Agent::new(None, machine_control).unwrap();
        let entering = |agent: Agent| {
            agent.entering(Box::new(|options| match options {
                "sm.layers=1" => Ok(None),
                other => Err(format!("no disk for {other}")),
            }))
        };
        let agent = entering(of(true));
        assert_eq!(
            enter(&agent, b"\xff").unwrap_err().kind,
            ErrorKind::BadRequest
        );
        enter(&agent, b"sm.layers=1").unwrap();
        let again = enter(&agent, b"sm.layers=1").unwrap_err();
        assert_eq!(again.kind, ErrorKind::BadRequest);
        let failed = enter(&entering(of(true)), b"sm.layers=2").unwrap_err();
        assert_eq!(
            (failed.kind, &*failed.message),
            (ErrorKind::Resources, "no disk for sm.layers=2")
        );
        // As where it was booted with its layers.
        assert_eq!(
            enter(&of(true), b"sm.layers=1").unwrap_err().kind,
            ErrorKind::BadRequest
        );
        assert_eq!(
            enter(&entering(of(false)), b"sm.layers=1")
                .unwrap_err()
                .kind,
            ErrorKind::NotPermitted
        );
    }
}
