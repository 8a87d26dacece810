//! Saved machines with devices that this version does not know.

use hvf::sys::{Return, VcpuConfig, VcpuExit, VcpuId};
use snapshot::RamMapping;

use super::damaged::{self, RAM_BYTES};
use super::{MachineError, PrepareOptions, PreparedMachine, SavedMachine};
use crate::backend::table::TableEngine;
use devices::virtio::RestoreError;

extern "C" fn no_vcpus(_: *mut VcpuId, _: *mut *const VcpuExit, _: VcpuConfig) -> Return {
    Return::NO_RESOURCES
}

/// What comes of a restore on an engine that never makes a vCPU.
fn refused(saved: &SavedMachine) -> MachineError {
    let engine = TableEngine::new(hvf::sys::Api {
        vcpu_create: no_vcpus,
        ..softhv::api()
    });
    let prepared = PreparedMachine::new(&engine, PrepareOptions::default()).unwrap();
    let map = || Ok(RamMapping::anonymous(RAM_BYTES).unwrap());
    let outcome = prepared.restore_over(RAM_BYTES, map, saved, &damaged::options());
    outcome.map(|_| ()).unwrap_err()
}

#[test]
fn states_of_unknown_devices_are_refused_before_there_is_a_vcpu() {
    let _one = super::lock(&super::ONE_MACHINE);
    let good = damaged::good().unwrap();
    // Known ones get as far as to the vCPUs.
    assert!(matches!(refused(&good), MachineError::Engine(_)));
    for slot in 0..good.virtio.len() {
        let mut other = good.clone();
        other.virtio[slot].device.version += 1;
        match refused(&other) {
            MachineError::Device {
                slot: at,
                source: RestoreError::WrongVersion { .. },
            } => assert_eq!(at as usize, slot),
            error => panic!("{error:?}"),
        }
        other.virtio[slot].device.kind = "elsewhere.thing".into();
        let error = refused(&other);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("elsewhere.thing"), "{source}");
    }
}
