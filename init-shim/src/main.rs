//! The guest's first process. Boots the machine, then serves commands.
//!
//! With `--serve-unix PATH` it is an ordinary process that serves the same
//! protocol on a Unix socket, for tests and for embedding.
//!
//! The entry point is C's `main`: Rust's own would open `/dev/null` before
//! there is a `/dev`, and abort without it.
#![cfg_attr(target_os = "linux", no_main)]

#[cfg(target_os = "linux")]
mod entry {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use exec_proto::{EXEC_PORT, READY_PORT};
    use init_shim::agent::{Agent, Doorway, Greeting, Workers};
    use init_shim::{boot, selftest, sys};

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
        let mut arguments = std::env::args_os().skip(1);
        if arguments.next().is_some_and(|a| a == "--serve-unix")
            && let Some(path) = arguments.next()
        {
            return serve_unix(path.into());
        }
        eprintln!("usage: init-shim --serve-unix PATH, or as PID 1 of a guest");
        2
    }

    fn run_machine(started_ns: u64) -> ! {
        let (agent, options) = match boot::boot() {
            Ok(up) => up,
            Err(error) => boot::give_up(&error),
        };
        if let Some(argv) = &options.selftest {
            let booted = sys::monotonic_ns().saturating_sub(started_ns) / 1000;
            boot::say(&format!("booted in {booted} us"));
            match selftest::run(&agent, argv) {
                Ok(text) => {
                    for line in String::from_utf8_lossy(&text).lines() {
                        boot::say(line);
                    }
                }
                Err(error) => boot::say(&format!("selftest: {error}")),
            }
            sys::sync_all();
            sys::power_off();
        }
        let workers = Doorway::new(|| sys::vsock_listen(EXEC_PORT))
            .and_then(|doorway| Workers::start(agent, doorway));
        match workers {
            Ok(workers) => {
                let ready_ns = sys::monotonic_ns();
                // A host that does not listen there will connect when it likes.
                let _ = workers.serve_outgoing(move || {
                    let socket = sys::vsock_connect_host(READY_PORT).ok()?;
                    let greeting = Greeting::Ready {
                        started_ns,
                        ready_ns,
                    };
                    Some((socket, greeting))
                });
            }
            Err(error) => boot::give_up(&boot::BootError::Agent(error)),
        }
        reap()
    }

    /// PID 1's other duty: orphans. Children of serving threads are theirs.
    fn reap() -> ! {
        loop {
            while sys::reap_orphan() {}
            sys::wait_for_child_signal();
        }
    }

    fn serve_unix(path: PathBuf) -> i32 {
        let open = move || {
            // A name left over from an earlier run.
            let _ = std::fs::remove_file(&path);
            UnixListener::bind(&path).map(OwnedFd::from)
        };
        let started =
            Agent::new(None, false).and_then(|agent| Workers::start(agent, Doorway::new(open)?));
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
