//! Programs that work on a shared directory, of which `cargo xtask suites` runs more and for
//! longer.

use std::time::Duration;

use supermachine_tests::required;
use supermachine_tests::suites::programs::{SCRIPTS, files};
use supermachine_tests::suites::{Kit, Place, Side};

const LIMIT: Duration = Duration::from_secs(240);

/// Databases are whole after their writers were killed, in each of four journal modes.
#[test]
fn sqlite_keeps_what_it_acknowledged() {
    let sqlite = SCRIPTS.iter().find(|script| script.name == "sqlite");
    let sqlite = sqlite.expect("it is one of them");
    let kit = Kit {
        layout: required("guest-images/python3", "cargo xtask images"),
        layers: Vec::new(),
        programs: files()
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .collect(),
    };
    for side in [Side::Ours, Side::OursMapped] {
        let shared = tempfile::tempdir_in(supermachine_tests::target_dir()).unwrap();
        let mut guest = Place::start(side, shared.path(), &kit).unwrap();
        let said = guest.run(&sqlite.command_with("2"), LIMIT).unwrap();
        let outcome = sqlite.read(&said).unwrap();
        assert_eq!((outcome.passed, outcome.failed), (4, Default::default()));
        assert!(shared.path().join("sqlite/wal.db").is_file());
    }
}
