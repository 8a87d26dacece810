use std::time::{Duration, Instant};

use super::*;

fn rule(verdict: Verdict, target: Target) -> Rule {
    Rule {
        verdict,
        target,
        ports: Ports::ALL,
        protocol: None,
    }
}

fn network(text: &str) -> Target {
    Target::Network(text.parse().unwrap())
}

fn host(text: &str) -> Target {
    Target::Host(text.parse().unwrap())
}

fn allows(policy: &Policy, address: &str, port: u16, names: &[&str]) -> bool {
    let address = address.parse().unwrap();
    let mut names = names.iter().copied();
    let decision = policy.decide(Protocol::Tcp, address, port, &mut names);
    decision.verdict == Verdict::Allow
}

#[test]
fn first_rule_that_fits_decides() {
    let policy = Policy::deny_all()
        .rule(rule(Verdict::Deny, network("1.1.1.1")))
        .rule(Rule {
            ports: (80..=90).into(),
            protocol: Some(Protocol::Tcp),
            ..rule(Verdict::Allow, network("1.1.0.0/16"))
        })
        .rule(Rule {
            ports: 443.into(),
            ..rule(Verdict::Allow, host("*.example.com"))
        });
    assert!(!allows(&policy, "1.1.1.1", 80, &[]));
    assert!(allows(&policy, "1.1.1.2", 90, &[]));
    assert!(!allows(&policy, "1.1.1.2", 91, &[]));
    let of = |protocol, last: u8, port| {
        let address = [1, 1, 1, last].into();
        let decision = policy.decide(protocol, address, port, &mut std::iter::empty());
        (decision.verdict, decision.cause)
    };
    assert_eq!(of(Protocol::Tcp, 1, 80), (Verdict::Deny, Cause::Rule(0)));
    assert_eq!(of(Protocol::Tcp, 2, 80), (Verdict::Allow, Cause::Rule(1)));
    assert_eq!(of(Protocol::Udp, 2, 80), (Verdict::Deny, Cause::Default));
    assert!(allows(&policy, "9.9.9.9", 443, &["x", "a.example.com"]));
    assert!(!allows(
        &policy,
        "9.9.9.9",
        443,
        &["example.com", "aexample.com"]
    ));
    assert!(!allows(&policy, "9.9.9.9", 80, &["a.example.com"]));
}

#[test]
fn no_name_and_no_general_rule_opens_an_address_that_is_not_public() {
    let open = Policy::allow_all()
        .rule(rule(Verdict::Allow, Target::Any))
        .rule(rule(Verdict::Allow, network("0.0.0.0/0")))
        .rule(rule(Verdict::Allow, network("::/0")))
        .rule(rule(Verdict::Allow, host("rebound.example.com")));
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:8.8.8.8",
        "fd00::1",
    ] {
        assert!(
            !allows(&open, address, 80, &["rebound.example.com"]),
            "{address}"
        );
    }
    assert!(allows(&open, "8.8.8.8", 80, &[]));
    let listed = open.rule(rule(Verdict::Allow, network("10.0.0.0/24")));
    assert!(allows(&listed, "10.0.0.1", 80, &[]));
    assert!(!allows(&listed, "10.0.1.1", 80, &[]));
}

#[test]
fn only_names_that_lead_somewhere_are_asked() {
    let policy = Policy::deny_all()
        .rule(rule(Verdict::Deny, host("secret.example.com")))
        .rule(Rule {
            ports: 443.into(),
            ..rule(Verdict::Allow, host("*.example.com"))
        })
        .rule(rule(Verdict::Allow, network("8.8.8.8")));
    assert!(policy.may_ask("a.example.com"));
    for name in ["secret.example.com", "example.com", "other.org"] {
        assert!(!policy.may_ask(name), "{name}");
    }
    let open = Policy::allow_all().rule(Rule {
        ports: 25.into(),
        ..rule(Verdict::Deny, Target::Any)
    });
    assert!(open.may_ask("other.org"), "other ports are open");
}

#[test]
fn patterns_and_ports_are_read_strictly() {
    for good in ["example.com", "*.example.com", "_dmarc.a-b.org"] {
        assert_eq!(good.parse::<HostPattern>().unwrap().to_string(), good);
    }
    assert_eq!(
        "Example.COM.".parse::<HostPattern>().unwrap().to_string(),
        "example.com"
    );
    for bad in [
        "",
        "*",
        "*.",
        "a..b",
        ".a",
        "a.*.b",
        "exa mple",
        "*a.com",
        "é.com",
        &"a".repeat(64),
    ] {
        assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
    }
    assert_eq!("80".parse::<Ports>().unwrap(), 80.into());
    assert_eq!("80-90".parse::<Ports>().unwrap(), (80..=90).into());
    for bad in ["", "90-80", "80-", "-80", "65536", "http"] {
        assert!(bad.parse::<Ports>().is_err(), "{bad}");
    }
    let many = (0..=MAX_RULES).fold(Policy::deny_all(), |policy, _| {
        policy.rule(rule(Verdict::Allow, Target::Any))
    });
    assert!(many.check().is_err());
}

#[test]
fn answers_hold_for_a_while_and_are_bounded() {
    let mut names = Names::default();
    let begun = Instant::now();
    let address = IpAddr::from([9, 9, 9, 9]);
    names.tell("a.org", address, begun);
    names.tell("b.org", address, begun);
    names.tell("a.org", address, begun + Duration::from_secs(200));
    let after = |seconds| {
        let now = begun + Duration::from_secs(seconds);
        names.of(address, now).collect::<Vec<_>>()
    };
    assert_eq!(after(1), ["a.org", "b.org"]);
    assert_eq!(after(400), ["a.org"]);
    assert!(after(600).is_empty());
    for n in 0..10_000_u32 {
        names.tell("many.org", std::net::Ipv4Addr::from(n).into(), begun);
    }
    assert!(names.of(address, begun).next().is_none(), "the oldest went");
    assert!(names.of([0, 0, 0x27, 0x0f].into(), begun).next().is_some());
}
