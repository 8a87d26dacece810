//! A static A64 Linux program that executes single instructions on given
//! register states and writes the resulting states to its output.

use supermachine_softhv::regs::V;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x1000_0000;
const PAGE: usize = 0x1000;

/// General registers X0..X26 take part; the program keeps the others.
pub const GENERAL: usize = 27;

/// Registers before or after an instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    pub v: [V; 32],
    pub x: [u64; GENERAL],
    pub fpsr: u64,
}

/// Bytes of a state in memory: V0..V31, X0..X26, FPSR.
const STATE: usize = 32 * 16 + GENERAL * 8 + 8;
/// Bytes for the stores of a case, before its resulting state.
pub const SCRATCH: usize = 64;
const RECORD: usize = SCRATCH + STATE;

/// Where the base register X26 of a case points.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Base {
    /// Nowhere: it is as in the state.
    None,
    /// To the first input state, to be read.
    Inputs,
    /// To the scratch bytes of this case, to be written.
    Scratch,
}

/// One instruction on one of the input states.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub word: u32,
    pub input: usize,
    pub base: Base,
}

/// What a case left behind.
pub struct Outcome {
    pub scratch: [u8; SCRATCH],
    pub state: State,
}

fn state_bytes(state: &State) -> Vec<u8> {
    let halves = state.v.iter().flat_map(|v| v.0);
    halves
        .chain(state.x)
        .chain([state.fpsr])
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// The input states as they are in the memory of the program.
pub fn input_bytes(inputs: &[State]) -> Vec<u8> {
    inputs.iter().flat_map(state_bytes).collect()
}

/// Address of the first input state.
pub const INPUTS: u64 = DATA;

fn output_base(inputs: &[State]) -> u64 {
    DATA + (inputs.len() * STATE).next_multiple_of(PAGE) as u64
}

/// Address of the scratch bytes of case `index`.
pub fn scratch_address(inputs: &[State], index: usize) -> u64 {
    output_base(inputs) + (index * RECORD) as u64
}

/// Loads a constant into a general register.
fn load_constant(code: &mut Vec<u32>, register: u32, value: u64) {
    for (i, opcode) in [0xd280_0000, 0xf280_0000, 0xf280_0000u32]
        .iter()
        .enumerate()
    {
        let part = (value >> (16 * i)) as u32 & 0xffff;
        code.push(opcode | (i as u32) << 21 | part << 5 | register);
    }
}

/// Branch with link from the end of `code` to word `target`.
fn call(code: &mut Vec<u32>, target: usize) {
    let distance = (target as u32).wrapping_sub(code.len() as u32);
    code.push(0x9400_0000 | distance & 0x03ff_ffff);
}

/// The instructions of the program.
///
/// X27 is the input pointer, X28 the output pointer, X29 the input base.
fn assemble(cases: &[Case], inputs: &[State]) -> Vec<u32> {
    let output = output_base(inputs);
    let mut code = Vec::new();
    // over both subroutines
    let start = 2 * (16 + 13 + 4);
    code.push(0x1400_0000 | (start as u32 + 1));
    let load = code.len();
    for i in (0..32).step_by(2) {
        // ldp q<i>, q<i+1>, [x27], #32
        code.push(0xacc1_0000 | (i + 1) << 10 | 27 << 5 | i);
    }
    for i in (0..26).step_by(2) {
        // ldp x<i>, x<i+1>, [x27], #16
        code.push(0xa8c1_0000 | (i + 1) << 10 | 27 << 5 | i);
    }
    // ldr x26, [x27], #8; msr fpsr, xzr; ret; nop
    code.extend([0xf840_877a, 0xd51b_443f, 0xd65f_03c0, 0xd503_201f]);
    let store = code.len();
    for i in (0..32).step_by(2) {
        // stp q<i>, q<i+1>, [x28], #32
        code.push(0xac81_0000 | (i + 1) << 10 | 28 << 5 | i);
    }
    for i in (0..26).step_by(2) {
        // stp x<i>, x<i+1>, [x28], #16
        code.push(0xa881_0000 | (i + 1) << 10 | 28 << 5 | i);
    }
    // mrs x0, fpsr; stp x26, x0, [x28], #16; ret; nop
    code.extend([0xd53b_4420, 0xa881_039a, 0xd65f_03c0, 0xd503_201f]);
    assert_eq!(code.len(), start + 1);
    load_constant(&mut code, 28, output);
    load_constant(&mut code, 29, DATA);
    for case in cases {
        load_constant(&mut code, 27, DATA + (case.input * STATE) as u64);
        call(&mut code, load);
        match case.base {
            Base::None => {}
            // mov x26, x29 or x28
            Base::Inputs => code.push(0xaa1d_03fa),
            Base::Scratch => code.push(0xaa1c_03fa),
        }
        // add x28, x28, #SCRATCH
        code.push(0x9100_0000 | (SCRATCH as u32) << 10 | 28 << 5 | 28);
        code.push(case.word);
        call(&mut code, store);
    }
    // write(1, output, length) until all is written; exit(0)
    load_constant(&mut code, 1, output);
    load_constant(&mut code, 2, (cases.len() * RECORD) as u64);
    code.extend([
        0xd280_0020,                      // mov x0, #1
        0xd280_0808,                      // mov x8, #64
        0xd400_0001,                      // svc #0
        0x8b00_0021,                      // add x1, x1, x0
        0xcb00_0042,                      // sub x2, x2, x0
        0xb500_0002 | (0x7fffb_u32 << 5), // cbnz x2, 5 words back
        0xd280_0000,                      // mov x0, #0
        0xd280_0ba8,                      // mov x8, #93
        0xd400_0001,                      // svc #0
    ]);
    code
}

/// The program as an ELF file with a code and a data segment.
pub fn build(cases: &[Case], inputs: &[State]) -> Vec<u8> {
    let code: Vec<u8> = assemble(cases, inputs)
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let data = input_bytes(inputs);
    let data_offset = (PAGE + code.len()).next_multiple_of(PAGE);
    let data_memory = (output_base(inputs) - DATA) as usize + cases.len() * RECORD;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |elf: &mut Vec<u8>, v: u16| elf.extend(v.to_le_bytes());
    let word = |elf: &mut Vec<u8>, v: u32| elf.extend(v.to_le_bytes());
    let long = |elf: &mut Vec<u8>, v: u64| elf.extend(v.to_le_bytes());
    half(&mut elf, 2); // ET_EXEC
    half(&mut elf, 183); // EM_AARCH64
    word(&mut elf, 1);
    long(&mut elf, CODE); // entry
    long(&mut elf, 64); // program headers
    long(&mut elf, 0);
    word(&mut elf, 0);
    for v in [64, 56, 2, 64, 0, 0] {
        half(&mut elf, v);
    }
    let segments = [
        (5, PAGE, CODE, code.len(), code.len()),
        (6, data_offset, DATA, data.len(), data_memory),
    ];
    for (flags, offset, address, file_bytes, memory_bytes) in segments {
        word(&mut elf, 1); // PT_LOAD
        word(&mut elf, flags);
        long(&mut elf, offset as u64);
        long(&mut elf, address);
        long(&mut elf, address);
        long(&mut elf, file_bytes as u64);
        long(&mut elf, memory_bytes as u64);
        long(&mut elf, PAGE as u64);
    }
    elf.resize(PAGE, 0);
    elf.extend(code);
    elf.resize(data_offset, 0);
    elf.extend(data);
    elf
}

/// Splits the program's output into the outcomes of its cases.
pub fn outcomes(output: &[u8]) -> Vec<Outcome> {
    let parse = |record: &[u8]| {
        let mut words = record[SCRATCH..]
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        let mut next = || words.next().expect("a whole record");
        Outcome {
            scratch: record[..SCRATCH].try_into().expect("scratch bytes"),
            state: State {
                v: std::array::from_fn(|_| V([next(), next()])),
                x: std::array::from_fn(|_| next()),
                fpsr: next(),
            },
        }
    };
    output.chunks_exact(RECORD).map(parse).collect()
}
