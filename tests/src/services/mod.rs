//! Services as the workloads of their images: captured when they listen, copied, and
//! asked by a client on the host at once.

mod list;

pub use list::{PAGE, SERVICES, Service};

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use oci_bake::{ExtraFile, ImageBuilder};
use supermachine::{Image, Vm};

use crate::config;

/// For an answer, on a host however busy.
const PATIENCE: Duration = Duration::from_secs(100);
/// For what is done once before an image is made, such as an empty database.
const PREPARATION: Duration = Duration::from_secs(1800);

/// What asks a service, and what must be in the answer.
#[derive(Debug, Clone, Copy)]
pub enum Client {
    /// Sends this over a connection.
    Bytes {
        /// What is sent.
        question: &'static str,
        /// What must come.
        answer: &'static str,
    },
    /// Runs a program, with `PORT` replaced in its arguments.
    Program {
        /// Program and arguments.
        argv: &'static [&'static str],
        /// What it must print.
        answer: &'static str,
    },
}

/// How long it took.
#[derive(Debug)]
pub struct Report {
    /// From nothing to a snapshot.
    pub baked: Duration,
    /// From there to a copy that runs.
    pub started: Duration,
    /// From there to its answer.
    pub answered: Duration,
}

/// Bakes the image of a layout with the service as its workload, and has a copy of it
/// answer.
///
/// # Errors
/// What went wrong, as text.
pub fn check(service: &Service, layout: &Path, client: &Client) -> Result<Report, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let layout = match service.preparation {
        Some(script) => prepared(service, layout, script, dir.path())?,
        None => layout.to_path_buf(),
    };
    let reference = format!("oci:{}", layout.display());
    let begun = Instant::now();
    let mut bake = Image::builder(&reference);
    if let Some(script) = service.ready {
        bake = bake.with_warmup(move |vm| {
            let command = vm.exec_builder().argv(["sh", "-c", script]);
            command.timeout(PATIENCE).output().map(drop)
        });
    }
    let image = bake
        .vm_config(config())
        .memory_mib(service.memory_mib)
        .cmd(service.command.iter().copied())
        .guest_port(service.port)
        .listener_required(true)
        .extra_files(files(service, dir.path())?)
        .snapshots_dir(dir.path().join("snapshots"))
        .layer_cache(dir.path().join("cache"))
        .build()
        .map_err(said)?;
    let snapshot = image.snapshot_path().map(Path::to_path_buf);
    let snapshot = snapshot.ok_or("there is no snapshot")?;
    // The machine that was baked is not a copy.
    drop(image);
    let baked = begun.elapsed();
    let begun = Instant::now();
    let copy = Image::from_snapshot(&snapshot)
        .and_then(|image| image.start(&config()))
        .map_err(said)?;
    let port = copy.expose_tcp(0, service.port).map_err(said)?;
    let started = begun.elapsed();
    let begun = Instant::now();
    ask(client, port.local_addr())?;
    Ok(Report {
        baked,
        started,
        answered: begun.elapsed(),
    })
}

fn said(error: supermachine::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The service's files as files of the host.
fn files(service: &Service, dir: &Path) -> Result<Vec<ExtraFile>, String> {
    let mut files = Vec::new();
    for (number, (path, content)) in service.files.iter().enumerate() {
        let host = dir.join(format!("file{number}"));
        std::fs::write(&host, content).map_err(|error| error.to_string())?;
        files.push(ExtraFile::new(host, *path));
    }
    Ok(files)
}

/// An image with what a script leaves in `/data` as a layer on top.
fn prepared(service: &Service, layout: &Path, script: &str, dir: &Path) -> Result<PathBuf, String> {
    let image = Image::builder(format!("oci:{}", layout.display()))
        .vm_config(config())
        .memory_mib(service.memory_mib)
        .extra_files(files(service, dir)?)
        .snapshots_dir(dir.join("empty"))
        .layer_cache(dir.join("cache"))
        .build()
        .map_err(said)?;
    let vm = image.start(&config()).map_err(said)?;
    run(&vm, script)?;
    let archive = run(&vm, "cd / && tar cf - data")?;
    let target = dir.join("prepared");
    let json = |path: PathBuf| -> Result<serde_json::Value, String> {
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().unwrap_or_default();
        layout
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    };
    let index = json(layout.join("index.json"))?;
    let manifest = json(blob(&index["manifests"][0]["digest"]))?;
    let mut builder = ImageBuilder::new();
    for layer in manifest["layers"].as_array().ok_or("no layers")? {
        // xtask writes them without compression.
        let layer = std::fs::File::open(blob(&layer["digest"]));
        builder = builder.layer_tar(layer.map_err(|error| error.to_string())?);
    }
    let builder = builder.layer_tar(std::io::Cursor::new(archive));
    let builder = builder.env("PATH", PATH).cmd(["/bin/bash"]);
    builder
        .write_layout(&target)
        .map_err(|error| error.to_string())?;
    Ok(target)
}

/// As the images of xtask have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn run(vm: &Vm, script: &str) -> Result<Vec<u8>, String> {
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", script])
        .timeout(PREPARATION)
        .output()
        .map_err(said)?;
    match outcome.success() {
        true => Ok(outcome.stdout),
        false => Err(format!(
            "{script}: {}",
            String::from_utf8_lossy(&outcome.stderr)
        )),
    }
}

fn ask(client: &Client, to: SocketAddr) -> Result<(), String> {
    let (seen, answer) = match client {
        Client::Bytes { question, answer } => (exchange(to, question, answer)?, answer),
        Client::Program { argv, answer } => {
            let port = to.port().to_string();
            let mut words = argv.iter().map(|word| word.replace("PORT", &port));
            let program = words.next().unwrap_or_default();
            let output = Command::new(&program)
                .args(words)
                .output()
                .map_err(|error| format!("{program}: {error}"))?;
            let text = [output.stdout, output.stderr].concat();
            (String::from_utf8_lossy(&text).into_owned(), answer)
        }
    };
    match seen.contains(answer) {
        true => Ok(()),
        false => Err(format!("it answers {seen:?}, and not {answer:?}")),
    }
}

/// What comes until the answer is in it, or nothing more comes.
fn exchange(to: SocketAddr, question: &str, answer: &str) -> Result<String, String> {
    let talk = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(question.as_bytes())?;
        let mut seen = Vec::new();
        let mut room = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(answer) {
            match stream.read(&mut room)? {
                0 => break,
                count => seen.extend_from_slice(&room[..count]),
            }
        }
        Ok(String::from_utf8_lossy(&seen).into_owned())
    };
    talk().map_err(|error| error.to_string())
}
