//! Calls that have not been made yet: to be waited for, or awaited.

use crate::raised;
use bindings_core::BindingError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a thread that waits looks whether the user wants to interrupt it. Only
/// threads that wait do, so nothing of an idle program wakes up for it.
const INTERRUPTIBLE_EVERY: Duration = Duration::from_millis(100);

/// What a call gives, to be made a value of Python.
pub trait Gives: Send + 'static {
    /// That value.
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>>;
}

/// Something of that kind.
type Given = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

type Pending = Pin<Box<dyn Future<Output = Result<Given, BindingError>> + Send>>;

/// A call. It begins when it is waited for or awaited, once; dropped before its end,
/// it is cancelled.
#[pyclass(frozen)]
pub struct Call(Mutex<Option<Pending>>);

impl Call {
    /// The call whose result `future` is.
    pub fn new<T: Gives>(
        future: impl Future<Output = Result<T, BindingError>> + Send + 'static,
    ) -> Self {
        Self(Mutex::new(Some(Box::pin(async move {
            let value = future.await?;
            let given: Given = Box::new(|py| value.give(py));
            Ok(given)
        }))))
    }

    fn take(&self) -> PyResult<Pending> {
        let future = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        future.ok_or_else(|| PyRuntimeError::new_err("a call is made once"))
    }
}

#[pymethods]
impl Call {
    /// Waits for the result; other threads run meanwhile.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut future = self.take()?;
        loop {
            let result = py.detach(|| {
                get_runtime().block_on(async {
                    tokio::time::timeout(INTERRUPTIBLE_EVERY, &mut future).await
                })
            });
            match result {
                Ok(result) => return result.map_err(raised)?(py),
                // An interrupt drops the future, and with it the call.
                Err(_) => py.check_signals()?,
            }
        }
    }

    /// The result as an awaitable of the running event loop.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = self.take()?;
        future_into_py(py, async move {
            let given = future.await.map_err(raised)?;
            Python::attach(given)
        })
    }
}
