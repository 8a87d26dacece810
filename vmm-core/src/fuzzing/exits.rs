use std::sync::Arc;

use devices::{Bus, MmioDevice};
use hvf::sys::Reg;

use super::Input;
use crate::arch::aarch64::inject::undefined_instruction;
use crate::arch::aarch64::psci::{Call, NOT_SUPPORTED, call};
use crate::arch::aarch64::syndrome::{self, DataAbort, SystemAccess, Transfer};
use crate::arch::aarch64::{affinity, index_of, layout};

/// Exits of one run; longer inputs are cut.
const MAX_EXITS: usize = 64;

/// Any syndrome has a meaning: accesses are of 1, 2, 4 or 8 bytes and of
/// registers that exist, values are cut and extended as the architecture
/// says, and reach a device only within its window.
///
/// The input is a list of exits: syndrome, guest physical address, value of
/// the register, the device's answer.
///
/// # Panics
/// When they do not.
pub fn fuzz_syndrome(data: &[u8]) {
    let mut input = Input(data);
    let bus = bus_of_probes();
    for _ in 0..MAX_EXITS {
        if input.0.is_empty() {
            break;
        }
        let (syndrome, address) = (input.u64(), input.number());
        let (register, answer) = (input.u64(), input.u64());
        let abort = DataAbort::decode(syndrome);
        assert_eq!(abort.transfer.is_some(), syndrome & 1 << 24 != 0);
        assert_eq!(abort.cache_maintenance, syndrome & 0x100 != 0);
        assert_eq!(abort.page_table_walk, syndrome & 0x80 != 0);
        if let Some(transfer) = abort.transfer {
            check_transfer(&transfer, syndrome, register, answer);
            // Near a window, for addresses that are not.
            let near = layout::virtio_address(0) + address % (4 * layout::VIRTIO_STRIDE);
            for address in [address, near] {
                access(&bus, &transfer, address, register);
            }
        }
        check_system_access(syndrome);
        assert_eq!(syndrome::is_wait_for_event(syndrome), syndrome % 2 == 1);
        check_injection(address, register, answer, syndrome);
    }
}

fn check_transfer(transfer: &Transfer, syndrome: u64, register: u64, answer: u64) {
    let Transfer { bytes, wide, .. } = *transfer;
    assert_eq!(bytes, [1, 2, 4, 8][usize::from(bits(syndrome, 22, 2))]);
    assert_eq!(transfer.register, bits(syndrome, 16, 5));
    assert_eq!(transfer.write, bits(syndrome, 6, 1) == 1);
    assert_eq!(transfer.sign_extend, bits(syndrome, 21, 1) == 1);
    assert_eq!(wide, bits(syndrome, 15, 1) == 1);
    // The zero register is no register of the engine, every other one is.
    assert_eq!(Reg::x(transfer.register).is_none(), transfer.register == 31);
    assert_eq!(transfer.store_value(0), 0);

    let [a, b, c, d, ..] = register.to_le_bytes();
    let stored = match bytes {
        1 => u64::from(a),
        2 => u64::from(u16::from_le_bytes([a, b])),
        4 => u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => register,
    };
    assert_eq!(transfer.store_value(register), stored);

    let [a, b, c, d, ..] = answer.to_le_bytes();
    let loaded = match (bytes, transfer.sign_extend) {
        (1, false) => u64::from(a),
        (2, false) => u64::from(u16::from_le_bytes([a, b])),
        (4, false) => u64::from(u32::from_le_bytes([a, b, c, d])),
        (1, true) => i64::from(a.cast_signed()).cast_unsigned(),
        (2, true) => i64::from(i16::from_le_bytes([a, b])).cast_unsigned(),
        (4, true) => i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned(),
        _ => answer,
    };
    let visible = if wide { u64::MAX } else { u64::MAX >> 32 };
    assert_eq!(transfer.load_value(answer), loaded & visible);
}

/// `width` bits of a syndrome from bit `low`.
fn bits(syndrome: u64, low: u32, width: u32) -> u8 {
    u8::try_from(syndrome / (1 << low) % (1 << width)).expect("no field here is wider")
}

/// A device that finds an access beyond its window, and answers in ones.
struct Probe(u64);

impl MmioDevice for Probe {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.write(offset, data);
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        assert!(matches!(data.len(), 1 | 2 | 4 | 8));
        let end = offset.checked_add(data.len() as u64);
        assert!(end.is_some_and(|end| end <= self.0));
    }
}

/// The windows of a machine with two virtio devices.
fn windows() -> [(u64, u64); 4] {
    [
        (layout::UART, layout::PRIMECELL_BYTES),
        (layout::RTC, layout::PRIMECELL_BYTES),
        (layout::virtio_address(0), layout::VIRTIO_BYTES),
        (layout::virtio_address(1), layout::VIRTIO_BYTES),
    ]
}

fn bus_of_probes() -> Bus {
    let mut bus = Bus::new();
    for (base, bytes) in windows() {
        bus.insert(base, bytes, Arc::new(Probe(bytes)))
            .expect("the layout's windows are apart");
    }
    bus
}

