//! Fuzz logic: what guests and saved machines choose, and this crate passes
//! on. Syndromes and register numbers come from instructions of the guest,
//! ranges from what it maps, controller states from files.

use std::time::{Duration, Instant};

use supermachine_hvf::sys::*;
use supermachine_hvf::testing::with_engine;
use supermachine_hvf::{ExceptionClass, GicAddresses, HvfError, Vm};

const BUDGET: Duration = Duration::from_millis(600);
/// Operations of one run; longer inputs are cut.
const MAX_OPS: usize = 128;

/// Operations of nine bytes on one machine, compared with a model of it.
///
/// # Panics
/// When a register, the program counter or a refusal is not what it should be.
pub fn fuzz_owners(data: &[u8]) {
    with_engine(|api| {
        let vm = Vm::new(api, None).unwrap();
        let gic = vm
            .create_gic(GicAddresses {
                distributor: 0x800_0000,
                redistributors: 0x80a_0000,
            })
            .unwrap();
        let mut vcpu = vm.create_vcpu().unwrap();
        let mut general = [0_u64; 31];
        let mut pc = 0_u64;
        for op in data.chunks_exact(9).take(MAX_OPS) {
            let mut value = [0; 8];
            value.copy_from_slice(&op[1..]);
            let value = u64::from_le_bytes(value);
            match op[0] >> 5 {
                0 | 1 => {
                    let n = op[0] & 31;
                    vcpu.set_general(n, value).unwrap();
                    if let Some(register) = general.get_mut(usize::from(n)) {
                        *register = value;
                    }
                }
                2 => {
                    vcpu.set_reg(Reg::PC, value).unwrap();
                    pc = value;
                }
                3 | 4 => {
                    let class = ExceptionClass::of(value);
                    assert_eq!(u64::from(class.0), value << 32 >> 58);
                    vcpu.skip_instruction(class).unwrap();
                    // ESR_EL2.EC of WFx, SMC, system registers, data aborts.
                    if matches!(class.0, 0x01 | 0x17 | 0x18 | 0x24) {
                        pc = pc.wrapping_add(4);
                    }
                }
                5 => {
                    // Mostly whole pages of 16 KiB.
                    let ipa = if op[0] & 3 == 0 { value } else { value << 14 };
                    let size = usize::from(op[1]) << (op[0] >> 2 & 7 | 8);
                    let whole = ipa % 0x4000 == 0 && size % 0x4000 == 0 && size > 0;
                    let refused = |result: Result<(), HvfError>| {
                        matches!(result, Err(HvfError::Misaligned { .. }))
                    };
                    assert_eq!(refused(vm.protect(ipa, size, MemoryFlags::READ)), !whole);
                    assert_eq!(refused(vm.unmap(ipa, size)), !whole);
                }
                6 => assert!(gic.restore(&op[1..]).is_err()),
                _ => gic.restore(&gic.capture().unwrap()).unwrap(),
            }
            for (n, expected) in (0..).zip(general) {
                assert_eq!(vcpu.general(n).unwrap(), expected);
            }
            assert_eq!(vcpu.general(31).unwrap(), 0);
            assert_eq!(vcpu.reg(Reg::PC).unwrap(), pc);
        }
    });
}

#[test]
fn corpus_and_mutations_hold_every_invariant() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    // One of each operation, and the edges of the number line.
    let mut corpus: Vec<u8> = Vec::new();
    for kind in 0..8_u8 {
        for value in [0, 0x5e00_0000_u64, 0x0000_7fff_ffff_c000, u64::MAX] {
            corpus.push(kind << 5 | 31);
            corpus.extend(value.to_le_bytes());
        }
    }
    fuzz_owners(&[]);
    fuzz_owners(&corpus);
    let start = Instant::now();
    let mut runs = 0;
    while start.elapsed() < BUDGET {
        let mut input = corpus.clone();
        for _ in 0..64 {
            let at = usize::from(byte()) % input.len();
            input[at] = byte();
        }
        input.extend((0..byte()).map(|_| byte()));
        fuzz_owners(&input);
        runs += 1;
    }
    assert!(runs > 0);
}
