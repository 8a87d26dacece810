//! Rules about single source files: how long a file and a function may be, and
//! where `unsafe` may stand.

use crate::process;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `unsafe` may stand, as path prefixes.
const UNSAFE_ALLOWED: &[&str] = &[
    "hvf/",
    "softhv/",
    "vmm-core/src/backend/",
    "vmm-core/src/memory",
    "vmm-core/tests/",
    "init-shim/src/sys",
    "init-shim/src/sys.rs",
    "snapshot/src/map.rs",
];

/// Lines a source file may have.
const MAX_FILE_LINES: usize = 1000;

/// Lines a function may have, from its `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 100;

pub fn check(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    for file in listed(root, "*.rs")? {
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else {
            continue;
        };
        let shown = file.display();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            problems.push(format!(
                "{shown} has {lines} lines, at most {MAX_FILE_LINES} are allowed"
            ));
        }
        for (name, lines) in long_functions(&text) {
            problems.push(format!(
                "{shown}: {name} has {lines} lines, at most {MAX_FUNCTION_LINES} are allowed"
            ));
        }
        let path = file.to_string_lossy();
        if let Some(outside) = text.lines().find_map(|line| leaves_package(&path, line)) {
            problems.push(format!(
                "{shown} needs {outside}, which is not in its crate's package"
            ));
        }
        let allowed = UNSAFE_ALLOWED.iter().any(|prefix| path.starts_with(prefix));
        if !allowed && text.lines().any(opens_unsafe) {
            problems.push(format!(
                "{shown} has unsafe code, which is not for this place"
            ));
        }
    }
    Ok(())
}

/// Files that match `pattern` and that git tracks, or would.
pub fn listed(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let listed = process::output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .arg(pattern)
            .current_dir(root),
    )?;
    Ok(listed.lines().map(PathBuf::from).collect())
}

/// The path by which a line of a crate's source file takes in a file that is
/// outside of the crate's directory, where whoever builds it from its package
/// has nothing.
fn leaves_package<'a>(file: &str, line: &'a str) -> Option<&'a str> {
    let starts = ["include_str!(\"", "include_bytes!(\"", "#[path = \""];
    let path = starts
        .iter()
        .find_map(|start| line.split_once(start))?
        .1
        .split('"')
        .next()?;
    // Of `a/src/b.rs` one directory, `src`, is inside the crate's own.
    let depth = file.matches('/').count().saturating_sub(1);
    let up = path.split('/').take_while(|part| *part == "..").count();
    (up > depth).then_some(path)
}

/// Functions that are too long, with their lengths.
///
/// rustfmt puts a function's closing brace alone on a line, as far in as its
/// `fn`: that is all this needs to know of the language.
fn long_functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        if line.ends_with('}') {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = lines[start..].iter().position(|line| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest == "}" || rest.ends_with(';') && !rest.starts_with(' '))
        });
        if let Some(length) = end.map(|end| end + 1)
            && length > MAX_FUNCTION_LINES
        {
            found.push((name, length));
        }
    }
    found
}

/// The name of the function that a line begins, if it begins one.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.trim_start().split(' ');
    loop {
        match words.next()? {
            "fn" => break,
            "const" | "async" | "unsafe" | "extern" | "pub" | "\"C\"" | "\"C-unwind\"" => (),
            word if word.starts_with("pub(") => (),
            _ => return None,
        }
    }
    let rest = words.next()?;
    let end = rest.find(['(', '<']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Whether a line has `unsafe` in its code, strings and comments left out.
fn opens_unsafe(line: &str) -> bool {
    let blocks = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    let mut code = String::new();
    let mut quoted = false;
    let mut rest = line.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\\' if quoted => {
                rest.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && rest.peek() == Some(&'/') => break,
            _ if !quoted => code.push(char),
            _ => (),
        }
    }
    blocks.iter().any(|start| code.contains(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_seen_in_code_and_not_in_comments_or_strings() {
        assert!(opens_unsafe("    let x = unsafe { read() };"));
        assert!(opens_unsafe("unsafe impl Send for X {}"));
        assert!(opens_unsafe(
            "    let x = call(\"a // b\", unsafe { read() });"
        ));
        assert!(!opens_unsafe("// unsafe { nothing }"));
        assert!(!opens_unsafe("    let x = \"unsafe { text }\";"));
        assert!(!opens_unsafe("#![forbid(unsafe_code)]"));
    }

    #[test]
    fn files_of_other_crates_are_outside_the_package() {
        let own = r#"#[doc = include_str!("../README.md")]"#;
        let other = r#"#[path = "../../hvf/tests/fake/mod.rs"]"#;
        assert_eq!(leaves_package("hvf/src/lib.rs", own), None);
        assert_eq!(
            leaves_package("vmm-core/tests/machine.rs", other),
            Some("../../hvf/tests/fake/mod.rs")
        );
    }

    #[test]
    fn only_functions_over_the_limit_are_named() {
        let body = "        call();\n".repeat(MAX_FUNCTION_LINES - 1);
        let text = format!(
            "impl X {{\n    pub(crate) fn long<T>(\n        a: T,\n    ) {{\n{body}    }}\n\n    \
             fn short() {{\n    }}\n\n    fn declared(&self);\n}}\n"
        );
        assert_eq!(
            long_functions(&text),
            [("long", MAX_FUNCTION_LINES - 1 + 4)]
        );
    }
}
