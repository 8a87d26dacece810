//! Calls that have not been made yet: to be waited for, or awaited.

use crate::raised;
use bindings_core::{Beginning, Begun, BindingError, ExecOptions, ExecOutcome, Machine};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

type Promised = Pin<Box<dyn Future<Output = Result<Given, BindingError>> + Send>>;

/// What is to be done.
enum Pending {
    Future(Promised),
    /// A command. Whoever waits for one needs no other thread for it.
    Exec(Arc<Machine>, Box<ExecOptions>),
}

/// A call. It begins when it is waited for or awaited, once; dropped before its end,
/// it is cancelled.
#[pyclass(frozen)]
pub struct Call(Mutex<Option<Pending>>);

impl Call {
    /// The call whose result `future` is.
    pub fn new<T: Gives>(
        future: impl Future<Output = Result<T, BindingError>> + Send + 'static,
    ) -> Self {
        Self(Mutex::new(Some(Pending::Future(promised(future)))))
    }

    /// The call that runs a command and gives its outcome.
    pub fn exec(machine: Arc<Machine>, options: ExecOptions) -> Self {
        Self(Mutex::new(Some(Pending::Exec(machine, Box::new(options)))))
    }

    fn take(&self) -> PyResult<Pending> {
        let future = lock(&self.0).take();
        future.ok_or_else(|| PyRuntimeError::new_err("a call is made once"))
    }
}

#[pymethods]
impl Call {
    /// Waits for the result; other threads run meanwhile.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.take()? {
            Pending::Future(future) => wait(py, future),
            Pending::Exec(machine, options) => exec(py, machine, *options),
        }
    }

    /// The result as an awaitable of the running event loop.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = match self.take()? {
            Pending::Future(future) => future,
            Pending::Exec(machine, options) => {
                promised(async move { machine.exec(*options, None).await })
            }
        };
        future_into_py(py, async move {
            let given = future.await.map_err(raised)?;
            Python::attach(given)
        })
    }
}

fn promised<T: Gives>(
    future: impl Future<Output = Result<T, BindingError>> + Send + 'static,
) -> Promised {
    Box::pin(async move {
        let value = future.await?;
        let given: Given = Box::new(|py| value.give(py));
        Ok(given)
    })
}

/// Waits for what the runtime's threads do.
fn wait(py: Python<'_>, mut future: Promised) -> PyResult<Py<PyAny>> {
    loop {
        let result = py.detach(|| {
            get_runtime()
                .block_on(async { tokio::time::timeout(INTERRUPTIBLE_EVERY, &mut future).await })
        });
        match result {
            Ok(result) => return result.map_err(raised)?(py),
            // An interrupt drops the future, and with it the call.
            Err(_) => py.check_signals()?,
        }
    }
}

/// Runs a command on this thread, as far as that needs no wait before the guest is asked.
fn exec(py: Python<'_>, machine: Arc<Machine>, options: ExecOptions) -> PyResult<Py<PyAny>> {
    let interrupt = Arc::new(Mutex::new(None));
    let seen = interrupt.clone();
    let here = py.detach(|| match machine.begin(options, None)? {
        Beginning::Begun(begun) => attended(begun, seen).map(Ok),
        Beginning::Later(command) => Ok(Err(command)),
    });
    if let Some(error) = lock(&interrupt).take() {
        return Err(error);
    }
    match here.map_err(raised)? {
        Ok(outcome) => outcome.give(py),
        Err(command) => wait(py, promised(machine.run(command, None))),
    }
}

/// Waits for a command, unless the user interrupts it.
fn attended(
    begun: Begun,
    interrupt: Arc<Mutex<Option<PyErr>>>,
) -> Result<ExecOutcome, BindingError> {
    begun.wait_while(move || {
        let look = Python::try_attach(|py| py.check_signals());
        match look {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                *lock(&interrupt) = Some(error);
                false
            }
            // The interpreter is ending.
            None => false,
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
