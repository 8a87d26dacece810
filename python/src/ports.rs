//! Ports of the host that lead to those of guests.

use crate::call::Gives;
use crate::classes::gives;
use bindings_core as core;
use pyo3::prelude::*;
use std::path::PathBuf;

gives! {
    core::TcpForwarder => TcpForwarder,
    core::UdpForwarder => UdpForwarder,
    core::UnixForwarder => UnixForwarder,
}

/// A TCP port of the host that leads to one of a guest.
#[pyclass(frozen)]
pub struct TcpForwarder(core::TcpForwarder);

#[pymethods]
impl TcpForwarder {
    #[getter]
    fn local_addr(&self) -> (String, u16) {
        let address = self.0.local_addr();
        (address.ip().to_string(), address.port())
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

/// A UDP port of the host that leads to one of a guest.
#[pyclass(frozen)]
pub struct UdpForwarder(core::UdpForwarder);

#[pymethods]
impl UdpForwarder {
    #[getter]
    fn local_addr(&self) -> (String, u16) {
        let address = self.0.local_addr();
        (address.ip().to_string(), address.port())
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

/// A Unix socket of the host that leads to a TCP port of a guest.
#[pyclass(frozen)]
pub struct UnixForwarder(core::UnixForwarder);

#[pymethods]
impl UnixForwarder {
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}
