//! Every error says what to do next.

use super::*;
use exec_proto::{ErrorKind as GuestKind, ProtoError};
use kernel::KernelError;
use oci_bake::{BakeError, ImageError};
use pool::{Failure, PoolError};
use snapshot::SnapshotError;
use std::collections::BTreeSet;

/// What a clause that says what to do begins with.
const ORDERS: &[&str] = &[
    "`supermachine",
    "ask",
    "bake",
    "check",
    "pull",
    "put",
    "correct",
    "build",
    "log",
    "call",
    "choose",
    "give",
    "install",
    "make",
    "name",
    "raise",
    "read",
    "remove",
    "report",
    "run",
    "see",
    "send",
    "set",
    "start",
    "stop",
    "try",
    "use",
    "wait",
    "write",
    "skopeo",
    "get",
    "`cargo",
    "(`supermachine",
];

fn broken() -> io::Error {
    io::Error::other("broken")
}

/// An error of each kind that is not another crate's.
fn own() -> Vec<Error> {
    let text = String::new;
    let after = Duration::from_secs(1);
    vec![
        Error::NoSuchVm {
            name: text(),
            count: 0,
        },
        Error::NameTaken { name: text() },
        Error::PortInUse { address: text() },
        Error::CopyTooLarge {
            what: "bytes",
            limit: 1,
        },
        Error::NoSuchField {
            field: text(),
            fields: text(),
        },
        Error::NoWorker { beside: "/".into() },
        Error::Worker {
            what: "waiting",
            log: text(),
            source: broken(),
        },
        Error::Descriptors {
            count: 1,
            needed: 7,
            room: 1,
            limit: 1,
        },
        Error::TooManyVcpus { vcpus: 17, max: 16 },
        Error::MemoryOutOfRange {
            memory_mib: 1,
            min_mib: 2,
            max_mib: 3,
        },
        Error::BadHostname { hostname: text() },
        Error::Mount {
            tag: text(),
            problem: "give it a directory",
        },
        Error::Volume {
            name: text(),
            problem: "choose a name",
        },
        Error::VolumeInUse {
            name: text(),
            by: text(),
        },
        Error::VolumeUnusable {
            name: text(),
            reason: text(),
        },
        Error::Start { message: text() },
        Error::Cancelled,
        Error::Paused,
        Error::Refused { message: text() },
        Error::NoSnapshot { path: "/".into() },
        Error::Rebake { reason: text() },
        Error::Damaged {
            path: "/".into(),
            source: Cause::of_snapshot(SnapshotError::Malformed { what: "it" }),
        },
        Error::Warmup {
            status: 1,
            stderr: text(),
        },
        Error::Workload {
            reason: text(),
            output: text(),
        },
        Error::NotUnique { reason: text() },
        Error::Unsuitable {
            what: "this",
            needs: "that",
        },
        Error::BootFailed {
            reason: text(),
            console: text(),
        },
        Error::Ended { reason: text() },
        Error::Exec {
            kind: GuestKind::Busy,
            message: text(),
        },
        Error::connection("waiting")(broken()),
        Error::Output { source: broken() },
        Error::system("wait")(broken()),
        Error::OutputTooLarge { limit: 1 },
        Error::Timeout {
            what: "this",
            after,
        },
        Error::host("cannot read", "/")(broken()),
    ]
}

/// Errors of other crates, each with another text of ours or its own.
fn of_others() -> Vec<Error> {
    let waited = Duration::from_secs(1);
    let text = || "it".to_owned();
    let failure = || Failure::new("no memory");
    vec![
        BakeError::Image(ImageError::NoCommand).into(),
        BakeError::Cancelled.into(),
        BakeError::Store {
            path: "/".into(),
            source: broken(),
        }
        .into(),
        ImageError::NoImage.into(),
        #[cfg(feature = "pull")]
        oci_pull::PullError::NotHere { name: text() }.into(),
        KernelError::NoCacheDir { variable: "HOME" }.into(),
        KernelError::Io {
            action: "read",
            path: "/".into(),
            source: broken(),
        }
        .into(),
        crate::compat::ResourceError::ZeroMemory.into(),
        SnapshotError::Io {
            what: "read",
            path: "/".into(),
            source: broken(),
        }
        .into(),
        SnapshotError::NotWritten { reason: text() }.into(),
        SnapshotError::Source(broken()).into(),
        SnapshotError::NotFound { name: text() }.into(),
        SnapshotError::Bundle { reason: "odd" }.into(),
        SnapshotError::TooLarge {
            what: "it",
            found: 2,
            limit: 1,
        }
        .into(),
        net::policy::PolicyError::Ports(text()).into(),
        net::policy::PolicyError::Host(text()).into(),
        net::policy::PolicyError::Network(text()).into(),
        net::policy::PolicyError::TooManyRules(1000).into(),
        broker::BrokerError::Name(text()).into(),
        broker::BrokerError::Host(text()).into(),
        broker::BrokerError::NoHost(text()).into(),
        broker::BrokerError::Header(text()).into(),
        broker::BrokerError::Value {
            name: text(),
            reason: "odd",
        }
        .into(),
        broker::BrokerError::Twice(text()).into(),
        broker::BrokerError::TooMany { count: 2, most: 1 }.into(),
        broker::BrokerError::Root(text()).into(),
        broker::BrokerError::Processor.into(),
        broker::BrokerError::Random.into(),
        broker::BrokerError::Certificate(text()).into(),
        net::policy::PolicyError::NothingLeft("rate_in").into(),
        net::policy::PolicyError::BurstWithoutRate.into(),
        net::policy::PolicyError::TooManyFlows(20_000).into(),
        PoolError::Config("odd").into(),
        PoolError::Timeout {
            waited,
            failure: None,
        }
        .into(),
        PoolError::OverBudget {
            waited,
            needed_bytes: 1,
        }
        .into(),
        PoolError::CircuitOpen {
            failures: 1,
            retry_in: waited,
            failure: failure(),
        }
        .into(),
        PoolError::Closed.into(),
        ProtoError::NotThisProtocol.into(),
        ProtoError::UnknownKind { kind: 1 }.into(),
        ProtoError::Misuse { what: "odd" }.into(),
    ]
}

