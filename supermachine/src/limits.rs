//! Every time limit of this crate, with its reason.
//!
//! A `_TIMEOUT` is the longest that something may take: one deadline is fixed by
//! it when the wait begins, and what is within it gets what is left of it. A
//! `_PAUSE` is how long to wait before looking again where nothing wakes us.
//!
//! | a call of the library | waits at most for | and in that for |
//! |---|---|---|
//! | start of a machine that boots | [`BOOT_TIMEOUT`], or as configured | the worker's answer, the agent's call |
//! | copy, reset, fork | [`RESTORE_TIMEOUT`], or as configured | the worker's answer, the agent's call and from [`CALL_TIMEOUT`] on ours, its memory |
//! | snapshot | [`SNAPSHOT_LOCK_TIMEOUT`], then [`CAPTURE_TIMEOUT`] | [`ANSWER_TIMEOUT`] until it goes on |
//! | bake | [`BAKE_LOCK_TIMEOUT`], then start, trigger, warm-up, snapshot | [`LISTENER_TIMEOUT`] in [`GUEST_ANSWER_TIMEOUT`] |
//! | command with a time limit | that, by default [`COLLECTED_TIMEOUT`] if it is collected, then [`OVERRUN_TIMEOUT`] and [`LATE_PROBE_TIMEOUT`] | [`GREETING_TIMEOUT`], and in it [`REFUSAL_TIMEOUT`]; [`PROBE_TIMEOUT`] after each silent [`PROBE_INTERVAL`] |
//! | command without one | its end | the same |
//! | file, status, other requests | [`GUEST_ANSWER_TIMEOUT`]; [`ANSWER_TIMEOUT`] of the worker | [`GREETING_TIMEOUT`] |
//! | connection to a guest's port | [`ACCEPT_TIMEOUT`] | |
//! | connection to a port of the host | [`DIAL_TIMEOUT`], then its end | [`GREETING_TIMEOUT`] |
//! | stop of a machine | [`VOLUME_FLUSH_TIMEOUT`] for each of its volumes, [`END_TIMEOUT`], then [`KILL_TIMEOUT`] | |
//! | graceful stop of a machine | the caller's, then as for a stop | |
//! | pause, resume, figures of a machine | [`ANSWER_TIMEOUT`] of the worker | [`GREETING_TIMEOUT`] for the clock |
//! | drop of a machine | twice [`DROP_TIMEOUT`] | |
//! | drop of a pool | [`SHUTDOWN_TIMEOUT`] | [`END_TIMEOUT`] for each machine |

use std::time::Duration;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

// Machines that come up.

/// Power-on to the agent's first word, if the configuration does not say: 1 to
/// 2 s are usual, this is for a host with thirty times too much to do.
pub const BOOT_TIMEOUT: Duration = seconds(60);
/// Order to the first word of a copy's agent, if the configuration does not say:
/// some 10 ms are usual, and memory may have to come from a slow disk.
pub const RESTORE_TIMEOUT: Duration = seconds(30);
/// After this time a copy is late enough for its files to be compared with their
/// checksums: most copies take a hundredth of it, and comparing takes as long
/// as reading them.
pub const LATE_COPY: Duration = seconds(2);
/// The agent of a copy calls, before it is called: it does at once, unless it was in
/// the middle of starting a program that does not get on.
pub const CALL_TIMEOUT: Duration = milliseconds(200);
/// Writing a snapshot: the largest guest's 30 GiB at 50 MiB a second.
pub const CAPTURE_TIMEOUT: Duration = seconds(600);

// Workers.

