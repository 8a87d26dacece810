//! The image config: what to run and how.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{ImageError, show};
use crate::platform::Platform;

/// Most elements of any list in a config: arguments, variables, labels, ports,
/// volumes. An image that needs more than some hundred is not known.
const MAX_ELEMENTS: usize = 4096;
/// Longest string a Linux program can be given: `MAX_ARG_STRLEN` without the
/// NUL.
const MAX_STRING_BYTES: usize = 128 * 1024 - 1;
/// Most bytes of arguments and variables together: half of what Linux takes by
/// default, so that the user's own still fit.
const MAX_STRINGS_BYTES: usize = 1024 * 1024;

/// The part of an image's config that concerns running it (OCI image spec,
/// config.md).
///
/// Whether baked or read back from JSON, every list has at most 4,096
/// elements, arguments and variables take at most 1 MiB together and 128 KiB
/// each, and every element of `env` has a name and a value.
// "remote" leaves the two traits to be written by hand, below: what is read
// back must be checked as what was baked was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct ImageConfig {
    /// That of the [`Platform`] asked for.
    pub architecture: String,
    /// That of the [`Platform`] asked for.
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
    /// override replaces only Cmd. An entrypoint of one empty string is none,
    /// as in Docker, where it is the way to drop the image's.
    ///
    /// # Errors
    /// [`ImageError::NoCommand`] when nothing is left to run.
    pub fn command(
        &self,
        entrypoint: Option<&[String]>,
        cmd: Option<&[String]>,
    ) -> Result<Vec<String>, ImageError> {
        let image_cmd: &[String] = if entrypoint.is_some() { &[] } else { &self.cmd };
        let entrypoint = entrypoint.unwrap_or(&self.entrypoint);
        let none = matches!(entrypoint, [only] if only.is_empty());
        let mut argv = if none {
            Vec::new()
        } else {
            entrypoint.to_vec()
        };
        argv.extend_from_slice(cmd.unwrap_or(image_cmd));
        if argv.is_empty() {
            return Err(ImageError::NoCommand);
        }
        Ok(argv)
    }

    /// The config, if it keeps to what [`ImageConfig`] promises.
    ///
    /// # Errors
    /// [`ImageError`], naming what it does not keep to.
    pub fn checked(self) -> Result<Self, ImageError> {
        validate(&self)?;
        Ok(self)
    }

    /// The platform the image is for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}

impl Serialize for ImageConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for ImageConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        validate(&config).map_err(serde::de::Error::custom)?;
        Ok(config)
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
        env: with_values(run.env.unwrap_or_default()),
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

/// Leaves out what has no `=`: Docker takes that for a variable to unset, and
/// in an image there is nothing to unset yet.
fn with_values(env: Vec<String>) -> Vec<String> {
    env.into_iter()
        .filter(|entry| entry.contains('='))
        .collect()
}

