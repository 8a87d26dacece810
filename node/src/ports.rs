//! Ports of the host that lead to those of guests.

use crate::machines::Vm;
use crate::{CancelToken, Result, thrown, unless};
use bindings_core as core;
use napi::bindgen_prelude::spawn_blocking;
use napi_derive::napi;
use std::sync::Arc;

#[napi]
impl Vm {
    /// Connects a TCP port of the host's loopback interface to one of the guest; 0 for
    /// one that is free. It is open until it is stopped, or the machine is released.
    #[napi(ts_args_type = "hostPort: number, guestPort: number, options?: CallOptions")]
    pub async fn expose_tcp(
        &self,
        host_port: f64,
        guest_port: f64,
        cancel: Option<&CancelToken>,
    ) -> Result<TcpForwarder> {
        let exposed = unless(cancel, self.0.expose_tcp(host_port, guest_port)).await?;
        Ok(TcpForwarder(Arc::new(exposed)))
    }
}

/// A port of the host that leads to one of a guest.
#[napi]
pub struct TcpForwarder(Arc<core::TcpForwarder>);

#[napi]
impl TcpForwarder {
    /// Where it listens, as `127.0.0.1:54321`.
    #[napi(getter)]
    pub fn local_addr(&self) -> String {
        self.0.local_addr().to_string()
    }

    /// Takes no more connections. Those that are open go on. Once more does nothing.
    #[napi]
    pub async fn stop(&self) -> Result<()> {
        let forwarder = self.0.clone();
        let stopped = spawn_blocking(move || forwarder.stop()).await;
        stopped.map_err(|_| thrown(core::BindingError::aborted()))
    }
}
