# More programs as people use them, as clients.sh has them; these need much memory or time.
# The first argument is the part to run, `servers` before all others; what did not work is
# not in the output. Lines that begin with # are figures.
set -e
part=$1 web=$2 sql=$3 sockets=$4 echo=$5 iperf=$6
host=host.supermachine.internal
url=http://$host:$web

mkdir -p /srv/www/simple/probe /srv/www/npm /tmp/work
cd /tmp/work
[ -e /srv/www/long ] || head -c 3000017 /dev/urandom > /srv/www/long
sum=$(sha256sum < /srv/www/long | cut -d' ' -f1)

await() {
    for try in $(seq 1800); do
        (exec 3<> /dev/tcp/127.0.0.1/$1) 2> /dev/null && return
        sleep 0.1
    done
    echo "# nothing listens on $1:"
    for log in *.log; do echo "$log:"; tail -n 5 "$log"; done | sed 's/^/# /'
}

servers() {
    python3 -m http.server -d /srv/www 80 < /dev/null > web.log 2>&1 &
    socat TCP-LISTEN:9000,fork,reuseaddr EXEC:cat < /dev/null > socat.log 2>&1 &
    cat > sockets.js <<'END'
const { WebSocketServer } = require('ws')
new WebSocketServer({ port: 9001 }).on('connection', (socket) =>
  socket.on('message', (bytes, isBinary) => socket.send(bytes, { binary: isBinary })))
END
    NODE_PATH=/usr/share/nodejs node sockets.js < /dev/null > sockets.log 2>&1 &
    bin=/usr/lib/postgresql/15/bin
    mkdir -p /srv/sql && chown nobody /srv/sql
    as="setpriv --reuid nobody --regid nogroup --clear-groups"
    LC_ALL=C HOME=/tmp $as $bin/initdb -D /srv/sql -U test -A trust > initdb.log 2>&1
    LC_ALL=C HOME=/tmp $as $bin/postgres -D /srv/sql -k /tmp -c fsync=off < /dev/null > sql.log 2>&1 &
    for port in 80 9000 9001 5432; do await $port; done
    # It listens before it serves.
    for try in $(seq 600); do $bin/pg_isready -q -h 127.0.0.1 && return; sleep 0.1; done
}

