//! Options, as the package passes them: dictionaries with what was said.

use bindings_core as core;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What was said of one option.
struct Said<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> Said<'_, 'py> {
    fn get<T>(&self, name: &str) -> PyResult<Option<T>>
    where
        T: for<'a> FromPyObject<'a, 'py>,
        for<'a> <T as FromPyObject<'a, 'py>>::Error: Into<PyErr>,
    {
        match self.0.get_item(name)?.filter(|value| !value.is_none()) {
            Some(value) => value.extract::<T>().map(Some).map_err(Into::into),
            None => Ok(None),
        }
    }

    fn assign(&self, name: &str) -> PyResult<core::Assign> {
        let map: Option<BTreeMap<String, String>> = self.get(name)?;
        Ok(map.unwrap_or_default().into_iter().collect())
    }

    fn mounts(&self) -> PyResult<Vec<core::MountOptions>> {
        let mounts: Vec<Bound<'py, PyDict>> = self.get("mounts")?.unwrap_or_default();
        mounts.iter().map(mount).collect()
    }

    fn tmpfs(&self) -> PyResult<Vec<core::TmpfsOptions>> {
        let tmpfs: Vec<Bound<'py, PyDict>> = self.get("tmpfs")?.unwrap_or_default();
        tmpfs.iter().map(memory).collect()
    }

    fn volumes(&self) -> PyResult<Vec<core::VolumeOptions>> {
        let volumes: Vec<(String, Option<f64>, String)> = self.get("volumes")?.unwrap_or_default();
        let volumes = volumes.into_iter();
        Ok(volumes
            .map(|(name, size_mib, mount_point)| core::VolumeOptions {
                name,
                size_mib,
                mount_point,
            })
            .collect())
    }

    fn extra_files(&self) -> PyResult<Vec<core::ExtraFileOptions>> {
        let files: Vec<(PathBuf, String, Option<f64>)> =
            self.get("extra_files")?.unwrap_or_default();
        let files = files.into_iter();
        Ok(files
            .map(|(host_path, guest_path, mode)| core::ExtraFileOptions {
                host_path,
                guest_path,
                mode,
            })
            .collect())
    }

    fn network(&self) -> PyResult<Option<core::NetworkOptions>> {
        let said: Option<Bound<'py, PyDict>> = self.get("network")?;
        let Some(said) = &said else {
            return Ok(None);
        };
        let said = Said(said);
        Ok(Some(core::NetworkOptions {
            allow_all: said.get("allow_all")?.unwrap_or_default(),
            allow: said.get("allow")?.unwrap_or_default(),
            deny: said.get("deny")?.unwrap_or_default(),
            host_ports: said.get("host_ports")?.unwrap_or_default(),
            host_udp_ports: said.get("host_udp_ports")?.unwrap_or_default(),
            rules: said.rules()?,
            rate_in: said.get("rate_in")?,
            rate_out: said.get("rate_out")?,
            burst: said.get("burst")?,
            max_flows: said.get("max_flows")?,
        }))
    }

    fn rules(&self) -> PyResult<Vec<core::NetworkRuleOptions>> {
        let rules: Vec<Bound<'py, PyDict>> = self.get("rules")?.unwrap_or_default();
        rules.iter().map(rule).collect()
    }

    fn secrets(&self) -> PyResult<Vec<core::SecretOptions>> {
        let secrets: Vec<Bound<'py, PyDict>> = self.get("secrets")?.unwrap_or_default();
        secrets.iter().map(secret).collect()
    }
}

fn mount(said: &Bound<'_, PyDict>) -> PyResult<core::MountOptions> {
    let said = Said(said);
    Ok(core::MountOptions {
        host_path: said.get::<PathBuf>("host_path")?.unwrap_or_default(),
        guest_tag: said.get("guest_tag")?.unwrap_or_default(),
        symlinks: said.get("symlinks")?,
        read_only: said.get("read_only")?.unwrap_or_default(),
        copy_on_write: said.get("copy_on_write")?.unwrap_or_default(),
        at: said.get("at")?,
        file: said.get("file")?.unwrap_or_default(),
        owner: said.get("owner")?,
        owner_map: said
            .get("owner_map")?
            .map(|(users, groups)| core::OwnerMapOptions { users, groups }),
        recorded_owners: said.get("recorded_owners")?.unwrap_or_default(),
        dax: said.get("dax")?,
        dax_window_mib: said.get("dax_window_mib")?,
    })
}

fn memory(said: &Bound<'_, PyDict>) -> PyResult<core::TmpfsOptions> {
    let said = Said(said);
    Ok(core::TmpfsOptions {
        mount_point: said.get("mount_point")?.unwrap_or_default(),
        size_mib: said.get("size_mib")?,
        mode: said.get("mode")?,
        owner: said.get("owner")?,
        executable: said.get("executable")?.unwrap_or_default(),
    })
}

