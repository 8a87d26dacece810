//! Documents that must agree with what they describe.

use anyhow::{Context, Result};
use std::path::Path;

/// Where the decisions are, and their index.
const DECISIONS: &str = "docs/decisions";
const INDEX: &str = "README.md";

pub fn check(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    decisions(root, problems)
}

/// Each decision has a number, a status, and a line in the index that says the
/// same.
fn decisions(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    let directory = root.join(DECISIONS);
    let index = std::fs::read_to_string(directory.join(INDEX))
        .with_context(|| format!("{DECISIONS}/{INDEX}"))?;
    for entry in std::fs::read_dir(&directory).context(DECISIONS)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == INDEX {
            continue;
        }
        let text = std::fs::read_to_string(directory.join(&name))?;
        if let Err(problem) = decision(&name, &text, &index) {
            problems.push(format!("{DECISIONS}/{name}: {problem}"));
        }
    }
    Ok(())
}

fn decision(name: &str, text: &str, index: &str) -> Result<(), String> {
    let number = name.get(..4).unwrap_or_default();
    let value: u16 = number
        .parse()
        .map_err(|_| "its name does not begin with four digits".to_owned())?;
    if !text.starts_with(&format!("# {value}. ")) {
        return Err(format!("its first line is not \"# {value}. …\""));
    }
    let status = text
        .lines()
        .find_map(|line| line.strip_prefix("**Status.** "))
        .ok_or("it has no line \"**Status.** …\"")?;
    let row = index
        .lines()
        .find(|line| line.starts_with(&format!("| [{number}]({name}) ")))
        .ok_or_else(|| format!("it is not in {DECISIONS}/{INDEX}"))?;
    let superseded = |text: &str| text.to_lowercase().contains("superseded");
    if superseded(status) != superseded(row) {
        return Err(format!("its status is another in {DECISIONS}/{INDEX}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_without_number_status_or_index_line_is_a_problem() {
        let index = "| [0007](0007-a.md) A | accepted |\n";
        let good = "# 7. A\n\n**Status.** Accepted.\n";
        assert_eq!(decision("0007-a.md", good, index), Ok(()));
        assert!(decision("0007-a.md", "# A\n\n**Status.** Accepted.\n", index).is_err());
        assert!(decision("0007-a.md", "# 7. A\n", index).is_err());
        assert!(decision("0007-a.md", good, "").is_err());
        assert!(decision("x.md", good, index).is_err());
        let superseded = "# 7. A\n\n**Status.** Superseded by 0008.\n";
        assert!(decision("0007-a.md", superseded, index).is_err());
    }
}
