//! Files of one crate that need each other in a circle cannot be understood,
//! tested or moved alone. Parent and child module may need each other.

use super::sources::listed;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Crates that still have a circle, and how many files are in circles there.
/// A number here may only become smaller.
const KNOWN: &[(&str, usize)] = &[("softhv", 21)];

/// A module by its path, such as `["exec", "int"]`; the root is empty.
type Module = Vec<String>;

pub fn check(root: &Path, problems: &mut Vec<String>) -> Result<()> {
    let mut crates: BTreeMap<String, BTreeMap<Module, String>> = BTreeMap::new();
    for file in listed(root, "*/src/*.rs")? {
        let shown = file.to_string_lossy().into_owned();
        let Some((name, module)) = module_of(&shown) else {
            continue;
        };
        if let Ok(text) = std::fs::read_to_string(root.join(&file)) {
            crates
                .entry(name.to_owned())
                .or_default()
                .insert(module, text);
        }
    }
    for (name, modules) in &crates {
        let circles = circles(modules);
        let files = circles.iter().map(BTreeSet::len).sum::<usize>();
        let known = KNOWN
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, files)| *files);
        if files > known {
            for circle in circles {
                let members: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
                problems.push(format!(
                    "{name}: modules need each other in a circle: {}",
                    members.join(", ")
                ));
            }
        } else if files < known {
            problems.push(format!(
                "{name}: {files} modules are in circles, no longer {known}: lower the number in \
                 xtask/src/check/circles.rs"
            ));
        }
    }
    Ok(())
}

/// The crate's directory and the module of a source file; none for tests and
/// executables, which nothing can need.
fn module_of(file: &str) -> Option<(&str, Module)> {
    let (name, inner) = file.split_once("/src/")?;
    let inner = inner.strip_suffix(".rs")?;
    let mut parts: Module = inner.split('/').map(str::to_owned).collect();
    let is_test = |part: &String| part == "tests" || part.ends_with("_tests");
    if parts[0] == "bin" || inner == "main" || parts.iter().any(is_test) {
        return None;
    }
    if parts
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        parts.pop();
    }
    Some((name, parts))
}

/// Modules that need each other, in groups of two or more.
fn circles(modules: &BTreeMap<Module, String>) -> Vec<BTreeSet<Module>> {
    let needs: BTreeMap<&Module, BTreeSet<Module>> = modules
        .iter()
        .map(|(module, text)| (module, needed(module, text, modules)))
        .collect();
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = needs
        .keys()
        .map(|module| (*module, reachable(module, &needs)))
        .collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for module in needs.keys() {
        if found.iter().any(|circle| circle.contains(*module)) {
            continue;
        }
        let circle: BTreeSet<Module> = reach[module]
            .iter()
            .filter(|other| reach[**other].contains(module))
            .map(|other| (*other).clone())
            .collect();
        if circle.len() > 1 {
            found.push(circle);
        }
    }
    found
}

fn reachable<'a>(
    from: &Module,
    needs: &'a BTreeMap<&'a Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut seen = BTreeSet::new();
    let mut queue: Vec<&Module> = needs[from].iter().collect();
    while let Some(module) = queue.pop() {
        if seen.insert(module) {
            queue.extend(&needs[module]);
        }
    }
    seen
}

/// The modules that `text`, the file of `module`, names, but for its own
/// ancestors and descendants.
fn needed(module: &Module, text: &str, modules: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let code = without_tests_and_comments(text);
    let mut found = BTreeSet::new();
    for path in paths(&code, module) {
        let target = (0..=path.len())
            .rev()
            .map(|length| &path[..length])
            .find(|prefix| modules.contains_key(*prefix));
        if let Some(target) = target
            && !target.is_empty()
            && !target.starts_with(module)
            && !module.starts_with(target)
        {
            found.insert(target.to_vec());
        }
    }
    found
}

/// A file up to its test module, without comments. Test modules stand last.
fn without_tests_and_comments(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// All paths that begin with `crate::` or `super::`, from the crate's root,
/// groups in braces spread out.
fn paths(code: &str, module: &Module) -> Vec<Module> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|char| char.is_alphanumeric() || "_$:".contains(char)) {
                continue;
            }
            let mut rest = &code[at..];
            let mut base = Module::new();
            if let Some(inner) = rest.strip_prefix("crate::") {
                rest = inner;
            } else {
                base.clone_from(module);
                while let Some(inner) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = inner;
                }
            }
            spread(rest, &base, &mut found);
        }
    }
    found
}

/// Adds what `rest`, such as `a::{b, c::D}`, names below `base`, and returns
/// what stands behind it.
fn spread<'a>(rest: &'a str, base: &Module, found: &mut Vec<Module>) -> &'a str {
    let mut path = base.clone();
    let mut rest = rest;
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                let behind = spread(rest, &path, found);
                // Whatever is no path ends the group: this was no `use`.
                if behind.len() == rest.len() {
                    return "";
                }
                rest = behind.trim_start().trim_start_matches(',').trim_start();
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let end = rest
            .find(|char: char| !char.is_alphanumeric() && char != '_' && char != '*')
            .unwrap_or(rest.len());
        if end == 0 {
            return rest;
        }
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(inner) => rest = inner,
            None => {
                found.push(path);
                // An `as` name is not part of the path.
                return rest.strip_prefix(" as ").map_or(rest, |name| {
                    name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Module {
        path.split("::").map(str::to_owned).collect()
    }

    fn crate_of(files: &[(&str, &str)]) -> BTreeMap<Module, String> {
        files
            .iter()
            .map(|(path, text)| (module(path), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn groups_and_renames_are_spread_out() {
        let code =
            "use crate::{a::{B, c}, d as e, f::*};\nuse super::g::H;\nlet x = crate::i::j();";
        let found = paths(code, &module("x::y"));
        let expected = ["a::B", "a::c", "d", "f::*", "i::j", "x::g::H"].map(module);
        assert_eq!(found, expected);
    }

    #[test]
    fn circle_is_found_and_parent_with_child_is_none() {
        let circle = crate_of(&[
            ("a", "use crate::b::X;"),
            ("b", "use crate::{\n    c::Y,\n};"),
            ("c", "fn f() { crate::a::g() }"),
            ("d", "use crate::a::Z;"),
        ]);
        let members: BTreeSet<Module> = ["a", "b", "c"].map(module).into();
        assert_eq!(circles(&circle), [members]);
        let family = crate_of(&[("a", "use self::b::X;"), ("a::b", "use super::Y;")]);
        assert!(circles(&family).is_empty());
        let in_tests = crate_of(&[
            ("a", "use crate::b::X;"),
            (
                "b",
                "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::a::Y;\n}\n",
            ),
        ]);
        assert!(circles(&in_tests).is_empty());
    }
}
