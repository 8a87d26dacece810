//! `supermachine mcp`: machines as tools of agents, by the Model Context Protocol over
//! standard input and output.
//!
//! Whoever speaks to the server is not trusted: it may name images of registries and
//! snapshots, and no file of the host; what machines have, and how many there are, is
//! bounded by the arguments that the server was started with.

mod machines;
mod server;
mod tools;

use super::image::ImageArguments;
use super::policy;
use super::secrets;
use super::values;
use crate::limits::COLLECTED_TIMEOUT;
use crate::{Error, NetworkPolicy, VmConfig};
use machines::{Limits, Machines};
use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;
use server::Server;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Threads that calls of the library wait on: as many calls at once, and some that end
/// machines meanwhile.
const BLOCKING_THREADS: usize = machines::MAX_CALLS + 8;

const HELP: &str = "\
The server speaks the Model Context Protocol over standard input and output, and ends all
its machines when its input ends. Tools: run, exec, read_file, write_file, snapshot, fork,
stop, list. A client may run images of registries, and snapshots of this user by name;
images and snapshots in files only if --image names them. Snapshots that clients make are
called mcp-NAME.";

#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// Image or snapshot that clients may run, in any form that `run` takes; may be
    /// repeated, and then they may run nothing else
    #[arg(long = "image", value_name = "REF")]
    images: Vec<String>,
    /// Machines that may run at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    max_machines: u32,
    /// Memory of a machine in MiB, or with a unit (512m, 1g), if the client does not say
    #[arg(short, long, value_name = "MIB", default_value = "512", value_parser = values::memory_mib)]
    memory: usize,
    /// The most memory that a client may ask for
    #[arg(long, value_name = "MIB", default_value = "2048", value_parser = values::memory_mib)]
    max_memory: usize,
    /// The most virtual CPUs that a client may ask for
    #[arg(long, value_name = "N", default_value = "4", value_parser = values::vcpus)]
    max_vcpus: u32,
    /// The longest time that a command may take, and what it has if the client does not say
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// The most of each output of a command, and of a file, that a reply has, in bytes or
    /// with a unit (64k)
    #[arg(long, value_name = "BYTES", default_value = "64k", value_parser = values::bytes)]
    max_output: u64,
    /// Snapshots that clients may make
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_snapshots: u32,
    /// What machines reach.
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "off",
        help = "The machines' network: off, on for everything public, or a file of rules \
                (docs/network.md)"
    )]
    net: String,
    #[command(flatten)]
    image: ImageArguments,
}

/// Serves one client, until it is gone.
pub fn run(arguments: Arguments) -> Result<u8, Error> {
    let mut config = VmConfig::new().with_label("supermachine.mcp", "1");
    config = match arguments.net.as_str() {
        "off" => config,
        "on" => config.with_network(NetworkPolicy::allow_all()),
        file => {
            let (policy, secrets) = policy::read(&PathBuf::from(file))?;
            secrets::give(config, &secrets)?.with_network(policy)
        }
    };
    let limits = Limits {
        machines: arguments.max_machines as usize,
        memory_mib: arguments.memory.min(arguments.max_memory),
        max_memory_mib: arguments.max_memory,
        max_vcpus: arguments.max_vcpus,
        timeout: arguments.timeout.unwrap_or(COLLECTED_TIMEOUT),
        output_bytes: usize::try_from(arguments.max_output).unwrap_or(usize::MAX),
        snapshots: arguments.max_snapshots as usize,
    };
    let machines = Machines::new(config, limits, arguments.image, arguments.images);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(Error::system("start the server's threads"))?;
    let served = runtime.block_on(serve(Arc::new(machines)));
    // A read of standard input that nobody will answer may still wait.
    runtime.shutdown_background();
    served.map(|()| 0)
}

async fn serve(machines: Arc<Machines>) -> Result<(), Error> {
    let transport = rmcp::transport::stdio_pipes();
    let service = match Server::new(machines.clone()).serve(transport).await {
        Ok(service) => service,
        // Nobody was there.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => {
            let cause = io::Error::other(error.to_string());
            return Err(Error::system("begin a session with the client")(cause));
        }
    };
    let ended = service.waiting().await;
    machines.stop_all().await;
    match ended {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::system("serve the client")(io::Error::other(error))),
    }
}
