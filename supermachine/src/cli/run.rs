//! `supermachine run`.

use super::argv::argv;
use super::attended;
use super::command::{Options, supervise};
use super::control;
use super::detached::{self, About, Going, Record, Supervised, Work};
use super::directories::{self, Given};
use super::engine::{EngineName, TierName};
use super::host_limits::HostLimits;
use super::image::{ImageArguments, Load};
use super::machine;
use super::mounts::Mounts;
use super::network::NetworkOptions;
use super::output::{complain, is_terminal, print};
use super::signals::Forwarder;
use super::source::Source;
use super::status::{Manner, Status};
use super::{terminal, values};
use crate::error::with_causes;
use crate::running::unix_ms;
use crate::{Error, Image, PullPolicy, Vm, VmConfig};
use oci_bake::Progress;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Engine that runs the guest
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    engine: EngineName,
    /// How the software engine executes code: compile what runs often, interpret
    /// everything, compile everything, interpret and count instructions (see `stats`), or
    /// compile everything and count what the interpreter is left
    #[arg(long, value_enum, default_value_t = TierName::Auto)]
    tier: TierName,
    /// Guest memory in MiB, or with a unit (512m, 1g); by default 256, or that of
    /// the snapshot
    #[arg(short, long, value_name = "MIB", value_parser = values::memory_mib)]
    memory: Option<usize>,
    /// Virtual CPUs, 1 to 16; by default 1, or those of the snapshot
    #[arg(long, visible_alias = "cpus", value_name = "N", value_parser = values::vcpus)]
    vcpus: Option<u32>,
    /// Program instead of the image's Entrypoint; drops the image's Cmd too
    #[arg(long, value_name = "E")]
    entrypoint: Option<OsString>,
    #[command(flatten)]
    options: Options,
    /// Name of the machine for `ps`, `exec`, `stop` and the like
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Host name in the guest
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Label the machine for `ps`; may be repeated
    #[arg(short = 'l', long, value_name = "K[=V]", value_parser = values::label)]
    label: Vec<(String, String)>,
    /// Print the machine's id and leave it running; `logs` shows its output, `attach`
    /// takes it up
    #[arg(short, long, conflicts_with_all = ["timings", "console"])]
    detach: bool,
    /// Keep nothing of the machine once it has ended; without --detach nothing
    /// is kept anyway
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    network: NetworkOptions,
    /// Directories and volumes in the short form.
    #[arg(
        short,
        long,
        value_name = "HOST:GUEST[:ACCESS]",
        value_parser = directories::volume,
        help = "Give the guest a directory or a file of the host; with `ro` it can change \
                nothing of it, with `cow` only what it sees of it, in its memory; with `dax` \
                it maps large files instead of reading them; with `nowatch` its programs \
                are not told what the host changes. Or, as NAME:GUEST[:SIZE], a \
                volume, which outlives the machine and is made if there is none of that \
                name; may be repeated"
    )]
    volume: Vec<Given>,
    /// Directories in the long form.
    #[arg(
        long,
        value_name = "K=V,…",
        value_parser = directories::mount,
        help = "The same, written out: source=HOST,target=GUEST, and readonly or cow, nowatch, \
                symlinks=opaque|deny|follow, owner=UID[:GID] or recorded, uidmap= and \
                gidmap=GUEST:HOST[:COUNT], dax=large|always, dax-window=SIZE; or \
                type=volume,source=NAME,target=GUEST, and size=SIZE"
    )]
    mount: Vec<Given>,
    /// Directory of the detached machine that this process is to supervise
    #[arg(long, value_name = "DIR", hide = true)]
    supervise: Option<PathBuf>,
    /// Columns and rows of the terminal that the supervisor's standard input leads to
    #[arg(
        long,
        value_name = "COLUMNSxROWS",
        hide = true,
        requires = "supervise",
        value_parser = values::screen
    )]
    attended: Option<(u16, u16)>,
    /// Snapshot to copy instead of what REF means, of a machine that is forked
    #[arg(long, value_name = "DIR", hide = true, requires = "supervise")]
    instead: Option<PathBuf>,
    /// Command there that goes on, instead of CMD
    #[arg(
        long,
        value_name = "ID:STDOUT:STDERR",
        hide = true,
        requires = "instead"
    )]
    goes_on: Option<Going>,
    /// Name of the fork
    #[arg(long, value_name = "NAME", hide = true, requires = "instead")]
    called: Option<String>,
    /// Boot the image and show guest kernel messages on standard error
    #[arg(long)]
    console: bool,
    /// Boot the image instead of copying its snapshot, and leave none
    #[arg(long)]
    no_snapshot: bool,
    /// Print one line of timings on standard error
    #[arg(long)]
    timings: bool,
    /// Print the timings as JSON
    #[arg(long, conflicts_with_all = ["timings", "detach"])]
    json: bool,
    /// Say nothing of the progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    mounts: Mounts,
    #[command(flatten)]
    host_limits: HostLimits,
    /// Taken for docker's sake, and without effect: the guest's first process always
    /// reaps orphans and passes signals on
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    image: ImageArguments,
    /// What the machine is made of.
    #[arg(
        value_name = "REF",
        help = "Image: a name in a registry, oci:DIR[:TAG], oci-archive:FILE, \
                docker-archive:FILE, tar:FILE, rootfs:DIR or docker:NAME; or a snapshot: snapshot:NAME, \
                its name, or the path of its directory"
    )]
    reference: String,
    /// Command instead of the image's Cmd
    #[arg(
        value_name = "CMD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Runs the command and returns its exit status; or leaves it running, and
