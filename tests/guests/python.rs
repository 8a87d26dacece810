//! python3: its libraries, float formatting, threads and processes.

use supermachine_tests::Guest;

/// How many random doubles make the round trip, besides the chosen ones.
const DOUBLES: usize = 20_000;

fn threads(guest: &mut Guest) {
    guest.program(
        "threads",
        &["python3"],
        "py",
        include_str!("../programs/python-threads.py"),
        include_str!("../programs/python-threads.out"),
    );
}

fn tour(vcpus: u32) {
    let mut guest = Guest::boot("python3", vcpus, 512);
    guest.program(
        "libraries",
        &["env", "LC_ALL=C.UTF-8", "python3"],
        "py",
        include_str!("../programs/python-libraries.py"),
        include_str!("../programs/python-libraries.out"),
    );
    guest.check("float formatting", float_formatting);
    threads(&mut guest);
    guest.finish();
}

#[test]
fn python_prints_what_it_must() {
    tour(1);
}

#[test]
fn python_prints_what_it_must_on_four_vcpus() {
    tour(4);
}

/// Both languages print the shortest digits that read back as the same number.
fn float_formatting(guest: &Guest) -> Result<(), String> {
    let doubles = doubles();
    let stdin: String = doubles
        .iter()
        .map(|value| format!("{:016x}\n", value.to_bits()))
        .collect();
    let source = include_str!("../programs/python-float-repr.py");
    let stdout = guest.stdout_of("floats", &["python3"], "py", source, stdin.as_bytes())?;
    let lines: Vec<&str> = stdout.lines().collect();
    if lines.len() != doubles.len() {
        return Err(format!(
            "{} lines for {} numbers",
            lines.len(),
            doubles.len()
        ));
    }
    for (line, value) in lines.iter().zip(&doubles) {
        let (theirs, ours) = (digits(line), digits(&format!("{value:e}")));
        // Halfway between two candidates the languages round differently, so
        // the last digit may differ, but neither the value nor the length.
        let reads_back = line.parse().map(f64::to_bits) == Ok(value.to_bits());
        if !reads_back || theirs.len() != ours.len() {
            return Err(format!("{line} for {value:e}"));
        }
    }
    Ok(())
}

/// Corners of the format, then a fixed sequence of random bit patterns.
fn doubles() -> Vec<f64> {
    let mut doubles = vec![
        0.0,
        -0.0,
        0.1,
        1e22,
        1e23,
        9007199254740993.0,
        5e-324,
        f64::MIN_POSITIVE,
        f64::MIN_POSITIVE - 5e-324,
        f64::MAX,
        f64::EPSILON,
        1e16,
        123456789012345680.0,
        0.0001,
        0.00001,
    ];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    while doubles.len() < DOUBLES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Every eighth is subnormal.
        let bits = if doubles.len() % 8 == 0 {
            state & 0x800f_ffff_ffff_ffff
        } else {
            state
        };
        let value = f64::from_bits(bits);
        if value.is_finite() {
            doubles.push(value);
        }
    }
    doubles
}

/// A number's sign, significant digits and exponent, whatever its notation.
fn digits(text: &str) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let leading = all.len() - all.trim_start_matches('0').len();
    let significant = all.trim_matches('0');
    if significant.is_empty() {
        return format!("{sign}0");
    }
    let exponent: i64 = exponent.parse().unwrap_or(i64::MIN / 2);
    let shift = i64::try_from(whole.len()).unwrap_or(0) - i64::try_from(leading).unwrap_or(0);
    format!("{sign}0.{significant}e{}", exponent + shift)
}

#[test]
fn notations_of_one_number_have_the_same_digits() {
    assert_eq!(digits("1e+300"), digits("1e300"));
    assert_eq!(digits("-0.00012"), digits("-1.2e-4"));
    assert_eq!(digits("1200.0"), "0.12e4");
    assert_ne!(digits("-0.0"), digits("0.0"));
}
