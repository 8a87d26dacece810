//! Options of `run` about what the guest reaches, and who reaches it.

use super::net_log::NetLog;
use super::policy;
use super::publish::{self, Publish};
use super::secrets;
use super::values;
use crate::{Error, NetworkPolicy, Vm, VmConfig};
use std::num::NonZeroU16;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct NetworkOptions {
    /// What the guest may reach.
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = net,
        help = "The guest's network: on for everything public, off, or a file of rules \
                (docs/network.md); if not set, on, but for a snapshot without one. Private, \
                loopback and link-local addresses are refused unless a rule lists them"
    )]
    net: Option<Net>,
    /// Ports of the host's.
    #[arg(
        long,
        value_name = "PORT",
        value_parser = host_port,
        help = "Port of the host's loopback interface that the guest may reach, as \
                host.supermachine.internal: PORT[/udp]; may be repeated"
    )]
    host_port: Vec<HostPort>,
    /// Most bytes a second for the guest's network.
    #[arg(
        long,
        value_name = "RATE",
        value_parser = rate,
        help = "Most bytes a second that the guest gets, and others from it: one rate for \
                each direction (10m), or two (10m:1m, the first is what it gets)"
    )]
    net_rate: Option<Rate>,
    /// Append what becomes of the guest's connections to a file, as lines of JSON; at 32
    /// MiB it goes on in a new one, and the one before is FILE.1
    #[arg(long, value_name = "FILE")]
    net_log: Option<PathBuf>,
    /// Ports.
    #[arg(
        short,
        long,
        value_name = "PORTS",
        value_parser = publish::publish,
        help = "Have a port of this host lead to one of the guest, with or without --net: \
                [IP:]HOST:GUEST[/udp]. Only this host reaches it if no IP is given; may be \
                repeated"
    )]
    publish: Vec<Publish>,
    /// Secrets.
    #[arg(
        long,
        value_name = "K=V,…",
        value_parser = secrets::secret,
        help = "Keep a secret from the guest, and put it into headers of its requests by HTTPS: \
                id=NAME,host=HOST[:PORT], and env=VARIABLE or src=FILE of the value, if it is \
                not in the variable of that name; header=NAME to put it into no other, ca=FILE \
                to know the host by. The guest finds a placeholder in the variable; may be \
                repeated"
    )]
    secret: Vec<secrets::Given>,
}

/// What `--net` says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Net {
    Off,
    On,
    /// What this file says.
    Rules(PathBuf),
}

fn net(text: &str) -> Result<Net, String> {
    match text {
        "" => Err("expected on, off, or the path of a file".into()),
        "off" => Ok(Net::Off),
        "on" => Ok(Net::On),
        // Words of docker's; a file of that name is `./none`.
        "none" => Err("expected on, off, or the path of a file: docker's none is off".into()),
        "bridge" => Err("expected on, off, or the path of a file: docker's bridge is on".into()),
        "host" => Err(
            "expected on, off, or the path of a file: for docker's host say on, and --host-port \
             for each port of this host that the guest is to reach"
                .into(),
        ),
        file => Ok(Net::Rules(file.into())),
    }
}

/// What `--host-port` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostPort {
    port: NonZeroU16,
    is_udp: bool,
}

fn host_port(text: &str) -> Result<HostPort, String> {
    let (port, is_udp) = publish::protocol(text)?;
    let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
    match port.parse().ok().filter(|_| is_number) {
        Some(port) => Ok(HostPort { port, is_udp }),
        None => Err(format!(
            "`{port}` is no port: give one number, and --host-port for each"
        )),
    }
}

impl HostPort {
    fn open(self, policy: NetworkPolicy) -> NetworkPolicy {
        match self.is_udp {
            true => policy.host_udp_port(self.port.get()),
            false => policy.host_port(self.port.get()),
        }
    }
}

/// What `--net-rate` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    inward: u64,
    outward: u64,
}

fn rate(text: &str) -> Result<Rate, String> {
    let (inward, outward) = text.split_once(':').unwrap_or((text, text));
    let rate = Rate {
        inward: values::bytes(inward)?,
        outward: values::bytes(outward)?,
    };
    match rate {
        Rate { inward: 0, .. } | Rate { outward: 0, .. } => {
            Err("with 0 nothing passes: use --net off".to_owned())
        }
        rate => Ok(rate),
    }
}

impl NetworkOptions {
    /// Says what the guest may reach.
    pub fn apply(&self, config: VmConfig) -> Result<VmConfig, Error> {
        let ports = &self.host_port;
        let with_options = |policy| {
            let policy = ports.iter().fold(policy, |policy, port| port.open(policy));
            match self.net_rate {
                Some(rate) => policy.rate_in(rate.inward).rate_out(rate.outward),
                None => policy,
            }
        };
        let public = || with_options(NetworkPolicy::allow_all());
        let config = secrets::give(config, &self.secret)?;
        // What is asked for wants a network as `--net on` does.
        let is_wanted = !ports.is_empty() || !self.secret.is_empty();
        Ok(match &self.net {
            None if !is_wanted => config.with_network_where_there_is_one(public().into()),
            None | Some(Net::On) => config.with_network(public()),
            Some(Net::Rules(file)) => {
                let (policy, secrets) = policy::read(file)?;
                secrets::give(config, &secrets)?.with_network(with_options(policy))
            }
            Some(Net::Off) if ports.is_empty() && self.net_rate.is_none() => config,
            Some(Net::Off) => {
                return Err(Error::Unsuitable {
                    what: match ports.is_empty() {
                        true => "--net-rate",
                        false => "--host-port",
                    },
                    needs: "a network: leave --net off out",
                });
            }
        })
    }

    /// Opens the ports that are wanted, until the machine ends.
    pub fn publish(&self, vm: &Vm) -> Result<(), Error> {
        publish::open(vm, &self.publish)
    }

    /// Begins to write down what becomes of its connections, if that is wanted.
    pub fn log(&self, vm: &Vm) -> Result<Option<NetLog>, Error> {
        let file = self.net_log.as_deref();
        file.map(|file| NetLog::start(vm.instance().dir(), file))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_dockers_are_no_files() {
        assert_eq!(net("off"), Ok(Net::Off));
        for (word, hint) in [("none", "off"), ("bridge", "on"), ("host", "--host-port")] {
            let refused = net(word).expect_err("it is no file");
            assert!(refused.contains(hint), "{refused}");
            let file = format!("./{word}");
            assert_eq!(net(&file), Ok(Net::Rules(PathBuf::from(&file))));
        }
    }

    #[test]
    fn ports_of_the_host_are_of_tcp_unless_they_say_udp() {
        let open = |text: &str| host_port(text).map(|port| port.open(NetworkPolicy::deny_all()));
        let tcp = NetworkPolicy::deny_all().host_port(8080);
        assert_eq!(open("8080"), Ok(tcp.clone()));
        assert_eq!(open("8080/tcp"), Ok(tcp));
        let udp = NetworkPolicy::deny_all().host_udp_port(53);
        assert_eq!(open("53/udp"), Ok(udp));
        for bad in [
            "",
            "0",
            "/udp",
            "53/icmp",
            "65536",
            "+53",
            "53:53",
            "53/udp/tcp",
        ] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_one_for_both_directions_or_two() {
        let both = Rate {
            inward: 10 << 20,
            outward: 10 << 20,
        };
        assert_eq!(rate("10m"), Ok(both));
        let two = Rate {
            outward: 500,
            ..both
        };
        assert_eq!(rate("10m:500"), Ok(two));
        for bad in ["", "0", "1:0", "0:1", "1:", ":1", "fast", "1:2:3", "-1"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
