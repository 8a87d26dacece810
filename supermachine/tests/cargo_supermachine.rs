//! `cargo supermachine`, with cargo itself and a package of one line.

#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Package(PathBuf);

impl Package {
    fn make(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("cargo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("src")).unwrap();
        let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
            [workspace]\n";
        std::fs::write(dir.join("Cargo.toml"), manifest).unwrap();
        let main = "fn main() { println!(\"{:?}\", std::env::args().skip(1).collect::<Vec<_>>()) }";
        std::fs::write(dir.join("src/main.rs"), main).unwrap();
        Self(dir)
    }

    fn cargo(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cargo-supermachine"))
            .arg("supermachine")
            .args(words)
            .current_dir(&self.0)
            .env("CARGO", env!("CARGO"))
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap()
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_builds_and_runs_as_cargo_does() {
    let package = Package::make("runs");
    let built = package.cargo(&["build", "--offline"]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    assert!(built.stdout.is_empty(), "{}", text(&built.stdout));
    assert!(package.0.join("target/debug/app").is_file());

    // Ours are taken, and those of the program stay.
    let words = [
        "run",
        "--quiet",
        "--identity=-",
        "--offline",
        "--",
        "--identity",
        "x y",
    ];
    let ran = package.cargo(&words);
    assert_eq!(text(&ran.stdout), "[\"--identity\", \"x y\"]\n");
    assert!(ran.status.success(), "{}", text(&ran.stderr));

    std::fs::write(package.0.join("src/main.rs"), "fn main() { no }").unwrap();
    let failed = package.cargo(&["build", "--offline"]);
    assert_eq!(failed.status.code(), Some(101));
    assert!(text(&failed.stderr).contains("cannot find value `no`"));
}

#[test]
fn what_it_cannot_do_is_said() {
    let package = Package::make("refuses");
    for (words, said) in [
        (&["publish"][..], "there is no `publish`"),
        (
            &["build", "--message-format", "json"],
            "--message-format is taken",
        ),
        (&["run", "--identity"], "--identity needs a value"),
        (&["run-signed", "--"], "no program to run"),
        (
            &["run-signed", "--", "/no/such/program"],
            "/no/such/program",
        ),
    ] {
        let refused = package.cargo(words);
        assert_eq!(refused.status.code(), Some(101), "{words:?}");
        assert!(
            text(&refused.stderr).contains(said),
            "{}",
            text(&refused.stderr)
        );
    }
}

/// As cargo would have it run on a Mac; here the program is signed, and cannot be run.
#[test]
fn a_program_for_a_mac_is_signed_before_it_runs() {
    let package = Package::make("signs");
    let program = package.0.join("app");
    std::fs::write(&program, b"\xcf\xfa\xed\xfe no more of it").unwrap();
    let refused = package.cargo(&["run-signed", "--", text_of(&program)]);
    assert_eq!(refused.status.code(), Some(101));
    assert!(
        text(&refused.stderr).contains("not a 64-bit Mach-O file"),
        "{}",
        text(&refused.stderr)
    );
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
