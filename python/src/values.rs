//! What calls give, as Python has it.

use crate::call::Gives;
use bindings_core as core;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::time::{Duration, UNIX_EPOCH};

impl Gives for () {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(py.None())
    }
}

impl Gives for Vec<u8> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(PyBytes::new(py, &self).into_any().unbind())
    }
}

impl Gives for bool {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.into_pyobject(py)?.to_owned().into_any().unbind())
    }
}

impl Gives for String {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.into_pyobject(py)?.into_any().unbind())
    }
}

impl Gives for core::ExecOutcome {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let dict = status(py, &self.status)?;
        dict.set_item("stdout", PyBytes::new(py, &self.stdout))?;
        dict.set_item("stderr", PyBytes::new(py, &self.stderr))?;
        dict.set_item("truncated", self.truncated)?;
        Ok(dict.into_any().unbind())
    }
}

impl Gives for core::ExecStatus {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(status(py, &self)?.into_any().unbind())
    }
}

impl Gives for Vec<core::ExecInfo> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for info in &self {
            list.append(durable(py, info)?)?;
        }
        Ok(list.into_any().unbind())
    }
}

impl Gives for Vec<core::FileInfo> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for info in &self {
            list.append(file(py, info)?)?;
        }
        Ok(list.into_any().unbind())
    }
}

impl Gives for core::FileInfo {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(file(py, &self)?.into_any().unbind())
    }
}

impl Gives for Vec<core::MountChange> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for change in &self {
            let dict = PyDict::new(py);
            // As a string that leads back to the same bytes, whatever they are.
            dict.set_item("path", change.path.as_os_str())?;
            dict.set_item("kind", core::change_word(change.kind))?;
            dict.set_item("file", change.file.map(core::file_word))?;
            dict.set_item("size", change.bytes)?;
            list.append(dict)?;
        }
        Ok(list.into_any().unbind())
    }
}

impl Gives for core::VolumeInfo {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(volume(py, &self)?.into_any().unbind())
    }
}

impl Gives for Vec<core::VolumeInfo> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for info in &self {
            list.append(volume(py, info)?)?;
        }
        Ok(list.into_any().unbind())
    }
}

impl Gives for Vec<String> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(PyList::new(py, self)?.into_any().unbind())
    }
}

impl Gives for core::Copied {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let dict = PyDict::new(py);
        dict.set_item("entries", self.entries)?;
        dict.set_item("bytes", self.bytes)?;
        dict.set_item("skipped", self.skipped)?;
        Ok(dict.into_any().unbind())
    }
}

impl Gives for core::WorkloadStatus {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(workload(py, &self)?.into_any().unbind())
    }
}

impl Gives for serde_json::Value {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(json(py, &self)?.unbind())
    }
}

fn status<'py>(py: Python<'py>, ended: &core::ExecStatus) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let code = ended.code.filter(|_| !ended.timed_out);
    dict.set_item("exit_code", code.unwrap_or(-1))?;
    dict.set_item("signal", ended.signal)?;
    dict.set_item("timed_out", ended.timed_out)?;
    dict.set_item("oom", ended.oom)?;
    dict.set_item("peak_rss_kib", ended.peak_rss_kib)?;
    dict.set_item("duration", ended.duration.as_secs_f64())?;
    dict.set_item("step", ended.step)?;
    Ok(dict)
}

fn durable<'py>(py: Python<'py>, info: &core::ExecInfo) -> PyResult<Bound<'py, PyDict>> {
    let (state, pid, exit) = match &info.state {
        core::ExecState::Running { pid } => ("running", Some(*pid), None),
        core::ExecState::Exited(exit) => ("exited", None, Some(status(py, exit)?)),
        _ => ("exited", None, None),
    };
    let argv = info.argv.iter().map(|word| String::from_utf8_lossy(word));
    let dict = PyDict::new(py);
    dict.set_item("id", info.id.to_string())?;
    dict.set_item("argv", PyList::new(py, argv.collect::<Vec<_>>())?)?;
    dict.set_item("state", state)?;
    dict.set_item("pid", pid)?;
    dict.set_item("exit", exit)?;
    dict.set_item("since_start", info.since_start.as_secs_f64())?;
    dict.set_item("tty", info.tty)?;
    dict.set_item("attached", info.is_attached)?;
    dict.set_item("stdout_bytes", info.written.stdout)?;
    dict.set_item("stderr_bytes", info.written.stderr)?;
    Ok(dict)
}

fn file<'py>(py: Python<'py>, info: &core::FileInfo) -> PyResult<Bound<'py, PyDict>> {
    let mtime = match info.modified.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    let target = info.target.as_ref().map(|path| path.to_string_lossy());
    let dict = PyDict::new(py);
    dict.set_item("name", info.name.to_string_lossy())?;
    dict.set_item("kind", core::file_word(info.kind))?;
    dict.set_item("mode", info.mode)?;
    dict.set_item("uid", info.uid)?;
    dict.set_item("gid", info.gid)?;
    dict.set_item("size", info.bytes)?;
    dict.set_item("mtime", mtime)?;
    dict.set_item("target", target)?;
    Ok(dict)
}

fn volume<'py>(py: Python<'py>, info: &core::VolumeInfo) -> PyResult<Bound<'py, PyDict>> {
    let changed = Duration::from_millis(info.changed_unix_ms);
    let dict = PyDict::new(py);
    dict.set_item("name", &info.name)?;
    dict.set_item("path", info.path.as_os_str())?;
    dict.set_item("size", info.size_bytes)?;
    dict.set_item("disk_bytes", info.disk_bytes)?;
    dict.set_item("changed", changed.as_secs_f64())?;
    dict.set_item("in_use_by", &info.in_use_by)?;
    Ok(dict)
}

fn workload<'py>(py: Python<'py>, told: &core::WorkloadStatus) -> PyResult<Bound<'py, PyDict>> {
    let (state, exit) = match &told.state {
        core::WorkloadState::Exited(exit) => ("exited", Some(status(py, exit)?)),
        core::WorkloadState::Running { .. } => ("running", None),
        _ => ("not-started", None),
    };
    let dict = PyDict::new(py);
    dict.set_item("state", state)?;
    dict.set_item("exit", exit)?;
    dict.set_item("output_bytes", told.output_bytes)?;
    dict.set_item("tail", PyBytes::new(py, &told.tail))?;
    Ok(dict)
}

/// Values of JSON; what comes here is our own, and not deep.
fn json<'py>(py: Python<'py>, value: &serde_json::Value) -> PyResult<Bound<'py, PyAny>> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => py.None().into_bound(py),
        Json::Bool(value) => value.into_pyobject(py)?.to_owned().into_any(),
        Json::Number(number) => match number.as_u64() {
            Some(whole) => whole.into_pyobject(py)?.into_any(),
            None => number.as_f64().into_pyobject(py)?.into_any(),
        },
        Json::String(text) => text.into_pyobject(py)?.into_any(),
        Json::Array(values) => {
            let list = PyList::empty(py);
            for value in values {
                list.append(json(py, value)?)?;
            }
            list.into_any()
        }
        Json::Object(fields) => {
            let dict = PyDict::new(py);
            for (name, value) in fields {
                dict.set_item(name, json(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
