//! What the tool says of itself: its pages, its completions, and docs/cli.md.

use crate::sandbox::Sandbox;
use std::path::Path;

/// What stands in docs/cli.md in front of what the tool has written.
const MARK: &str = "<!-- From here on: `supermachine man --markdown` -->\n\n";

#[test]
fn the_page_of_the_command_line_is_what_the_tool_says() {
    let sandbox = Sandbox::new();
    let said = sandbox.run(&["man", "--markdown"]);
    said.exited(0);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = std::fs::read_to_string(page).expect("docs/cli.md");
    let (own, written) = page.split_once(MARK).expect("the mark");
    let said = String::from_utf8(said.stdout).expect("text");
    assert!(
        written == said,
        "write `supermachine man --markdown` behind the mark in docs/cli.md"
    );
    // What people look for first is told by people.
    for heading in ["## Exit status", "## Files", "## Differences from docker"] {
        assert!(own.contains(heading), "no {heading}");
    }
}

#[test]
fn each_shell_gets_a_script_and_each_command_a_page() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.run(&["completions", shell]);
        script.exited(0);
        let script = String::from_utf8(script.stdout).expect("text");
        for word in ["supermachine", "snapshot", "read-only"] {
            assert!(script.contains(word), "{shell} knows no {word}");
        }
    }
    sandbox
        .run(&["completions", "tcsh"])
        .refused(125, &["tcsh", "bash"]);
    let dir = sandbox.path("man");
    sandbox
        .run(&["man", "--dir", &dir.display().to_string()])
        .printed("");
    let page = std::fs::read(dir.join("supermachine-snapshot-verify.1")).expect("a page");
    let printed = sandbox.run(&["man", "snapshot", "verify"]);
    assert_eq!(printed.stdout, page);
    sandbox
        .run(&["man", "no-such"])
        .refused(125, &["manual page"]);
    let is_there = |name: &str| dir.join(name).is_file();
    assert!(is_there("supermachine.1") && is_there("supermachine-run.1"));
    sandbox.assert_empty();
}