/// returns when it does.
pub fn run(arguments: &Arguments) -> Result<u8, Error> {
    let signals = match arguments.supervise {
        Some(_) => Forwarder::install_all()?,
        None => Forwarder::install()?,
    };
    let config = config(arguments)?;
    let source = match &arguments.instead {
        Some(directory) => Source::Snapshot(directory.clone()),
        None => Source::of(&arguments.reference)?,
    };
    let run = Run {
        arguments,
        config,
        source,
        signals: &signals,
    };
    match &arguments.supervise {
        Some(dir) => {
            let begun = |vm: Vm, work| {
                let log = arguments.network.log(&vm)?;
                Ok((vm, work, log))
            };
            let begin = || {
                if let Some(going) = arguments.goes_on {
                    return begun(run.start(&run.find(false)?)?, Work::GoOn(going));
                }
                let (image, argv) = run.prepare()?;
                begun(run.start(&image)?, Work::Begin(argv))
            };
            let supervised = Supervised {
                dir,
                options: &arguments.options,
                attended: arguments.attended,
            };
            detached::supervise(&supervised, &signals, begin)
        }
        None if arguments.detach => run.detach(),
        None if run.can_be_left() => run.attend_supervised(),
        None => run.attend(),
    }
}

fn config(arguments: &Arguments) -> Result<VmConfig, Error> {
    let mut config = VmConfig::new()
        .with_engine(arguments.engine.into())
        .with_tier(arguments.tier.into())
        .with_console(arguments.console);
    if let Some(memory_mib) = arguments.memory {
        config = config.with_memory_mib(memory_mib);
    }
    if let Some(vcpus) = arguments.vcpus {
        config = config.with_vcpus(vcpus);
    }
    // A fork has not the name of what it is a copy of.
    let name = match &arguments.instead {
        Some(_) => &arguments.called,
        None => &arguments.name,
    };
    if let Some(name) = name {
        config = config.with_name(name);
    }
    if let Some(hostname) = &arguments.hostname {
        config = config.with_hostname(hostname);
    }
    config = arguments.host_limits.add_to(config);
    config = arguments.network.apply(config)?;
    for (name, value) in &arguments.label {
        config = config.with_label(name, value);
    }
    config = directories::give(config, arguments.volume.iter().chain(&arguments.mount));
    if arguments.instead.is_some() {
        // What they held is in the snapshot that a fork is a copy of.
        config.volumes.clear();
    }
    config.validate()?;
    Ok(config)
}

