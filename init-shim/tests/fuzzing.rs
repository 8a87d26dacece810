//! Hostile text through the parsers: account files come from the guest's
//! image. Replays a corpus and a fixed-seed mutator; the command protocol has
//! its own in `exec-proto`.

use exec_proto::ErrorKind;
use init_shim::agent::identity::resolve;
use init_shim::agent::listener::{Seen, look};
use init_shim::agent::names::renamed;
use init_shim::boot::options::Options;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n\
    1000:x:5:6::/odd:\napp:x:1000:100:App:/home/app:/bin/sh\n::::::\nx:x:4294967295:-1::/:\n";
const GROUP: &[u8] = b"root:x:0:\naudio:x:29:app,www\n:x:7:,,,app\nvideo:x:44:www,app";
const LINE: &[u8] =
    b"console=ttyAMA0 sm.layers=3 sm.upper=/dev/vdd sm.upper_mib=64 sm.hostname=h sm.dns=::1,1.1.1.1";
const TABLE: &[u8] = b"  sl  local_address rem_address   st tx_queue rx_queue\n\
    0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
    1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0\n\
    2: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000\n";
const HOSTS: &[u8] = b"127.0.0.1\tlocalhost old\n::1 old # old\n10.0.0.7 db old.example old";
const SPECS: [&[u8]; 7] = [
    b"",
    b"app",
    b"33",
    b"app:audio",
    b"1000:",
    b":",
    b"4294967295:x",
];

/// The kernel takes the highest id for "leave unchanged": handing it on would
/// run the command as root.
fn fuzz_identity(spec: &[u8], passwd: &[u8], group: &[u8]) {
    match resolve(spec, passwd, group) {
        Ok(identity) => {
            let ids = identity.credentials;
            assert!(ids.uid != u32::MAX && ids.gid != u32::MAX);
            assert!(!ids.groups.contains(&u32::MAX) && ids.groups.len() <= 65_536);
            assert!(!identity.home.is_empty());
        }
        Err(failure) => assert_eq!(failure.kind, ErrorKind::UnknownUser),
    }
}

fn fuzz_options(line: &[u8]) {
    if let Ok(options) = Options::parse(&String::from_utf8_lossy(line)) {
        assert!(options.layers <= 500);
        assert!(
            options
                .hostname
                .is_none_or(|h| h.len() <= 64 && !h.contains('/'))
        );
        assert!(options.dns.iter().all(|server| !server.contains('\n')));
    }
}

/// A guest's root can cover the kernel's tables with a text of its own.
fn fuzz_table(table: &[u8], port: u16) {
    let seen = look(table, port);
    // What was seen in a part does not change with what follows.
    if seen != Seen::NotYet {
        assert_eq!(look(&[table, table].concat(), port), seen);
    }
    let without_last_line = table.iter().rposition(|b| *b == b'\n').unwrap_or(0);
    if seen == Seen::NotYet {
        assert_eq!(look(&table[..without_last_line], port), seen);
    }
}

/// The hosts file belongs to the guest: it keeps all but the name.
fn fuzz_hosts(text: &[u8]) {
    let after = renamed(text, b"old", b"new-name");
    assert!(after.len() <= text.len() * 3 + 64);
    assert!(after.windows(8).any(|part| part == b"new-name"));
    // What begins a line stays, names or not.
    assert_eq!(after.first(), text.first().or(Some(&b'1')));
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    fn mutated(&mut self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(5) {
            let at = self.below(text.len());
            match self.below(4) {
                0 if !text.is_empty() => text[at] = b":\n,=.09/\xff"[self.below(9)],
                1 => text.truncate(at),
                2 => text.insert(at, u8::try_from(self.below(256)).unwrap()),
                _ => {
                    let copy = text[at..].to_vec();
                    text.extend_from_slice(&copy);
                }
            }
        }
        text
    }
}

#[test]
fn corpus_holds_every_invariant() {
    for spec in SPECS {
        for cut in 0..PASSWD.len() {
            fuzz_identity(spec, &PASSWD[..cut], GROUP);
        }
        for cut in 0..GROUP.len() {
            fuzz_identity(spec, PASSWD, &GROUP[..cut]);
        }
    }
    (0..LINE.len()).for_each(|cut| fuzz_options(&LINE[..cut]));
    for cut in 0..TABLE.len() {
        for port in [0, 80, 8080] {
            fuzz_table(&TABLE[..cut], port);
        }
    }
    (0..HOSTS.len()).for_each(|cut| fuzz_hosts(&HOSTS[..cut]));
}

#[test]
fn mutated_corpus_holds_every_invariant() {
    let mut rng = Rng(0x1d3a_5eed);
    for _ in 0..20_000 {
        let spec = SPECS[rng.below(SPECS.len())];
        let spec = if rng.below(2) == 0 {
            spec.to_vec()
        } else {
            rng.mutated(spec)
        };
        let (passwd, group) = (rng.mutated(PASSWD), rng.mutated(GROUP));
        fuzz_identity(&spec, &passwd, &group);
        fuzz_options(&rng.mutated(LINE));
        fuzz_table(&rng.mutated(TABLE), 80);
        fuzz_hosts(&rng.mutated(HOSTS));
    }
}
