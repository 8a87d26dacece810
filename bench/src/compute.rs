//! `compute`: programs that keep the processor busy.

use crate::context::Context;
use crate::metric::{BothSides, Bound, Metric};
use crate::pairs::Pair;
use crate::qemu::Machine;
use anyhow::Result;
use std::collections::BTreeMap;

const BENCH: &str = "compute";
const ROUNDS: usize = 5;
const MUST: f64 = 4.0;

/// node with ICU and V8 wants more than a small machine has.
const MACHINE: Machine = Machine {
    memory_mib: 512,
    vcpus: 1,
};

/// Name and command, each one process from start to end.
const WORKLOADS: &[(&str, &str)] = &[
    (
        "shell",
        "bash -c 'i=0; s=0; while ((i < 15000)); do ((s += i * 3 % 7, i++)); done; echo $s'",
    ),
    (
        "python",
        "python3 -c 's = 0\nfor i in range(300000): s += i * i % 7\nprint(s)'",
    ),
    (
        "sqlite",
        "python3 -c 'import sqlite3\nd = sqlite3.connect(\":memory:\")\nd.execute(\"create table t(a integer primary key, b text)\")\nd.execute(\"with recursive c(x) as (select 1 union all select x + 1 from c where x < 40000) insert into t select x, hex(x * 7919) from c\")\nd.execute(\"create index i on t(b)\")\nprint(d.execute(\"select count(*), sum(a), max(b) from t where b > 5\").fetchone())'",
    ),
    (
        "node",
        "node -e 'let s = 0; for (let i = 0; i < 2000000; i++) s = (s * 31 + i) % 1000003; const m = new Map(); for (let i = 0; i < 30000; i++) m.set(\"k\" + i % 20000, i); let t = 0; for (const v of m.values()) t += v; console.log(s, t)'",
    ),
    (
        "sha256",
        "python3 -c 'import hashlib\nh = hashlib.sha256()\nd = bytes(range(256)) * 4096\nfor i in range(32): h.update(d)\nprint(h.hexdigest())'",
    ),
    ("float", "/bench/floats 6"),
];

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let image = context.large()?;
    let mut pair = Pair::start(context, &image, MACHINE)?;
    let wanted: Vec<_> = WORKLOADS
        .iter()
        .filter(|(name, _)| context.wants(name))
        .collect();
    for (name, command) in &wanted {
        // Scripts go through files: the peer's console takes one short line.
        let script = command
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('%', "%%")
            .replace('\'', "'\\''");
        pair.run(&format!("printf '{script}\\n' >/tmp/{name}.sh"))?;
        // Reads the programs from the disk once, so that no round does.
        pair.time(&format!("bash /tmp/{name}.sh"))?;
    }
    let mut values: BTreeMap<&str, BothSides> = BTreeMap::new();
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        for (name, _) in &wanted {
            let (ours, peer) = pair.time(&format!("bash /tmp/{name}.sh"))?;
            values
                .entry(name)
                .or_default()
                .push(ours.map(|ns| ns / 1e6), peer.map(|ns| ns / 1e6));
        }
    }
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    context.metrics(BENCH, "ms", &names, &values, MACHINE, Bound::Ratio(MUST))
}
