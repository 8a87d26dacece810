//! `supermachine bake` and `supermachine pull`.

use super::directories;
use super::engine::EngineName;
use super::image::{ImageArguments, Load};
use super::output;
use super::signals::Forwarder;
use super::status::{Manner, Status};
use super::values;
use crate::limits::cli::WARMUP_TIMEOUT;
use crate::{Error, Image, Network, OciImageBuilder, PullPolicy, Trigger, VmConfig, VolumeSpec};
use oci_bake::{ExtraFile, Progress};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the snapshot; by default made of the reference
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Engine that runs the guest
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    engine: EngineName,
    /// Guest memory in MiB, or with a unit (512m, 1g)
    #[arg(short, long, value_name = "MIB", default_value = "256", value_parser = values::memory_mib)]
    memory: usize,
    /// Virtual CPUs, 1 to 16; copies may have more
    #[arg(long, visible_alias = "cpus", value_name = "N", default_value = "1",
          value_parser = values::vcpus)]
    vcpus: u32,
    /// Set an environment variable of the workload; may be repeated
    #[arg(short = 'e', long, value_name = "K=V", value_parser = values::text_pair)]
    env: Vec<(String, String)>,
    /// Put a file of the host into the image; MODE as in chmod, and by default that of
    /// the file; may be repeated
    #[arg(long, value_name = "HOST:GUEST[:MODE]", value_parser = values::extra_file)]
    extra_file: Vec<ExtraFile>,
    /// Bake a volume with the image: a disk that is mounted there before anything runs.
    /// Each copy begins with what is on it then; may be repeated
    #[arg(short, long, value_name = "NAME:GUEST[:SIZE]", value_parser = directories::baked)]
    volume: Vec<VolumeSpec>,
    /// TCP port the workload listens on
    #[arg(long, value_name = "PORT")]
    guest_port: Option<u16>,
    /// Capture when the workload listens on the guest port
    #[arg(long, requires = "guest_port", conflicts_with_all = ["after_ms", "at_heartbeat"])]
    listener_required: bool,
    /// Capture this long after the workload was started
    #[arg(long, value_name = "MS", conflicts_with = "at_heartbeat")]
    after_ms: Option<u64>,
    /// Capture when the agent has answered this often beside the workload
    #[arg(long, value_name = "N")]
    at_heartbeat: Option<u64>,
    /// Let the guest settle this long before it is captured
    #[arg(long, value_name = "MS", default_value_t = 0)]
    quiesce_ms: u64,
    /// Run this with `sh -c` in the guest before it is captured
    #[arg(long, value_name = "SCRIPT")]
    warmup: Option<String>,
    /// Whether the guest and its copies have a network: what a copy may reach is said
    /// when it is started
    #[arg(long, value_enum, value_name = "WHETHER", default_value_t = Interface::On)]
    net: Interface,
    /// Directory of snapshots instead of the user's
    #[arg(long, value_name = "DIR")]
    snapshots_dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Say nothing of the progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    image: ImageArguments,
    /// The image.
    #[arg(
        value_name = "REF",
        help = "Image: a name in a registry, oci:DIR[:TAG], oci-archive:FILE, \
                docker-archive:FILE, tar:FILE, rootfs:DIR or docker:NAME"
    )]
    reference: String,
    /// The workload each copy runs, instead of the image's Cmd
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Interface {
    /// Everything public may be reached while the image is baked
    On,
    /// There is no interface
    Off,
}

/// Bakes, and prints where the snapshot is. `policy` says when the registry is asked, if
/// the arguments do not.
pub fn run(arguments: Arguments, policy: PullPolicy) -> Result<u8, Error> {
    let begun = Instant::now();
    let json = arguments.json;
    let signals = Forwarder::install()?;
    let status = Arc::new(Status::new(Manner::of(arguments.quiet, true)));
    let load = Load {
        by_default: policy,
        verify: false,
        progress: Some(status.clone() as Arc<dyn Progress>),
    };
    let images = &arguments.image;
    let layers = images.load(&arguments.reference, load, &signals)?;
    status.say("looking for the snapshot, or booting the image and capturing it");
    let image = builder(arguments).build_on(&layers);
    drop((layers, status));
    signals.settle();
    let image = image?;
    let path = image.snapshot_path().unwrap_or(std::path::Path::new(""));
    let took = begun.elapsed().as_secs_f64() * 1e3;
    if json {
        let report = serde_json::json!({
            "snapshot": path,
            "digest": image.digest(),
            "memory_mib": image.memory_mib(),
            "vcpus": image.vcpus(),
            "took_ms": took,
        });
        output::print_json(&report, false)?;
    } else {
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(0)
}

fn builder(arguments: Arguments) -> OciImageBuilder {
    let network = match arguments.net {
        Interface::On => Network::AllowAll,
        Interface::Off => Network::Off,
    };
    let config = VmConfig::new()
        .with_network(network)
        .with_engine(arguments.engine.into())
        .with_memory_mib(arguments.memory)
        .with_vcpus(arguments.vcpus);
    let trigger = match (arguments.after_ms, arguments.at_heartbeat) {
        (Some(ms), _) => Trigger::After(Duration::from_millis(ms)),
        (None, Some(count)) => Trigger::Heartbeat(count),
        (None, None) if arguments.listener_required => Trigger::Listener,
        (None, None) => Trigger::Ready,
    };
    let mut builder = Image::builder(arguments.reference)
        .vm_config(config)
        .trigger(trigger)
        .quiesce_ms(arguments.quiesce_ms);
    if let Some(name) = arguments.name {
        builder = builder.name(name);
    }
    builder = builder.extra_files(arguments.extra_file);
    for volume in arguments.volume {
        builder = builder.with_volume(volume);
    }
    if let Some(port) = arguments.guest_port {
        builder = builder.guest_port(port);
    }
    if let Some(dir) = arguments.snapshots_dir {
        builder = builder.snapshots_dir(dir);
    }
    if !arguments.command.is_empty() {
        builder = builder.cmd(arguments.command);
    }
    for (name, value) in arguments.env {
        builder = builder.env(name, value);
    }
    if let Some(script) = arguments.warmup {
        let tag = script.clone();
        builder = builder.with_warmup_tag(tag).with_warmup(move |vm| {
            let out = vm
                .exec_builder()
                .argv(["sh", "-c", &script])
                .timeout(WARMUP_TIMEOUT)
                .output()?;
            if out.success() {
                return Ok(());
            }
            Err(Error::Warmup {
                status: out.status.shell_status(),
                stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
            })
        });
    }
    builder
}
