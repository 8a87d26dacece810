//! That no handler takes host stack: every one that the decoder knows, alone
//! and as the first of a fused pair, is executed again and again, and the stack
//! pointer is the same each time.

use super::{StackLimit, execute, go_on};
use crate::cpu::op::{self, Op};
use crate::cpu::{Cpu, Pstate};
use crate::exec::bind;
use crate::exec::branch::handler;
use crate::mode::Mode;
use crate::phys::MemoryFlags;
use crate::regs::Regs;
use crate::sys_regs::SysRegs;
use crate::vm::VmShared;
use std::collections::BTreeMap;
use std::sync::Arc;

const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 4 << 20;
/// Where registers point: far from both ends for every offset.
const MIDDLE: u64 = RAM + RAM_BYTES as u64 / 2;
/// Two bytes before the end of a page: accesses take their slow path.
const CROSSING: u64 = MIDDLE + 4094;
/// Where in its page an instruction is: some branches stay in it both ways.
const OFFSET: u16 = 2048;
/// Ops in a row, and how often they are executed.
const COPIES: usize = 16;
const ROUNDS: u32 = 64;
/// Words kept of each handler: some cannot continue, by what they address.
const SAMPLES: usize = 12;

/// What the handler at the end of a round works on.
struct Script {
    base: u64,
    rounds: u32,
    first: *const Op,
    /// Where the stack was in the first and in the last round.
    depth: [usize; 2],
}

fn registers(base: u64) -> Regs {
    let mut regs = Regs::default();
    for slot in 0..16 {
        regs.x[slot] = base;
    }
    regs.x[usize::from(op::SP)] = MIDDLE;
    regs.page = MIDDLE;
    regs
}

#[inline(never)]
fn stack_now() -> usize {
    let here = 0u8;
    std::hint::black_box(&raw const here).addr()
}

handler!(
    /// Ends a round; `imm` is the address of the [`Script`].
    again, |cpu, op| {
        let script = (*op).imm as *mut Script;
        let now = stack_now();
        if (*script).rounds == 0 {
            (*script).depth[0] = now;
        }
        (*script).depth[1] = now;
        (*script).rounds += 1;
        if (*script).rounds < ROUNDS {
            (*cpu).regs = registers((*script).base);
            go_on(cpu, (*script).first)
        }
    }
);

/// One or two words and the mode they are decoded for.
#[derive(Clone, Copy, Debug)]
struct Sample {
    words: [u32; 2],
    count: usize,
    user: bool,
}

impl Sample {
    fn ops(&self) -> Vec<Op> {
        let mode = Mode {
            user: self.user,
            fp_traps: false,
            sp_off: false,
        };
        let mut ops = Vec::new();
        bind::block(&mut ops, mode, OFFSET, self.count, |n| self.words[n]);
        ops
    }
}

/// Samples of each handler, by its address.
type Handlers = BTreeMap<usize, Vec<Sample>>;

fn note(handlers: &mut Handlers, sample: Sample) {
    let run = sample.ops()[0].run as usize;
    let samples = handlers.entry(run).or_default();
    if samples.len() < SAMPLES {
        samples.push(sample);
    }
}

/// Handlers of single instructions: words of every value in the fields that
/// tell instructions apart, others by chance.
fn singles() -> Handlers {
    let mut handlers = Handlers::new();
    let mut seed = 1u64;
    let mut by_chance = || {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (seed >> 40) as u32
    };
    let mut add = |word, user| {
        note(
            &mut handlers,
            Sample {
                words: [word, 0],
                count: 1,
                user,
            },
        );
    };
    for high in 0..1u32 << 11 {
        for low in 0..1u32 << 11 {
            // Bits 20:16 and 15:10.
            let word = high << 21 | low << 10;
            add(word | by_chance() & 0x3ff, false);
        }
    }
    // System instructions and registers: bits 20:5.
    for middle in 0..1u32 << 17 {
        for user in [false, true] {
            add(0xd500_0000 | middle << 5 | 3, user);
            add(0xd500_0000 | middle << 5 | 31, user);
        }
    }
    handlers
}

/// Whether `word` is of an encoding that can be half of a fused pair.
fn may_fuse(word: u32) -> bool {
    matches!(
        word >> 24,
        0x11 | 0x51
            | 0x91
            | 0xd1
            | 0x12
            | 0x52
            | 0x92
            | 0xd2
            | 0x90
            | 0x39
            | 0xb9
            | 0xf9
            | 0x38
            | 0xb8
            | 0xf8
            | 0xa8
            | 0xa9
            | 0x8b
            | 0xaa
            | 0x2a
            | 0x71
            | 0xf1
            | 0x31
            | 0xb1
            | 0x72
            | 0xf2
            | 0x6b
            | 0xeb
            | 0x6a
            | 0xea
            | 0x54
            | 0x34
            | 0x35
            | 0xb4
            | 0xb5
    )
}

