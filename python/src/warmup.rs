//! Warming machines up by a function of Python.

use crate::call::Call;
use crate::options;
use bindings_core as core;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// The machine that a warm-up is given, until it has ended.
#[pyclass(frozen)]
pub struct WarmupVm(core::WarmupVm);

#[pymethods]
impl WarmupVm {
    fn exec(&self, said: &Bound<'_, PyDict>) -> PyResult<Call> {
        let (vm, options) = (self.0.clone(), options::exec(said)?);
        Ok(Call::new(async move { vm.exec(options).await }))
    }

    fn write_file(&self, path: String, bytes: Vec<u8>) -> Call {
        let vm = self.0.clone();
        Call::new(async move { vm.write_file(path, bytes).await })
    }

    fn read_file(&self, path: String) -> Call {
        let vm = self.0.clone();
        Call::new(async move { vm.read_file(path).await })
    }
}

/// Calls `function` with the machine, on a thread of its own: it may wait.
pub fn warmup(function: Py<PyAny>) -> core::Warmup {
    let function = Arc::new(function);
    Box::new(move |vm, end| {
        let function = function.clone();
        std::thread::spawn(move || {
            let result = Python::attach(|py| {
                let vm = Bound::new(py, WarmupVm(vm))?;
                function.bind(py).call1((vm,)).map(drop)
            });
            end.end(result.map_err(|error| error.to_string()));
        });
    })
}
