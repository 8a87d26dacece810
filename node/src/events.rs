//! What happens to a machine, and what became of its flows.

use crate::machines::Vm;
use crate::results::number;
use crate::{CancelToken, Result, thrown, unless};
use bindings_core as core;
use napi_derive::napi;

/// The events of one machine, from `vm.events()`. What is not taken is kept, up to 1,024
/// events; the machine never waits for it. It ends with the machine, or with its loop.
#[napi]
pub struct VmEvents(core::Events);

#[napi]
impl VmEvents {
    /// Waits for the next event; null if there will be no more. An aborted call has taken
    /// none.
    #[napi(
        ts_args_type = "options?: CallOptions",
        ts_return_type = "Promise<VmEvent | null>"
    )]
    pub async fn next(&self, cancel: Option<&CancelToken>) -> Result<Option<serde_json::Value>> {
        let Some(event) = unless(cancel, self.0.next()).await? else {
            return Ok(None);
        };
        let mut told = serde_json::to_value(&event)
            .map_err(|error| thrown(core::BindingError::invalid(error.to_string())))?;
        if let Some(fields) = told.as_object_mut() {
            let at = fields.remove("unix_ms").unwrap_or_default();
            fields.insert("atMs".into(), at);
        }
        Ok(Some(told))
    }

    /// Has it end, also for who waits. Once more does nothing.
    #[napi]
    pub async fn close(&self) -> Result<()> {
        self.0.close().await;
        Ok(())
    }
}

#[napi]
impl Vm {
    /// What happens to the machine from now on, for `for await`: that it was paused, that
    /// its workload listens or has ended, that it ran out of memory, its end. What the
    /// workload does is known up to a second late. Each caller gets all of it. When the
    /// call's signal is aborted, so is the loop.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn events(&self, cancel: Option<&CancelToken>) -> Result<VmEvents> {
        Ok(VmEvents(unless(cancel, self.0.events()).await?))
    }

    /// What became of the guest's flows: the latest 4,096 that have ended or were refused,
    /// the oldest first. A pool's machine begins anew with each reset.
    #[napi(ts_args_type = "options?: CallOptions")]
    pub async fn network_log(&self, cancel: Option<&CancelToken>) -> Result<Vec<NetworkFlow>> {
        let flows = unless(cancel, self.0.network_log()).await?;
        Ok(flows.into_iter().map(Into::into).collect())
    }
}

/// What became of one of a guest's flows: a connection, an exchange of datagrams, a
/// question for a name that it may not ask.
#[napi(object, object_from_js = false)]
pub struct NetworkFlow {
    /// Counts the machine's flows, in the order in which they ended.
    pub number: f64,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: f64,
    /// How long it was there, in milliseconds.
    pub lasted_ms: f64,
    /// The name that the guest was told the address for, or that it asked for.
    pub name: Option<String>,
    /// Where it wanted to.
    pub address: String,
    /// The port there; 0 for echo requests.
    pub port: u32,
    /// By which protocol.
    #[napi(ts_type = "'tcp' | 'udp' | 'icmp'")]
    pub protocol: String,
    /// Whether it might.
    pub allowed: bool,
    /// What decided that: `rule`, with its number in `rule`; `default`, as no rule fits;
    /// `not-public`, `host-port`, `name-server`, `name`, `limit`, `shown`, `secret`.
    pub cause: String,
    /// The number of the rule, from 0.
    pub rule: Option<f64>,
    /// Bytes that the other end was sent, without headers.
    pub sent_bytes: f64,
    /// Bytes that the guest got, without headers.
    pub received_bytes: f64,
    /// How it ended: `denied`, `closed`, `guest-reset`, `remote-reset`, `refused`,
    /// `unreachable`, `failed`, `timed-out`, `displaced`, `rewound`.
    pub end: String,
    /// What became of secrets, if it was to a host of some, or a placeholder left on it in
    /// clear text; by their names.
    pub secrets: Option<SecretsUse>,
}

/// What became of secrets on a flow.
#[napi(object, object_from_js = false)]
pub struct SecretsUse {
    /// Those that were put into requests.
    pub used: Vec<String>,
    /// Those whose placeholder was where none is replaced.
    pub misplaced: Vec<String>,
    /// Why the connection was ended, if it was.
    pub refused: Option<String>,
}

impl From<core::Flow> for NetworkFlow {
    fn from(flow: core::Flow) -> Self {
        Self {
            number: number(flow.number),
            ended_ms: number(flow.ended_unix_ms),
            lasted_ms: flow.lasted * 1e3,
            name: flow.name,
            address: flow.address,
            port: flow.port.into(),
            protocol: flow.protocol.to_owned(),
            allowed: flow.allowed,
            cause: flow.cause.to_owned(),
            rule: flow.rule.map(number),
            sent_bytes: number(flow.sent_bytes),
            received_bytes: number(flow.received_bytes),
            end: flow.end.to_owned(),
            secrets: flow.secrets.map(|used| SecretsUse {
                used: used.used,
                misplaced: used.misplaced,
                refused: used.refused,
            }),
        }
    }
}
