//! Hostile text through the parsers: account files come from the guest's
//! image. Replays a corpus and a fixed-seed mutator; the command protocol has
//! its own in `exec-proto`.

use exec_proto::ErrorKind;
use init_shim::agent::identity::resolve;
use init_shim::boot::options::Options;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n\
    1000:x:5:6::/odd:\napp:x:1000:100:App:/home/app:/bin/sh\n::::::\nx:x:4294967295:-1::/:\n";
const GROUP: &[u8] = b"root:x:0:\naudio:x:29:app,www\n:x:7:,,,app\nvideo:x:44:www,app";
const LINE: &[u8] =
    b"console=ttyAMA0 sm.layers=3 sm.upper=/dev/vdd sm.upper_mib=64 sm.hostname=h sm.dns=::1,1.1.1.1";
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
    }
}