/// What takes a worker no time. Whoever waits this long on a busy host would not
/// have been served much later.
pub const ANSWER_TIMEOUT: Duration = seconds(30);
/// The console of a guest that hangs, from a worker that may hang too: it goes
/// into an error that somebody has waited for already.
pub const CONSOLE_TIMEOUT: Duration = seconds(2);
/// Least time for what is in a worker's connection already.
pub const GLANCE_TIMEOUT: Duration = seconds(1);
/// A worker that broke its connection is gone, so that an error can say how it
/// ended.
pub const FATE_TIMEOUT: Duration = seconds(1);
/// A worker ends after it was told to. Whoever waits gets nothing from a longer
/// wait: what is left is removed here as well.
pub const END_TIMEOUT: Duration = seconds(2);
/// The same for whoever drops a machine, and once more for the killed worker to
/// be gone: some 3 ms are usual, and a drop must not be felt.
pub const DROP_TIMEOUT: Duration = milliseconds(200);
/// The system ends a process that was killed, and takes back its memory.
pub const KILL_TIMEOUT: Duration = seconds(5);
/// Somebody waits for a machine of a pool, if its builder does not say: what the npm
/// package promises.
pub const ACQUIRE_TIMEOUT: Duration = seconds(60);
/// A machine of the pool behind `Image::acquire` is idle, which nobody else can set and
/// nobody shuts down.
pub const UNNAMED_POOL_IDLE_TIMEOUT: Duration = seconds(60);
/// Machines in use come back to a pool that is shut down.
pub const SHUTDOWN_TIMEOUT: Duration = seconds(30);
/// A command of a pool's machine computes for this long before the next one does too.
pub const LONGEST_TURN: Duration = seconds(10);
/// A machine in which nothing has run for this long does not compute: longer than a read
/// from a disk takes.
pub const STANDSTILL: Duration = milliseconds(30);
/// The first who waits for a turn looks whether those who have one still compute.
pub const TURN_LOOK: Duration = milliseconds(15);
/// Those behind look whether their turn is still wanted; they are woken when they are first.
pub const LINE_LOOK: Duration = milliseconds(150);
/// A machine that was reset is idle for this long before it discards the pages that
/// the reset copied: a pool in use hands it out much sooner.
pub const SETTLING_TIME: Duration = seconds(1);
/// The last machine of a volume ends, which lets the next have it: it is gone once its
/// end was told, but a process that was just being started may hold on to it.
pub const VOLUME_LOCK_TIMEOUT: Duration = seconds(2);
/// A guest writes out what it has of a volume, before its machine is stopped: some
/// hundred MiB at the speed of a slow disk. What is not written by then is lost, as when
/// the plug is pulled.
pub const VOLUME_FLUSH_TIMEOUT: Duration = seconds(10);
/// Looks at whether a worker has ended, from the first pause to the longest: each
/// is twice the one before, as an orderly end takes 3 ms and a bad one seconds.
pub const FIRST_END_PAUSE: Duration = Duration::from_micros(200);
/// The longest of them.
pub const LAST_END_PAUSE: Duration = milliseconds(20);
/// Looks at whether a machine of another process has ended.
pub const OTHERS_END_PAUSE: Duration = milliseconds(10);
/// Passes files on again, where this user has too many under way.
pub const PASSING_PAUSE: Duration = milliseconds(2);
/// Looks at whether a worker is free, where an answer has been waited for.
pub const LOCK_PAUSE: Duration = milliseconds(2);

// Guests and their agents.

/// An agent greets, refusals included.
pub const GREETING_TIMEOUT: Duration = seconds(30);
/// Of that, how long the agent may refuse connections because many wait.
pub const REFUSAL_TIMEOUT: Duration = seconds(20);
/// Asks a refusing agent again, from the first pause to the longest: each is
/// twice the one before.
pub const FIRST_RETRY_PAUSE: Duration = milliseconds(1);
/// The longest of them.
pub const LAST_RETRY_PAUSE: Duration = milliseconds(100);
/// A guest answers a request: longer than it waits for a workload to listen.
pub const GUEST_ANSWER_TIMEOUT: Duration = seconds(150);
/// A workload listens on its port while its image is baked: large programs take
/// a minute on the software engine.
pub const LISTENER_TIMEOUT: Duration = seconds(120);
/// From one heartbeat of a workload that is baked to the next.
pub const HEARTBEAT_PAUSE: Duration = milliseconds(50);
/// A program of the guest accepts a connection.
pub const ACCEPT_TIMEOUT: Duration = seconds(10);
/// A command whose output is collected, if it does not say: what the npm package
/// promises. Whoever wants to wait longer says so.
pub const COLLECTED_TIMEOUT: Duration = seconds(60);
/// A command ends for its host this much later than its time limit, with the
/// time for a look at its worker: the guest ends it, and says so, in less.
pub const OVERRUN_TIMEOUT: Duration = seconds(10).saturating_sub(LATE_PROBE_TIMEOUT);
/// An agent is silent before its worker is asked whether it still lives.
pub const PROBE_INTERVAL: Duration = seconds(10);
/// A worker says that it lives.
pub const PROBE_TIMEOUT: Duration = seconds(30);
/// A worker whose guest has taken longer than it may says that it lives.
pub const LATE_PROBE_TIMEOUT: Duration = seconds(2);
/// A machine ends after it closed its connections.
pub const MACHINE_END_TIMEOUT: Duration = seconds(2);
/// A connection is kept for the next command. The agent hangs up on those that
/// ask for nothing, but never so soon.
pub const KEPT_CONNECTION: Duration = seconds(5);
/// Looks at the end of a time limit while a stream is full.
pub const FULL_STREAM_PAUSE: Duration = milliseconds(100);
/// Looks at whether what a thread waits for is still wanted, where only that thread can
/// find out: nobody notices that a key's effect takes so long.
pub const WANTED_LOOK: Duration = milliseconds(100);

