//! `cargo xtask clients`: programs over a guest's network that need more memory, time or
//! packages than tests may: pip, npm, PostgreSQL, iperf3 and others.

use crate::packages::{self, NETWORK_CLIENTS};
use crate::{assets, guest_image, test};
use anyhow::{Result, bail};

/// What the guest has.
const PACKAGES: &[&str] = &[
    "iperf3",
    "node-ws",
    "nodejs",
    "npm",
    "openssl",
    "postgresql-15",
    "python3",
    "python3-pip",
    "socat",
    "traceroute",
    "util-linux",
];

pub fn run(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        bail!("it has no options, so not {word}");
    }
    packages::ensure(&[&NETWORK_CLIENTS])?;
    assets::ensure()?;
    let layout = guest_image::ensure_with("more-clients", PACKAGES)?;
    test::program("clients", [layout])
}
