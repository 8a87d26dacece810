//! Programs as people use them, over a guest's network: clients in the guest reach
//! servers in the same guest by way of the host, over what leads out and what leads in.

use supermachine::NetworkPolicy;
use supermachine_tests::loopback::Loopback;
use supermachine_tests::{COMMAND_TIMEOUT, config, image};

const PROGRAM: &str = include_str!("../programs/clients.sh");

/// The program's parts, and what each says once all in it have done what they were to do.
const PARTS: [(&str, &str); 6] = [
    ("servers", ""),
    (
        "web",
        "curl\ncurl upload\ncurl resume\ncurl http/2\nwget\nwget resume\n",
    ),
    ("repositories", "git\napt-get\n"),
    (
        "talk",
        "redis-cli\nssh\nscp\nrsync over ssh\nrsync\nnc half-close\n",
    ),
    ("names", "dig\ndig +tcp, EDNS\nping\nping in pieces\n"),
    ("nested", "nested network\n"),
];

/// Ports of the guest's servers, in the order in which the program is told of them: two
/// for the web, redis, ssh, rsync, and one that counts.
const SERVERS: [u16; 6] = [80, 81, 6379, 22, 873, 9000];

#[test]
fn programs_of_debian_work_over_the_network() {
    let config = config().with_memory_mib(512);
    let policy = NetworkPolicy::deny_all();
    let guest = Loopback::start(&image("clients"), config, policy, &SERVERS);
    for (part, said) in PARTS {
        assert_eq!(
            guest.run(PROGRAM, part, "", COMMAND_TIMEOUT),
            said,
            "{part}"
        );
    }
}
