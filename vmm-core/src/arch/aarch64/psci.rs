//! Firmware calls of the guest: PSCI 1.1 (Arm DEN 0022) and the little of the
//! calling convention around it (Arm DEN 0028), as a pure function.

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Nothing but this value in the first register.
    Return(u64),
    /// Start the vCPU of this affinity.
    CpuOn {
        /// Affinity of the vCPU.
        target: u64,
        /// Guest physical address to start at.
        entry: u64,
        /// What its first register is to hold.
        argument: u64,
    },
    /// Whether the vCPU of this affinity is on.
    CpuStatus {
        /// Affinity of the vCPU.
        target: u64,
    },
    /// Sleep until an interrupt, then return success.
    Suspend,
    /// Turn the calling vCPU off.
    CpuOff,
    /// Turn the machine off.
    SystemOff,
    /// Restart the machine.
    SystemReset,
}

/// PSCI's and the calling convention's "not supported".
pub const NOT_SUPPORTED: u64 = (-1_i64).cast_unsigned();
/// PSCI 1.1, major number in the upper half.
const VERSION: u64 = 0x0001_0001;
/// "Trusted OS not present", so nothing to migrate.
const MIGRATE_NOT_NEEDED: u64 = 2;
/// Bit of a function number that says 64-bit arguments.
const SMC64: u32 = 1 << 30;

const PSCI_VERSION: u32 = 0x8400_0000;
const CPU_SUSPEND: u32 = 0x8400_0001;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON: u32 = 0x8400_0003;
const AFFINITY_INFO: u32 = 0x8400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const PSCI_FEATURES: u32 = 0x8400_000a;

/// Reads a call from the guest's registers `X0` to `X3`.
pub fn call(registers: [u64; 4]) -> Call {
    let function = low_word(registers[0]);
    // Calls with 32-bit arguments leave the upper halves undefined.
    let wide = function & SMC64 != 0;
    let [_, a, b, c] = registers.map(|value| {
        if wide {
            value
        } else {
            u64::from(low_word(value))
        }
    });
    match function {
        PSCI_VERSION => Call::Return(VERSION),
        MIGRATE_INFO_TYPE => Call::Return(MIGRATE_NOT_NEEDED),
        PSCI_FEATURES => Call::Return(match low_word(a) {
            known if is_known(known) => 0,
            _ => NOT_SUPPORTED,
        }),
        CPU_OFF => Call::CpuOff,
        SYSTEM_OFF => Call::SystemOff,
        SYSTEM_RESET => Call::SystemReset,
        _ => match function & !SMC64 {
            CPU_SUSPEND => Call::Suspend,
            CPU_ON => Call::CpuOn {
                target: a,
                entry: b,
                argument: c,
            },
            AFFINITY_INFO => Call::CpuStatus { target: a },
            _ => Call::Return(NOT_SUPPORTED),
        },
    }
}

fn is_known(function: u32) -> bool {
    matches!(
        function,
        PSCI_VERSION | CPU_OFF | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | PSCI_FEATURES
    ) || matches!(function & !SMC64, CPU_SUSPEND | CPU_ON | AFFINITY_INFO)
}

fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(registers: [u64; 4]) -> Option<u64> {
        match call(registers) {
            Call::Return(value) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn linux_probes_in_boot_order_get_their_answers() {
        assert_eq!(value([0x8400_0000, 0, 0, 0]), Some(0x1_0001));
        assert_eq!(value([0x8400_0006, 0, 0, 0]), Some(2));
        let features = |id| value([0x8400_000a, id, 0, 0]);
        assert_eq!(features(0x8000_0000), Some(NOT_SUPPORTED));
        assert_eq!(features(0xc400_0001), Some(0));
        assert_eq!(features(0xc400_000e), Some(NOT_SUPPORTED));
        assert_eq!(features(0xc400_0012), Some(NOT_SUPPORTED));
        assert_eq!(features(0x8400_0008), Some(0));
        // There is no 64-bit form of these.
        assert_eq!(features(0xc400_0008), Some(NOT_SUPPORTED));
    }

    #[test]
    fn workaround_probes_are_never_answered_with_success() {
        for id in [0x8000_0000_u64, 0x8000_0001, 0x8000_8000, 0x8400_0050] {
            assert_eq!(value([id, 0x8000_8000, 0, 0]), Some(NOT_SUPPORTED));
        }
        assert_eq!(value([0x8600_ff01, 0, 0, 0]), Some(NOT_SUPPORTED));
    }

    #[test]
    fn narrow_calls_ignore_the_upper_halves() {
        let dirty = 0xdead_0000_0000_0000;
        let on = |id: u64| call([id, dirty | 1, dirty | 0x8000_0000, dirty | 7]);
        assert_eq!(
            on(dirty | 0x8400_0003),
            Call::CpuOn {
                target: 1,
                entry: 0x8000_0000,
                argument: 7
            }
        );
        assert_eq!(
            on(0xc400_0003),
            Call::CpuOn {
                target: dirty | 1,
                entry: dirty | 0x8000_0000,
                argument: dirty | 7
            }
        );
    }

    #[test]
    fn power_calls_are_told_apart() {
        let of = |id| call([id, 3, 0, 0]);
        assert_eq!(of(0x8400_0002), Call::CpuOff);
        assert_eq!(of(0x8400_0008), Call::SystemOff);
        assert_eq!(of(0x8400_0009), Call::SystemReset);
        assert_eq!(of(0xc400_0001), Call::Suspend);
        assert_eq!(of(0xc400_0004), Call::CpuStatus { target: 3 });
    }
}
