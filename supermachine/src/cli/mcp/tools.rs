//! The tools: what clients say, and what they are told about it.

use rmcp::handler::server::common::schema_for_type;
use rmcp::model::{Tool, ToolAnnotations};
use rmcp::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

/// Arguments of `run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// What to run: an image of a registry, such as `python:3.12-slim`, or the name of a
    /// snapshot, such as one that the tool `snapshot` returned
    pub image: String,
    /// A command to run in the machine at once: the program and its arguments. There is no
    /// shell unless you name one: ["sh", "-c", "…"]
    pub command: Option<Vec<String>>,
    /// Memory of the machine in MiB
    pub memory_mib: Option<usize>,
    /// Virtual CPUs of the machine
    pub vcpus: Option<u32>,
    /// How long the command may take, in seconds
    pub timeout_seconds: Option<f64>,
}

/// Arguments of `exec`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Id of the machine, as `run` or `fork` returned it
    pub machine: String,
    /// The program and its arguments. There is no shell unless you name one:
    /// ["sh", "-c", "…"]
    pub command: Vec<String>,
    /// What the command reads from standard input
    pub stdin: Option<String>,
    /// Working directory in the machine
    pub cwd: Option<String>,
    /// User in the machine: a name or number, and a group after a colon
    pub user: Option<String>,
    /// Variables beside those of the image
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// How long the command may take, in seconds
    pub timeout_seconds: Option<f64>,
}

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As text
    #[default]
    Utf8,
    /// In base 64
    Base64,
}

/// Arguments of `read_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    /// Id of the machine
    pub machine: String,
    /// Absolute path in the machine
    pub path: String,
}

/// Arguments of `write_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// Id of the machine
    pub machine: String,
    /// Absolute path in the machine; directories that are missing are made
    pub path: String,
    /// What the file is to contain
    pub content: String,
    /// How the content is written here
    #[serde(default)]
    pub encoding: Encoding,
    /// The file can be executed
    #[serde(default)]
    pub executable: bool,
}

/// Arguments of `snapshot`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Id of the machine
    pub machine: String,
    /// Name of the snapshot: letters, digits, `-` and `_`. One of this name that is there
    /// is replaced
    pub name: String,
}

/// Arguments of `fork`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// Id of the machine
    pub machine: String,
    /// How many copies; one if it is not given
    pub count: Option<usize>,
}

/// Arguments of `stop`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Id of the machine
    pub machine: String,
}

/// Arguments of `list`: none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {}

/// What became of a command.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// Exit status; 128 and the signal's number if a signal ended it
    pub status: u8,
    /// Standard output; bytes that are no text are replaced
    pub stdout: String,
    /// Standard error
    pub stderr: String,
    /// The time limit ended it
    pub timed_out: bool,
    /// It wrote more than is here
    pub truncated: bool,
    /// How long it took, in seconds
    pub seconds: f64,
}

/// Reply of `run`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Started {
    /// Id of the machine, which runs until `stop`
    pub machine: String,
    /// What became of the command, if there was one
    pub outcome: Option<Outcome>,
}

/// Reply of `read_file`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Content {
    /// What the file contains
    pub content: String,
    /// How it is written here
    pub encoding: Encoding,
}

/// Reply of `write_file`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Written {
    /// Bytes of the file
    pub bytes: usize,
}

/// Reply of `snapshot`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Captured {
    /// Name of the snapshot, for `run`
    pub image: String,
}

/// Reply of `fork`, `stop` and `list`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ids {
    /// Ids of machines
    pub machines: Vec<String>,
}

/// All tools, as clients are told of them.
pub fn all() -> Vec<Tool> {
    vec![
        tool::<Run, Started>(
            "run",
            "Start a machine of its own Linux kernel from an image, and run a command in it \
             if one is given. The machine runs until it is stopped. Its files and processes \
             stay between commands.",
            ToolAnnotations::new().destructive(false),
        ),
        tool::<Exec, Outcome>(
            "exec",
            "Run a command in a machine, and wait for its end.",
            ToolAnnotations::new().destructive(false),
        ),
        tool::<ReadFile, Content>(
            "read_file",
            "Read a file of a machine.",
            ToolAnnotations::new().read_only(true),
        ),
        tool::<WriteFile, Written>(
            "write_file",
            "Write a file of a machine, whole: what was there is replaced.",
            ToolAnnotations::new().destructive(true).idempotent(true),
        ),
        tool::<Snapshot, Captured>(
            "snapshot",
            "Keep a machine as it is now, with its memory and processes, as something that \
             `run` can start copies of, now or another day. The machine goes on.",
            ToolAnnotations::new().destructive(false),
        ),
        tool::<Fork, Ids>(
            "fork",
            "Start copies of a running machine, with its memory, processes and files as they \
             are now. The machine goes on.",
            ToolAnnotations::new().destructive(false),
        ),
        tool::<Stop, Ids>(
            "stop",
            "End a machine, with all that is in it. Returns the machines that are left.",
            ToolAnnotations::new().destructive(true),
        ),
        tool::<List, Ids>(
            "list",
            "List the machines that run.",
            ToolAnnotations::new().read_only(true),
        ),
    ]
}

fn tool<Takes: JsonSchema + 'static, Gives: JsonSchema + 'static>(
    name: &'static str,
    description: &'static str,
    annotations: ToolAnnotations,
) -> Tool {
    Tool::new(name, description, schema_for_type::<Takes>())
        .with_raw_output_schema(schema_for_type::<Gives>())
        // What machines reach is not the client's to say.
        .with_annotations(annotations.open_world(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_says_what_it_takes_and_gives() {
        let tools = all();
        assert_eq!(tools.len(), 8);
        for tool in tools {
            assert_eq!(tool.input_schema["type"], "object", "{}", tool.name);
            assert_eq!(
                tool.input_schema["additionalProperties"], false,
                "{}",
                tool.name
            );
            let gives = tool.output_schema.expect("a schema of the reply");
            assert!(gives.contains_key("properties"), "{}", tool.name);
        }
    }

    #[test]
    fn a_misspelt_argument_is_refused() {
        let said = serde_json::json!({"machine": "m1", "comand": ["true"]});
        let error = serde_json::from_value::<Exec>(said).unwrap_err();
        assert!(error.to_string().contains("comand"), "{error}");
    }
}
