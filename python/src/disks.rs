//! Volumes without a machine.

use crate::call::{Call, Gives};
use bindings_core as core;
use pyo3::prelude::*;
use std::path::PathBuf;

/// A directory of volumes.
#[pyclass(frozen)]
pub struct VolumeStore(core::VolumeStore);

impl VolumeStore {
    /// The call that `what` makes with the store.
    fn call<T, F>(&self, what: impl FnOnce(core::VolumeStore) -> F) -> Call
    where
        T: Gives,
        F: Future<Output = core::Result<T>> + Send + 'static,
    {
        Call::new(what(self.0.clone()))
    }
}

#[pymethods]
impl VolumeStore {
    #[staticmethod]
    fn of_user() -> Self {
        Self(core::VolumeStore::of_user())
    }

    #[staticmethod]
    fn at(directory: PathBuf) -> Self {
        Self(core::VolumeStore::at(directory))
    }

    fn create(&self, name: String, size_mib: f64) -> Call {
        self.call(|store| async move { store.create(name, size_mib).await })
    }

    fn list(&self) -> Call {
        self.call(|store| async move { store.list().await })
    }

    fn inspect(&self, name: String) -> Call {
        self.call(|store| async move { store.inspect(name).await })
    }

    fn remove(&self, name: String) -> Call {
        self.call(|store| async move { store.remove(name).await })
    }

    fn prune(&self, all: bool) -> Call {
        self.call(|store| async move { store.prune(all).await })
    }

    fn grow(&self, name: String, size_mib: f64) -> Call {
        self.call(|store| async move { store.grow(name, size_mib).await })
    }

    #[pyo3(name = "export")]
    fn export_to(&self, name: String, file: PathBuf) -> Call {
        self.call(|store| async move { store.export(name, file).await })
    }

    #[pyo3(name = "import_")]
    fn import_from(&self, name: String, file: PathBuf) -> Call {
        self.call(|store| async move { store.import(name, file).await })
    }
}
