//! Long runs: `soak boots N [VCPUS]` boots N machines one after the other and
//! asks each a question.

use std::process::ExitCode;
use std::time::{Duration, Instant};
use supermachine::{Image, VmConfig};

const USAGE: &str = "usage: soak boots COUNT [VCPUS]";
/// A quarter of the machines has several vCPUs, unless one number is given.
const VCPUS: [u32; 4] = [1, 1, 1, 4];
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// After so many failures more of the same teach nothing.
const MAX_FAILURES: usize = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (count, vcpus) = match words.as_slice() {
        ["boots", count] => (count.parse(), Ok(None)),
        ["boots", count, vcpus] => (count.parse(), vcpus.parse().map(Some)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match (count, vcpus) {
        (Ok(count), Ok(vcpus)) => boots(count, vcpus),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn boots(count: usize, vcpus: Option<u32>) -> ExitCode {
    let image = supermachine_tests::image("busybox");
    let config = supermachine_tests::config();
    let begun = Instant::now();
    let mut times = Vec::with_capacity(count.min(1 << 20));
    let mut failures = 0;
    for number in 0..count {
        let vcpus = vcpus.unwrap_or(VCPUS[number % VCPUS.len()]);
        let start = Instant::now();
        match boot(&image, &config.clone().with_vcpus(vcpus)) {
            Ok(()) => times.push(start.elapsed()),
            Err(error) => {
                failures += 1;
                eprintln!("boot {number} with {vcpus} vCPUs: {error}");
                if failures == MAX_FAILURES {
                    eprintln!("giving up");
                    break;
                }
            }
        }
        if (number + 1) % 100 == 0 {
            eprintln!("{} boots, {failures} failures", number + 1);
        }
    }
    report(&mut times, failures, begun.elapsed());
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Boots, asks, checks the answer, stops.
fn boot(image: &Image, config: &VmConfig) -> Result<(), String> {
    let vm = image.start(config).map_err(|error| error.to_string())?;
    let outcome = vm
        .exec_builder()
        .argv(["sh", "-c", "echo $((6*7))"])
        .timeout(COMMAND_TIMEOUT)
        .output()
        .map_err(|error| error.to_string())?;
    if !outcome.success() || outcome.stdout != b"42\n" || !outcome.stderr.is_empty() {
        return Err(format!("wrong answer: {outcome:?}"));
    }
    vm.stop().map_err(|error| error.to_string())
}

fn report(times: &mut [Duration], failures: usize, total: Duration) {
    times.sort_unstable();
    println!(
        "{} boots right, {failures} failures, {:.1} s, {:.2} boots/s",
        times.len(),
        total.as_secs_f64(),
        times.len() as f64 / total.as_secs_f64()
    );
    if let (Some(median), Some(slowest)) = (times.get(times.len() / 2), times.last()) {
        println!(
            "start to answer and end: median {} ms, slowest {} ms",
            median.as_millis(),
            slowest.as_millis()
        );
    }
}
