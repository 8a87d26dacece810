//! A machine that does nothing does next to nothing.

use supermachine_tests::{Guest, sh};

/// Timer interrupts in eight seconds: about 45 with the kernel's own settings,
/// about 20 with those of init. Not at once after the boot, as the kernel seeds
/// its random numbers more often then.
const TIMER_INTERRUPTS: &str = "\
count() { sed -n 's/.*: *\\([0-9]*\\) .*arch_timer/\\1/p' /proc/interrupts; }
sleep 10; before=$(count); sleep 8; echo $(($(count) - before))";

#[test]
fn an_idle_guest_hardly_wakes_itself() {
    let guest = Guest::boot("busybox", 1, 256);
    let text = sh(guest.vm(), TIMER_INTERRUPTS);
    let interrupts: u32 = text.trim().parse().expect("a number");
    // None at all would mean that they were not counted.
    assert!((1..34).contains(&interrupts), "{interrupts} interrupts");
    guest.finish();
}
