//! `cargo xtask node`: the npm package `@supermachine/core`.
//!
//! `node` alone builds its native part for this host, `node types` writes
//! `node/index.d.ts` anew from the sources, and the step `node` of the tests does
//! the first and checks the second, then runs `node/test` and the examples.

use crate::packages::{self, IMAGE_TOOLS, NODE};
use crate::registry::Registry;
use crate::workspace::Profile;
use crate::{guest_image, process, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate with the native part.
const PACKAGE: &str = "supermachine-node";
/// Where the TypeScript compiler and its types of Node come from.
const TYPESCRIPT: [&str; 2] = ["typescript@5", "@types/node@20"];

/// Runtimes beside Node, from npm, and how each runs the tests.
const RUNTIMES: [(&str, &str, &[&str]); 2] = [
    // Its own limit of 5 seconds for a test is for hosts that do nothing else.
    ("bun", "1.4.4", &["test", "--timeout=600000", "./test"]),
    (
        "deno",
        "2.9.6",
        &["test", "--allow-all", "--no-check", "test"],
    ),
];

pub fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => {
            println!("{}", build(Profile::Dev)?.display());
            Ok(())
        }
        [word] if word == "types" => {
            let path = declarations_path();
            std::fs::write(&path, declarations()?).with_context(|| path.display().to_string())
        }
        _ => bail!("usage: cargo xtask node [types]"),
    }
}

/// Builds the native part; where it is.
pub fn build(profile: Profile) -> Result<PathBuf> {
    process::shown(
        Command::new(env!("CARGO"))
            .args(["build", "--locked", "--quiet", "-p", PACKAGE])
            .args(["--profile", profile.name()])
            .current_dir(workspace::root()),
    )?;
    let name = if cfg!(target_os = "macos") {
        "libsupermachine_node.dylib"
    } else {
        "libsupermachine_node.so"
    };
    Ok(profile.dir()?.join(name))
}

fn directory() -> PathBuf {
    workspace::root().join("node")
}

fn declarations_path() -> PathBuf {
    directory().join("index.d.ts")
}

/// Classes that only `index.js` uses.
const ONLY_IN_JS: [&str; 2] = ["CancelToken", "Environment"];

/// One item that napi-derive tells the types of, as it writes them.
struct Item {
    comment: String,
    members: String,
    is_class: bool,
}

/// What `index.d.ts` must be.
fn declarations() -> Result<String> {
    let told = workspace::target_dir()?.join("node-types");
    // A name that was not there before has cargo run the macros again.
    let fresh = told.join(std::process::id().to_string());
    let _ = std::fs::remove_dir_all(&told);
    std::fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
    process::shown(
        Command::new(env!("CARGO"))
            .args(["check", "--locked", "--quiet", "-p", PACKAGE])
            .env("NAPI_TYPE_DEF_TMP_FOLDER", &fresh)
            .current_dir(workspace::root()),
    )?;
    let lines = std::fs::read_to_string(fresh.join(PACKAGE)).context("no types were told")?;
    let head = std::fs::read_to_string(directory().join("types-head.d.ts"))?;
    write_declarations(&head, &lines)
}

