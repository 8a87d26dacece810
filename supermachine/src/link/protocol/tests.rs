use super::*;

#[test]
fn messages_survive_the_wire_and_lengths_are_bounded() {
    let message = FromWorker::Ended {
        reason: "off".into(),
        orderly: true,
        console: "line\n".into(),
    };
    let mut wire = Vec::new();
    send(&mut wire, &message).unwrap();
    assert_eq!(receive::<FromWorker>(&wire[..]).unwrap(), Some(message));
    assert_eq!(receive::<FromWorker>(&wire[..0]).unwrap(), None);
    assert!(receive::<FromWorker>(&wire[..7]).is_err());
    let huge = [0xff; 8];
    assert!(receive::<FromWorker>(&huge[..]).is_err());
}

#[test]
fn the_longest_lists_fit_in_a_message() {
    let far = u64::MAX - 1..u64::MAX;
    let touched = FromWorker::Touched {
        runs: vec![far; MAX_TOUCHED_RUNS],
        code_notes: vec![u8::MAX; 128 << 10],
    };
    send(io::sink(), &touched).unwrap();
}

#[test]
fn the_longest_order_to_fork_fits_in_a_message() {
    // Sockets have at most 108 bytes; each byte of a name may be escaped.
    let path = PathBuf::from("\u{1}".repeat(108));
    let setup = Setup {
        engine: Engine::Auto,
        tier: Tier::Interpret,
        vcpus: u32::MAX,
        runtime_dir: path,
        console: false,
    };
    let order = ToWorker::Fork {
        births: vec![setup; MAX_BIRTHS],
        volumes: usize::MAX,
        more: false,
        unheld: false,
    };
    send(io::sink(), &order).unwrap();
}

#[test]
fn another_version_is_refused_naming_both() {
    let text = check_version(VERSION + 1).unwrap_err().to_string();
    assert!(text.contains(&(VERSION + 1).to_string()));
    assert!(text.contains(&format!("speaks {VERSION}")));
}
