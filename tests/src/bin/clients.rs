//! Programs over a guest's network that are too large for the tests: `clients LAYOUT`.
//! `cargo xtask clients` makes the image and runs this.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use supermachine::{Image, NetworkPolicy};
use supermachine_tests::config;
use supermachine_tests::loopback::Loopback;

const PROGRAM: &str = include_str!("../../programs/more-clients.sh");

/// The program's parts, and what each says once all in it have done what they were to do.
const PARTS: [(&str, &str); 6] = [
    ("servers", ""),
    ("packages", "pip\nnpm\n"),
    ("databases", "psql\npgbench\n"),
    (
        "streams",
        "socat\nnode fetch\nnode fetch, fifty at once\nwebsocket\n",
    ),
    ("routes", "traceroute\ntraceroute over IPv6\n"),
    (
        "throughput",
        "iperf3 -n 200M\niperf3 -n 200M -R\niperf3 -n 100M -P 8\niperf3 -n 100M -P 8 -R\n\
         iperf3 -n 10M -M 500\niperf3 -n 10M -M 500 -R\niperf3 -u -b 50M -t 3\n\
         iperf3 -u -b 50M -t 3 -R\niperf3 -u -b 20M -t 3 -l 6000\n",
    ),
];

/// For one part, on a host however busy.
const LIMIT: Duration = Duration::from_secs(1800);

/// Ports of the guest's servers, in the order in which the program is told of them: the
/// web, PostgreSQL, websockets, and one that sends back what it gets.
const SERVERS: [u16; 4] = [80, 5432, 9001, 9000];

/// A server of iperf3 on the host. Dropping it ends it.
struct Iperf {
    child: Child,
    port: u16,
}

impl Iperf {
    fn start() -> std::io::Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let child = Command::new("iperf3")
            .args(["--server", "--bind", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, port })
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [layout] = words.as_slice() else {
        eprintln!("usage: clients LAYOUT");
        return ExitCode::from(2);
    };
    let image = match Image::load(&format!("oci:{layout}")) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("{layout}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let iperf = match Iperf::start() {
        Ok(iperf) => iperf,
        Err(error) => {
            eprintln!("cannot run iperf3: {error}");
            return ExitCode::FAILURE;
        }
    };
    let policy = NetworkPolicy::deny_all()
        .host_port(iperf.port)
        .host_udp_port(iperf.port);
    let guest = Loopback::start(&image, config().with_memory_mib(1024), policy, &SERVERS);
    let mut failed = false;
    for (part, expected) in PARTS {
        let said = guest.run(PROGRAM, part, &iperf.port.to_string(), LIMIT);
        print!("{said}");
        let worked: Vec<&str> = said.lines().filter(|line| !line.starts_with('#')).collect();
        for missing in expected.lines().filter(|line| !worked.contains(line)) {
            println!("{missing}: does not work");
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}
