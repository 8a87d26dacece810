//! `cargo xtask handlers`: reads the worker that was built in release for
//! handlers of the software engine that call the next one instead of jumping to
//! it. Each call would leave a frame on the host stack, for as long as the guest
//! goes on without a branch back (`softhv/src/dispatch`).
//!
//! A handler is a function of the engine that jumps to where a register or
//! memory says, or to a handler. Calling one, or calling where a register or
//! memory says from the modules that handlers are in, is an error; so is such a
//! jump with something still on the stack.

use crate::{process, workspace};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The modules that handlers are in, as symbols have them.
const MODULES: &[&str] = &["exec", "fp", "simd", "decode"];
/// Fewer handlers than this, and they were not recognised.
const LEAST: usize = 1000;

pub fn run(arguments: &[String]) -> Result<()> {
    let built = workspace::target_dir()?.join("release/supermachine-worker");
    let path = arguments.first().map_or(built.as_path(), Path::new);
    let text = process::output(
        Command::new("objdump")
            .args(["--disassemble", "--no-show-raw-insn"])
            .arg(path),
    )
    .context("objdump is part of binutils; the worker is built by `cargo build --release`")?;
    let functions = parse(&text);
    let handlers = handlers(&functions);
    let faults = faults(&functions, &handlers);
    eprintln!("{}: {} handlers", path.display(), handlers.len());
    if handlers.len() < LEAST {
        bail!("only {} handlers were recognised", handlers.len());
    }
    if !faults.is_empty() {
        bail!("handlers that take host stack:\n{}", faults.join("\n"));
    }
    Ok(())
}

/// What matters of one instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Flow {
    /// A call of the function at the symbol.
    Call(String),
    /// A call of what a register or memory says, with nothing behind it but
    /// the function's end.
    CallIndirect,
    /// A jump to another function.
    Jump(String),
    /// A jump to what a register or memory says, but none through a table.
    JumpIndirect { stack: i64 },
}

#[derive(Debug, Default)]
struct Function {
    flows: Vec<Flow>,
}

type Functions = BTreeMap<String, Function>;

/// The functions of a disassembly.
fn parse(text: &str) -> Functions {
    let mut functions = Functions::new();
    let mut name = String::new();
    let mut stack = Stack::default();
    for line in text.lines() {
        if let Some(symbol) = line.strip_suffix(">:").and_then(|l| l.split_once('<')) {
            symbol.1.clone_into(&mut name);
            stack = Stack::default();
            functions.entry(name.clone()).or_default();
            continue;
        }
        // "  1781e0:\tpush   %r14"
        let Some((address, instruction)) = line.split_once(":\t") else {
            continue;
        };
        let Ok(address) = u64::from_str_radix(address.trim(), 16) else {
            continue;
        };
        if let Some(flow) = stack.step(address, instruction.trim(), &name)
            && let Some(function) = functions.get_mut(&name)
        {
            function.flows.push(flow);
        }
    }
    functions
}

/// Follows one function: how much it has on the stack, at each place that a
/// branch before leads to, and which register a jump table was added to.
#[derive(Debug, Default)]
struct Stack {
    bytes: i64,
    at: BTreeMap<u64, i64>,
    after_end: bool,
    table: BTreeSet<String>,
    /// The last call was of what a register or memory says, and only the frame
    /// was put away since.
    called: bool,
}

impl Stack {
    fn step(&mut self, address: u64, instruction: &str, own: &str) -> Option<Flow> {
        if let Some(known) = self.at.get(&address) {
            self.bytes = *known;
        } else if self.after_end {
            // Reached through a table or a landing pad: not known.
            self.bytes = 0;
        }
        self.after_end = false;
        let (mnemonic, operands) = instruction
            .split_once(char::is_whitespace)
            .unwrap_or((instruction, ""));
        let operands = operands.trim();
        let restores = matches!(mnemonic, "pop" | "ldp" | "ldr" | "ret" | "jmp" | "b")
            || matches!(mnemonic, "add" | "lea") && operands.ends_with("sp");
        let called = std::mem::take(&mut self.called) && restores;
        if called && matches!(mnemonic, "ret" | "jmp" | "b") {
            self.after_end = true;
            return Some(Flow::CallIndirect);
        }
        self.called = called;
        let target = operands
            .split_once('<')
            .map(|(_, rest)| rest.trim_end_matches('>'));
        match mnemonic {
            "push" => self.bytes += 8,
            "pop" => self.bytes -= 8,
            "sub" | "add" if operands.ends_with(",%rsp") => self.adjust(mnemonic, operands),
            "add" => {
                if let Some((_, register)) = operands.rsplit_once(',') {
                    self.table.insert(register.trim().to_owned());
                }
            }
            "mov" => {
                if let Some((_, register)) = operands.rsplit_once(',') {
                    self.table.remove(register.trim());
                }
            }
            "ret" | "ud2" => self.after_end = true,
            // Arm64: an indirect call and an indirect jump.
            "blr" => self.called = true,
            "br" => return self.indirect_jump(operands),
            "call" | "bl" if operands.starts_with('*') => {
                // Through the table of other libraries' functions.
                self.called = !operands.contains("(%rip)");
            }
            "call" | "bl" => return Some(Flow::Call(target?.to_owned())),
            "jmp" if operands.starts_with('*') => return self.indirect_jump(operands),
            "jmp" | "b" => {
                self.after_end = true;
                return self.branch(operands, target?, own, true);
            }
            _ if mnemonic.starts_with('j') || mnemonic.starts_with("b.") => {
                return self.branch(operands, target?, own, false);
            }
            _ => {}
        }
        None
    }

