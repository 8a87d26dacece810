//! `cargo supermachine`: cargo, with a signature on each program that is built for a Mac,
//! without which macOS lets it run no machine.

use codesign::{Entitlements, Identity};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

const USAGE: &str = "\
usage: cargo supermachine build|run|test|bench|check [--identity IDENTITY]
                          [--entitlements FILE] [ARGUMENTS OF CARGO]

Does what cargo does, and signs what was built for a Mac, so that it may run machines.
  --identity IDENTITY   a certificate of this Mac's keychain, by Apple's codesign; by default
                        nobody signs, which is enough for programs that stay on one Mac
  --entitlements FILE   property list of entitlements beside that for virtual machines
";
/// The verb by which cargo has us run what it built.
const RUNNER: &str = "run-signed";
/// What cargo's exit status is when it fails.
const EXIT_FAILURE: u8 = 101;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Cargo says once more which of its commands it runs.
    if words.first().is_some_and(|word| word == "supermachine") {
        words.remove(0);
    }
    let begun = match words.first().and_then(|word| word.to_str()) {
        None | Some("-h" | "--help" | "help") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(RUNNER) => run_signed(words.split_off(1)),
        Some(verb @ ("build" | "run" | "test" | "bench" | "check")) => {
            let verb = verb.to_owned();
            cargo(&verb, words.split_off(1))
        }
        Some(other) => Err(format!("there is no `{other}`\n\n{USAGE}")),
    };
    begun.unwrap_or_else(|error| {
        eprintln!("cargo-supermachine: {error}");
        ExitCode::from(EXIT_FAILURE)
    })
}

/// How programs are signed.
#[derive(Default)]
struct Signing {
    identity: Option<OsString>,
    entitlements: Option<OsString>,
}

impl Signing {
    /// Takes our own options out of those in front of `--`.
    fn take(words: Vec<OsString>) -> Result<(Self, Vec<OsString>)> {
        let mut signing = Self::default();
        let mut others = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let text = word.to_str().unwrap_or_default();
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(OsString::from(value))),
                None => (text, None),
            };
            let place = match name {
                "--identity" => &mut signing.identity,
                "--entitlements" => &mut signing.entitlements,
                _ => {
                    let is_end = word == "--";
                    others.push(word);
                    if is_end {
                        others.extend(words);
                        break;
                    }
                    continue;
                }
            };
            let value = value.or_else(|| words.next());
            *place = Some(value.ok_or_else(|| format!("{name} needs a value"))?);
        }
        Ok((signing, others))
    }

    /// The options that say it, for ourselves.
    fn words(&self) -> Vec<&OsStr> {
        let mut words: Vec<&OsStr> = Vec::new();
        for (name, value) in [
            ("--identity", &self.identity),
            ("--entitlements", &self.entitlements),
        ] {
            if let Some(value) = value {
                words.extend([OsStr::new(name), value]);
            }
        }
        words
    }

    /// Signs a program, if it is one for a Mac.
    fn sign(&self, path: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut magic = [0; 4];
        let file = std::fs::File::open(path);
        let read = file.and_then(|mut file| io::Read::read(&mut file, &mut magic));
        read.map_err(|error| failed(&error))?;
        if magic != [0xcf, 0xfa, 0xed, 0xfe] {
            return Ok(());
        }
        let mut entitlements = Entitlements::hypervisor();
        if let Some(file) = &self.entitlements {
            let list = std::fs::read(file)
                .map_err(|error| format!("{}: {error}", Path::new(file).display()))?;
            let more = Entitlements::read(&list).map_err(|error| error.to_string())?;
            entitlements = entitlements.with(&more);
        }
        let identity = match &self.identity {
            None => Identity::AdHoc,
            Some(name) => Identity::from(name.to_str().ok_or("--identity is no text")?),
        };
        identity
            .sign(path, &entitlements)
            .map_err(|error| failed(&error))
    }
}

/// A line of what cargo says of its work.
#[derive(Deserialize)]
struct Message {
    executable: Option<String>,
}

fn cargo(verb: &str, words: Vec<OsString>) -> Result<ExitCode> {
    let (signing, words) = Signing::take(words)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    match verb {
        "build" => build(command.arg(verb), &words, &signing),
        "check" => Err(replaced_by(command.arg(verb).args(words))),
        _ => {
            // Cargo would put the unsigned program back if we had signed it before.
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            let own = own.to_str().ok_or("the path of this program is no text")?;
            let mut runner = vec![own.to_owned(), RUNNER.to_owned()];
            for word in signing.words() {
                runner.push(word.to_str().ok_or("an option is no text")?.to_owned());
            }
            runner.push("--".to_owned());
            // JSON's strings and arrays are TOML's.
            let runner = serde_json::to_string(&runner).map_err(|error| error.to_string())?;
            let setting = format!("target.'cfg(target_os = \"macos\")'.runner={runner}");
            command.arg(verb).args(["--config", &setting]).args(words);
            Err(replaced_by(&mut command))
        }
    }
}

/// Becomes another program; only an error returns.
fn replaced_by(command: &mut Command) -> String {
    let error = command.exec();
    format!(
        "cannot run {}: {error}",
        command.get_program().to_string_lossy()
    )
}

fn build(command: &mut Command, words: &[OsString], signing: &Signing) -> Result<ExitCode> {
    let says_format = |word: &OsString| {
        word.to_str()
            .is_some_and(|text| text.starts_with("--message-format"))
    };
    if words.iter().any(says_format) {
        return Err("--message-format is taken: its output says what to sign".to_owned());
    }
    command
        .arg("--message-format=json-render-diagnostics")
        .args(words)
        .stdout(Stdio::piped());
    let mut cargo = command
        .spawn()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut built = Vec::new();
    if let Some(output) = cargo.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("cannot read what cargo says: {error}"))?;
            // Build scripts and macros may print what is no message.
            if let Ok(message) = serde_json::from_str::<Message>(&line) {
                built.extend(message.executable);
            }
        }
    }
    let status = cargo
        .wait()
        .map_err(|error| format!("cannot wait for cargo: {error}"))?;
    if !status.success() {
        let status = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(status.unwrap_or(EXIT_FAILURE)));
    }
    for program in built {
        signing.sign(Path::new(&program))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Signs a program and becomes it.
fn run_signed(words: Vec<OsString>) -> Result<ExitCode> {
    let (signing, words) = Signing::take(words)?;
    let mut words = words.into_iter().skip_while(|word| word == "--");
    let program = words.next().ok_or("no program to run")?;
    signing.sign(Path::new(&program))?;
    Err(replaced_by(Command::new(&program).args(words)))
}
