//! Tables in documents that repeat what the code says: messages, errors, frames,
//! slots. Whoever changes one without the other is told here.

use super::sources::listed;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::path::Path;

const ARCHITECTURE: &str = "docs/architecture.md";
const PROTOCOL: &str = "docs/protocol.md";

/// Columns of a table that name the variants of an enum: the document, a text
/// above the table, the column, and where the enum is.
const ENUMS: &[(&str, &str, usize, &str, &str)] = &[
    (
        ARCHITECTURE,
        "| to the worker |",
        0,
        "supermachine",
        "ToWorker",
    ),
    (
        ARCHITECTURE,
        "| to the worker |",
        1,
        "supermachine",
        "FromWorker",
    ),
    (
        ARCHITECTURE,
        "A machine ends once",
        0,
        "vmm-core",
        "ExitReason",
    ),
    (
        ARCHITECTURE,
        "| `Error` | when |",
        0,
        "supermachine",
        "Error",
    ),
];

pub fn check(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    for (document, above, column, package, name) in ENUMS {
        let text = std::fs::read_to_string(root.join(document))?;
        let said = named(&table(&text, above), *column);
        let there = variants(&sources(root, package)?, name);
        compare(document, &format!("`{name}`"), &said, &there, problems);
    }
    let protocol = std::fs::read_to_string(root.join(PROTOCOL))?;
    let code = sources(root, "exec-proto")?;
    compare(
        PROTOCOL,
        "the frames",
        &frames_said(&protocol),
        &frames(&code),
        problems,
    );
    let said = kinds_said(&table(&protocol, "## Error kinds"));
    compare(PROTOCOL, "the error kinds", &said, &kinds(&code), problems);
    let title = protocol.lines().next().unwrap_or_default();
    let version = constant(&code, "pub const VERSION: u16");
    if version.is_none_or(|version| !title.ends_with(&format!("version {version}"))) {
        problems.push(format!(
            "{PROTOCOL}: its title is not of version {version:?}, which exec-proto speaks"
        ));
    }
    let architecture = std::fs::read_to_string(root.join(ARCHITECTURE))?;
    let slots = fixed_slots(&table(&architecture, "### Devices"));
    let fixed = constant(&sources(root, "vmm-core")?, "const FIXED_VIRTIO: usize");
    if fixed != Some(slots) {
        problems.push(format!(
            "{ARCHITECTURE}: its table of devices has {slots} virtio devices that every machine \
             has, and vmm-core {fixed:?}"
        ));
    }
    Ok(())
}

/// All source of a crate but for its tests.
fn sources(root: &Path, package: &str) -> Result<String> {
    let mut all = String::new();
    for file in listed(root, &format!("{package}/src/*.rs"))? {
        if let Ok(text) = std::fs::read_to_string(root.join(&file)) {
            all.push_str(&text);
            all.push('\n');
        }
    }
    if all.is_empty() {
        bail!("{package} has no source: name it anew in xtask/src/check/drift.rs");
    }
    Ok(all)
}

fn compare(
    document: &str,
    what: &str,
    said: &BTreeSet<String>,
    there: &BTreeSet<String>,
    problems: &mut Vec<String>,
) {
    if there.is_empty() {
        problems.push(format!(
            "{what} is not where xtask/src/check/drift.rs looks for it"
        ));
        return;
    }
    let list = |names: Vec<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        names.join(", ")
    };
    let missing: Vec<&String> = there.difference(said).collect();
    if !missing.is_empty() {
        let missing = list(missing);
        problems.push(format!("{document}: its table of {what} lacks {missing}"));
    }
    let gone: Vec<&String> = said.difference(there).collect();
    if !gone.is_empty() {
        let gone = list(gone);
        problems.push(format!(
            "{document}: its table of {what} has {gone}, which the code has not"
        ));
    }
}

/// The cells of the first table at or below the line that has `above` in it.
fn table(text: &str, above: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.contains(above));
    let rows = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2);
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// Names that a column of a table has in backquotes, without what follows the
/// name: `Prepare(Setup)` is `Prepare`.
fn named(rows: &[Vec<String>], column: usize) -> BTreeSet<String> {
    let cells = rows.iter().filter_map(|row| row.get(column));
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let name = |text: &str| -> String {
        text.chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect()
    };
    let names = quoted.map(name);
    names
        .filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase()))
        .collect()
}

/// Rows `| 1 | NotFound | 127 |` as `1 NotFound 127`.
fn kinds_said(rows: &[Vec<String>]) -> BTreeSet<String> {
    rows.iter()
        .filter_map(|row| Some(row.get(..3)?.join(" ")))
        .collect()
}

