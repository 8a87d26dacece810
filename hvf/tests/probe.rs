//! The program for owners of Macs, where there is no framework.

#[cfg(not(target_os = "macos"))]
#[test]
fn without_a_framework_the_probe_says_so() {
    let program = env!("CARGO_BIN_EXE_hvf-probe");
    let done = std::process::Command::new(program).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stdout.is_empty());
    let said = String::from_utf8(done.stderr).unwrap();
    let expected = "hvf-probe: Hypervisor.framework is not available: \
                    this is not macOS on Apple silicon\n";
    assert_eq!(said, expected);
}
