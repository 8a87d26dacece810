//! What comes in: nginx in a guest, asked from the host by wrk, through a port of ours
//! and through one of QEMU's.

use super::{BENCH, PEER_HOST, peer};
use crate::context::{Context, SMALL};
use crate::metric::{Bound, Metric, Samples};
use anyhow::{Context as _, Result, bail};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

const NAME: &str = "inbound_request";
const ROUNDS: usize = 3;
/// Requests by QEMU's must be so many times ours, by what one of them takes.
const MUST: f64 = 1.0 / 1.2;
const MICROS_PER_SECOND: f64 = 1e6;
/// Starts nginx, whose one page is a line.
const SERVE: &str = "/bench/busybox mkdir -p /srv /var/log/nginx /var/lib/nginx /run; \
                     echo hello > /srv/index.html; \
                     printf 'user root; worker_processes 1; error_log /dev/null; pid /run/n.pid; \
                     events {} http { access_log off; server { listen 80; root /srv; } }' \
                     > /tmp/nginx.conf; /usr/sbin/nginx -c /tmp/nginx.conf";
const PORT: u16 = 80;

/// Microseconds of one request, of sixteen connections at a time.
pub fn run(context: &Context) -> Result<Metric> {
    let image = context.nginx()?;
    let ours = context.start(&image, SMALL)?;
    context.programs.install(&ours)?;
    crate::context::run(&ours, SERVE)?;
    let forwarder = ours.expose_tcp(0, PORT)?;
    let peer_port = free_port()?;
    let netdev =
        format!("user,id=net,host={PEER_HOST},hostfwd=tcp:127.0.0.1:{peer_port}-10.0.2.15:{PORT}");
    let mut peer = peer(context, &image, &netdev)?;
    peer.run(SERVE)?;
    let (mut mine, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..context.rounds.unwrap_or(ROUNDS) {
        mine.push(ask(forwarder.local_addr().port())?);
        theirs.push(ask(peer_port)?);
    }
    let name = format!("{}, hostfwd", context.qemu.name(SMALL));
    Ok(Metric::new(
        BENCH,
        NAME,
        "µs",
        &mine,
        Some((&name, &theirs)),
        Bound::Ratio(MUST),
    ))
}

/// A port that nobody has, for who cannot choose one and say which.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Microseconds of one request.
fn ask(port: u16) -> Result<f64> {
    let done = Command::new("wrk")
        .args(["--threads", "1", "--connections", "16", "--duration", "5s"])
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .context("cannot run wrk")?;
    let said = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() || has_failures(&said) {
        let more = String::from_utf8_lossy(&done.stderr);
        bail!("wrk: {}: {said}{more}", done.status);
    }
    per_second(&said)
        .map(|count| MICROS_PER_SECOND / count)
        .with_context(|| format!("wrk says no rate: {said}"))
}

/// Whether wrk says that requests failed. Those that took long did not.
fn has_failures(said: &str) -> bool {
    let is_late_only = |line: &str| line.contains("connect 0, read 0, write 0, timeout");
    let mut errors = said.lines().filter(|line| line.contains("Socket errors"));
    said.contains("Non-2xx") || errors.any(|line| !is_late_only(line))
}

/// What wrk says of how many requests there were in a second.
fn per_second(said: &str) -> Option<f64> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"))?;
    line.trim().parse().ok().filter(|count| *count > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_answers_are_no_failures() {
        let said = |errors| format!("  Socket errors: {errors}\nRequests/sec: 1.00\n");
        assert!(!has_failures(&said(
            "connect 0, read 0, write 0, timeout 2"
        )));
        assert!(has_failures(&said("connect 0, read 1, write 0, timeout 0")));
        assert!(has_failures("  Non-2xx or 3xx responses: 7\n"));
    }

    #[test]
    fn rate_is_read_from_what_wrk_says() {
        let said = "  5 requests in 1s\nRequests/sec:   1234.50\nTransfer/sec: 1KB\n";
        assert_eq!(per_second(said), Some(1234.5));
        assert_eq!(per_second("Requests/sec:      0.00\n"), None);
    }
}
