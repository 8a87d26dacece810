//! `stream`: bytes between a program in the guest and one on the host, by the streams
//! of `exec` and by a serial port of virtio.

use crate::context::{Context, SMALL};
use crate::metric::{BothSides, Bound, Metric};
use crate::qemu::Session;
use anyhow::{Context as _, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use supermachine::Vm;

const ROUNDS: usize = 7;
/// Goes over in half a second.
const BYTES: usize = 32 << 20;
/// Half as fast again.
const MUST: f64 = 1.0 / 1.5;
const PIECE: usize = 64 << 10;

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let vm = context.start(&context.small, SMALL)?;
    context.programs.install(&vm)?;
    let socket = context.dir.join("stream.sock");
    let layers = context.small.layers();
    let mut session = context.qemu.start_with_port(SMALL, layers, &socket)?;
    let port = UnixStream::connect(&socket).context("QEMU's serial port")?;
    let (mut out, mut into) = (BothSides::default(), BothSides::default());
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        let ours = out_of_ours(&vm)?;
        out.push(Some(ours), Some(out_of_peer(&mut session, &port)?));
        let ours = into_ours(&vm)?;
        into.push(Some(ours), Some(into_peer(&mut session, &port)?));
    }
    let name = format!("{}, virtserialport on a socket", context.qemu.name(SMALL));
    let metric = |metric, both: &BothSides| {
        let peer = Some((name.as_str(), &both.peer));
        let bound = Bound::Ratio(MUST);
        Metric::new("stream", metric, "ms", &both.ours, peer, bound)
    };
    Ok(vec![
        metric("guest_to_host_32_mib", &out),
        metric("host_to_guest_32_mib", &into),
    ])
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn out_of_ours(vm: &Vm) -> Result<f64> {
    let begun = Instant::now();
    let bytes = BYTES.to_string();
    let mut child = vm
        .exec_builder()
        .argv(["/bench/pour", "out", &bytes])
        .spawn()?;
    take(child.stdout().context("no output")?)?;
    let elapsed = milliseconds(begun);
    let status = child.wait()?;
    match status.success() {
        true => Ok(elapsed),
        false => bail!("pour out: {status:?}"),
    }
}

fn into_ours(vm: &Vm) -> Result<f64> {
    let begun = Instant::now();
    let bytes = BYTES.to_string();
    let mut child = vm
        .exec_builder()
        .argv(["/bench/pour", "in", &bytes])
        .spawn()?;
    give(child.stdin().context("no input")?)?;
    let mut said = String::new();
    child
        .stdout()
        .context("no output")?
        .read_to_string(&mut said)?;
    let status = child.wait()?;
    let elapsed = milliseconds(begun);
    match (status.success(), said.as_str()) {
        (true, "all\n") => Ok(elapsed),
        _ => bail!("pour in: {status:?}, {said:?}"),
    }
}

/// Runs it with the serial port, whatever number that has, as `redirection`.
fn pour(session: &mut Session, direction: &str, redirection: char) -> Result<String> {
    session.run(&format!(
        "for port in /dev/vport*; do /bench/pour {direction} {BYTES} {redirection}$port; done"
    ))
}

fn out_of_peer(session: &mut Session, port: &UnixStream) -> Result<f64> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| take(port).map(|()| milliseconds(begun)));
        pour(session, "out", '>')?;
        match taken.join() {
            Ok(elapsed) => elapsed,
            Err(_) => bail!("a thread of the bench panicked"),
        }
    })
}

fn into_peer(session: &mut Session, port: &UnixStream) -> Result<f64> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let given = scope.spawn(|| give(port));
        let said = pour(session, "in", '<')?;
        let elapsed = milliseconds(begun);
        match (given.join(), said.as_str()) {
            (Ok(Ok(())), "all\n") => Ok(elapsed),
            (given, said) => bail!("QEMU's guest took {said:?}: {given:?}"),
        }
    })
}

/// Reads all bytes of a round, and no more.
fn take(from: impl Read) -> Result<()> {
    let (mut piece, mut taken) = (vec![0; PIECE], 0);
    let mut from = from.take(BYTES as u64);
    loop {
        match from.read(&mut piece)? {
            0 if taken == BYTES => return Ok(()),
            0 => bail!("{taken} bytes came of {BYTES}"),
            count if piece[count - 1] != b'x' => bail!("other bytes came"),
            count => taken += count,
        }
    }
}

fn give(mut to: impl Write) -> Result<()> {
    let piece = vec![b'x'; PIECE];
    for _ in 0..BYTES / PIECE {
        to.write_all(&piece)?;
    }
    Ok(())
}