/// `NotFound = 1 => 127;` as `1 NotFound 127`.
fn kinds(code: &str) -> BTreeSet<String> {
    let of_line = |line: &str| {
        let (name, rest) = line.trim().strip_suffix(';')?.split_once(" = ")?;
        let (code, exit) = rest.split_once(" => ")?;
        code.parse::<u16>().ok()?;
        Some(format!("{code} {name} {exit}"))
    };
    code.lines().filter_map(of_line).collect()
}

/// Lines of an enum's body, as rustfmt writes it.
fn body<'a>(code: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("pub enum {name} {{");
    let lines = code.lines().skip_while(move |line| *line != head).skip(1);
    lines.take_while(|line| *line != "}")
}

fn variants(code: &str, name: &str) -> BTreeSet<String> {
    let of_line = |line: &str| -> Option<String> {
        let inner = line.strip_prefix("    ")?;
        let is_name = inner.starts_with(|first: char| first.is_ascii_uppercase());
        is_name.then(|| {
            inner
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect()
        })
    };
    body(code, name).filter_map(of_line).collect()
}

/// `Name = 0x10, ToAgent, …` as `0x10 Name`.
fn frames(code: &str) -> BTreeSet<String> {
    let of_line = |line: &str| {
        let (name, rest) = line.trim().split_once(" = 0x")?;
        let (number, direction) = rest.split_once(", ")?;
        let is_frame = ["ToAgent,", "ToClient,", "Both,"]
            .iter()
            .any(|way| direction.starts_with(way));
        is_frame.then(|| format!("0x{number} {name}"))
    };
    code.lines().filter_map(of_line).collect()
}

/// Rows `| 0x10 | Name | …` as `0x10 Name`.
fn frames_said(text: &str) -> BTreeSet<String> {
    let of_line = |line: &str| {
        let mut cells = line.strip_prefix("| 0x")?.split(" | ");
        Some(format!("0x{} {}", cells.next()?, cells.next()?))
    };
    text.lines().filter_map(of_line).collect()
}

/// The number that a constant is.
fn constant(code: &str, head: &str) -> Option<usize> {
    let (_, rest) = code.split_once(&format!("{head} = "))?;
    rest.split(';').next()?.parse().ok()
}

/// Rows of the table of devices whose slot is one number.
fn fixed_slots(rows: &[Vec<String>]) -> usize {
    let slots = rows
        .iter()
        .filter_map(|row| row.first()?.strip_prefix("virtio "));
    slots.filter(|slot| slot.parse::<u16>().is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
Above.

| name | when |
|---|---|
| `One`, `Two(u8)` | `Never` |
| `Three { a }` and `lower` | - |

| other | table |
|---|---|
| `Four` | - |
";
    const CODE: &str = "\
pub enum Kinds {
    /// One.
    One,
    #[error(\"x\")]
    Two(u8),
    Three {
        /// No variant.
        Inner: u8,
    },
}
";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_table_and_an_enum_are_compared_in_both_directions() {
        let said = named(&table(DOCUMENT, "Above"), 0);
        assert_eq!(said, set(&["One", "Two", "Three"]));
        let there = variants(CODE, "Kinds");
        assert_eq!(there, said);
        let mut problems = Vec::new();
        compare("d", "x", &said, &there, &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        compare("d", "x", &set(&["One", "Five"]), &there, &mut problems);
        let text = problems.join("\n");
        assert!(
            text.contains("lacks Three, Two") && text.contains("has Five"),
            "{text}"
        );
        problems.clear();
        compare("d", "x", &said, &variants(CODE, "Gone"), &mut problems);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn numbers_belong_to_their_names() {
        let code =
            "    Exec = 0x10, ToAgent, MAX;\n    Other = 0x11;\npub const VERSION: u16 = 3;\n";
        assert_eq!(frames(code), set(&["0x10 Exec"]));
        assert_eq!(
            frames_said("| 0x10 | Exec | `u32` |\n| x | y |"),
            set(&["0x10 Exec"])
        );
        assert_eq!(constant(code, "pub const VERSION: u16"), Some(3));
        assert_eq!(
            kinds(
                "    NotFound = 1 => 127;
    x = y => 2;
"
            ),
            set(&["1 NotFound 127"])
        );
        let rows = table(
            "## E
| c | k | e |
|-|
| 1 | NotFound | 127 | m |
",
            "## E",
        );
        assert_eq!(kinds_said(&rows), set(&["1 NotFound 127"]));
        let rows = table(
            "### D\n| s |\n|-|\n| virtio 0 |\n| virtio 1 |\n| virtio 2 … |\n",
            "### D",
        );
        assert_eq!(fixed_slots(&rows), 2);
    }
}
