//! The image config: what to run and how.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// The part of an image's config that concerns running it (OCI image spec,
/// config.md).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ImageConfig {
    /// Always `arm64` after [`crate::bake`].
    pub architecture: String,
    /// Always `linux` after [`crate::bake`].
    pub os: String,
    /// CPU variant such as `v8`.
    pub variant: Option<String>,
    /// Arguments that always come first.
    pub entrypoint: Vec<String>,
    /// Default arguments after the entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value` each, in order.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// Absolute path; `/` if the image names none.
    pub working_dir: String,
    /// `port`, `port/tcp` or `port/udp`.
    pub exposed_ports: BTreeSet<String>,
    /// Paths meant to be volumes.
    pub volumes: BTreeSet<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end, such as `SIGTERM`.
    pub stop_signal: Option<String>,
}

impl ImageConfig {
    /// The argument vector to run. An entrypoint override also discards the
    /// image's Cmd, because that Cmd was written for another program; a cmd
    /// override replaces only Cmd.
    ///
    /// # Errors
    /// [`ImageError::NoCommand`] when nothing is left to run.
    pub fn command(
        &self,
        entrypoint: Option<&[String]>,
        cmd: Option<&[String]>,
    ) -> Result<Vec<String>, ImageError> {
        let image_cmd: &[String] = if entrypoint.is_some() { &[] } else { &self.cmd };
        let mut argv = entrypoint.unwrap_or(&self.entrypoint).to_vec();
        argv.extend_from_slice(cmd.unwrap_or(image_cmd));
        if argv.is_empty() {
            return Err(ImageError::NoCommand);
        }
        Ok(argv)
    }

    /// `os/architecture[/variant]`.
    pub(crate) fn platform(&self) -> String {
        crate::document::platform_text(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The JSON document. Docker writes `null` where OCI leaves fields out, so
/// every container is optional.
#[derive(Deserialize)]
pub(crate) struct ConfigDocument {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    config: Option<Run>,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Run {
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

/// Parses a config document into what to run and the DiffIDs, bottom first.
pub(crate) fn parse(bytes: &[u8]) -> Result<(ImageConfig, Vec<String>), ImageError> {
    let document: ConfigDocument =
        serde_json::from_slice(bytes).map_err(|source| ImageError::InvalidDocument {
            what: "the image config",
            source,
        })?;
    let run = document.config.unwrap_or_default();
    let architecture = match document.architecture.unwrap_or_default().as_str() {
        // Some builders write the kernel's name for it.
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    };
    let working_dir = match run.working_dir.unwrap_or_default() {
        dir if dir.starts_with('/') => dir,
        dir => format!("/{dir}"),
    };
    let config = ImageConfig {
        architecture,
        os: document.os.unwrap_or_default(),
        variant: document.variant.filter(|variant| !variant.is_empty()),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        working_dir,
        exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: run.volumes.unwrap_or_default().into_keys().collect(),
        labels: run.labels.unwrap_or_default(),
        stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
    };
    validate(&config)?;
    let rootfs = document.rootfs.unwrap_or(RootFs {
        kind: None,
        diff_ids: None,
    });
    if rootfs.kind.as_deref().is_some_and(|kind| kind != "layers") {
        return Err(ImageError::InvalidConfig {
            field: "rootfs.type",
        });
    }
    Ok((config, rootfs.diff_ids.unwrap_or_default()))
}

/// A NUL ends a C string early, so the guest would run or see something
/// other than what was checked.
fn validate(config: &ImageConfig) -> Result<(), ImageError> {
    let fields: [(&'static str, &[String]); 5] = [
        ("Entrypoint", &config.entrypoint),
        ("Cmd", &config.cmd),
        ("Env", &config.env),
        ("User", std::slice::from_ref(&config.user)),
        ("WorkingDir", std::slice::from_ref(&config.working_dir)),
    ];
    for (field, values) in fields {
        if values.iter().any(|value| value.contains('\0')) {
            return Err(ImageError::InvalidConfig { field });
        }
    }
    if config
        .env
        .iter()
        .any(|entry| entry.starts_with('=') || entry.is_empty())
    {
        return Err(ImageError::InvalidConfig { field: "Env" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn docker_nulls_are_empty() {
        let (config, diff_ids) = parse(
            br#"{"architecture":"aarch64","os":"linux","config":{"Entrypoint":null,"Cmd":["sh"],
                "Volumes":null,"ExposedPorts":{"80/tcp":{}},"Labels":null,"WorkingDir":""},
                "rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        assert_eq!(config.architecture, "arm64");
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.working_dir, "/");
        assert!(config.exposed_ports.contains("80/tcp"));
        assert!(diff_ids.is_empty());
    }

    #[test]
    fn entrypoint_override_clears_the_image_cmd() {
        let config = ImageConfig {
            entrypoint: strings(&["/init"]),
            cmd: strings(&["serve"]),
            ..ImageConfig::default()
        };
        let command = |e: Option<&[&str]>, c: Option<&[&str]>| {
            let (e, c) = (e.map(strings), c.map(strings));
            config.command(e.as_deref(), c.as_deref()).unwrap()
        };
        assert_eq!(command(None, None), ["/init", "serve"]);
        assert_eq!(command(None, Some(&["x"])), ["/init", "x"]);
        assert_eq!(command(Some(&["sh"]), None), ["sh"]);
        assert_eq!(command(Some(&["sh"]), Some(&["-c"])), ["sh", "-c"]);
        assert_eq!(command(Some(&[]), Some(&["ls"])), ["ls"]);
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let error = ImageConfig::default().command(None, None).unwrap_err();
        assert!(matches!(error, ImageError::NoCommand));
    }

    #[test]
    fn nul_bytes_and_nameless_variables_are_rejected() {
        for bad in [
            r#"{"config":{"Cmd":["a\u0000b"]}}"#,
            r#"{"config":{"WorkingDir":"/a\u0000"}}"#,
            r#"{"config":{"Env":["=x"]}}"#,
            r#"{"rootfs":{"type":"other"}}"#,
        ] {
            assert!(matches!(
                parse(bad.as_bytes()),
                Err(ImageError::InvalidConfig { .. })
            ));
        }
    }
}