// Ports of the host that lead to services of a guest.

/// A service takes a connection that came to its port: an agent that greets late, and
/// the ten seconds that it gives the service.
pub const DIAL_TIMEOUT: Duration = seconds(45);
/// Takes connections again, where there are as many as there may be, or this process
/// has no descriptors left.
pub const PORT_PAUSE: Duration = milliseconds(50);
/// Somebody who sent datagrams says no more: what RFC 4787 asks of translators, at
/// the least.
pub const DATAGRAM_REST: Duration = seconds(120);

/// Looks at whether a workload has ended that was told to.
pub const WORKLOAD_END_PAUSE: Duration = milliseconds(50);
/// Looks at what the workload of a machine does whose events somebody wants to know:
/// each look wakes the guest.
pub const EVENT_PAUSE: Duration = seconds(1);
/// Such a look. A guest that takes longer is looked at again later.
pub const EVENT_LOOK_TIMEOUT: Duration = seconds(5);

// Snapshots that other processes change.

/// Another process bakes the same image: all of a bake, warm-up included.
pub const BAKE_LOCK_TIMEOUT: Duration = seconds(1800);
/// Another process writes the same snapshot of a running machine.
pub const SNAPSHOT_LOCK_TIMEOUT: Duration = seconds(60);
/// Another process has the right to change an image that is to be removed or
/// retired: whoever asked can ask again.
pub const REMOVAL_LOCK_TIMEOUT: Duration = seconds(10);
/// A layer that nobody has read for so long is no longer about to be used. Most
/// file systems write down a day late that a file was read (`relatime`), so this
/// is an hour more.
pub const LAYER_REST: Duration = seconds(25 * 3600);

/// A file that was changed before this can be told from what it was before by the time
/// of its change: file systems count in up to two seconds (FAT), most in milliseconds.
pub const SETTLED_FILE: Duration = seconds(3);

// Clocks.

/// How far the host's wall clock may have moved before a guest that waited is
/// set again: more than the two clocks drift apart in a second while the host's
/// is disciplined (500 ppm), less than programs notice.
pub const CLOCK_TOLERANCE: Duration = milliseconds(10);
/// Longest single wait, so that it fits every system's clock type.
pub const LONGEST_POLL: Duration = seconds(3600);

/// Limits of the command line tool.
#[cfg(feature = "cli")]
pub mod cli {
    use super::{Duration, milliseconds, seconds};

