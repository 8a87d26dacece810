//! Images, pools, machines and commands.

use crate::call::{Call, Gives};
use crate::warmup::warmup;
use crate::{options, raised};
use bindings_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;
use std::sync::Arc;

/// An object of one of the classes here.
macro_rules! gives {
    ($($type:ty => $class:expr),* $(,)?) => {
        $(impl Gives for $type {
            fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                Ok(Bound::new(py, $class(self))?.into_any().unbind())
            }
        })*
    };
}
pub(crate) use gives;

gives! {
    core::Image => Image,
    core::Pool => Pool,
    core::Machine => Vm::from,
    core::Child => Child::from,
}

impl Gives for Vec<core::Machine> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for machine in self {
            list.append(Bound::new(py, Vm::from(machine))?)?;
        }
        Ok(list.into_any().unbind())
    }
}

/// A baked image.
#[pyclass(frozen)]
pub struct Image(pub core::Image);

#[pymethods]
impl Image {
    #[staticmethod]
    #[pyo3(signature = (said, function=None))]
    fn build(said: &Bound<'_, PyDict>, function: Option<Py<PyAny>>) -> PyResult<Call> {
        let (options, warmup) = (options::build(said)?, function.map(warmup));
        // What is asked of it ends with what waits for it, and not with a scope.
        let scope = core::Cancel::new();
        Ok(Call::new(core::Image::build(options, warmup, scope)))
    }

    #[staticmethod]
    fn from_snapshot(path: PathBuf) -> Call {
        Call::new(core::Image::from_snapshot(path, core::Cancel::new()))
    }

    fn pool(&self, said: &Bound<'_, PyDict>) -> PyResult<Call> {
        let (image, options) = (self.0.clone(), options::pool(said)?);
        Ok(Call::new(async move { image.pool(options).await }))
    }

    fn start(&self, said: &Bound<'_, PyDict>) -> PyResult<Call> {
        let (image, options) = (self.0.clone(), options::start(said)?);
        Ok(Call::new(async move { image.start(options).await }))
    }

    #[getter]
    fn snapshot_path(&self) -> Option<PathBuf> {
        self.0.snapshot_path()
    }

    #[getter]
    fn memory_mib(&self) -> Option<usize> {
        self.0.memory_mib()
    }

    #[getter]
    fn vcpus(&self) -> Option<u32> {
        self.0.vcpus()
    }

    #[getter]
    fn digest(&self) -> String {
        self.0.digest()
    }
}

/// Machines of one image.
#[pyclass(frozen)]
pub struct Pool(pub core::Pool);

#[pymethods]
impl Pool {
    fn acquire(&self) -> Call {
        Call::new(self.0.acquire(None))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.0.stats();
        let dict = PyDict::new(py);
        for (name, count) in [
            ("alive", stats.alive),
            ("in_use", stats.in_use),
            ("idle", stats.idle),
            ("waiting", stats.waiting),
            ("min", stats.min),
            ("max", stats.max),
        ] {
            dict.set_item(name, count)?;
        }
        Ok(dict)
    }

    fn shutdown(&self) -> Call {
        let pool = self.0.clone();
        Call::new(async move {
            pool.shutdown().await;
            Ok(())
        })
    }
}

/// A machine, until it is released.
#[pyclass(frozen)]
pub struct Vm(Arc<core::Machine>);

impl From<core::Machine> for Vm {
    fn from(machine: core::Machine) -> Self {
        Self(Arc::new(machine))
    }
}

impl Vm {
    /// The call that `what` makes with the machine.
    fn call<T, F>(&self, what: impl FnOnce(Arc<core::Machine>) -> F) -> Call
    where
        T: Gives,
        F: Future<Output = core::Result<T>> + Send + 'static,
    {
        Call::new(what(self.0.clone()))
    }
}

#[pymethods]
impl Vm {
    fn exec(&self, said: &Bound<'_, PyDict>) -> PyResult<Call> {
        Ok(Call::exec(self.0.clone(), options::exec(said)?))
    }

    fn spawn(&self, said: &Bound<'_, PyDict>) -> PyResult<Call> {
        let options = options::exec(said)?;
        Ok(self.call(|vm| async move { vm.spawn(options).await }))
    }

    #[pyo3(signature = (id, stdout=None, stderr=None, latest=false))]
    fn attach(&self, id: String, stdout: Option<f64>, stderr: Option<f64>, latest: bool) -> Call {
        let from = core::AttachOptions {
            stdout,
            stderr,
            latest,
        };
        self.call(|vm| async move { vm.attach(id, from).await })
    }

    fn execs(&self) -> Call {
        self.call(|vm| async move { vm.execs().await })
    }

    fn write_file(&self, path: String, bytes: Vec<u8>) -> Call {
        self.call(|vm| async move { vm.write_file(path, bytes).await })
    }

    fn read_file(&self, path: String) -> Call {
        self.call(|vm| async move { vm.read_file(path).await })
    }

    fn read_dir(&self, path: String) -> Call {
        self.call(|vm| async move { vm.read_dir(path).await })
    }

    fn stat(&self, path: String) -> Call {
        self.call(|vm| async move { vm.stat(path).await })
    }

    fn mkdir(&self, path: String, recursive: bool) -> Call {
        self.call(|vm| async move { vm.mkdir(path, recursive).await })
    }

    fn remove(&self, path: String, recursive: bool) -> Call {
        self.call(|vm| async move { vm.remove(path, recursive).await })
    }

