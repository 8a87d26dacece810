//! `bindings`: what a command costs through Node and through Python, beside what it
//! costs in Rust.
//!
//! Each has a machine of its own, a copy of one snapshot, and they take turns. Each
//! measures itself, from the call to its result, so what it costs to ask it for a round
//! does not count.

use crate::context::{Context, SMALL, text};
use crate::copies::{baked, milliseconds};
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Context as _, Result};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;
use supermachine::Vm;

const ROUNDS: usize = 300;
/// Before the first that counts: JavaScript is compiled while it runs.
const WARM_UP: usize = 100;
/// At most 3 % added.
const MUST: f64 = 1.03;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let node = context.bindings.node.as_deref();
    let node = node.context("--node says where the native part of the npm package is")?;
    let python = context.bindings.python.as_deref();
    let python = python.context("--python says where the Python package is")?;
    let image = baked(context, "bindings", SMALL)?;
    let snapshot = image.snapshot_path().context("it was baked")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let worker = std::env::current_exe()?.with_file_name("supermachine-worker");
    let assets = context.kernel().parent().context("the kernel is a file")?;
    let mut others = [
        Other::start(
            Command::new("node")
                .arg(sources.join("bindings/exec.mjs"))
                .arg(sources.join("../node/index.mjs"))
                .arg(snapshot)
                .env("SUPERMACHINE_NATIVE", node)
                .env("SUPERMACHINE_WORKER", &worker)
                .env("SUPERMACHINE_ASSETS", assets),
        )?,
        Other::start(
            Command::new("python3")
                .arg(sources.join("bindings/exec.py"))
                .arg(snapshot)
                .env("PYTHONPATH", python)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("SUPERMACHINE_WORKER", &worker)
                .env("SUPERMACHINE_ASSETS", assets),
        )?,
    ];
    let vm = image.start(&context.copies())?;
    let mut rust = Samples::default();
    let mut through = [Samples::default(), Samples::default()];
    for round in 0..WARM_UP + context.rounds.unwrap_or(ROUNDS) {
        let counts = round >= WARM_UP;
        let took = in_rust(&vm)?;
        if counts {
            rust.push(took);
        }
        for (other, samples) in others.iter_mut().zip(&mut through) {
            let took = other.round()?;
            if counts {
                samples.push(took);
            }
        }
    }
    for other in others {
        other.end()?;
    }
    let [node, python] = &through;
    let metric = |name: &str, samples| {
        let peer = Some(("in Rust", &rust));
        Metric::new("bindings", name, "ms", samples, peer, Bound::Ratio(MUST))
    };
    Ok(vec![metric("node", node), metric("python", python)])
}

fn in_rust(vm: &Vm) -> Result<f64> {
    let begun = Instant::now();
    let outcome = vm.exec(["true"])?;
    let took = milliseconds(begun);
    text("true", outcome)?;
    Ok(took)
}

/// A program that runs a command whenever it is asked.
struct Other {
    child: Child,
    asks: Option<ChildStdin>,
    tells: BufReader<ChildStdout>,
}

impl Other {
    fn start(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| shown.clone())?;
        let (asks, tells) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            tells: BufReader::new(tells.context(shown)?),
            child,
            asks,
        })
    }

    /// What one command took, in milliseconds.
    fn round(&mut self) -> Result<f64> {
        let asks = self.asks.as_mut().context("it was told to end")?;
        asks.write_all(b"\n").context("it has ended")?;
        let mut line = String::new();
        self.tells.read_line(&mut line)?;
        let took = line.trim().parse();
        took.with_context(|| format!("it says {line:?} and not how long that took"))
    }

    fn end(mut self) -> Result<()> {
        self.asks = None;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