    fn adjust(&mut self, mnemonic: &str, operands: &str) {
        let value = operands
            .strip_prefix('$')
            .and_then(|o| o.split_once(','))
            .map_or("", |(value, _)| value);
        let hex = value.trim_start_matches("0x");
        // Of 64 bits, so that 0xff…80 is negative.
        let bytes = u64::from_str_radix(hex, 16).map_or(0, u64::cast_signed);
        self.bytes += if mnemonic == "sub" { bytes } else { -bytes };
    }

    fn indirect_jump(&mut self, operands: &str) -> Option<Flow> {
        self.after_end = true;
        let register = operands.trim_start_matches('*');
        if operands.contains("(%rip)") || self.table.contains(register) {
            return None;
        }
        Some(Flow::JumpIndirect { stack: self.bytes })
    }

    fn branch(&mut self, operands: &str, target: &str, own: &str, always: bool) -> Option<Flow> {
        // "own+0x9a" is inside; "own" alone is its start.
        if target.split('+').next() == Some(own) {
            let address = operands.split_whitespace().next().unwrap_or("");
            if let Ok(address) = u64::from_str_radix(address, 16) {
                self.at.entry(address).or_insert(self.bytes);
            }
            return None;
        }
        (always || !target.contains('+')).then(|| Flow::Jump(target.to_owned()))
    }
}

/// Whether `symbol` is a function of the modules that handlers are in.
fn is_ours(symbol: &str) -> bool {
    let legacy = |module: &str| format!("19supermachine_softhv{}{module}", module.len());
    let inside = |module: &str| format!("supermachine_softhv..{module}..");
    MODULES
        .iter()
        .any(|m| symbol.contains(&legacy(m)) || symbol.contains(&inside(m)))
}

/// Functions of ours that end in a jump to the next handler, or to one that
/// does.
fn handlers(functions: &Functions) -> BTreeSet<&str> {
    let ours: Vec<(&str, &Function)> = functions
        .iter()
        .filter(|(name, _)| is_ours(name))
        .map(|(name, function)| (name.as_str(), function))
        .collect();
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for (name, function) in &ours {
            let continues = function.flows.iter().any(|flow| match flow {
                Flow::JumpIndirect { .. } => true,
                Flow::Jump(target) => found.contains(target.as_str()),
                _ => false,
            });
            if continues {
                found.insert(*name);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn faults(functions: &Functions, handlers: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, function) in functions {
        for flow in &function.flows {
            match flow {
                Flow::CallIndirect if is_ours(name) => {
                    faults.push(format!("{name} calls the next handler"));
                }
                Flow::Call(target) if handlers.contains(target.as_str()) => {
                    faults.push(format!("{name} calls the handler {target}"));
                }
                Flow::JumpIndirect { stack } if is_ours(name) && *stack != 0 => {
                    faults.push(format!("{name} jumps with {stack} bytes on the stack"));
                }
                _ => {}
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_ZN19supermachine_softhv4exec6system5dummy17h0E";

    fn found(code: &str) -> (usize, Vec<String>) {
        let body: String = code
            .lines()
            .enumerate()
            .map(|(n, line)| format!("  {:x}:\t{}\n", 0x10 + n, line.trim()))
            .collect();
        let text = format!("0000000000000010 <{NAME}>:\n{body}");
        let functions = parse(&text);
        let handlers = handlers(&functions);
        (handlers.len(), faults(&functions, &handlers))
    }

    #[test]
    fn a_handler_that_jumps_is_right() {
        assert_eq!(
            found("mov 0x20(%rsi),%rax\nadd $0x20,%rsi\njmp *%rax"),
            (1, vec![])
        );
        assert_eq!(
            found("push %rbx\ncall 99 <other>\npop %rbx\njmp *0x20(%rsi)"),
            (1, vec![])
        );
        assert_eq!(
            found("sub $0x18,%rsp\nadd $0x18,%rsp\njmp *0x20(%rsi)"),
            (1, vec![])
        );
        assert_eq!(found("ldr x2, [x1, #32]!\nbr x2"), (1, vec![]));
    }

    #[test]
    fn a_handler_that_calls_is_found() {
        for code in [
            "push %rbx\ncall *0x20(%rsi)\npop %rbx\nret",
            "call *%rax\nret",
            "ldr x2, [x1, #32]!\nblr x2\nret",
        ] {
            let (_, faults) = found(code);
            assert_eq!(faults, [format!("{NAME} calls the next handler")], "{code}");
        }
        let middle = "call *%rax\nmov %rax,%rbx\njmp *0x20(%rsi)";
        assert_eq!(
            found(middle),
            (1, vec![]),
            "of a function that is no handler"
        );
        let itself = format!("call 10 <{NAME}>\njmp *0x20(%rsi)");
        assert_eq!(
            found(&itself).1,
            [format!("{NAME} calls the handler {NAME}")]
        );
    }

    #[test]
    fn a_jump_with_a_live_frame_is_found() {
        let code = "push %rbx\njmp *0x20(%rsi)";
        assert_eq!(
            found(code).1,
            [format!("{NAME} jumps with 8 bytes on the stack")]
        );
        // The frame is that of the place the branch came from.
        let inside = format!("push %rbx\nje 14 <{NAME}+0x4>\npop %rbx\nret\njmp *%rax");
        assert_eq!(found(&inside).1.len(), 1);
    }

    #[test]
    fn jump_tables_and_calls_of_libraries_are_no_handlers() {
        assert_eq!(found("add %rcx,%rax\njmp *%rax"), (0, vec![]));
        assert_eq!(found("call *0x1234(%rip)\nret"), (0, vec![]));
    }
}
