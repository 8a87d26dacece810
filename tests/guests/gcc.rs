//! gcc: C programs compiled and run in the guest.

use supermachine_tests::{Guest, same, succeeded};

/// One program: its source and what it prints.
struct Program {
    name: &'static str,
    source: &'static str,
    output: &'static str,
    /// What it exits with.
    code: i32,
}

const TOUR: Program = Program {
    name: "tour",
    source: include_str!("../programs/c-tour.c"),
    output: include_str!("../programs/c-tour.out"),
    code: 3,
};
const THREADS: Program = Program {
    name: "threads",
    source: include_str!("../programs/c-threads.c"),
    output: include_str!("../programs/c-threads.out"),
    code: 0,
};
const SELF_MODIFYING: Program = Program {
    name: "selfmodify",
    source: include_str!("../programs/c-selfmodify.c"),
    output: include_str!("../programs/c-selfmodify.out"),
    code: 0,
};

const FLAGS: [&str; 6] = [
    "-std=gnu11",
    "-frounding-math",
    "-ffp-contract=off",
    "-w",
    "-pthread",
    "-lm",
];

fn compile(guest: &Guest, program: &Program, optimisation: &str) -> Result<String, String> {
    let source = format!("/tmp/{}.c", program.name);
    let executable = format!("/tmp/{}{optimisation}", program.name);
    let bytes = program.source.as_bytes();
    let mut argv = vec!["gcc", optimisation, "-o", &executable, &source];
    argv.extend(FLAGS);
    let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
    let outcome = guest
        .run(move |builder| builder.stage_file(source, bytes).argv(argv))
        .map_err(|error| error.to_string())?;
    succeeded(&outcome).map(|_| executable)
}

fn run(guest: &Guest, executable: &str, program: &Program) -> Result<(), String> {
    let argv = [executable.to_owned()];
    let outcome = guest
        .run(|builder| builder.argv(argv))
        .map_err(|error| error.to_string())?;
    same(&String::from_utf8_lossy(&outcome.stdout), program.output)?;
    if outcome.status.code != Some(program.code) {
        return Err(format!("ended with {:?}", outcome.status));
    }
    Ok(())
}

fn check(guest: &mut Guest, program: &Program, optimisation: &str, times: usize) {
    guest.check(&format!("{} {optimisation}", program.name), |guest| {
        let executable = compile(guest, program, optimisation)?;
        (0..times).try_for_each(|_| run(guest, &executable, program))
    });
}

#[test]
fn compiled_programs_print_what_they_must() {
    let mut guest = Guest::boot("gcc", 1, 1024);
    for optimisation in ["-O0", "-O2", "-O3"] {
        check(&mut guest, &TOUR, optimisation, 1);
    }
    check(&mut guest, &THREADS, "-O2", 1);
    check(&mut guest, &SELF_MODIFYING, "-O2", 1);
    guest.finish();
}

#[test]
fn threads_agree_on_four_vcpus() {
    let mut guest = Guest::boot("gcc", 4, 1024);
    // With the outlined atomics of LSE, and with exclusives.
    check(&mut guest, &THREADS, "-O2", 2);
    check(&mut guest, &THREADS, "-mno-outline-atomics", 2);
    check(&mut guest, &SELF_MODIFYING, "-O2", 2);
    check(&mut guest, &TOUR, "-O2", 1);
    guest.finish();
}

#[test]
fn threads_agree_on_sixteen_vcpus() {
    let mut guest = Guest::boot("gcc", 16, 1024);
    guest.shell("processors", "nproc", "16\n");
    check(&mut guest, &THREADS, "-O2", 1);
    guest.finish();
}
