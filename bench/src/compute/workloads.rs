//! The programs.

/// A program, from its start to its end.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// The shell script that makes what it reads, once; empty for nothing.
    pub input: &'static str,
    /// The shell script, which says the same on each run.
    pub script: &'static str,
}

impl Workload {
    /// What has to be run once, in order.
    pub fn preparation(&self) -> Vec<String> {
        let input = format!("{}-input", self.name);
        let mut commands = Vec::new();
        if !self.input.is_empty() {
            commands.push(written(&input, self.input));
            commands.push(format!("bash /tmp/{input}.sh"));
        }
        commands.push(written(self.name, self.script));
        commands
    }

    /// What runs it.
    pub fn command(&self) -> String {
        format!("bash /tmp/{}.sh", self.name)
    }
}

/// The shell command that writes the script `name`. Scripts go through files: the peer's
/// console takes one short line.
pub fn written(name: &str, script: &str) -> String {
    let script = script
        .replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('%', "%%")
        .replace('\'', "'\\''");
    format!("printf '{script}\\n' >/tmp/{name}.sh")
}

const fn of(name: &'static str, script: &'static str) -> Workload {
    Workload {
        name,
        input: "",
        script,
    }
}

/// All of them. What they print is compared between the two machines.
pub const WORKLOADS: &[Workload] = &[
    of(
        "shell",
        "bash -c 'i=0; s=0; while ((i < 15000)); do ((s += i * 3 % 7, i++)); done; echo $s'",
    ),
    of(
        "python",
        "python3 -c 's = 0\nfor i in range(300000): s += i * i % 7\nprint(s)'",
    ),
    of(
        "sqlite",
        "python3 -c 'import sqlite3\nd = sqlite3.connect(\":memory:\")\nd.execute(\"create table t(a integer primary key, b text)\")\nd.execute(\"with recursive c(x) as (select 1 union all select x + 1 from c where x < 40000) insert into t select x, hex(x * 7919) from c\")\nd.execute(\"create index i on t(b)\")\nprint(d.execute(\"select count(*), sum(a), max(b) from t where b > 5\").fetchone())'",
    ),
    of(
        "node",
        "node -e 'let s = 0; for (let i = 0; i < 2000000; i++) s = (s * 31 + i) % 1000003; const m = new Map(); for (let i = 0; i < 30000; i++) m.set(\"k\" + i % 20000, i); let t = 0; for (const v of m.values()) t += v; console.log(s, t)'",
    ),
    of(
        "sha256",
        "python3 -c 'import hashlib\nh = hashlib.sha256()\nd = bytes(range(256)) * 4096\nfor i in range(32): h.update(d)\nprint(h.hexdigest())'",
    ),
    of("float", "/bench/floats 6"),
    of(
        "numpy",
        // So many passes that loops are most of it: 60 of them were an eighth, and the rest was
        // the import, which is Python. What links to these directories is made by scripts of
        // packages, which images do not run.
        "export LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/blas:/usr/lib/aarch64-linux-gnu/lapack
python3 -c 'import numpy as n\na = n.arange(1, 20001) / 3.0\ns = 0.0\nfor i in range(1000):\n    b = n.sqrt(a * a + i) - a / (i + 1.5)\n    s += float(b.sum() + n.maximum(a, b).mean())\nm = n.arange(6400).reshape(80, 80) % 97 / 7.0\nfor i in range(100): m = m @ m / 1e4 + 1.0\nprint(repr(s), repr(float(m.trace())))'",
    ),
    of(
        "json",
        "python3 -c 'import json\nd = [{\"id\": i, \"name\": \"n%d\" % (i * 7919), \"tags\": [\"a\", \"b\\u00e9\", str(i)], \"at\": i / 7, \"on\": i % 3 == 0, \"in\": {\"x\": None, \"y\": -i}} for i in range(2000)]\nfor i in range(6):\n    t = json.dumps(d, indent=i % 2 or None, sort_keys=True)\n    d = json.loads(t)\nprint(len(t), d[-1][\"name\"], sum(e[\"at\"] for e in d))'",
    ),
    of(
        "perl",
        "perl -e 'my %h; my $s = 0; for my $i (1 .. 60000) { my $k = \"k\" . ($i * 7919 % 9973); $h{$k} += $i; $s += length($1) if $k =~ /^k(\\d*?)[13579]$/; } my @k = sort { $h{$a} <=> $h{$b} || $a cmp $b } keys %h; print join(\",\", $s, scalar(@k), @k[0 .. 3]), \"\\n\"'",
    ),
    Workload {
        name: "gcc",
        // 3,000 lines of C: 100 functions of ten, and 20 declarations to each.
        input: "awk 'BEGIN { for (i = 1; i <= 100; i++) { for (j = 0; j < 20; j++) printf \"extern int g%d_%d(const char *name, int first, int second);\\n\", i, j; printf \"int f%d(const int *v, int n)\\n{\\n    int s = %d, m = 0;\\n    for (int i = 0; i < n; i++) {\\n        if (v[i] %% %d == m) s += v[i] * %d; else m ^= v[i] >> %d;\\n        switch (v[i] & 3) { case 0: s ^= m; break; case 1: s -= i; break; default: m++; }\\n    }\\n    return s / ((m & 15) + 1);\\n}\\n\\n\", i, i, i % 13 + 2, i, i % 7 } }' >/tmp/big.c",
        script: "gcc -O2 -S -o - /tmp/big.c | cksum",
    },
    Workload {
        name: "openjdk",
        input: "cat >/tmp/Load.java <<END\nimport java.util.*;\npublic class Load {\n    public static void main(String[] a) {\n        Map<String, Integer> m = new TreeMap<>();\n        long s = 0;\n        for (int i = 0; i < 300000; i++) {\n            s = s * 31 + (i ^ s >>> 7);\n            m.merge(Integer.toString((int) (s & 4095)), 1, Integer::sum);\n        }\n        StringBuilder b = new StringBuilder();\n        for (var e : m.entrySet()) b.append(e.getKey()).append(e.getValue());\n        System.out.println(s + \" \" + b.toString().hashCode());\n    }\n}\nEND\n/usr/lib/jvm/java-17-openjdk-arm64/bin/javac -d /tmp /tmp/Load.java",
        script: "/usr/lib/jvm/java-17-openjdk-arm64/bin/java -cp /tmp Load",
    },
    Workload {
        name: "go",
        // esbuild is written in Go: it parses, prints and collects garbage.
        input: "awk 'BEGIN { for (i = 1; i <= 1500; i++) printf \"export function f%d(first, second) { const values = [first, second, %d]; if (first > %d) { return values.map((value) => value * second + %d); } for (let index = 0; index < values.length; index++) { console.log(index + \\\": %d\\\"); } return { first, second, name: \\\"f%d\\\" }; }\\n\", i, i, i, i, i, i }' >/tmp/big.js",
        script: "esbuild --minify --log-level=error /tmp/big.js | cksum",
    },
    of(
        "zstd",
        "zstd -q --single-thread -9 -c /usr/bin/python3.11 >/tmp/python.zst; zstd -q -d -c /tmp/python.zst | cksum",
    ),
    of(
        "aes_gcm",
        "python3 -c 'from cryptography.hazmat.primitives.ciphers.aead import AESGCM\nd = bytes(range(256)) * 4096\nc = AESGCM(bytes(32))\nfor i in range(4): e = c.encrypt(i.to_bytes(12, \"big\"), d, None)\nprint(e[-16:].hex())'",
    ),
];
