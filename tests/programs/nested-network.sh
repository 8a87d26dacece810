# Two network namespaces, as two containers have them: one behind a bridge, the
# other beside it, without a route back. What passes is translated.
set -e
ip netns add inside
ip netns add outside
ip link add bridge0 type bridge
ip addr add 10.1.0.1/24 dev bridge0
ip link set bridge0 up
ip link add port0 type veth peer name eth0 netns inside
ip link set port0 master bridge0 up
ip -n inside addr add 10.1.0.2/24 dev eth0
ip -n inside link set eth0 up
ip -n inside route add default via 10.1.0.1
ip link add port1 type veth peer name eth0 netns outside
ip addr add 10.2.0.1/24 dev port1
ip link set port1 up
ip -n outside addr add 10.2.0.2/24 dev eth0
ip -n outside link set eth0 up
echo 1 > /proc/sys/net/ipv4/ip_forward

# It tells who calls.
mkdir -p /tmp/www/cgi-bin
cat > /tmp/www/cgi-bin/who <<'END'
#!/bin/bash
echo
echo "seen as $REMOTE_ADDR"
END
chmod 755 /tmp/www/cgi-bin/who
ip netns exec outside busybox httpd -f -p 10.2.0.2:8000 -h /tmp/www &
server=$!

call() {
    ip netns exec inside busybox timeout "$1" \
        busybox wget -q -O - http://10.2.0.2:8000/cgi-bin/who 2> /dev/null || echo nothing
}
await() {
    for try in 1 2 3 4 5 6 7 8 9 10; do
        answer=$(call 3)
        [ "$answer" != nothing ] && break
        sleep 0.2
    done
    echo "$answer"
}

echo "without translation: $(call 2)"
iptables-nft -t nat -A POSTROUTING -s 10.1.0.0/24 -o port1 -j MASQUERADE
echo "iptables-nft: $(await)"
ip netns exec inside busybox ping -c 1 -W 5 10.2.0.2 | grep -c ' 0% packet loss'
iptables-nft -t nat -F POSTROUTING
iptables-nft -t nat -L POSTROUTING -n | grep -c MASQUERADE || true

nft add table ip translated
nft 'add chain ip translated out { type nat hook postrouting priority 100; }'
nft add rule ip translated out ip saddr 10.1.0.0/24 oifname port1 masquerade
echo "nft: $(await)"
nft delete table ip translated
echo "without translation: $(call 2)"
kill $server
