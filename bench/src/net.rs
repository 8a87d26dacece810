//! `net`: what a guest's network carries to and from the host, beside QEMU with passt
//! and with its user network, which is the library that slirp4netns is.

mod counted;
mod inbound;

use crate::context::{Context, SMALL};
use crate::metric::{Bound, Metric, Samples};
use crate::passt::Passt;
use crate::process::{children, private_kib};
use crate::qemu::Session;
use anyhow::{Context as _, Result, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use supermachine::{Image, NetworkPolicy, Vm};

const BENCH: &str = "net";
const ROUNDS: usize = 5;
/// The host, as each guest reaches it.
const OUR_HOST: &str = "192.168.127.1";
const PEER_HOST: &str = "10.0.2.2";
const PEER_SET_UP: &str = "/bench/busybox ip link set lo up; \
                           /bench/busybox ip link set eth0 up; \
                           /bench/busybox ip addr add 10.0.2.15/24 dev eth0; \
                           /bench/busybox ip route add default via 10.0.2.2; \
                           echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
/// Open connections whose memory is counted.
const IDLE: usize = 1000;
const IDLE_MUST_MIB: f64 = 8.0;
const KIB_PER_MIB: f64 = 1024.0;
/// Stack of a thread that only echoes: there are a thousand.
const STACK_BYTES: usize = 64 << 10;

/// What the guest does: its name, how often, and by how much ours may differ.
struct Part {
    name: &'static str,
    what: &'static str,
    count: u32,
    unit: &'static str,
    /// Nanoseconds of one, in units.
    scale: f64,
    must: f64,
}

const PARTS: &[Part] = &[
    Part {
        name: "guest_to_host",
        what: "send",
        count: 64 << 20,
        unit: "ns/B",
        scale: 1.0,
        must: 1.0 / 1.2,
    },
    Part {
        name: "host_to_guest",
        what: "recv",
        count: 64 << 20,
        unit: "ns/B",
        scale: 1.0,
        must: 1.0 / 1.2,
    },
    Part {
        name: "connect_ask_close",
        what: "crr",
        count: 300,
        unit: "µs",
        scale: 1e-3,
        must: 1.0,
    },
    Part {
        name: "round_trip",
        what: "rr",
        count: 1000,
        unit: "µs",
        scale: 1e-3,
        must: 1.0,
    },
    Part {
        name: PING,
        what: "ping",
        count: 500,
        unit: "µs",
        scale: 1e-3,
        must: 1.0,
    },
];

const PING: &str = "ping";
/// Passes echo requests on only where the host permits it to; the other answers itself.
const PASST: &str = "passt";

pub fn run(context: &Context) -> Result<Vec<Metric>> {
    let port = serve()?;
    let passt = Passt::start(PEER_HOST)?;
    let image = &context.small;
    let before = children()?;
    let policy = NetworkPolicy::deny_all().host_port(port);
    let ours = image.start(&context.config(SMALL).with_network(policy))?;
    let worker = *children()?
        .iter()
        .find(|pid| !before.contains(pid))
        .context("the machine has no worker process")?;
    context.programs.install(&ours)?;
    let mut peers = Vec::new();
    for (name, netdev) in [
        (PASST, passt.netdev()),
        ("libslirp", "user,id=net".to_owned()),
    ] {
        peers.push((name, peer(context, image, &netdev)?));
    }
    let mut metrics = Vec::new();
    for part in PARTS.iter().filter(|part| context.wants(part.name)) {
        metrics.push(measure(context, part, (&ours, &mut peers), port)?);
    }
    if context.wants("idle_connections") {
        metrics.push(idle(&ours, worker, port)?);
    }
    metrics.extend(counted::run(context, port)?);
    Ok(metrics)
}

/// What comes in, which needs other machines.
pub fn inbound(context: &Context) -> Result<Vec<Metric>> {
    Ok(vec![inbound::run(context)?])
}

/// A machine of QEMU's whose network this is.
fn peer(context: &Context, image: &Image, netdev: &str) -> Result<Session> {
    let device = ["-netdev", netdev, "-device", "virtio-net-device,netdev=net"];
    let mut session = context.qemu.start_with(SMALL, image.layers(), &device)?;
    session.run(PEER_SET_UP)?;
    Ok(session)
}

fn measure(
    context: &Context,
    part: &Part,
    (ours, peers): (&Vm, &mut [(&'static str, Session)]),
    port: u16,
) -> Result<Metric> {
    let Part { what, count, .. } = part;
    let command = |host| format!("/bench/netload {what} {host} {port} {count}");
    let value = |output: &str| -> Result<f64> {
        let nanos: f64 = output.trim().parse().context(part.name)?;
        Ok(nanos / f64::from(*count) * part.scale)
    };
    let mut mine = Samples::default();
    let mut theirs = vec![Samples::default(); peers.len()];
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        mine.push(value(&crate::context::run(ours, &command(OUR_HOST))?)?);
        for ((name, session), samples) in peers.iter_mut().zip(&mut theirs) {
            if (part.name, *name) == (PING, PASST) {
                continue;
            }
            samples.push(value(&session.run(&command(PEER_HOST))?)?);
        }
    }
    // The better one is what is compared with.
    let named = peers.iter().map(|(name, _)| *name).zip(&theirs);
    let measured = named.filter(|(_, samples)| samples.len() > 0);
    let best = measured.min_by(|(_, a), (_, b)| a.median().total_cmp(&b.median()));
    let (name, best) = best.context("there is no peer")?;
    let name = format!("{}, {name}", context.qemu.name(SMALL));
    Ok(Metric::new(
        BENCH,
        part.name,
        part.unit,
        &mine,
        Some((&name, best)),
        Bound::Ratio(part.must),
    ))
}

/// What a thousand open connections cost the worker.
fn idle(vm: &Vm, worker: u32, port: u16) -> Result<Metric> {
    let before = private_kib(worker)?;
    let script = format!(
        "/bench/netload idle {OUR_HOST} {port} {IDLE} </dev/null >/tmp/idle 2>&1 & \
         until grep -q . /tmp/idle; do sleep 0.1; done; cat /tmp/idle"
    );
    let said = crate::context::run(vm, &script)?;
    if said.trim() != "open" {
        bail!("the guest says {said:?}");
    }
    let mut samples = Samples::default();
    let after = private_kib(worker)?;
    // At most some MiB.
    #[expect(clippy::cast_precision_loss, reason = "a few thousands")]
    let mib = after.saturating_sub(before) as f64 / KIB_PER_MIB;
    samples.push(mib);
    Ok(Metric::new(
        BENCH,
        "idle_connections",
        "MiB",
        &samples,
        None,
        Bound::Median(IDLE_MUST_MIB),
    ))
}

/// What the guests speak with: it does what the first byte of a connection says.
fn serve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            // A guest that went away is no error of the bench's: it says so itself.
            let _ = thread.spawn(move || drop(answer(stream)));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut mode = [0];
    stream.read_exact(&mut mode)?;
    match mode {
        [b'd'] => {
            let mut piece = vec![0; 256 << 10];
            while stream.read(&mut piece)? > 0 {}
            stream.write_all(b"k")
        }
        [b'u'] => {
            let mut count = [0; 8];
            stream.read_exact(&mut count)?;
            let mut left = u64::from_le_bytes(count);
            let piece = vec![0; 256 << 10];
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                stream.write_all(&piece[..most])?;
                left -= most as u64;
            }
            Ok(())
        }
        _ => {
            let mut byte = [0; 1];
            while stream.read(&mut byte)? > 0 {
                stream.write_all(&byte)?;
            }
            Ok(())
        }
    }
}
