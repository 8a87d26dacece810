//! Seeds, and a mutator with a fixed seed, for the stable toolchain.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{fuzz_compression, fuzz_documents, fuzz_layer_stack, fuzz_reference, fuzz_tar};
use crate::LayerBuilder;

/// Time for one target. The number of runs depends on the machine, the
/// inputs and their order do not.
const BUDGET: Duration = Duration::from_millis(800);

/// xorshift64*: small, and good enough to pick bytes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }
}

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(7) {
            0 if at < input.len() => input[at] = random.byte(),
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 => input.insert(at, random.byte()),
            3 if at < input.len() => {
                input.remove(at);
            }
            4 => input.truncate(at),
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                // Digits, where lengths and offsets live.
                if let Some(digit) = input.iter_mut().skip(at).find(|b| b.is_ascii_digit()) {
                    *digit = b'0' + random.byte() % 10;
                }
            }
        }
        input.truncate(64 * 1024);
    }
    input
}

/// Runs the seeds, then mutants until the time is up; returns how many.
fn run(target: fn(&[u8]), seeds: &[Vec<u8>], fix: fn(&mut [u8])) -> u64 {
    for seed in seeds {
        target(seed);
    }
    let mut random = Random(0x5eed_0c1b_a4e0_0001);
    let start = Instant::now();
    let mut runs = 0;
    while start.elapsed() < BUDGET {
        let mut input = mutate(&mut random, seeds);
        fix(&mut input);
        target(&input);
        runs += 1;
    }
    runs
}

fn leave(_: &mut [u8]) {}

/// Makes the checksum of every plausible header right, so that mutants get
/// past it half of the time.
fn fix_checksums(input: &mut [u8]) {
    if input.len() % 2 == 1 {
        return;
    }
    for block in input.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}

fn archive() -> Vec<u8> {
    LayerBuilder::new()
        .dir("d", 0o755)
        .file("d/f", 0o644, "content")
        .xattr("user.a", "b")
        .file(&"long/".repeat(30), 0o644, "x")
        .symlink("l", "d")
        .hard_link("l/h", "d/f")
        .char_device("c", 0o600, 1, 3)
        .fifo("p", 0o600)
        .whiteout("gone")
        .opaque("d")
        .to_tar()
        .unwrap()
}

fn sparse_archive() -> Vec<u8> {
    let mut out = Vec::new();
    let records = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n\
                   26 GNU.sparse.name=sparse\n30 GNU.sparse.realsize=100000\n";
    let mut block = |name: &str, typeflag, data: &[u8]| {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[156] = typeflag;
        header[257..265].copy_from_slice(b"ustar\x0000");
        out.extend_from_slice(&header);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    };
    block("x", b'x', records.as_bytes());
    let mut data = b"2\n0\n512\n90000\n512\n".to_vec();
    data.resize(512, 0);
    data.extend([1; 1024]);
    block("f", b'0', &data);
    block("././@LongLink", b'L', b"name\0");
    block("f", b'0', b"x");
    out.extend([0; 1024]);
    if out.len() % 2 == 0 {
        fix_checksums(&mut out);
    }
    out
}

#[test]
fn tar_survives_mutation() {
    let seeds = [archive(), sparse_archive(), Vec::new()];
    assert!(run(fuzz_tar, &seeds, fix_checksums) > 200);
}

#[test]
fn layer_stack_equals_the_model() {
    let mut random = Random(7);
    let mut seeds: Vec<Vec<u8>> = (0..64)
        .map(|_| (0..60).map(|_| random.byte()).collect())
        .collect();
    // Found by this target: an implied directory took its attributes from
    // one that the same layer removes.
    seeds.push(vec![0, 1, 8, 5, 1, 6, 0x85]);
    assert!(run(fuzz_layer_stack, &seeds, leave) > 200);
}

#[test]
fn documents_survive_mutation() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let descriptor = format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":7,
            "platform":{{"os":"linux","architecture":"arm64","variant":"v8"}},
            "annotations":{{"org.opencontainers.image.ref.name":"t"}}}}"#
    );
    let config = descriptor.replace("manifest.v1", "config.v1");
    let documents = [
        format!("\0{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{config}]}}"),
        format!("\u{1}{{\"schemaVersion\":2,\"manifests\":[{descriptor}]}}"),
        "\u{2}{\"os\":\"linux\",\"architecture\":\"arm64\",\"config\":{\"Cmd\":[\"a\"],\
         \"Env\":[\"A=b\"],\"Volumes\":{\"/v\":{}}},\"rootfs\":{\"diff_ids\":[\"sha256:0\"]}}"
            .to_owned(),
        "\u{3}[{\"Config\":\"c.json\",\"RepoTags\":[\"a:b\"],\"Layers\":[\"l.tar\"]}]".to_owned(),
        "\u{4}{\"imageLayoutVersion\":\"1.0.0\"}".to_owned(),
    ];
    let seeds = documents.map(String::into_bytes);
    assert!(run(fuzz_documents, &seeds, leave) > 1000);
}

#[test]
fn references_survive_mutation() {
    let seeds = [
        "oci:a/b:t",
        "oci-archive:/f.tar",
        "docker-archive:f:n:t",
        "alpine:3.20",
    ]
    .map(|text| text.as_bytes().to_vec());
    assert!(run(fuzz_reference, &seeds, leave) > 1000);
}

#[test]
fn compressed_streams_survive_mutation() {
    let content = archive();
    let mut encoder = flate2::write::GzEncoder::new(vec![0], flate2::Compression::fast());
    encoder.write_all(&content).unwrap();
    let gzip = encoder.finish().unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let frame = ruzstd::encoding::compress_to_vec(&content[..], level);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &frame].concat();
    let zstd = [&[1][..], &frame].concat();
    let both = [&[1][..], &skippable, &frame].concat();
    assert!(run(fuzz_compression, &[gzip, zstd, both], leave) > 50);
}
