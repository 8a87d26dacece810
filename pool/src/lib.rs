//! Sizing policy and leases for pools of reusable workers.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod budget;
mod config;
mod error;
mod ids;
mod jobs;
mod metrics;
pub mod policy;
mod pool;
mod shared;
mod sync;
mod tenants;
mod ticket;
mod worker;

pub use budget::{Budget, ByteBudget, Unlimited};
pub use config::PoolConfig;
pub use error::{Failure, PoolError};
pub use metrics::PoolMetrics;
pub use policy::{PoolStats, WorkerId};
pub use pool::{Checker, Pool};
pub use ticket::{Lease, Ticket};
pub use worker::{Factory, Worker};
