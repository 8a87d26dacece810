# Programs as people use them, through the host: each client reaches a server of this same
# guest by a port of the host's that leads back here. The first argument is the part to
# run, `servers` before all others; what did not work is not in the output.
set -e
part=$1 web=$2 web2=$3 redis=$4 ssh=$5 rsync=$6 plain=$7
host=host.supermachine.internal
gateway=192.168.127.1

mkdir -p /srv/www/up /srv/www/apt /srv/files /run/sshd /root/.ssh /tmp/work
cd /tmp/work
[ -e /srv/www/long ] || head -c 3000017 /dev/urandom > /srv/www/long
sum=$(sha256sum < /srv/www/long)
same() { [ "$(sha256sum)" = "$sum" ]; }
url=http://$host:$web
curl="curl -sS -m 100 -f"
secure="-q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"

servers() {
    cp /srv/www/long /srv/files/long
    cat > nginx.conf <<'END'
user root;
pid /run/nginx.pid;
error_log /tmp/work/nginx.log;
events {}
http {
    access_log off;
    server {
        listen 80;
        root /srv/www;
        location /up/ { dav_methods PUT; client_max_body_size 10m; }
    }
}
END
    nginx -c /tmp/work/nginx.conf
    nghttpd --no-tls -D -d /srv/www 81
    redis-server --port 6379 --save '' --daemonize yes --logfile /tmp/work/redis.log > /dev/null
    ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
    cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
    ssh-keygen -q -t ed25519 -N '' -f /tmp/work/host_key
    /usr/sbin/sshd -f /dev/null -h /tmp/work/host_key -o UsePAM=no -o StrictModes=no -o 'Subsystem=sftp internal-sftp'
    printf 'uid=root\ngid=root\nuse chroot=no\n[files]\npath=/srv/files\nread only=no\n' > rsyncd.conf
    rsync --daemon --config=/tmp/work/rsyncd.conf
    # Reads to the end, and then tells how much that was.
    cat > plain.py <<'END'
import socketserver

class Count(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(f"{len(self.rfile.read())} bytes\n".encode())

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 9000), Count).serve_forever()
END
    python3 plain.py < /dev/null > plain.log 2>&1 &
    for port in 80 81 6379 22 873 9000; do
        for try in $(seq 600); do
            (exec 3<> /dev/tcp/127.0.0.1/$port) 2> /dev/null && break
            sleep 0.1
        done
    done
}

web() {
    $curl $url/long | same && echo curl
    $curl -T /srv/www/long $url/up/file && same < /srv/www/up/file && echo curl upload
    head -c 1000000 /srv/www/long > part && $curl -C - -o part $url/long && same < part && echo curl resume
    $curl --http2-prior-knowledge -w '%{http_version}' -o two http://$host:$web2/long > version
    same < two && [ "$(cat version)" = 2 ] && echo curl http/2
    wget -q -T 100 -t 1 -O - $url/long | same && echo wget
    head -c 2000000 /srv/www/long > long && wget -q -c -T 100 -t 1 $url/long && same < long && echo wget resume
}

repositories() {
    git="git -c user.name=a -c user.email=a@b -c init.defaultBranch=main"
    $git init -q src && cp /srv/www/long src && $git -C src add long && $git -C src commit -q -m one
    git clone -q --bare src /srv/www/src.git && git -C /srv/www/src.git update-server-info
    git clone -q $url/src.git clone && same < clone/long && echo git
    mkdir -p package/DEBIAN package/opt
    printf 'Package: probe\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n' > package/DEBIAN/control
    cp /srv/www/long package/opt/probe
    dpkg-deb -Znone --build package /srv/www/apt/probe.deb > /dev/null
    {
        cat package/DEBIAN/control
        echo "Filename: ./probe.deb"
        echo "Size: $(stat -c %s /srv/www/apt/probe.deb)"
        echo "SHA256: $(sha256sum /srv/www/apt/probe.deb | cut -d' ' -f1)"
    } > /srv/www/apt/Packages
    echo "deb [trusted=yes] $url/apt ./" > sources.list
    mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/apt/lists/partial /var/cache/apt/archives/partial
    touch /var/lib/dpkg/status
apt() {
        apt-get -qq -o Dir::Etc::SourceList=/tmp/work/sources.list -o APT::Sandbox::User=root "$@"
}
apt update > apt.log 2>&1 && apt download probe >> apt.log 2>&1
dpkg-deb --fsys-tarfile probe_1_all.deb | tar xO ./opt/probe | same && echo apt-get
}

talk() {
    [ "$(redis-cli -h $host -p $redis ping)" = PONG ]
    redis-cli -h $host -p $redis -x set long < /srv/www/long > /dev/null
    redis-cli -h $host -p $redis get long | head -c 3000017 | same && echo redis-cli
    ssh $secure -p $ssh root@$host sha256sum < /srv/www/long | grep -q "${sum%% *}" && echo ssh
    scp $secure -P $ssh root@$host:/srv/www/long copied && same < copied && echo scp
    rsync -e "ssh $secure -p $ssh" /srv/www/long root@$host:/tmp/work/synced && same < synced && echo rsync over ssh
    rsync rsync://$host:$rsync/files/long fetched && same < fetched && echo rsync
    [ "$(nc.openbsd -N -w 100 $host $plain < /srv/www/long)" = "3000017 bytes" ] && echo nc half-close
}

names() {
    ask() { dig +time=50 +tries=2 "@$gateway" "$host" "$@" +short; }
    [ "$(ask A)" = $gateway ] && [ "$(ask AAAA)" = fd53:4d00::1 ] && echo dig
    [ "$(ask A +tcp)" = $gateway ] && [ "$(ask A +bufsize=4096)" = $gateway ] && echo dig +tcp, EDNS
    ping -q -c 2 -W 50 $gateway > /dev/null && ping -q -c 2 -W 50 fd53:4d00::1 > /dev/null && echo ping
    ping -q -c 1 -W 50 -s 6000 $gateway > /dev/null && ping -q -c 1 -W 50 -s 6000 fd53:4d00::1 > /dev/null && echo ping in pieces
}

# From behind a bridge and address translation of the guest's own.
nested() {
    ip netns add inside
    ip link add bridge0 type bridge
    ip addr add 10.1.0.1/24 dev bridge0
    ip link set bridge0 up
    ip link add port0 type veth peer name eth0 netns inside
    ip link set port0 master bridge0 up
    ip -n inside addr add 10.1.0.2/24 dev eth0
    ip -n inside link set eth0 up
    ip -n inside route add default via 10.1.0.1
    echo 1 > /proc/sys/net/ipv4/ip_forward
    nft add table ip translated
    nft 'add chain ip translated out { type nat hook postrouting priority 100; }'
    nft add rule ip translated out ip saddr 10.1.0.0/24 oifname eth0 masquerade
    ip netns exec inside $curl http://$gateway:$web/long | same
    ip netns exec inside $curl -T /srv/www/long http://$gateway:$web/up/nested && same < /srv/www/up/nested
    echo nested network
}

$part
