//! What embedder and worker have in common: the control protocol between them,
//! and the directory with a machine's sockets.

pub(crate) mod monitor;
pub(crate) mod passing;
pub(crate) mod protocol;
pub(crate) mod runtime_dir;
pub(crate) mod sockets;
