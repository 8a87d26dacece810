//! What any process of the user may ask a worker, over a socket in the machine's
//! directory: one question to a connection, in the frames of [`super::protocol`].
//!
//! The owner's orders come first, and questions that change something are refused
//! while one is being carried out in parts.

use crate::network::NetworkFlow;
use crate::stats::VmStats;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the socket.
const SOCKET: &str = "monitor";
/// Name of a file that is there while the machine is paused, so that nobody needs to
/// ask for that.
const PAUSED: &str = "paused";

pub fn socket(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

pub fn paused_mark(dir: &Path) -> PathBuf {
    dir.join(PAUSED)
}

/// To a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// What has the machine used?
    Stats,
    /// What is at the end of its console?
    Console,
    /// What became of the guest's flows?
    Flows {
        /// The number of the first that is wanted.
        from: u64,
    },
    /// Pause it, if it is not paused.
    Pause,
    /// Let it go on, if it is paused.
    Resume,
    /// Give the file of a volume this length, if it is shorter, and tell the guest.
    GrowVolume {
        /// The volume's number.
        number: u8,
        /// Its size in MiB.
        mib: u64,
    },
    /// Tell what happens to it from now on: events follow the answer.
    Watch,
}

/// From a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Stats`].
    Stats(Box<VmStats>),
    /// To [`Question::Console`].
    Console(String),
    /// To [`Question::Flows`].
    Flows(Flows),
    /// To the others; whether it was not so before.
    Done {
        /// Something changed.
        changed: bool,
    },
    /// It cannot be done now; the machine goes on as before.
    Refused {
        /// Why, with all causes.
        message: String,
    },
}

/// Flows that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// In the order in which they did.
    pub flows: Vec<NetworkFlow>,
    /// The number of the one that comes next.
    pub next: u64,
}