/// One machine, and the command that is run in it.
struct Run<'a> {
    arguments: &'a Arguments,
    config: VmConfig,
    source: Source,
    signals: &'a Forwarder,
}

impl Run<'_> {
    /// The image, and the command for a machine of it.
    fn prepare(&self) -> Result<(Image, Vec<Vec<u8>>), Error> {
        let image = self.find(false)?;
        let argv = argv(
            image.config(),
            self.arguments.entrypoint.as_deref(),
            &self.arguments.command,
        )?;
        Ok((image, argv))
    }

    fn find(&self, is_suspect: bool) -> Result<Image, Error> {
        match &self.source {
            Source::Image(reference) => find_image(
                reference,
                self.arguments,
                &self.config,
                self.signals,
                is_suspect,
            ),
            Source::Snapshot(path) => open_snapshot(path, self.arguments, &self.config),
        }
    }

    fn start(&self, image: &Image) -> Result<Vm, Error> {
        let vm = self.start_bare(image)?;
        // A fork has what its machine had.
        if self.arguments.instead.is_none() {
            let dir = self.arguments.options.workdir.as_deref();
            self.arguments.mounts.apply(&vm, dir)?;
            self.arguments.network.publish(&vm)?;
        }
        Ok(vm)
    }

    fn start_bare(&self, image: &Image) -> Result<Vm, Error> {
        match image.start(&self.config) {
            // Baked again once: what is damaged then is not on the disk.
            Err(error @ Error::Damaged { .. }) if matches!(self.source, Source::Image(_)) => {
                complain(&format!(
                    "supermachine: {}; baking it again\n",
                    with_causes(&error)
                ));
                self.find(true)?.start(&self.config)
            }
            started => started,
        }
    }

    /// Runs the command with our streams.
    fn attend(&self) -> Result<u8, Error> {
        let asked = Instant::now();
        let (image, argv) = self.prepare()?;
        let vm = Arc::new(self.start(&image)?);
        // Without it nobody can ask for a snapshot.
        let _ = control::serve(&vm, None);
        let begun = Instant::now();
        let builder = vm.exec_builder().argv(argv);
        let log = self.arguments.network.log(&vm)?;
        let result = supervise(builder, Some(&vm), &self.arguments.options, self.signals);
        let exec_time = begun.elapsed();
        self.signals.settle();
        drop(log);
        // The signal thread holds the machine too, so that it is not dropped here.
        vm.end();
        let status = result?.status()?;
        if self.arguments.timings {
            complain(&format!(
                "engine {}, boot {:.1} ms, exec {:.1} ms\n",
                vm.engine(),
                milliseconds(vm.boot_time()),
                milliseconds(exec_time)
            ));
        }
        if self.arguments.json {
            let timings = serde_json::json!({
                "engine": vm.engine(),
                "is_copy": vm.copy_report().is_some(),
                "prepare_ms": milliseconds((begun - asked).saturating_sub(vm.boot_time())),
                "boot_ms": milliseconds(vm.boot_time()),
                "exec_ms": milliseconds(exec_time),
                "total_ms": milliseconds(asked.elapsed()),
                "exit_status": status.shell_status(),
                "peak_rss_kib": status.peak_rss_kib,
            });
            complain(&format!("{timings}\n"));
        }
        Ok(status.shell_status())
    }

    /// Leaves the machine to a supervisor.
    fn detach(&self) -> Result<u8, Error> {
        let (about, own) = self.hand_over()?;
        match detached::start(about, &own)? {
            Ok(id) => {
                print(&format!("{id}\n"))?;
                Ok(0)
            }
            Err(status) => Ok(status),
        }
    }

    /// Whether there is a terminal that somebody may want to leave, and nothing that only
    /// a process can say whose own the machine is.
    fn can_be_left(&self) -> bool {
        let Arguments {
            options,
            console,
            timings,
            json,
            ..
        } = self.arguments;
        let is_interactive = options.tty && options.interactive && is_terminal(std::io::stdin());
        is_interactive && !console && !timings && !json
    }

    /// Runs the command with our terminal, in a machine of a supervisor.
    fn attend_supervised(&self) -> Result<u8, Error> {
        let (about, mut own) = self.hand_over()?;
        let Ok(record) = Record::create(about) else {
            // Where nothing can be kept it cannot be left, and is as good otherwise.
            return self.attend();
        };
        let (columns, rows) = terminal::size().unwrap_or_default();
        let size = format!("{columns}x{rows}").into();
        own.splice(0..0, ["--attended".into(), size]);
        match detached::attend(record, &own)? {
            Ok(machine) => {
                attended::attend(machine, &self.arguments.options.detach_keys, self.signals)
            }
            Err(status) => Ok(status),
        }
    }

    /// What a supervisor is to be told, and its arguments. What there is to bake is baked
    /// before, here, where the user sees it.
    fn hand_over(&self) -> Result<(About, Vec<OsString>), Error> {
        if let Some(name) = &self.arguments.name {
            machine::check_name(name)?;
        }
        let (image, argv) = self.prepare()?;
        // The machine that was baked is not the one that is left running.
        drop(image);
        // The name of this tool and `run` are not among what is passed on.
        let own: Vec<OsString> = std::env::args_os().skip(2).collect();
        let about = About {
            name: self.arguments.name.clone(),
            reference: self.arguments.reference.clone(),
            command: argv
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            labels: self.arguments.label.iter().cloned().collect(),
            created_unix_ms: unix_ms(),
            remove: self.arguments.rm,
            words: own
                .iter()
                .map(|word| Some(word.to_str()?.to_owned()))
                .collect(),
            directory: std::env::current_dir().ok(),
            forked_from: None,
            snapshot: None,
        };
        Ok((about, own))
    }
}

