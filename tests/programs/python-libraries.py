import array, base64, bisect, collections, csv, datetime, decimal, fractions, functools
import hashlib, heapq, hmac, io, itertools, json, math, random, re, sqlite3, statistics
import struct, textwrap, unicodedata, zlib

def show(*values):
    print(*values)

document = {"list": [1, 2.5, -0.0, 1e300, None, True], "text": "é\u2028\U0001f600\"\\", "deep": {"a": {"b": []}}}
encoded = json.dumps(document, sort_keys=True)
show(encoded)
assert json.loads(encoded) == document
big = [{"id": i, "name": "n%d" % i, "v": i / 7} for i in range(3000)]
text = json.dumps(big)
assert json.loads(text) == big
show(len(text), hashlib.md5(text.encode()).hexdigest())

million = b"a" * 1000000
for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "sha3_512", "blake2b", "blake2s"):
    show(name, hashlib.new(name, b"abc").hexdigest())
    show(name, hashlib.new(name, million).hexdigest())
show(hashlib.shake_128(b"abc").hexdigest(16), hashlib.blake2b(b"x", digest_size=16, key=b"key").hexdigest())
show(hmac.new(b"Jefe", b"what do ya want for nothing?", "sha256").hexdigest())
show(hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2000).hex())

show(struct.pack("<bHiqfd5s?", -1, 65535, -2147483648, 2**62, 1.5, -0.1, b"hello", True).hex())
show(struct.unpack(">hIQ", bytes(range(14))), struct.calcsize("@bqh"), struct.pack(">e", 1.0009765625).hex())

decimal.getcontext().prec = 50
show(decimal.Decimal(2).sqrt(), decimal.Decimal(1) / 7, decimal.Decimal("1.1") + decimal.Decimal("2.2"))
show(decimal.Decimal(1).exp(), fractions.Fraction(355, 113) - fractions.Fraction(22, 7))

for value in (math.pi, math.e, math.sqrt(2), math.hypot(3, 4), math.fsum([0.1] * 10), math.ldexp(0.5, -1073)):
    show(value, value.hex())
show(math.comb(100, 50), math.factorial(30), math.gcd(2**60, 6**20), math.isqrt(10**40))
show(math.floor(-0.5), math.ceil(-0.5), math.trunc(-1.9), round(2.5), round(3.5), round(-0.5), math.fmod(-7, 3), -7 % 3)
show(math.copysign(1, -0.0), math.nextafter(1, 2), math.ulp(1e300), math.remainder(7, 4), math.inf - math.inf)
show(float("1e-320"), 5e-324 / 2, 2**1000 % 1000007, pow(3, -1, 1000007), 7 ** 100)
for spec in (".3f", "e", "g", ".17g", "%", ",.2f", "+.1e", "015.4f"):
    show(spec, format(12345.6789, spec), format(-1e-7, spec))

payload = bytes((i * i + i // 3) & 255 for i in range(200000))
for level in (0, 1, 6, 9):
    assert zlib.decompress(zlib.compress(payload, level)) == payload
show(zlib.crc32(payload), zlib.adler32(payload), base64.b85encode(payload[:20]).decode())

database = sqlite3.connect("/tmp/python-libraries.db")
database.execute("pragma journal_mode=wal").fetchone()
database.execute("drop table if exists t")
database.execute("create table t(id integer primary key, k text, v real)")
with database:
    database.executemany("insert into t(k, v) values(?, ?)", (("k%d" % (i % 10), i * 0.5) for i in range(20000)))
try:
    with database:
        database.execute("delete from t")
        raise RuntimeError
except RuntimeError:
    pass
show(database.execute("select count(*), sum(v), avg(v), min(v), max(v) from t").fetchone())
show(database.execute("select k, count(*), sum(v) from t group by k having k > 'k6' order by k desc").fetchall())
database.execute("create index i on t(k, v)")
show(database.execute("select count(*) from t a join t b on a.id = b.id + 1 and a.k = 'k1'").fetchone())
show(database.execute("with recursive f(a, b) as (select 0, 1 union all select b, a + b from f limit 40) select max(a) from f").fetchone())
show(database.execute("pragma integrity_check").fetchone())
database.close()

show(re.sub(r"(\w+)@(\w+)\.com", r"\2 at \1", "joe@example.com, ann@test.com"))
show(re.findall(r"(?i)\b(?:[a-z]{2}\d+)\b", "AB12 x9 cd345 e"), re.split(r"\s*[,;]\s*", "a , b;c"))
show(bool(re.fullmatch(r"(a+)+b", "a" * 18 + "c")), re.match(r"(?P<n>\d+)(?=px)", "12px").group("n"))

random.seed(12345)
show([random.randrange(1000) for _ in range(8)], random.random(), random.gauss(0, 1))
sample = [random.random() for _ in range(20000)]
show(statistics.fmean(sample), statistics.stdev(sample[:1000]), sum(sorted(sample)[:100]))
heap = list(range(5000, 0, -1)); heapq.heapify(heap)
show([heapq.heappop(heap) for _ in range(5)], bisect.bisect([1, 3, 5], 3), collections.Counter("mississippi").most_common(2))
show(list(itertools.islice(itertools.permutations("abcd"), 22, 24)), functools.reduce(lambda a, b: a * b, range(1, 21)))
show(datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc).timestamp(), datetime.date(2000, 1, 1).toordinal(), datetime.timedelta(days=1, microseconds=1))
show(unicodedata.normalize("NFKD", "ﬁé").encode(), "straße".upper(), "İ".lower().encode(), textwrap.fill("word " * 12, 20))
show(array.array("d", [1, 2, 3]).tobytes().hex()[:16], memoryview(b"abcdef")[1:4].tobytes(), int.from_bytes(b"\x01\x02", "little"))
rows = list(csv.reader(io.StringIO('a,"b,c","d""e"\n1,2,3\n'))); show(rows)
show(sum(i * i for i in range(200000)), sum(1 / (i * i) for i in range(1, 100000)))
try:
    def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
    show(deep(800)); deep(10**6)
except RecursionError:
    show("recursion limit")