/// Handlers of fused pairs, of what `singles` has and of what fuses only with
/// certain registers or distances.
fn pairs(singles: &Handlers) -> Handlers {
    let mut words: Vec<u32> = singles
        .values()
        .flat_map(|samples| {
            // With a base register that points somewhere, if it is an access.
            let words = samples.iter().map(|sample| sample.words[0]);
            words.filter(|word| word >> 5 & 31 < 16).take(2)
        })
        .filter(|word| may_fuse(*word))
        .collect();
    for (base, conditions) in [
        (0x5400_0000, 14),
        (0x3400_0000, 1),
        (0x3500_0000, 1),
        (0xb400_0000, 1),
        (0xb500_0000, 1),
    ] {
        for condition in 0..conditions {
            // Forwards, backwards, to another page.
            for distance in [2u32, 0x7_ffff, 0x1000] {
                words.push(base | distance << 5 | condition);
            }
        }
    }
    // adrp x1, 0; add x1, x1, #8; mov x1, x17; mov w1, w17; add x1, x17, x18
    words.extend([
        0x9000_0001,
        0x9100_2021,
        0xaa11_03e1,
        0x2a11_03e1,
        0x8b12_0221,
    ]);
    let mut handlers = Handlers::new();
    for first in &words {
        for second in &words {
            let sample = Sample {
                words: [*first, *second],
                count: 2,
                user: false,
            };
            let alone = Sample { count: 1, ..sample };
            let ops = sample.ops();
            if ops.len() > 1 && ops[0].run as usize != alone.ops()[0].run as usize {
                note(&mut handlers, sample);
            }
        }
    }
    handlers
}

/// A vCPU with memory, translation off, and what it is put back to.
struct Bench {
    cpu: Box<Cpu>,
    sys: SysRegs,
    pstate: Pstate,
}

impl Bench {
    fn new() -> Self {
        let vm = Arc::new(VmShared::new(40, crate::tier::Tier::Auto));
        // Leaked: mapped for as long as the process lives.
        let words = vec![0u64; RAM_BYTES / 8 + 2048].leak();
        let host = words.as_ptr().addr().next_multiple_of(0x4000);
        vm.map(host, RAM, RAM_BYTES as u64, MemoryFlags::ALL)
            .unwrap();
        let link = vm.add_vcpu().unwrap();
        let mut cpu = Cpu::new(vm, link);
        cpu.shared.enter();
        cpu.take_mail();
        cpu.sys.cpacr = 3 << 20;
        // EL0 may do what SCTLR_EL1 and CNTKCTL_EL1 can allow.
        cpu.sys.sctlr |= 1 << 9 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26;
        cpu.sys.cntkctl = 0x3ff;
        let (sys, pstate) = (cpu.sys.clone(), cpu.pstate);
        Self { cpu, sys, pstate }
    }

    /// Executes `sample` for some rounds; how many there were, and how much
    /// host stack the later ones took.
    fn run(&mut self, sample: Sample, base: u64) -> (u32, usize) {
        let cpu = &mut *self.cpu;
        cpu.sys = self.sys.clone();
        cpu.pstate = self.pstate;
        cpu.pstate.el = u8::from(!sample.user);
        cpu.translation_changed();
        cpu.regs = registers(base);
        cpu.exit = None;
        cpu.waiting = false;
        cpu.stack_limit = StackLimit::here();

        let mut script = Script {
            base,
            rounds: 0,
            first: std::ptr::null(),
            depth: [0; 2],
        };
        let mut last = Op::new(again);
        last.imm = (&raw mut script) as u64;
        // Without the op that ends the block.
        let own = sample.ops();
        let own = &own[..own.len().min(sample.count)];
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..COPIES {
            ops.extend_from_slice(own);
        }
        ops.push(last);
        let end = &raw const ops[ops.len() - 1];
        for op in &ops {
            op.link.set(end);
            let target = (MIDDLE + u64::from(op.pc_offset)).wrapping_add(op.imm);
            for target in [target, base] {
                let context = cpu.context[(target >> 63) as usize];
                cpu.code.jumps().remember(target, context, end);
            }
        }
        script.first = ops.as_ptr();
        // SAFETY: the vCPU is this thread's; the ops live until after the run,
        // and the last of them does not continue to the next.
        unsafe { execute(cpu, ops.as_ptr()) };
        cpu.code.clear();
        cpu.link_from = std::ptr::null();
        (script.rounds, script.depth[0].abs_diff(script.depth[1]))
    }
}

