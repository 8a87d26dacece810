//! What the server answers: each call to the tool it names.

use super::machines::{Machines, Refusal};
use super::tools;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

const INSTRUCTIONS: &str = "\
Machines are virtual machines with a Linux kernel of their own, started from container \
images in milliseconds. Start one with `run`, work in it with `exec`, `read_file` and \
`write_file`, keep what you have reached with `snapshot` or try several ways from one \
point with `fork`, and `stop` what you no longer need.";

/// One client's server.
pub struct Server {
    machines: Arc<Machines>,
    tools: Vec<Tool>,
}

impl Server {
    pub fn new(machines: Arc<Machines>) -> Self {
        Self {
            machines,
            tools: tools::all(),
        }
    }

    async fn answer(
        &self,
        name: &str,
        said: JsonObject,
        cancelled: impl Future<Output = ()>,
    ) -> Result<CallToolResult, Refusal> {
        let machines = &self.machines;
        match name {
            "run" => reply(machines.run(arguments(said)?, cancelled).await?),
            "exec" => reply(machines.exec(arguments(said)?, cancelled).await?),
            "read_file" => reply(machines.read_file(arguments(said)?).await?),
            "write_file" => reply(machines.write_file(arguments(said)?).await?),
            "snapshot" => reply(machines.snapshot(arguments(said)?).await?),
            "fork" => reply(machines.fork(arguments(said)?).await?),
            "stop" => reply(machines.stop(arguments(said)?).await?),
            "list" => {
                let tools::List {} = arguments(said)?;
                reply(machines.list())
            }
            _ => Err(Refusal::new(format!("there is no tool `{name}`"))),
        }
    }
}

fn arguments<T: DeserializeOwned>(said: JsonObject) -> Result<T, Refusal> {
    serde_json::from_value(said.into())
        .map_err(|error| Refusal::new(format!("the arguments do not fit the tool: {error}")))
}

fn reply(gives: impl Serialize) -> Result<CallToolResult, Refusal> {
    match serde_json::to_value(gives) {
        Ok(value) => Ok(CallToolResult::structured(value)),
        Err(error) => Err(Refusal::new(format!("cannot write the reply: {error}"))),
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(
                "supermachine",
                env!("CARGO_PKG_VERSION"),
            ))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let said = request.arguments.unwrap_or_default();
        let answered = self
            .answer(&request.name, said, context.ct.cancelled())
            .await;
        // A protocol error would hide its text from the model, which can do something
        // about it.
        let result = answered.unwrap_or_else(|refusal| {
            CallToolResult::error(vec![ContentBlock::text(refusal.to_string())])
        });
        Ok(result.into())
    }
}
