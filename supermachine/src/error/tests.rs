use super::*;
use exec_proto::ProtoError;

const HOSTILE: &str = "a\x1b]0;owned\x07b\u{9b}2J\u{202e}c\nsupermachine: all is well";

/// Every kind of error that carries text of a guest, an image or a worker.
fn hostile() -> Vec<Error> {
    let text = || HOSTILE.to_owned();
    let broken = || io::Error::other("broken");
    let failure = exec_proto::Failure {
        kind: exec_proto::ErrorKind::UnknownUser,
        errno: 0,
        message: text(),
    };
    vec![
        failure.into(),
        Error::NoSuchVm {
            name: text(),
            count: 0,
        },
        Error::BadHostname { hostname: text() },
        Error::Start { message: text() },
        Error::Refused { message: text() },
        Error::Rebake { reason: text() },
        Error::NotUnique { reason: text() },
        Error::Ended { reason: text() },
        Error::host("cannot read", text())(broken()),
        Error::NoWorker {
            beside: text().into(),
        },
    ]
}

fn assert_tame(text: &str) {
    let is_shown = |char| Printable::is_harmless(char) || char == '\n';
    assert!(text.chars().all(is_shown), "{text:?}");
}

#[test]
fn text_of_others_cannot_drive_a_terminal_or_make_lines_of_its_own() {
    for error in hostile() {
        for text in [error.to_string(), format!("{error:?}"), with_causes(&error)] {
            assert_tame(&text);
            assert!(!text.contains('\n') && text.contains("owned"), "{text}");
        }
    }
}

#[test]
fn logs_and_consoles_keep_their_lines_and_nothing_else() {
    let text = || HOSTILE.to_owned();
    let errors = [
        Error::BootFailed {
            reason: text(),
            console: text(),
        },
        Error::Warmup {
            status: 1,
            stderr: text(),
        },
        Error::Workload {
            reason: text(),
            output: text(),
        },
        Error::Worker {
            what: "waiting",
            log: text(),
            source: io::Error::other("broken"),
        },
    ];
    for error in errors {
        assert_tame(&error.to_string());
        assert_tame(&format!("{error:?}"));
        assert!(error.to_string().contains("\nsupermachine: all is well"));
    }
}

#[test]
fn text_of_others_is_bounded() {
    let long = "x".repeat(1 << 20);
    let errors = [
        Error::Exec {
            kind: exec_proto::ErrorKind::Io,
            message: long.clone(),
        },
        Error::BootFailed {
            reason: long.clone(),
            console: long.clone(),
        },
        Error::Warmup {
            status: 1,
            stderr: long.clone(),
        },
    ];
    for error in errors {
        assert!(error.to_string().len() < 32 << 10);
        assert!(format!("{error:?}").len() < 32 << 10);
    }
}

#[test]
fn an_error_that_ends_main_reads_like_one_of_the_tool() {
    let error = Error::host("cannot read", "/a b")(io::Error::other("disk on fire"));
    let text = "cannot read /a b; see to what the host says of it: disk on fire";
    assert_eq!(format!("{error:?}"), text);
    assert_eq!(format!("{error:#?}"), with_causes(&error));
}

#[test]
fn errors_are_sorted_by_what_a_caller_can_do() {
    let pool = |error: pool::PoolError| Error::from(error);
    let protocol = |error: ProtoError| Error::from(error);
    let guest = |kind| Error::Exec {
        kind,
        message: String::new(),
    };
    let seconds = std::time::Duration::from_secs(1);
    let cases = [
        (
            pool(pool::PoolError::OverBudget {
                waited: seconds,
                needed_bytes: 1,
            }),
            ErrorKind::Busy,
            true,
        ),
        (pool(pool::PoolError::Closed), ErrorKind::Ended, false),
        (
            pool(pool::PoolError::Config("odd")),
            ErrorKind::Configuration,
            false,
        ),
        (
            Error::Timeout {
                what: "a guest",
                after: seconds,
            },
            ErrorKind::TimedOut,
            true,
        ),
        (
            Error::NotUnique {
                reason: String::new(),
            },
            ErrorKind::Guest,
            true,
        ),
        (
            guest(exec_proto::ErrorKind::UnknownUser),
            ErrorKind::NotFound,
            false,
        ),
        (guest(exec_proto::ErrorKind::Busy), ErrorKind::Busy, true),
        (
            protocol(ProtoError::Misuse { what: "odd" }),
            ErrorKind::Configuration,
            false,
        ),
        (
            protocol(ProtoError::NotThisProtocol),
            ErrorKind::Rebake,
            false,
        ),
        (
            protocol(ProtoError::UnknownKind { kind: 1 }),
            ErrorKind::Defect,
            false,
        ),
        (
            Error::Rebake {
                reason: String::new(),
            },
            ErrorKind::Rebake,
            false,
        ),
    ];
    for (error, kind, is_retryable) in cases {
        let code = error.code();
        assert_eq!(error.kind(), kind, "{code}");
        assert_eq!(error.is_retryable(), is_retryable, "{code}");
    }
}

/// The codes of all errors, by the source, so that a new one is looked at too.
pub(super) fn codes() -> Vec<&'static str> {
    let source = include_str!("kind.rs");
    let (_, table) = source.split_once("pub fn code").unwrap();
    table.split('"').skip(1).step_by(2).collect()
}

#[test]
fn codes_are_words_and_no_two_are_the_same() {
    let codes = codes();
    let unique: std::collections::BTreeSet<&str> = codes.iter().copied().collect();
    assert!(codes.len() > 30 && unique.len() == codes.len(), "{codes:?}");
    let is_word = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(codes.iter().all(is_word), "{codes:?}");
}
