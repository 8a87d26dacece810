//! Tests that run once more in a process of their own, whose surroundings are worse.

use std::process::Command;

/// Set for the second run of a test.
const INSIDE: &str = "SUPERMACHINE_TEST_INSIDE";

/// Whether this is the second run of the test of this name. In the first one, makes that:
/// by a command, which a script of the shell's that ends with `exec "$@"` is given to.
fn is_inside(test: &str, mut command: Command, script: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let run = command
        .args(["sh", "-c", script, "sh"])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let failed = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{failed}");
    assert!(said.contains("1 passed"), "{test} is no test: {said}");
    println!("{said}");
    false
}

/// Whether this process has so few descriptors; as [`is_inside`].
pub fn has_descriptors(test: &str, most: usize) -> bool {
    let script = format!("ulimit -n {most}; exec \"$@\"");
    is_inside(test, Command::new("env"), &script)
}

/// Whether this process is alone; as [`is_inside`].
pub fn is_alone(test: &str) -> bool {
    is_inside(test, Command::new("env"), "exec \"$@\"")
}

/// Whether this process may mount what it likes for itself; as [`is_inside`]. Where the
/// host lets nobody in particular do that there is no second run.
pub fn has_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let apart = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command
    };
    let tried = apart().args(["test", "-w", "/dev/fuse"]).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: {test}: no namespaces or no FUSE here: {tried:?}");
        return false;
    }
    is_inside(test, apart(), "exec \"$@\"")
}