fn write_declarations(head: &str, lines: &str) -> Result<String> {
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    let told: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).context("a type's line"))
        .collect::<Result<_>>()?;
    // A class may have functions in files that are told of before its own.
    let (functions, types): (Vec<_>, Vec<_>) = told.iter().partition(|told| told["kind"] == "impl");
    for told in types.into_iter().chain(functions) {
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        if ONLY_IN_JS.contains(&&*name) {
            continue;
        }
        match &*text("kind") {
            "struct" | "interface" => {
                let item = Item {
                    comment: text("js_doc"),
                    members: text("def"),
                    is_class: text("kind") == "struct",
                };
                items.insert(name, item);
            }
            "impl" => {
                let item = items
                    .get_mut(&name)
                    .context("functions before their class")?;
                if !item.members.is_empty() {
                    item.members.push('\n');
                }
                item.members.push_str(&text("def"));
            }
            other => bail!("node/src has a {other}, which `cargo xtask node types` does not know"),
        }
    }
    let mut written = head.to_owned();
    for (name, item) in items {
        let kind = if item.is_class {
            "declare class"
        } else {
            "interface"
        };
        write!(written, "\n{}export {kind} {name} {{\n", item.comment)?;
        if item.is_class {
            written.push_str("  private constructor()\n");
        }
        for line in item.members.lines() {
            // Those of a comment stay one column further in.
            let inner = line.strip_prefix(" *").map(|rest| format!(" *{rest}"));
            let line = inner.unwrap_or_else(|| line.trim_start().to_owned());
            writeln!(written, "  {}", line.trim_end())?;
        }
        written.push_str("}\n");
    }
    Ok(written)
}

/// The step of `cargo xtask test`.
pub fn test() -> Result<()> {
    if !process::exists("node") {
        packages::ensure(&[&NODE])?;
    }
    packages::ensure(&[&IMAGE_TOOLS])?;
    let native = build(Profile::Dev)?;
    let there = std::fs::read_to_string(declarations_path())?;
    ensure!(
        there == declarations()?,
        "node/index.d.ts is not what node/src says: run cargo xtask node types"
    );
    types()?;
    let image = format!("oci:{}", guest_image::busybox()?.display());
    let scratch = workspace::target_dir()?.join("node-test");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch)?;
    let node = |arguments: &[&Path]| {
        let mut command = Command::new("node");
        command
            .args(arguments)
            .current_dir(directory())
            .env("SUPERMACHINE_NATIVE", &native)
            .env("SUPERMACHINE_SNAPSHOTS", scratch.join("snapshots"))
            .env("SUPERMACHINE_VOLUMES", scratch.join("volumes"))
            .env("TMPDIR", &scratch)
            .env("TEST_IMAGE", &image);
        command
    };
    let worker = workspace::target_dir()?.join("release/supermachine-worker");
    let flag = Path::new("--test");
    process::shown(node(&[flag, Path::new("test")]).env("SUPERMACHINE_WORKER", &worker))?;
    others(|program, arguments| {
        let mut command = node(&[]);
        let mut other = Command::new(program);
        other.args(arguments).current_dir(directory());
        for (name, value) in command.env("SUPERMACHINE_WORKER", &worker).get_envs() {
            if let Some(value) = value {
                other.env(name, value);
            }
        }
        other.env("DENO_DIR", scratch.join("deno"));
        process::shown(&mut other)
    })?;
    let run = |example: &Path, image: &str| {
        let mut node = node(&[example]);
        node.env("SUPERMACHINE_WORKER", &worker)
            .envs(IN_BUSYBOX)
            .env("TEST_IMAGE", image);
        process::output(&mut node)
    };
    let examples = examples()?;
    for example in &examples {
        let name = example.file_name().unwrap_or_default().to_string_lossy();
        let says = SAYS.iter().find(|(known, _)| *known == name);
        let (_, says) = says.with_context(|| format!("no one knows what {name} says"))?;
        let said = run(example, &image)?;
        ensure!(said.contains(says), "{name} does not say {says:?}:\n{said}");
    }
    // The first once more, as a stranger would: from a registry.
    let registry = Registry::start(&scratch)?;
    let pushed = registry.push(&image, "some/busybox:v1")?;
    let said = run(&examples[0], &pushed)?;
    ensure!(said.contains(SAYS[0].1), "from a registry: {said}");
    drop(registry);
    std::fs::remove_dir_all(&scratch).context("cannot tidy up")
}

/// Runs the same tests under the other runtimes, where npm can fetch them.
fn others(run: impl Fn(&Path, &[&str]) -> Result<()>) -> Result<()> {
    for (name, version, arguments) in RUNTIMES {
        match packages::from_npm(name, version) {
            Ok(package) => {
                let program = package.with_file_name(".bin").join(name);
                run(&program, arguments).with_context(|| format!("tests under {name}"))?;
            }
            Err(error) => eprintln!("tests not run under {name}: {error:#}"),
        }
    }
    Ok(())
}

