//! pjdfstest, the suite of POSIX for file systems, in its port to Rust.

use super::{Outcome, PROGRAMS, SHARE};

/// What it is told. Times are as fine as the host's, and the guest is root.
pub const CONFIG: &str = "[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"one\", \"one\"], [\"two\", \"two\"]]
";

/// The command line for the guest's shell. It makes the link by which `which` is found,
/// as the script of its package would.
pub fn command() -> String {
    format!(
        "ln -sf which.debianutils /usr/bin/which && mkdir -p {SHARE}/pjdfstest && \
         chmod 755 {SHARE} {SHARE}/pjdfstest && \
         NO_COLOR=1 {PROGRAMS}/pjdfstest -c {PROGRAMS}/pjdfstest.toml \
         -p {SHARE}/pjdfstest"
    )
}

/// Reads what it says.
///
/// # Errors
/// A text, if it did not come to its end.
pub fn read(said: &str) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut last = None;
    for line in said.lines() {
        if let Some(more) = line.strip_prefix('\t') {
            let reason: Option<&mut String> =
                last.as_ref().and_then(|name| outcome.failed.get_mut(name));
            if let Some(reason) = reason.filter(|reason| reason.is_empty()) {
                reason.push_str(more);
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        last = None;
        match (name.contains("::"), words.next(), words.next()) {
            (true, Some("ok"), None) => outcome.passed += 1,
            (true, Some("skipped"), None) => outcome.skipped.push(name),
            (true, Some("FAILED"), None) => {
                outcome.failed.insert(name.clone(), String::new());
                last = Some(name);
            }
            _ => {}
        }
    }
    let total = outcome.passed + outcome.skipped.len() + outcome.failed.len();
    let summary = said.lines().find(|line| line.starts_with("Summary"));
    let is_whole = summary.is_some_and(|line| line.ends_with(&format!(", {total} total")));
    match is_whole && total > 0 {
        true => Ok(outcome),
        false => Err(format!("pjdfstest did not come to its end:\n{said}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SAID: &str = "\
chmod::errno::loop                                                       ok
chmod::lchmod::changes                                                   skipped
\trequires features: lchmod
chown::changes                                                           FAILED
\tassertion failed
\tmore

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";

    #[test]
    fn outcome_is_counted_only_of_a_whole_run() {
        let outcome = read(SAID).unwrap();
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.skipped, ["chmod::lchmod::changes"]);
        let failed = [("chown::changes".to_owned(), "assertion failed".to_owned())];
        assert_eq!(outcome.failed, BTreeMap::from(failed));
        let (cut, _) = SAID.split_once("\nSummary").unwrap();
        assert!(read(cut).is_err());
        assert!(read(&SAID.replace("3 total", "4 total")).is_err());
        assert!(read("").is_err());
    }
}