fn rule(said: &Bound<'_, PyDict>) -> PyResult<core::NetworkRuleOptions> {
    let said = Said(said);
    Ok(core::NetworkRuleOptions {
        allow: said.get("allow")?,
        deny: said.get("deny")?,
        ports: said.get("ports")?,
        protocol: said.get("protocol")?,
    })
}

fn secret(said: &Bound<'_, PyDict>) -> PyResult<core::SecretOptions> {
    let said = Said(said);
    Ok(core::SecretOptions {
        name: said.get("name")?.unwrap_or_default(),
        value: said.get("value")?.unwrap_or_default(),
        hosts: said.get("hosts")?.unwrap_or_default(),
        headers: said.get("headers")?.unwrap_or_default(),
        authorities: said.get("authorities")?,
    })
}

/// A change of a mount that is wanted: path, how it is different, what is there.
pub type Wanted = (PathBuf, String, Option<String>);

pub fn wanted(wanted: Option<Vec<Wanted>>) -> Option<Vec<core::WantedChange>> {
    let one = |(path, kind, file)| core::WantedChange { path, kind, file };
    wanted.map(|wanted| wanted.into_iter().map(one).collect())
}

pub fn build(said: &Bound<'_, PyDict>) -> PyResult<core::BuildOptions> {
    let said = Said(said);
    Ok(core::BuildOptions {
        reference: said.get("ref")?.unwrap_or_default(),
        name: said.get("name")?,
        memory_mib: said.get("memory_mib")?,
        vcpus: said.get("vcpus")?,
        pull_policy: said.get("pull_policy")?,
        cmd: said.get("cmd")?,
        entrypoint: said.get("entrypoint")?,
        env: said.assign("env")?,
        workdir: said.get("workdir")?,
        user: said.get("user")?,
        labels: said.assign("labels")?,
        guest_port: said.get("guest_port")?,
        listener_required: said.get("listener_required")?.unwrap_or_default(),
        network: said.network()?,
        extra_files: said.extra_files()?,
        mounts: said.mounts()?,
        tmpfs: said.tmpfs()?,
        volumes: said.volumes()?,
        volume_slots: said.get("volume_slots")?,
        warmup_tag: said.get("warmup_tag")?,
        snapshots_dir: said.get("snapshots_dir")?,
    })
}

pub fn start(said: &Bound<'_, PyDict>) -> PyResult<core::StartOptions> {
    let said = Said(said);
    Ok(core::StartOptions {
        memory_mib: said.get("memory_mib")?,
        vcpus: said.get("vcpus")?,
        name: said.get("name")?,
        hostname: said.get("hostname")?,
        labels: said.assign("labels")?,
        network: said.network()?,
        secrets: said.secrets()?,
        mounts: said.mounts()?,
        tmpfs: said.tmpfs()?,
        volumes: said.volumes()?,
        volumes_dir: said.get("volumes_dir")?,
    })
}

pub fn pool(said: &Bound<'_, PyDict>) -> PyResult<core::PoolOptions> {
    let machine = start(said)?;
    let said = Said(said);
    Ok(core::PoolOptions {
        min: said.get("min")?,
        max: said.get("max")?,
        acquire_timeout_ms: said.get("acquire_timeout_ms")?,
        idle_timeout_ms: said.get("idle_timeout_ms")?,
        restore_on_release: said.get("restore_on_release")?,
        restore_timeout_ms: said.get("restore_timeout_ms")?,
        machine,
    })
}

pub fn exec(said: &Bound<'_, PyDict>) -> PyResult<core::ExecOptions> {
    let said = Said(said);
    let staged: Vec<(String, Vec<u8>, Option<f64>)> = said.get("staged")?.unwrap_or_default();
    let staged = staged.into_iter();
    Ok(core::ExecOptions {
        argv: said.get("argv")?.unwrap_or_default(),
        staged: staged
            .map(|(path, bytes, mode)| core::StagedFile { path, bytes, mode })
            .collect(),
        timeout_ms: said.get("timeout_ms")?,
        env: said.assign("env")?,
        cwd: said.get("cwd")?,
        user: said.get("user")?,
        chain: said.get("chain")?.unwrap_or_default(),
        tty: said.get("tty")?.unwrap_or_default(),
        winsize: said.get("winsize")?,
        stdin: said.get("stdin")?,
        max_memory_bytes: said.get("max_memory_bytes")?,
        max_processes: said.get("max_processes")?,
        max_cpus: said.get("max_cpus")?,
        max_output_bytes: said.get("max_output_bytes")?,
        truncates: said.get("truncate_output")?.unwrap_or_default(),
        durable: said.get("durable")?.unwrap_or_default(),
    })
}