packages() {
    python3 - <<'END'
import base64, hashlib, io, json, tarfile, zipfile
with zipfile.ZipFile("/srv/www/simple/probe/probe-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("probe.py", "said = 'by pip'\n")
    wheel.write("/srv/www/long", "probe-long")
    wheel.writestr("probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
    wheel.writestr("probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("probe-1.0.dist-info/RECORD", "probe.py,,\nprobe-long,,\nprobe-1.0.dist-info/METADATA,,\nprobe-1.0.dist-info/WHEEL,,\nprobe-1.0.dist-info/RECORD,,\n")
END
    pip install -q --no-cache-dir --disable-pip-version-check --index-url $url/simple \
        --trusted-host $host --target /tmp/work/pip probe > pip.log 2>&1 || tail -n 20 pip.log | sed 's/^/# /'
    [ "$(sha256sum < pip/probe-long | cut -d' ' -f1)" = $sum ] &&
        [ "$(PYTHONPATH=pip python3 -c 'import probe; print(probe.said)')" = "by pip" ] && echo pip
    mkdir -p package && cp /srv/www/long package/long
    echo '{"name": "probe", "version": "1.0.0", "main": "main.js"}' > package/package.json
    echo "module.exports = 'by npm'" > package/main.js
    tar czf /srv/www/npm/probe.tgz package
    digest=$(openssl dgst -sha512 -binary /srv/www/npm/probe.tgz | base64 -w0)
    cat > /srv/www/npm/probe <<END
{"name": "probe", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "probe",
"version": "1.0.0", "main": "main.js", "dist": {"tarball": "$url/npm/probe.tgz", "integrity": "sha512-$digest"}}}}
END
    mkdir -p npm && npm --prefix npm install --no-audit --no-fund --registry $url/npm/ probe > npm.log 2>&1 ||
        tail -n 20 npm.log | sed 's/^/# /'
    [ "$(sha256sum < npm/node_modules/probe/long | cut -d' ' -f1)" = $sum ] &&
        [ "$(cd npm && node -p 'require("probe")')" = "by npm" ] && echo npm
}

databases() {
    psql="psql -h $host -p $sql -U test -d postgres -qAtX"
    [ "$($psql -c "select sum(n) from generate_series(1, 100000) n")" = 5000050000 ]
    [ "$($psql -c "select length(repeat('x', 5000000))")" = 5000000 ] && echo psql
    pgbench="/usr/lib/postgresql/15/bin/pgbench -h $host -p $sql -U test"
    $pgbench -i -q postgres > pgbench.log 2>&1 && $pgbench -c 4 -T 60 postgres >> pgbench.log 2>&1 ||
        tail -n 20 pgbench.log | sed 's/^/# /'
    grep -q 'number of failed transactions: 0 ' pgbench.log &&
        grep -q 'number of transactions actually processed: [1-9]' pgbench.log && echo pgbench
}

streams() {
    [ "$(socat -t 100 - TCP:$host:$echo < /srv/www/long | sha256sum | cut -d' ' -f1)" = $sum ] && echo socat
    cat > client.mjs <<'END'
import { createHash, randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
const { WebSocket } = createRequire('/usr/share/nodejs/')('ws')
const digest = (bytes) => createHash('sha256').update(bytes).digest('hex')
const [web, sockets, sum] = process.argv.slice(2)
const answer = await fetch(`${web}/long`)
if (digest(Buffer.from(await answer.arrayBuffer())) === sum) console.log('node fetch')
const all = await Promise.all(Array.from({ length: 50 }, () => fetch(`${web}/npm/`)))
if (all.every((one) => one.ok)) console.log('node fetch, fifty at once')
const socket = new WebSocket(sockets)
await new Promise((open, fail) => socket.on('open', open).on('error', fail))
let same = 0
for (const length of [0, 1, 125, 126, 65_535, 65_536, 1_000_003]) {
  const bytes = randomBytes(length)
  const back = new Promise((message) => socket.once('message', message))
  socket.send(bytes)
  same += digest(await back) === digest(bytes)
}
if (same === 7) console.log('websocket')
socket.terminate()
END
    node client.mjs $url ws://$host:$sockets $sum
}

routes() {
    traceroute.db -n -w 20 -q 1 192.168.127.1 > route 2>&1
    grep -q '^ 1  192.168.127.1 ' route && [ "$(wc -l < route)" = 2 ] && echo traceroute
    traceroute.db -n -I -w 20 -q 1 fd53:4d00::1 > route 2>&1
    grep -q '^ 1  fd53:4d00::1 ' route && echo traceroute over IPv6
}

# Both ways, by a server on the host. A datagram that is lost is no mistake; all of them are.
throughput() {
    measure() {
        iperf3 -c $host -4 -p $iperf -J "$@" > iperf.json 2> iperf.log || { cat iperf.json iperf.log; return; }
        python3 - "$*" <<'END'
import json, sys
end = json.load(open("iperf.json"))["end"]
if "sum" in end:
    sound = end["sum"]["packets"] > 0 and end["sum"]["lost_percent"] < 100
    rate = end["sum"]["bits_per_second"]
else:
    sound = end["sum_received"]["bytes"] > 0
    rate = end["sum_received"]["bits_per_second"]
print(f"# {rate / 8e6:.1f} MB/s by iperf3 {sys.argv[1]}")
if sound:
    print("iperf3", sys.argv[1])
END
    }
    for options in "-n 200M" "-n 200M -R" "-n 100M -P 8" "-n 100M -P 8 -R" "-n 10M -M 500" \
        "-n 10M -M 500 -R" "-u -b 50M -t 3" "-u -b 50M -t 3 -R" "-u -b 20M -t 3 -l 6000"; do
        measure $options
    done
}

$part
