//! The op in front of a block that may be compiled: it counts, and is what leads
//! to the compiled code afterwards.

use super::branch::handler;
use crate::cpu::Cpu;
use crate::cpu::op::Op;
use crate::dispatch::go_on;
use crate::tier::Heat;

handler!(
    /// Goes on to the block, which is compiled when it was entered often enough.
    count, |cpu, op| {
        let header = op.cast_mut();
        if Heat::cool(&mut (*header).imm) {
            go_on(cpu, (*op).link.get())
        } else {
            compile(cpu, op)
        }
    }
);

handler!(
    /// Compiles the block, and executes what came of it.
    #[cold]
    #[inline(never)]
    compile, |cpu, op| {
        (*cpu).compile(op.cast_mut());
        go_on(cpu, op)
    }
);

handler!(
    /// Goes on to the block, which will not be compiled.
    pass, |cpu, op| { go_on(cpu, (*op).link.get()) }
);
