set -eu; cd "$(mktemp -d)"
start() {
  redis-server --port 7777 --save '' --appendonly "$1" --dir "$PWD" --logfile log & server=$!
  for _ in $(seq 600); do [ "$(redis-cli -p 7777 ping 2>/dev/null)" = PONG ] && return; sleep 0.1; done
  cat log; exit 1
}
c() { redis-cli -p 7777 "$@"; }
start no
c set greeting hello; c get greeting; c incr n; c incrby n 41; c get n; c append greeting ' world'; c strlen greeting
c lpush list a b c; c lrange list 0 -1; c rpop list
c zadd scores 3 three 1 one 2.5 two; c zrangebyscore scores 1 2.6 withscores; c zrank scores three
c hset user name ann age 30; c hgetall user; c sadd s 1 2 3; c sadd t 2 3 4; c sinter s t
c setbit bits 7 1; c bitcount bits; c pfadd h a b c d; c pfcount h; c incrbyfloat f 3.0e3
c eval 'local s = 0 for i = 1, ARGV[1] do s = s + i end return s' 0 100000
c get missing; c set once 1 nx; c set once 2 nx; c set gone x px 30; sleep 0.2; c exists gone
printf 'multi\nincr n\nincr n\nexec\n' | c
c geoadd city 13.361389 38.115556 Palermo 15.087269 37.502669 Catania; c geodist city Palermo Catania km
c subscribe news > heard & for _ in $(seq 200); do [ "$(c publish news extra)" = 1 ] && break; sleep 0.05; done
for _ in $(seq 100); do grep -q extra heard && break; sleep 0.05; done; grep -m1 extra heard
seq 20000 | awk '{print "SET key:" $1 " " $1 * 3}' | c --pipe | tail -n 1
c dbsize; c get key:12345; c save; c shutdown nosave || true; wait $server
start no
c dbsize; c get key:19999; c zscore scores two; c get greeting; c lrange list 0 -1
c config set appendonly yes
# Until its first rewrite is over, the log is not what a restart reads.
for _ in $(seq 600); do
  c info persistence | grep -qE '^aof_rewrite_(in_progress|scheduled):1' || break
  sleep 0.1
done
c set kept by-log; c incr n
kill -KILL $server; wait $server 2>/dev/null || true
start yes
c get kept; c get n; c debug digest >/dev/null; c shutdown nosave || true; wait $server