fn access(bus: &Bus, transfer: &Transfer, address: u64, register: u64) {
    let len = usize::from(transfer.bytes);
    let end = u128::from(address) + len as u128;
    let inside = windows().into_iter().any(|(base, bytes)| {
        let window = u128::from(base)..=u128::from(base) + u128::from(bytes);
        window.contains(&u128::from(address)) && window.contains(&end)
    });
    let answered = if transfer.write {
        let value = transfer.store_value(register).to_le_bytes();
        bus.write(address, &value[..len])
    } else {
        let mut data = [0; 8];
        let answered = bus.read(address, &mut data[..len]);
        let all_ones = transfer.load_value(u64::from_le_bytes(data)) != 0;
        assert_eq!(all_ones, answered);
        answered
    };
    assert_eq!(answered, inside, "{transfer:?} at {address:#x}");
}

fn check_system_access(syndrome: u64) {
    let access = SystemAccess::decode(syndrome);
    assert!(access.register <= 31);
    assert_eq!(Reg::x(access.register).is_none(), access.register == 31);
    let [op0, op1, crn, crm, op2] = access.encoding.map(u64::from);
    let again = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1;
    let again = again | u64::from(access.register) << 5 | u64::from(access.read);
    assert_eq!(again, syndrome & 0x3f_ffff, "{access:?}");
    // Translation, exceptions, the interrupt controller, the timers: to
    // ignore these would be to run a guest that went wrong long ago.
    let matters = matches!(
        access.encoding,
        [0 | 1, ..] | [3, 0, 1..=8 | 11..=15, _, _] | [3, 3, 14, 0..=7, _] | [3, 4..=7, _, _, _]
    );
    assert!(!(matters && access.is_inert()), "{access:?}");
}

fn check_injection(pc: u64, state: u64, vbar: u64, sctlr: u64) {
    let taken = undefined_instruction(pc, state, vbar, sctlr);
    assert_eq!((taken.elr, taken.spsr), (pc, state));
    let vector = taken.pc.wrapping_sub(vbar);
    assert!(matches!(vector, 0 | 0x200 | 0x400 | 0x600));
    assert_eq!(taken.cpsr & 0x1f, 5, "EL1 with its own stack pointer");
    assert_eq!(taken.cpsr & 0x3c0, 0x3c0, "all interrupts masked");
    assert_eq!(taken.cpsr & 0xf000_0000, state & 0xf000_0000);
    assert_eq!(taken.esr >> 26, 0, "exception class: unknown reason");
}

/// What a firmware call asks for, without its arguments.
#[derive(Clone, Copy)]
enum Documented {
    Value(u64),
    Features,
    Suspend,
    CpuOff,
    CpuOn,
    CpuStatus,
    SystemOff,
    SystemReset,
}

/// Every function we implement (Arm DEN 0022, §5.1), with the value that is
/// all there is to some.
const FUNCTIONS: [(u64, Documented); 12] = [
    (0x8400_0000, Documented::Value(0x1_0001)),
    (0x8400_0001, Documented::Suspend),
    (0xc400_0001, Documented::Suspend),
    (0x8400_0002, Documented::CpuOff),
    (0x8400_0003, Documented::CpuOn),
    (0xc400_0003, Documented::CpuOn),
    (0x8400_0004, Documented::CpuStatus),
    (0xc400_0004, Documented::CpuStatus),
    (0x8400_0006, Documented::Value(2)),
    (0x8400_0008, Documented::SystemOff),
    (0x8400_0009, Documented::SystemReset),
    (0x8400_000a, Documented::Features),
];

fn documented(function: u64) -> Option<Documented> {
    FUNCTIONS
        .into_iter()
        .find_map(|(number, what)| (number == function & 0xffff_ffff).then_some(what))
}

/// Any firmware call has an answer, that of the table of functions.
///
/// The input is a list of calls: the function, or a byte that picks one, and
/// the arguments.
///
/// # Panics
/// When it has another.
pub fn fuzz_psci(data: &[u8]) {
    let mut input = Input(data);
    for _ in 0..MAX_EXITS {
        if input.0.is_empty() {
            break;
        }
        let known = FUNCTIONS[usize::from(input.u8()) % FUNCTIONS.len()].0;
        let function = match input.u8() % 4 {
            0 => input.u64(),
            // Neighbours, and the same with other flags and upper halves.
            1 => known ^ 1 << (input.u8() % 64),
            _ => known,
        };
        let registers = [function, input.number(), input.u64(), input.u64()];
        check_call(registers);
        check_call([0x8400_000a, function, registers[2], registers[3]]);
    }
}

fn check_call(registers: [u64; 4]) {
    // Bit 30 says that arguments are 64 bits wide.
    let visible = match registers[0] & 1 << 30 {
        0 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let [_, first, second, third] = registers.map(|value| value & visible);
    let expected = match documented(registers[0]) {
        None => Call::Return(NOT_SUPPORTED),
        Some(Documented::Value(value)) => Call::Return(value),
        Some(Documented::Features) => Call::Return(documented(first).map_or(NOT_SUPPORTED, |_| 0)),
        Some(Documented::Suspend) => Call::Suspend,
        Some(Documented::CpuOff) => Call::CpuOff,
        Some(Documented::CpuOn) => Call::CpuOn {
            target: first,
            entry: second,
            argument: third,
        },
        Some(Documented::CpuStatus) => Call::CpuStatus { target: first },
        Some(Documented::SystemOff) => Call::SystemOff,
        Some(Documented::SystemReset) => Call::SystemReset,
    };
    assert_eq!(call(registers), expected, "{registers:x?}");
    if let Call::CpuOn { target, .. } | Call::CpuStatus { target } = expected {
        // An affinity names one vCPU or none.
        match index_of(target) {
            Some(index) => assert_eq!(affinity(index), target),
            None => assert!(target & !0xff0f != 0),
        }
    }
}