fn validate(config: &ImageConfig) -> Result<(), ImageError> {
    let fields: [(&'static str, &[String]); 5] = [
        ("Entrypoint", &config.entrypoint),
        ("Cmd", &config.cmd),
        ("Env", &config.env),
        ("User", std::slice::from_ref(&config.user)),
        ("WorkingDir", std::slice::from_ref(&config.working_dir)),
    ];
    let counts = [
        ("arguments in Entrypoint", config.entrypoint.len()),
        ("arguments in Cmd", config.cmd.len()),
        ("variables in Env", config.env.len()),
        ("ExposedPorts", config.exposed_ports.len()),
        ("Volumes", config.volumes.len()),
        ("Labels", config.labels.len()),
    ];
    if let Some((what, _)) = counts.iter().find(|(_, count)| *count > MAX_ELEMENTS) {
        return Err(ImageError::TooMany {
            what,
            limit: MAX_ELEMENTS,
        });
    }
    let mut bytes = 0usize;
    for (field, values) in fields {
        for value in values {
            bytes = bytes.saturating_add(value.len());
            if let Some(reason) = wrong_with(field, value) {
                return Err(ImageError::InvalidConfigEntry {
                    field,
                    entry: show(value.as_bytes()),
                    reason,
                });
            }
        }
    }
    if bytes > MAX_STRINGS_BYTES {
        return Err(ImageError::ConfigTooLarge {
            bytes,
            limit: MAX_STRINGS_BYTES,
        });
    }
    Ok(())
}

/// Why `value` cannot be an element of `field`.
fn wrong_with(field: &str, value: &str) -> Option<&'static str> {
    if value.len() > MAX_STRING_BYTES {
        return Some("is longer than the 131,071 bytes Linux gives a program");
    }
    // A NUL ends a C string early, so the guest would run or see something
    // other than what was checked.
    if value.contains('\0') {
        return Some("contains a NUL byte");
    }
    match (field, value.find('=')) {
        ("Env", None) => Some("has no value (NAME=value)"),
        ("Env", Some(0)) => Some("has no name before the ="),
        _ => None,
    }
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
        assert_eq!(command(Some(&[""]), Some(&["ls"])), ["ls"]);
        // Only Docker's way of saying "none" is special.
        assert_eq!(command(Some(&["", "x"]), None), ["", "x"]);
    }

    #[test]
    fn an_empty_entrypoint_of_the_image_is_none() {
        let config = ImageConfig {
            entrypoint: strings(&[""]),
            cmd: strings(&["serve"]),
            ..ImageConfig::default()
        };
        assert_eq!(config.command(None, None).unwrap(), ["serve"]);
        // Without anything after it, there is nothing to run.
        let error = config.command(Some(&strings(&[""])), None).unwrap_err();
        assert!(matches!(error, ImageError::NoCommand));
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let error = ImageConfig::default().command(None, None).unwrap_err();
        assert!(matches!(error, ImageError::NoCommand));
    }

    #[test]
    fn what_no_process_can_be_given_is_named() {
        for (bad, named) in [
            (r#"{"config":{"Cmd":["a\u0000b"]}}"#, r"`a\x00b`"),
            (r#"{"config":{"WorkingDir":"/a\u0000"}}"#, r"`/a\x00`"),
            (
                r#"{"config":{"Env":["A=1","=x\u001b[2J"]}}"#,
                r"`=x\x1b[2J`",
            ),
        ] {
            let error = parse(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, ImageError::InvalidConfigEntry { .. }));
            assert!(error.to_string().contains(named), "{error}");
        }
        let error = parse(br#"{"rootfs":{"type":"other"}}"#).unwrap_err();
        assert!(matches!(error, ImageError::InvalidConfig { .. }));
    }

    #[test]
    fn variables_without_a_value_are_left_out() {
        let (config, _) = parse(br#"{"config":{"Env":["A=1","B","","C=","D=x=y"]}}"#).unwrap();
        assert_eq!(config.env, ["A=1", "C=", "D=x=y"]);
    }

    /// A config document with `count` variables of `bytes` bytes each.
    fn with_variables(count: usize, bytes: usize) -> String {
        let env: Vec<String> = (0..count)
            .map(|n| format!("V{n}={}", "x".repeat(bytes)))
            .collect();
        serde_json::json!({ "config": { "Env": env } }).to_string()
    }

    #[test]
    fn more_variables_than_any_image_has_are_refused() {
        parse(with_variables(MAX_ELEMENTS, 1).as_bytes()).unwrap();
        let error = parse(with_variables(MAX_ELEMENTS + 1, 1).as_bytes()).unwrap_err();
        assert!(matches!(
            error,
            ImageError::TooMany { limit: MAX_ELEMENTS, what } if what.contains("Env")
        ));
        let ports: BTreeMap<String, serde_json::Value> = (0..=MAX_ELEMENTS)
            .map(|n| (n.to_string(), serde_json::json!({})))
            .collect();
        for field in ["ExposedPorts", "Volumes"] {
            let document = serde_json::json!({ "config": { field: ports } }).to_string();
            let error = parse(document.as_bytes()).unwrap_err();
            assert!(matches!(error, ImageError::TooMany { what, .. } if what == field));
        }
    }

    #[test]
    fn bytes_of_arguments_and_variables_are_bounded() {
        parse(with_variables(9, 100_000).as_bytes()).unwrap();
        let error = parse(with_variables(11, 100_000).as_bytes()).unwrap_err();
        assert!(matches!(error, ImageError::ConfigTooLarge { .. }));
        let error = parse(with_variables(1, MAX_STRING_BYTES).as_bytes()).unwrap_err();
        assert!(matches!(error, ImageError::InvalidConfigEntry { .. }));
    }

    #[test]
    fn what_is_read_back_is_checked_again() {
        let (config, _) = parse(with_variables(3, 1).as_bytes()).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&json).unwrap(), config);
        let nameless = json.replace("V1=", "=");
        assert!(serde_json::from_str::<ImageConfig>(&nameless).is_err());
        let mut many = config;
        many.env = vec!["A=1".to_owned(); MAX_ELEMENTS + 1];
        let json = serde_json::to_string(&many).unwrap();
        assert!(serde_json::from_str::<ImageConfig>(&json).is_err());
    }
}
