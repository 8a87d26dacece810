//! What an image's config says about running it, as the OCI image
//! specification ("Image Configuration") has it.

use crate::layout::Layout;
use crate::sandbox::{Outcome, Sandbox};
use serde_json::{Value, json};

/// Runs the demo's image with its `config` section replaced.
fn run(config: &Value, options: &[&str], command: &[&str]) -> Outcome {
    let sandbox = Sandbox::new();
    let layout = Layout::copy(&sandbox);
    layout.edit_config(|whole| whole["config"] = config.clone());
    let reference = layout.reference();
    let mut arguments = vec!["run"];
    arguments.extend(options);
    arguments.push(&reference);
    if !command.is_empty() {
        arguments.push("--");
        arguments.extend(command);
    }
    let outcome = sandbox.run(&arguments);
    sandbox.assert_empty();
    outcome
}

const PATH: &str = "PATH=/usr/bin:/bin";

#[test]
fn entrypoint_and_cmd_make_the_command() {
    let config = json!({
        "Entrypoint": ["echo", "entry  point"],
        "Cmd": ["default", "words"],
        "Env": [PATH],
    });
    run(&config, &[], &[]).printed("entry  point default words\n");
    run(&config, &[], &["given"]).printed("entry  point given\n");
    // Another entrypoint makes the image's Cmd meaningless.
    run(&config, &["--entrypoint", "expr"], &["6", "*", "7"]).printed("42\n");
    run(&config, &["--entrypoint", "pwd"], &[]).printed("/\n");
    // An empty one is none, as in Docker.
    run(&config, &["--entrypoint", ""], &["echo", "alone"]).printed("alone\n");
}

#[test]
fn cmd_alone_is_the_command_and_ours_replaces_it() {
    let config = json!({ "Cmd": ["echo", "cmd"], "Env": [PATH] });
    run(&config, &[], &[]).printed("cmd\n");
    run(&config, &[], &["echo", "ours"]).printed("ours\n");
}

#[test]
fn no_command_at_all_is_an_error() {
    run(&json!({ "Env": [PATH] }), &[], &[]).refused(125, &["names no command"]);
    run(&Value::Null, &[], &[]).refused(125, &["names no command"]);
}

#[test]
fn env_of_the_image_is_under_ours() {
    let config = json!({
        "Env": [PATH, "A=image", "B=image", "EMPTY=", "EQ=a=b", "QUOTE=\"$A\" '"],
    });
    let script = r#"echo "$A|$B|${EMPTY-unset}|$EQ|$QUOTE""#;
    run(&config, &["--env", "B=ours"], &["sh", "-c", script]).printed("image|ours||a=b|\"$A\" '\n");
}

#[test]
fn without_a_path_the_usual_one_holds() {
    run(&json!({ "Env": [] }), &[], &["sh", "-c", "echo found"]).printed("found\n");
}

#[test]
fn working_dir_of_the_image_is_under_ours() {
    let config = json!({ "WorkingDir": "/usr/bin", "Env": [PATH] });
    run(&config, &[], &["pwd"]).printed("/usr/bin\n");
    run(&config, &["--workdir", "/tmp"], &["pwd"]).printed("/tmp\n");
    let config = json!({ "WorkingDir": "/made/for/it", "Env": [PATH] });
    run(&config, &[], &["pwd"]).printed("/made/for/it\n");
}

#[test]
fn user_of_the_image_is_under_ours() {
    let script = ["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"];
    for (user, expected) in [
        ("user", "1000 1000 1000 29 100\n"),
        ("1000", "1000 1000 1000 29 100\n"),
        ("user:daemon", "1000 1 1\n"),
        ("4321", "4321 0 0\n"),
        ("4321:77", "4321 77 77\n"),
        ("", "0 0 0\n"),
    ] {
        let config = json!({ "User": user, "Env": [PATH] });
        if user == "user:daemon" {
            // A name that the group file lacks is an error, not group 0.
            run(&config, &[], &script).refused(126, &["daemon"]);
            continue;
        }
        run(&config, &[], &script).printed(expected);
    }
    let config = json!({ "User": "user", "Env": [PATH] });
    run(&config, &["--user", "0:0"], &script).printed("0 0 0\n");
}

#[test]
fn host_name_is_stable_and_resolvable() {
    let script = "h=$(hostname); test -n \"$h\" && grep -qw \"$h\" /etc/hosts && \
                  ping -c 1 -W 5 127.0.0.1 >/dev/null && echo fine";
    run(&json!({ "Env": [PATH] }), &[], &["sh", "-c", script]).printed("fine\n");
}
