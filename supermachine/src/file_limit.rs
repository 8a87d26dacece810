//! The limit on the length of files (`ulimit -f`) of a process of ours.

/// Makes a write beyond the limit fail, as one on a full disk does, instead of ending the
/// process with files half written. Programs that embed the library decide for
/// themselves: a signal's meaning is the whole process's.
pub fn take_as_error() {
    // Without the handler it ends us, as it does others.
    #[cfg(feature = "cli")]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
}
