//! What happens to machines, and what became of their flows.

use crate::call::{Call, Gives};
use bindings_core as core;
use bindings_core::VmEventKind as Kind;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The events of one machine.
#[pyclass(frozen)]
pub struct Events(Arc<core::Events>);

impl Gives for core::Events {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let events = Events(Arc::new(self));
        Ok(Bound::new(py, events)?.into_any().unbind())
    }
}

#[pymethods]
impl Events {
    fn next(&self) -> Call {
        let events = self.0.clone();
        Call::new(async move { events.next().await })
    }

    fn close(&self) -> Call {
        let events = self.0.clone();
        Call::new(async move {
            events.close().await;
            Ok(())
        })
    }
}

impl Gives for Option<core::VmEvent> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Some(event) = self else {
            return Ok(py.None());
        };
        let at = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let dict = PyDict::new(py);
        dict.set_item("at", at.as_secs_f64())?;
        let kind = match event.kind {
            Kind::Started => "started",
            Kind::Paused => "paused",
            Kind::Resumed => "resumed",
            Kind::Reset => "reset",
            Kind::Listening { port } => {
                dict.set_item("port", port)?;
                "listening"
            }
            Kind::WorkloadExited { code, signal } => {
                dict.set_item("code", code)?;
                dict.set_item("signal", signal)?;
                "workload-exited"
            }
            Kind::OomKilled { pid, program } => {
                dict.set_item("pid", pid)?;
                dict.set_item("program", program)?;
                "oom-killed"
            }
            Kind::Ended { reason, orderly } => {
                dict.set_item("reason", reason)?;
                dict.set_item("orderly", orderly)?;
                "ended"
            }
            Kind::Missed { count } => {
                dict.set_item("count", count)?;
                "missed"
            }
            // What a later version may have.
            _ => "other",
        };
        dict.set_item("event", kind)?;
        Ok(dict.into_any().unbind())
    }
}

impl Gives for Vec<core::Flow> {
    fn give(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let list = PyList::empty(py);
        for flow in &self {
            list.append(told(py, flow)?)?;
        }
        Ok(list.into_any().unbind())
    }
}

fn told<'py>(py: Python<'py>, flow: &core::Flow) -> PyResult<Bound<'py, PyDict>> {
    let secrets = flow.secrets.as_ref().map(|used| {
        let dict = PyDict::new(py);
        dict.set_item("used", &used.used)?;
        dict.set_item("misplaced", &used.misplaced)?;
        dict.set_item("refused", &used.refused)?;
        Ok::<_, PyErr>(dict)
    });
    let dict = PyDict::new(py);
    dict.set_item("number", flow.number)?;
    #[allow(clippy::cast_precision_loss)] // exact for 285,000 years
    dict.set_item("ended", flow.ended_unix_ms as f64 / 1e3)?;
    dict.set_item("lasted", flow.lasted)?;
    dict.set_item("name", &flow.name)?;
    dict.set_item("address", &flow.address)?;
    dict.set_item("port", flow.port)?;
    dict.set_item("protocol", flow.protocol)?;
    dict.set_item("allowed", flow.allowed)?;
    dict.set_item("cause", flow.cause)?;
    dict.set_item("rule", flow.rule)?;
    dict.set_item("sent_bytes", flow.sent_bytes)?;
    dict.set_item("received_bytes", flow.received_bytes)?;
    dict.set_item("end", flow.end)?;
    dict.set_item("secrets", secrets.transpose()?)?;
    Ok(dict)
}
