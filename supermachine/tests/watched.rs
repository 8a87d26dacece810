//! `pause`, `unpause`, `stats`, `top` and `events`.

mod support;

use std::io::Read;
use support::*;

fn out(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let run = sandbox.run(arguments);
    assert_eq!((run.code(), run.err()), (0, String::new()), "{arguments:?}");
    run.out()
}

fn detach(sandbox: &Sandbox) -> String {
    let script = "while :; do sleep 0.1; done";
    let run = ["run", "-d", "--name", "web", busybox(), "sh", "-c", script];
    out(sandbox, &run).trim_end().to_owned()
}

#[test]
fn a_paused_machine_is_shown_as_such_and_goes_on() {
    let sandbox = Sandbox::new();
    let id = detach(&sandbox);
    assert_eq!(out(&sandbox, &["pause", "web"]), format!("{id}\n"));
    assert_eq!(out(&sandbox, &["pause", "web"]), format!("{id}\n"));
    assert_eq!(
        out(&sandbox, &["ps", "-q", "-f", "state=paused"]),
        format!("{id}\n")
    );
    assert!(out(&sandbox, &["ps"]).contains("(Paused)"));
    assert_eq!(out(&sandbox, &["unpause", "web"]), format!("{id}\n"));
    assert_eq!(
        out(&sandbox, &["ps", "-q", "-f", "state=running"]),
        format!("{id}\n")
    );
    assert_eq!(out(&sandbox, &["exec", "web", "echo", "on"]), "on\n");
    out(&sandbox, &["rm", "-f", "web"]);
    sandbox.run(&["pause", "web"]).assert_refused(125, &["web"]);
}

#[test]
fn what_a_machine_uses_and_runs_is_listed() {
    let sandbox = Sandbox::new();
    let id = detach(&sandbox);
    let listed = out(&sandbox, &["stats", "--no-stream", "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.len(), 1);
    let row = &listed[0];
    assert_eq!(
        (&row["id"], &row["name"]),
        (&id.as_str().into(), &"web".into())
    );
    assert_eq!(
        (&row["memory_mib"], &row["vcpus"]),
        (&256.into(), &1.into())
    );
    assert!(row["exits"].as_u64().unwrap() > 0 && row["cpu_percent"].as_f64().unwrap() > 0.0);
    assert!(row["stats"]["uptime_us"].as_u64().unwrap() > 0);
    let table = out(&sandbox, &["stats", "--no-stream", "web"]);
    assert!(
        table.starts_with("ID") && table.contains("CPU %"),
        "{table}"
    );
    assert!(out(&sandbox, &["top", "web"]).contains("sleep 0.1"));
    let missing = sandbox.run(&["stats", "--no-stream", "nobody"]);
    missing.assert_refused(125, &["nobody"]);
    out(&sandbox, &["rm", "-f", "web"]);
    assert_eq!(out(&sandbox, &["stats", "--no-stream", "-q"]), "");
}

#[test]
fn what_happens_is_told_until_the_end() {
    let sandbox = Sandbox::new();
    detach(&sandbox);
    let mut child = sandbox
        .command(&["events", "--json", "web"])
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let begun = read_until(&mut stdout, "\n");
    assert!(begun.contains("\"event\":\"started\"") && begun.contains("\"name\":\"web\""));
    out(&sandbox, &["pause", "web"]);
    out(&sandbox, &["unpause", "web"]);
    out(&sandbox, &["stop", "-t", "0", "web"]);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let told: Vec<serde_json::Value> = rest
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<&str> = told
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["paused", "resumed", "ended"]);
    assert_eq!(finish(child, PATIENCE).code(), 0);
    out(&sandbox, &["rm", "web"]);
}