/// What was baked before, as it is.
fn open_snapshot(path: &Path, arguments: &Arguments, config: &VmConfig) -> Result<Image, Error> {
    let is_asked_for = arguments.instead.is_none();
    if is_asked_for && (arguments.console || arguments.no_snapshot) {
        return Err(Error::Unsuitable {
            what: "booting with --console or --no-snapshot",
            needs: "the reference of an image, not a snapshot",
        });
    }
    Image::from_snapshot_with(path, config)
}

/// The image with its snapshot, which is baked if there is none yet. Who wants
/// to see the guest boot gets one that boots, and so does everyone where there
/// is no place for snapshots.
fn find_image(
    reference: &str,
    arguments: &Arguments,
    config: &VmConfig,
    signals: &Forwarder,
    is_suspect: bool,
) -> Result<Image, Error> {
    let status = match Manner::of(arguments.quiet, false) {
        Manner::Silent => None,
        manner => Some(Arc::new(Status::new(manner))),
    };
    let load = Load {
        by_default: PullPolicy::Missing,
        verify: is_suspect,
        progress: status.clone().map(|status| status as Arc<dyn Progress>),
    };
    let image = arguments.image.load(reference, load, signals)?;
    if arguments.console || arguments.no_snapshot {
        return Ok(image);
    }
    let builder = Image::builder(reference).vm_config(config.clone());
    if let Some(status) = &status {
        status.say("booting the image and capturing it, for this run and the next");
    }
    let built = builder.build_on(&image);
    drop(status);
    signals.settle();
    match built {
        Err(error @ Error::Snapshot(_)) => {
            complain(&format!(
                "supermachine: booting without a snapshot: {}\n",
                with_causes(&error)
            ));
            Ok(image)
        }
        other => other,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
