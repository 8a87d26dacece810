//! Decoded code that a forked process has from its parent.
//!
//! A child has its parent's memory, so the ops its parent's vCPUs had decoded
//! are there too, at the same addresses; only the threads are not. What they
//! had is taken over once, right after the fork, and each vCPU of the machine
//! that is made next starts with the code of the one of its number.

use crate::code::CodeCache;
use crate::link::State;
use crate::vm::VmShared;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is left of the parent's vCPUs, by number.
static LEGACY: Mutex<Vec<(usize, CodeCache)>> = Mutex::new(Vec::new());

fn legacy() -> MutexGuard<'static, Vec<(usize, CodeCache)>> {
    LEGACY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In a process made by fork(2), before it does anything else with the engine:
/// takes over the code of the vCPUs of `vm`, its parent's.
pub fn take_over(vm: &VmShared) {
    let mut legacy = legacy();
    legacy.clear();
    for vcpu in vm.vcpus().iter() {
        let place = vcpu.code.get().cast::<CodeCache>();
        // The thread of one in guest code may have been changing it.
        if place.is_null() || vcpu.state() != State::Outside {
            continue;
        }
        // SAFETY: the thread that owned it does not exist in this process, and
        // was outside guest execution, where it leaves its code alone. Nobody
        // reads or drops what stays behind there.
        let mut code = unsafe { place.read() };
        match vcpu.try_take_mail() {
            Some(mail) => {
                mail.code.iter().for_each(|range| code.invalidate(range));
                code.part();
                legacy.push((vcpu.index(), code));
            }
            None => std::mem::forget(code),
        }
    }
}

/// The code a vCPU starts with, if it has any from its parent's process.
pub fn claim(index: usize, vm: &VmShared) -> Option<CodeCache> {
    let mut legacy = legacy();
    let at = legacy.iter().position(|(of, _)| *of == index)?;
    let (_, mut code) = legacy.swap_remove(at);
    drop(legacy);
    code.settle(vm);
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::link::CodeRange;
    use crate::tier::Tier;
    use std::sync::Arc;

    /// Number of the first vCPU with code.
    const FIRST: usize = 40;
    const PLACE: u64 = 0x8000_0000;
    /// RETs.
    static WORDS: [u32; 64] = [0xd65f_03c0; 64];

    #[test]
    fn code_goes_to_the_vcpu_of_the_same_number_unless_it_is_stale() {
        let parent = Arc::new(VmShared::new(40, Tier::Auto));
        let mut cpus = Vec::new();
        // vCPUs of other tests in this process, of small numbers, start meanwhile.
        for _ in 0..FIRST {
            parent.add_vcpu().unwrap();
        }
        for _ in 0..3 {
            let link = parent.add_vcpu().unwrap();
            // Never dropped: its thread is not there any more.
            let cpu = Box::leak(Cpu::new(Arc::clone(&parent), link));
            cpu.shared.code.open((&raw mut cpu.code).cast());
            for at in [0, 16] {
                cpu.block_at(PLACE + at, WORDS.as_ptr().addr() as u64 + at);
            }
            cpus.push(cpu);
        }
        let stale = CodeRange {
            pa: PLACE + 16,
            bytes: 4,
        };
        cpus[0].shared.post_code(stale);
        cpus[1].shared.enter();
        let mode = cpus[0].mode();
        #[cfg(compiles)]
        let compiled = {
            let entry = cpus[0].code.find(mode, PLACE).unwrap();
            // SAFETY: the entry of one of its blocks.
            unsafe { cpus[0].code.compile(entry.cast_mut(), false) };
            assert!(crate::jit::tests::is_written_to(entry));
            entry
        };
        take_over(&parent);
        std::mem::forget(parent);
        #[cfg(compiles)]
        assert!(!crate::jit::tests::is_written_to(compiled));

        let child = VmShared::new(40, Tier::Auto);
        assert!(!child.code_pages.may_hold(PLACE));
        let code = claim(FIRST, &child).unwrap();
        assert!(child.code_pages.may_hold(PLACE));
        assert!(code.find(mode, PLACE).is_some());
        assert!(code.find(mode, PLACE + 16).is_none());
        assert!(claim(FIRST + 1, &child).is_none(), "it was in guest code");
        let code = claim(FIRST + 2, &child).unwrap();
        assert!(code.find(mode, PLACE + 16).is_some());
        for index in FIRST..FIRST + 3 {
            assert!(claim(index, &child).is_none(), "once only");
        }
    }
}
