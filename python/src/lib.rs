//! The native part of the Python package `supermachine`.
//!
//! Every function gives a [`call::Call`], which Python waits for or awaits: the
//! synchronous and the asynchronous classes of the package are made of the same.

mod call;
mod classes;
mod disks;
mod events;
mod options;
mod ports;
mod values;
mod warmup;

use bindings_core::{BindingError, Installation};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use std::path::PathBuf;

create_exception!(
    _native,
    NativeError,
    PyException,
    "What failed: code, kind, message, and whether it may work when tried again."
);

/// An error as the package reads it.
fn raised(error: BindingError) -> PyErr {
    NativeError::new_err((error.code, error.kind, error.message, error.is_retryable))
}

/// Says where the package has its files.
#[pyfunction]
#[pyo3(signature = (worker=None, assets=None))]
fn install(worker: Option<PathBuf>, assets: Option<PathBuf>) {
    bindings_core::install(Installation { worker, assets });
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("NativeError", module.py().get_type::<NativeError>())?;
    module.add_class::<call::Call>()?;
    module.add_class::<classes::Image>()?;
    module.add_class::<classes::Pool>()?;
    module.add_class::<classes::Vm>()?;
    module.add_class::<classes::Child>()?;
    module.add_class::<events::Events>()?;
    module.add_class::<ports::TcpForwarder>()?;
    module.add_class::<ports::UdpForwarder>()?;
    module.add_class::<ports::UnixForwarder>()?;
    module.add_class::<disks::VolumeStore>()?;
    module.add_class::<warmup::WarmupVm>()?;
    module.add_function(wrap_pyfunction!(install, module)?)
}
