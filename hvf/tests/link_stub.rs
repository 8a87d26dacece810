//! The stub that macOS programs are linked against on Linux names exactly
//! what the framework's module links.

use std::collections::BTreeSet;

/// Names after `before` in `text` that start with `hv_`.
fn names<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    text.split(before)
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .filter(|name| name.starts_with("hv_"))
        .collect()
}

#[test]
fn the_stub_has_every_linked_symbol_and_no_other() {
    let linked = names(include_str!("../src/framework.rs"), "fn ");
    let stub = names(
        include_str!("../link/Hypervisor.framework/Hypervisor.tbd"),
        " _",
    );
    assert!(linked.contains("hv_vcpu_run"));
    assert_eq!(linked, stub);
}
