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

    /// Connects a UDP port of the host's loopback interface to one of the guest; 0 for one
    /// that is free. Each sender has a socket of its own in the guest, until it was silent
    /// for two minutes or 256 others came after it.
    #[napi(ts_args_type = "hostPort: number, guestPort: number, options?: CallOptions")]
    pub async fn expose_udp(
        &self,
        host_port: f64,
        guest_port: f64,
        cancel: Option<&CancelToken>,
    ) -> Result<UdpForwarder> {
        let exposed = unless(cancel, self.0.expose_udp(host_port, guest_port)).await?;
        Ok(UdpForwarder(Arc::new(exposed)))
    }

    /// Connects a Unix socket of the host to a TCP port of the guest. The socket is made,
    /// for this user alone, and removed when it is stopped.
    #[napi(ts_args_type = "hostPath: string, guestPort: number, options?: CallOptions")]
    pub async fn expose_unix(
        &self,
        host_path: String,
        guest_port: f64,
        cancel: Option<&CancelToken>,
    ) -> Result<UnixForwarder> {
        let exposed = unless(cancel, self.0.expose_unix(host_path.into(), guest_port)).await?;
        Ok(UnixForwarder(Arc::new(exposed)))
    }
}

/// Stops what frees a port, on a thread that may wait for that.
async fn stopped(stop: impl FnOnce() + Send + 'static) -> Result<()> {
    let stopped = spawn_blocking(stop).await;
    stopped.map_err(|_| thrown(core::BindingError::aborted()))
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
        stopped(move || forwarder.stop()).await
    }
}

/// A UDP port of the host that leads to one of a guest.
#[napi]
pub struct UdpForwarder(Arc<core::UdpForwarder>);

#[napi]
impl UdpForwarder {
    /// Where it takes datagrams, as `127.0.0.1:54321`.
    #[napi(getter)]
    pub fn local_addr(&self) -> String {
        self.0.local_addr().to_string()
    }

    /// Takes no more datagrams. Once more does nothing.
    #[napi]
    pub async fn stop(&self) -> Result<()> {
        let forwarder = self.0.clone();
        stopped(move || forwarder.stop()).await
    }
}

/// A Unix socket of the host that leads to a TCP port of a guest.
#[napi]
pub struct UnixForwarder(Arc<core::UnixForwarder>);

#[napi]
impl UnixForwarder {
    /// Where the socket is.
    #[napi(getter)]
    pub fn path(&self) -> String {
        self.0.path().to_string_lossy().into_owned()
    }

    /// Takes no more connections, and removes the socket. Connections that are open go on.
    /// Once more does nothing.
    #[napi]
    pub async fn stop(&self) -> Result<()> {
        let forwarder = self.0.clone();
        stopped(move || forwarder.stop()).await
    }
}