/// How many of `handlers` went through all rounds.
fn complete(bench: &mut Bench, handlers: &Handlers) -> usize {
    let mut complete = 0;
    for samples in handlers.values() {
        let mut all_rounds = false;
        for sample in samples {
            for base in [MIDDLE, CROSSING] {
                let (rounds, grown) = bench.run(*sample, base);
                assert_eq!(
                    grown,
                    0,
                    "{:08x?} takes host stack: {grown} bytes in {rounds} rounds",
                    &sample.words[..sample.count]
                );
                all_rounds |= rounds == ROUNDS;
            }
        }
        complete += usize::from(all_rounds);
    }
    complete
}

#[test]
fn no_instruction_and_no_fused_pair_takes_host_stack() {
    let mut bench = Bench::new();
    let alone = singles();
    let fused = pairs(&alone);
    // Those that leave the guest, or that no sample gives a usable address,
    // do not get to the end of a round.
    for (handlers, least) in [(&alone, 1400), (&fused, 320)] {
        let (known, complete) = (handlers.len(), complete(&mut bench, handlers));
        assert!(
            complete >= least && complete * 100 >= known * 90,
            "only {complete} of {known} handlers went through all rounds"
        );
    }
}

/// As a compiler would make one that does not jump: its frame stays.
///
/// # Safety
/// As for a handler.
#[cfg(tail_calls)]
unsafe extern "C" fn hoarder(cpu: *mut Cpu, op: *const Op) {
    let frame = std::hint::black_box([0u8; 48]);
    // SAFETY: by the contract.
    unsafe { go_on(cpu, op.add(1)) };
    std::hint::black_box(&frame);
}

#[cfg(tail_calls)]
#[test]
fn a_loop_with_a_handler_that_calls_returns_before_the_stack_is_used_up() {
    let mut bench = Bench::new();
    let cpu = &mut *bench.cpu;
    cpu.regs = registers(MIDDLE);
    cpu.stack_limit = StackLimit::here();
    // b .-4
    let back = Sample {
        words: [0x17ff_ffff, 0],
        count: 1,
        user: false,
    };
    let mut ops = vec![Op::new(hoarder); 100];
    ops.extend_from_slice(&back.ops()[..1]);
    ops[100].link.set(ops.as_ptr());
    for _ in 0..1000 {
        cpu.pc = 0;
        // SAFETY: the vCPU is this thread's; the ops live until after the run,
        // and the last of them goes back to the first.
        unsafe { execute(cpu, ops.as_ptr()) };
        let target = MIDDLE + u64::from(OFFSET) - 4;
        assert_eq!(cpu.pc, target, "it goes on at the branch's target");
        assert_eq!(cpu.link_from, &raw const ops[100]);
    }
}

#[test]
fn the_last_instruction_of_the_address_space_is_followed_by_the_first() {
    let mut bench = Bench::new();
    let cpu = &mut *bench.cpu;
    // isb; svc #0; bl .+4; msr cpacr_el1, x0; wfi; fmov d0, #1.0 at the page's end
    for word in [
        0xd503_3fdf,
        0xd400_0001,
        0x9400_0001,
        0xd518_1040,
        0xd503_207f,
        0x1e6e_1000,
    ] {
        let mode = Mode {
            user: false,
            fp_traps: false,
            sp_off: false,
        };
        let mut ops = Vec::new();
        bind::block(&mut ops, mode, 4092, 1, |_| word);
        cpu.regs = registers(MIDDLE);
        cpu.regs.page = !4095;
        (cpu.pc, cpu.sys.elr) = (1, 1);
        cpu.stack_limit = StackLimit::here();
        // SAFETY: the vCPU is this thread's; the ops live until after the run,
        // and the last of them does not continue to the next.
        unsafe { execute(cpu, ops.as_ptr()) };
        let returns_to = if cpu.sys.elr == 1 {
            cpu.pc
        } else {
            cpu.sys.elr
        };
        assert_eq!(returns_to, 0, "{word:08x}");
        cpu.link_from = std::ptr::null();
        (cpu.exit, cpu.waiting) = (None, false);
    }
}