    /// A warm-up command of a bake.
    pub const WARMUP_TIMEOUT: Duration = seconds(600);
    /// Three requests to end within this time end the tool, whatever the guest's
    /// command makes of them: nobody presses keys that often by mistake.
    pub const IMPATIENCE: Duration = seconds(10);
    /// Nobody has taken our output for this long: the command's own end is stuck
    /// behind it.
    pub const STALL: Duration = seconds(2);
    /// After a request to end, stalls are looked for so long.
    pub const STALL_WATCH: Duration = seconds(10);
    /// Looks for one.
    pub const STALL_PAUSE: Duration = milliseconds(100);
    /// A supervisor writes down that its machine was ended by force, or is gone
    /// itself: both take it no time, on a busy host too.
    pub const SUPERVISOR_TIMEOUT: Duration = seconds(10);
    /// A machine's owner does what another process asks of it: a snapshot, behind one
    /// that somebody else makes.
    pub const CONTROL_TIMEOUT: Duration = seconds(700);
    /// The process that asks says what for, and takes the answer.
    pub const CONTROL_REQUEST_TIMEOUT: Duration = seconds(30);
    /// A process that is attached to a command takes what it writes: the command waits for
    /// it, but not for one that was stopped and forgotten.
    pub const CLIENT_TIMEOUT: Duration = seconds(30);
    /// Shows again what machines use, and looks for new ones: as often as people look.
    pub const STATS_PAUSE: Duration = seconds(1);
    /// Looks for more flows to write down: what is seen later is not missed until there
    /// are some thousand.
    pub const NET_LOG_PAUSE: Duration = milliseconds(500);
    /// Looks for more of a log that is followed.
    pub const LOG_PAUSE: Duration = milliseconds(50);
    /// A step that takes longer is told on a terminal: what is sooner over would
    /// only flicker.
    pub const STATUS_DELAY: Duration = milliseconds(300);
    /// Draws it again.
    pub const STATUS_PAUSE: Duration = milliseconds(100);
}

/// What the table says of limits within others.
const _: () = {
    const fn is_within(inner: Duration, outer: Duration) {
        assert!(inner.as_millis() < outer.as_millis());
    }
    is_within(CALL_TIMEOUT, RESTORE_TIMEOUT);
    is_within(LATE_COPY, RESTORE_TIMEOUT);
    is_within(LISTENER_TIMEOUT, GUEST_ANSWER_TIMEOUT);
    is_within(REFUSAL_TIMEOUT, GREETING_TIMEOUT);
    is_within(GREETING_TIMEOUT, DIAL_TIMEOUT);
    is_within(LATE_PROBE_TIMEOUT, OVERRUN_TIMEOUT);
    is_within(CAPTURE_TIMEOUT, BAKE_LOCK_TIMEOUT);
    is_within(GLANCE_TIMEOUT, MACHINE_END_TIMEOUT);
    is_within(END_TIMEOUT, KILL_TIMEOUT);
    is_within(DROP_TIMEOUT, END_TIMEOUT);
};

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else {
                into.push(path);
            }
        }
    }

    /// Lines of a source before its tests that make a time out of a number.
    fn times(text: &str) -> Vec<&str> {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
        let is_comment = |line: &str| line.trim_start().starts_with("//");
        let is_number = |line: &str| {
            line.split("Duration::from_").skip(1).any(|rest| {
                let argument = rest.split('(').nth(1).unwrap_or_default();
                argument.starts_with(|first: char| first.is_ascii_digit())
            })
        };
        let lines = code.lines().filter(|line| !is_comment(line));
        lines
            .filter(|line| {
                is_number(line) || line.contains("const ") && line.contains(": Duration")
            })
            .collect()
    }

    #[test]
    fn no_other_file_has_a_time_limit() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        assert!(files.len() > 50, "{files:?}");
        let is_test = |path: &&PathBuf| {
            let path = path.strip_prefix(&root).unwrap();
            path.to_string_lossy().ends_with("tests.rs") || path.iter().any(|part| part == "tests")
        };
        // Tests of a room have limits of their own, and so has this file.
        let own = ["limits.rs", "misbehaving.rs"];
        for path in files.iter().filter(|path| !is_test(path)) {
            if own.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let found = times(&text);
            assert!(
                found.is_empty(),
                "move to limits.rs, from {}: {found:?}",
                path.display()
            );
        }
    }

    #[test]
    fn a_time_in_a_source_is_found_and_one_in_a_test_or_comment_is_not() {
        let hidden = "/// Duration::from_secs(5)\nlet a = Duration::from_millis(ms);\n\
            #[cfg(test)]\nmod tests { const A: Duration = Duration::from_secs(1); }";
        assert!(times(hidden).is_empty());
        assert_eq!(
            times("const A: Duration = b;\nsleep(Duration::from_millis(3));").len(),
            2
        );
    }
}