    fn rename(&self, from: String, to: String) -> Call {
        self.call(|vm| async move { vm.rename(from, to).await })
    }

    fn copy_in(&self, host: PathBuf, guest: String) -> Call {
        self.call(|vm| async move { vm.copy_in(host, guest).await })
    }

    fn copy_out(&self, guest: String, host: PathBuf) -> Call {
        self.call(|vm| async move { vm.copy_out(guest, host).await })
    }

    fn mount_changes(&self, tag: String) -> Call {
        self.call(|vm| async move { vm.mount_changes(tag).await })
    }

    fn apply_changes(&self, tag: String, wanted: Option<Vec<options::Wanted>>) -> Call {
        let wanted = options::wanted(wanted);
        self.call(|vm| async move { vm.apply_changes(tag, wanted).await })
    }

    fn export_changes(
        &self,
        tag: String,
        file: PathBuf,
        wanted: Option<Vec<options::Wanted>>,
    ) -> Call {
        let wanted = options::wanted(wanted);
        self.call(|vm| async move { vm.export_changes(tag, file, wanted).await })
    }

    fn grow_volume(&self, name: String, size_mib: f64) -> Call {
        self.call(|vm| async move { vm.grow_volume(name, size_mib).await })
    }

    fn expose_tcp(&self, host_port: f64, guest_port: f64) -> Call {
        self.call(|vm| async move { vm.expose_tcp(host_port, guest_port).await })
    }

    fn expose_udp(&self, host_port: f64, guest_port: f64) -> Call {
        self.call(|vm| async move { vm.expose_udp(host_port, guest_port).await })
    }

    fn expose_unix(&self, path: PathBuf, guest_port: f64) -> Call {
        self.call(|vm| async move { vm.expose_unix(path, guest_port).await })
    }

    fn events(&self) -> Call {
        self.call(|vm| async move { vm.events().await })
    }

    fn network_log(&self) -> Call {
        self.call(|vm| async move { vm.network_log().await })
    }

    fn workload_signal(&self, number: f64) -> Call {
        self.call(|vm| async move { vm.workload_signal(number).await })
    }

    fn workload_status(&self) -> Call {
        self.call(|vm| async move { vm.workload_status().await })
    }

    fn snapshot(&self, directory: PathBuf) -> Call {
        self.call(|vm| async move { vm.snapshot(directory).await })
    }

    fn fork(&self, count: f64) -> Call {
        self.call(|vm| async move { vm.fork(count).await })
    }

    fn pause(&self) -> Call {
        self.call(|vm| async move { vm.pause().await })
    }

    fn resume(&self) -> Call {
        self.call(|vm| async move { vm.resume().await })
    }

    fn stats(&self) -> Call {
        self.call(|vm| async move { vm.stats().await })
    }

    fn console_log(&self) -> Call {
        self.call(|vm| async move { vm.console_log().await })
    }

    #[getter]
    fn id(&self) -> PyResult<String> {
        self.0.id().map_err(raised)
    }

    #[getter]
    fn engine(&self) -> PyResult<String> {
        self.0.engine().map_err(raised)
    }

    #[getter]
    fn is_paused(&self) -> PyResult<bool> {
        self.0.is_paused().map_err(raised)
    }

    #[getter]
    fn vsock_path(&self) -> PyResult<PathBuf> {
        self.0.vsock_path().map_err(raised)
    }

    #[getter]
    fn exec_path(&self) -> PyResult<PathBuf> {
        self.0.exec_path().map_err(raised)
    }

    #[pyo3(signature = (grace_ms=None))]
    fn shutdown(&self, grace_ms: Option<f64>) -> Call {
        self.call(|vm| async move { vm.shutdown(grace_ms).await })
    }

    fn release(&self) -> Call {
        self.call(|vm| async move { vm.release().await })
    }
}

/// A running command.
#[pyclass(frozen)]
pub struct Child(Arc<core::Child>);

impl From<core::Child> for Child {
    fn from(child: core::Child) -> Self {
        Self(Arc::new(child))
    }
}

impl Child {
    fn call<T, F>(&self, what: impl FnOnce(Arc<core::Child>) -> F) -> Call
    where
        T: Gives,
        F: Future<Output = core::Result<T>> + Send + 'static,
    {
        Call::new(what(self.0.clone()))
    }
}

#[pymethods]
impl Child {
    #[getter]
    fn id(&self) -> Option<String> {
        self.0.id()
    }

    fn write_stdin(&self, bytes: Vec<u8>) -> Call {
        self.call(|child| async move { child.write_stdin(&bytes).await })
    }

    fn close_stdin(&self) -> Call {
        self.call(|child| async move { child.close_stdin().await })
    }

    #[pyo3(signature = (max_bytes=None))]
    fn read_stdout(&self, max_bytes: Option<f64>) -> Call {
        self.call(|child| async move { child.read_stdout(max_bytes).await })
    }

    #[pyo3(signature = (max_bytes=None))]
    fn read_stderr(&self, max_bytes: Option<f64>) -> Call {
        self.call(|child| async move { child.read_stderr(max_bytes).await })
    }

    fn signal(&self, number: f64) -> Call {
        self.call(|child| async move { child.signal(number).await })
    }

    fn resize(&self, columns: f64, rows: f64) -> Call {
        self.call(|child| async move { child.resize(columns, rows).await })
    }

    fn wait(&self) -> Call {
        self.call(|child| async move { child.wait().await })
    }
}
