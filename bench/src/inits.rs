//! Starts of QEMU around what takes too short for one in between: what a bound by QEMU's
//! time to init is a part of.

use crate::context::{Context, SMALL};
use crate::metric::{Bound, Metric, Samples};
use anyhow::Result;

/// Starts before what is measured, and as many behind it: between the rounds a machine
/// would have to wait for them, longer than any of these takes.
const STARTS: usize = 3;

/// How long the peer takes to init, in milliseconds.
#[derive(Debug)]
pub struct Inits {
    name: String,
    times: Samples,
}

impl Inits {
    /// Starts the peer before what is measured.
    pub fn before(context: &Context) -> Result<Self> {
        let mut inits = Self {
            name: context.qemu.name(SMALL),
            times: Samples::default(),
        };
        inits.more(context)?;
        Ok(inits)
    }

    /// Starts it behind what was measured, or between its parts.
    pub fn more(&mut self, context: &Context) -> Result<()> {
        for _ in 0..STARTS {
            let time = context.qemu.time_to_init(SMALL)?;
            self.times.push(time.as_secs_f64() * 1e3);
        }
        Ok(())
    }

    /// A metric of milliseconds, which are to be `must` of the peer's at most.
    pub fn metric(
        &self,
        bench: &'static str,
        name: impl Into<String>,
        ours: &Samples,
        must: f64,
    ) -> Metric {
        let peer = Some((self.name.as_str(), &self.times));
        Metric::new(bench, name, "ms", ours, peer, Bound::Ratio(must))
    }
}
