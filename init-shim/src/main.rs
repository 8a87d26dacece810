//! The guest's first process. Boots the machine, then serves commands.
//!
//! With `--serve-unix PATH [CGROUP]` it is an ordinary process that serves the
//! same protocol on a Unix socket, for tests and for embedding; commands are
//! confined below the cgroup2 directory if one is given. Under the name of the file
//! tool it is that, for the agent's own use.
//!
//! The entry point is C's `main`: Rust's own would open `/dev/null` before
//! there is a `/dev`, and abort without it.
#![cfg_attr(target_os = "linux", no_main)]

#[cfg(target_os = "linux")]
mod entry {
    use std::ffi::OsString;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::Arc;

    use exec_proto::tree::TOOL_NAME;
    use exec_proto::{EXEC_PORT, READY_PORT};
    use init_shim::agent::groups::{GroupPool, Rules};
    use init_shim::agent::{Agent, Dialer, Doorway, Greeting, Workers};
    use init_shim::{boot, selftest, sys, tool};

    /// Called by the C runtime.
    #[unsafe(no_mangle)]
    extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
        let started_ns = sys::monotonic_ns();
        // Before any thread exists: they inherit the mask.
        sys::block_child_signals();
        sys::disable_malloc_arenas();
        if std::process::id() == 1 {
            run_machine(started_ns)
        }
        let arguments = arguments();
        if let [name, words @ ..] = &arguments[..]
            && name == TOOL_NAME
        {
            return tool::run(words);
        }
        let mut arguments = arguments.into_iter().skip(1);
        if arguments.next().is_some_and(|a| a == "--serve-unix")
            && let Some(path) = arguments.next()
        {
            return serve_unix(path.into(), arguments.next().map(PathBuf::from));
        }
        eprintln!("usage: init-shim --serve-unix PATH [CGROUP], or as PID 1 of a guest");
        2
    }

    /// Rust's own list stays empty behind a C `main` with some C libraries.
    fn arguments() -> Vec<OsString> {
        let bytes = std::fs::read("/proc/self/cmdline").unwrap_or_default();
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        let words = bytes.split(|byte| *byte == 0);
        words
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect()
    }

    fn run_machine(started_ns: u64) -> ! {
        let (agent, options) = match boot::boot() {
            Ok(up) => up,
            Err(error) => boot::give_up(&error),
        };
        let workers = Doorway::new(|| sys::vsock_listen(EXEC_PORT))
            .and_then(|doorway| Workers::start(agent, doorway));
        match workers {
            Ok(workers) if !options.selftest.is_empty() => {
                std::thread::spawn(move || run_selftest(&workers, &options.selftest, started_ns));
            }
            Ok(workers) => {
                let greeting = Greeting::Ready {
                    started_ns,
                    ready_ns: sys::monotonic_ns(),
                };
                let dialer = Dialer::new(|| sys::vsock_connect_host(READY_PORT), greeting);
                // Without it the host connects when it likes.
                let _ = workers.keep_dialed(dialer);
            }
            Err(error) => boot::give_up(&boot::BootError::Agent(error)),
        }
        reap()
    }

    fn run_selftest(workers: &Arc<Workers>, commands: &[Vec<String>], started_ns: u64) -> ! {
        let booted = sys::monotonic_ns().saturating_sub(started_ns) / 1000;
        boot::say(&format!("booted in {booted} us"));
        for argv in commands {
            let result = workers
                .connect()
                .and_then(|connection| selftest::run(connection, argv));
            match result {
                Ok(text) => {
                    for line in String::from_utf8_lossy(&text).lines() {
                        boot::say(line);
                    }
                }
                Err(error) => boot::say(&format!("selftest: {error}")),
            }
        }
        sys::sync_all();
        sys::power_off()
    }

    /// PID 1's other duty: orphans. Children of serving threads are theirs.
    fn reap() -> ! {
        loop {
            while sys::reap_orphan() {}
            sys::wait_for_child_signal();
        }
    }

    fn serve_unix(path: PathBuf, cgroup: Option<PathBuf>) -> i32 {
        let open = move || {
            // A name left over from an earlier run.
            let _ = std::fs::remove_file(&path);
            UnixListener::bind(&path).map(OwnedFd::from)
        };
        let started = cgroup
            .map(|parent| GroupPool::new(&parent, Rules::default()))
            .transpose()
            .and_then(|groups| Agent::new(groups, false))
            .and_then(|agent| Workers::start(agent, Doorway::new(open)?));
        match started {
            Ok(_) => reap(),
            Err(error) => {
                eprintln!("supermachine-init: {error}");
                1
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("init-shim runs in a Linux guest");
    std::process::exit(2);
}