/// Whether a clause of a text, without its causes, is an order.
fn says_what_to_do(text: &str) -> bool {
    let mut clauses = text.split([';', ':', ',', '(']).map(str::trim_start);
    clauses.any(|clause| {
        let words = clause
            .split(' ')
            .skip_while(|word| matches!(*word, "and" | "or" | "then"));
        words.take(1).any(|word| ORDERS.contains(&word))
    })
}

#[test]
fn every_error_says_what_to_do_next() {
    let errors: Vec<Error> = own().into_iter().chain(of_others()).collect();
    let shown: BTreeSet<&str> = errors.iter().map(Error::code).collect();
    // None is left out here that has a code.
    assert_eq!(shown, super::tests::codes().into_iter().collect());
    for error in errors {
        assert!(says_what_to_do(&error.to_string()), "{error}");
    }
}

/// The line about each code in docs/troubleshooting.md.
#[test]
fn every_error_is_in_the_book_with_words_of_its_text() {
    let page = include_str!("../../docs/troubleshooting.md");
    let line = |code: &str| {
        let start = format!("| `{code}` | ");
        let mut lines = page.lines();
        lines.find_map(|line| line.strip_prefix(&start).map(str::to_owned))
    };
    for code in super::tests::codes() {
        assert!(line(code).is_some(), "docs/troubleshooting.md lacks {code}");
    }
    let mut compared = 0;
    for error in own() {
        let told = line(error.code()).unwrap();
        // Where the words are another crate's, none are quoted.
        if let Some(rest) = told.strip_prefix('"') {
            let (words, _) = rest.split_once('"').unwrap();
            assert!(error.to_string().contains(words), "{words}: {error}");
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}

#[cfg(feature = "pull")]
#[test]
fn every_failure_of_a_registry_says_what_to_do_next() {
    use oci_pull::PullError::*;
    let text = || "it".to_owned();
    for error in [
        NotHere { name: text() },
        NotFound {
            host: text(),
            what: text(),
        },
        LoginNeeded {
            host: text(),
            repository: text(),
            registry: text(),
        },
        Denied {
            host: text(),
            registry: text(),
            status: 403,
            message: text(),
        },
        Status {
            host: text(),
            status: 418,
            message: text(),
            what: text(),
            retry_after: None,
        },
        TooBusy {
            host: text(),
            wait: Duration::from_secs(1),
        },
        Network {
            host: text(),
            reason: text(),
        },
        Stalled {
            host: text(),
            limit: Duration::from_secs(1),
        },
        Untrusted {
            host: text(),
            reason: text(),
        },
        Redirect {
            host: text(),
            to: text(),
            reason: "odd",
        },
        Realm {
            host: text(),
            realm: text(),
            reason: "odd",
        },
        Answer {
            host: text(),
            what: "it",
            reason: text(),
        },
        TooLarge {
            host: text(),
            what: "it",
            limit: 1,
        },
        Helper {
            program: text(),
            reason: text(),
        },
        Engine {
            socket: "/x".into(),
            reason: text(),
        },
        Unverified {
            name: text(),
            digest: oci_bake::Digest::sha256_of(b""),
            reason: text(),
        },
        NotInEngine {
            socket: "/x".into(),
            name: text(),
        },
        Processor,
        Cancelled,
    ] {
        let text = Error::from(error).to_string();
        assert!(says_what_to_do(&text), "{text}");
    }
}

#[test]
fn every_failure_of_a_guest_says_what_to_do_next() {
    use GuestKind::*;
    let kinds = [
        NotFound,
        NotExecutable,
        BadRequest,
        UnknownUser,
        NoSuchCwd,
        Resources,
        Version,
        Io,
        TooLarge,
        NotRegularFile,
        Busy,
        NotPermitted,
        Internal,
        TimedOut,
        WorkloadEnded,
    ];
    for kind in kinds {
        let message = "it was refused".to_owned();
        let text = Error::Exec { kind, message }.to_string();
        assert!(says_what_to_do(&text), "{text}");
    }
}

#[test]
fn a_text_that_only_complains_is_told_from_one_that_helps() {
    for text in [
        "cannot write",
        "the bake failed, and that was it",
        "the guest: is over; it ended",
    ] {
        assert!(!says_what_to_do(text), "{text}");
    }
    assert!(says_what_to_do("it is over: start another"));
}

#[test]
fn causes_come_after_what_to_do_and_are_said_once() {
    let error = Error::from(SnapshotError::Io {
        what: "read",
        path: "/x".into(),
        source: broken(),
    });
    assert_eq!(
        with_causes(&error),
        "could not read \"/x\"; see to the cause: broken"
    );
}