/// What each example says when it has worked.
const SAYS: [(&str, &str); 8] = [
    ("01-hello.mjs", "0 hello from the VM"),
    ("02-verifier.mjs", "{ ok: true, stdout: '42\\n' }"),
    ("03-agent.mjs", "prepared"),
    ("04-service.mjs", "200 served"),
    ("05-extra-files.mjs", "answer = 42"),
    ("06-mount-workspace.mjs", "what is 6 times 7? 42"),
    (
        "07-npm-workspace-fast.mjs",
        "module.exports = 'hello again'",
    ),
    ("08-streams.mjs", "exit code 7"),
];

/// What stands for the images of the pages in an image with busybox alone: a server, and
/// what npm and node do for example 07.
const IN_BUSYBOX: [(&str, &str); 3] = [
    (
        "TEST_SERVICE",
        "mkdir /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www",
    ),
    (
        "TEST_INSTALL",
        "ln -s ../packages/greeter node_modules/greeter",
    ),
    ("TEST_RUN", "cat node_modules/greeter/index.js"),
];

/// The programs of the pages, in order.
fn examples() -> Result<Vec<PathBuf>> {
    let mut examples: Vec<PathBuf> = std::fs::read_dir(directory().join("examples"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    examples.sort();
    Ok(examples)
}

/// That the declarations are TypeScript, and that every example and the tests of types are
/// right by them. Skipped, with a word, where npm cannot fetch the compiler.
fn types() -> Result<()> {
    let tools = workspace::target_dir()?.join("node-tools");
    let compiler = tools.join("node_modules/typescript/bin/tsc");
    if !compiler.is_file() {
        std::fs::create_dir_all(&tools)?;
        let fetched = process::output(
            Command::new("npm")
                .args([
                    "install",
                    "--no-save",
                    "--no-audit",
                    "--no-fund",
                    "--prefix",
                ])
                .arg(&tools)
                .args(TYPESCRIPT),
        );
        if let Err(error) = fetched {
            eprintln!("types of @supermachine/core not checked: {error:#}");
            return Ok(());
        }
    }
    process::shown(
        Command::new("node")
            .arg(compiler)
            .args(["--noEmit", "--strict", "--target", "es2022", "--lib"])
            .args([
                "es2022,dom,esnext.disposable",
                "--module",
                "nodenext",
                "--typeRoots",
            ])
            .arg(tools.join("node_modules/@types"))
            .args(["--types", "node"])
            .args(["--allowJs", "--checkJs"])
            .arg(directory().join("test/types.mts"))
            .args(examples()?)
            .current_dir(directory()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_written_from_what_the_macros_tell() {
        let lines = [
            r#"{"kind":"impl","name":"Vm","js_doc":"","def":"stop(): void"}"#,
            r#"{"kind":"struct","name":"Vm","js_doc":"/** A machine. */\n","def":""}"#,
            r#"{"kind":"impl","name":"Vm","js_doc":"","def":"/**\n * Two\n * lines.\n */\n run(): void\nget id(): string"}"#,
            r#"{"kind":"interface","name":"Options","js_doc":"","def":"a?: number"}"#,
            r#"{"kind":"struct","name":"CancelToken","js_doc":"","def":""}"#,
        ]
        .join("\n");
        let expected = "head\n
export interface Options {
  a?: number
}

/** A machine. */
export declare class Vm {
  private constructor()
  stop(): void
  /**
   * Two
   * lines.
   */
  run(): void
  get id(): string
}
";
        assert_eq!(write_declarations("head\n", &lines).unwrap(), expected);
        assert!(write_declarations("", r#"{"kind":"enum","name":"E"}"#).is_err());
    }
}
