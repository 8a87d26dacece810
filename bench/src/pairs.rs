//! Measuring two machines in turns. The host is rarely quiet; what disturbs one
//! of them soon disturbs the other as well.

use crate::context::{Context, Side, run};
use crate::qemu::{Machine, Session};
use anyhow::{Context as _, Result, bail};
use supermachine::{Image, Vm};

/// A machine of ours and one of the peer's, on the same disks.
#[derive(Debug)]
pub struct Pair {
    ours: Option<Vm>,
    peer: Option<Session>,
}

impl Pair {
    /// Boots both, or the one that is wanted.
    pub fn start(context: &Context, image: &Image, machine: Machine) -> Result<Self> {
        let ours = match context.side {
            Side::Peer => None,
            _ => {
                let vm = context.start(image, machine)?;
                context.programs.install(&vm)?;
                Some(vm)
            }
        };
        let peer = match context.side {
            Side::Ours => None,
            _ => Some(context.qemu.start(machine, image.layers())?),
        };
        Ok(Self { ours, peer })
    }

    /// Runs `command` on one, then on the other, and returns what they wrote;
    /// nothing for one that is not wanted.
    pub fn run(&mut self, command: &str) -> Result<(Option<String>, Option<String>)> {
        let ours = self.ours.as_ref().map(|vm| run(vm, command)).transpose()?;
        let peer = self
            .peer
            .as_mut()
            .map(|session| session.run(command))
            .transpose()?;
        Ok((ours, peer))
    }

    /// Runs a workload under `timeit` on both. Their output must be the same.
    pub fn time(&mut self, command: &str) -> Result<(Option<f64>, Option<f64>)> {
        let (ours, peer) = self.run(&format!("/bench/timeit {command}"))?;
        let ours = ours.map(|text| split_time(&text)).transpose()?;
        let peer = peer.map(|text| split_time(&text)).transpose()?;
        if let (Some((_, ours)), Some((_, peer))) = (&ours, &peer)
            && ours != peer
        {
            bail!("{command:?} printed {ours:?} here and {peer:?} under QEMU");
        }
        Ok((ours.map(|(time, _)| time), peer.map(|(time, _)| time)))
    }
}

/// Nanoseconds that `timeit` printed, and everything else.
pub fn split_time(output: &str) -> Result<(f64, String)> {
    let (before, time) = output
        .rsplit_once("@@ns ")
        .with_context(|| format!("no time in {output:?}"))?;
    Ok((time.trim().parse()?, before.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_from_the_output() {
        let (time, rest) = split_time("5\n@@ns 1200\n").unwrap();
        assert_eq!((time, rest.as_str()), (1200.0, "5\n"));
        assert!(split_time("5\n").is_err());
        assert!(split_time("@@ns soon\n").is_err());
    }
}
