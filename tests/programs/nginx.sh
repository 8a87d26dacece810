set -eu; cd "$(mktemp -d)"; chmod 755 .
mkdir site; seq 1000000 | head -c 1048576 > site/big; echo welcome > site/index.html; chmod -R a+rX site
mkdir -p /var/log/nginx /var/lib/nginx /run
cat > nginx.conf <<EOF
user www-data;
worker_processes 2;
pid $PWD/nginx.pid;
error_log $PWD/error.log;
events { worker_connections 256; }
http {
  access_log $PWD/access.log;
  sendfile on; gzip on; gzip_types *; gzip_min_length 1;
  server {
    listen 127.0.0.1:8080; root $PWD/site;
    location /moved { return 301 /big; }
    location /teapot { return 418 "short and stout\n"; }
  }
  server { listen 127.0.0.1:8081; location / { proxy_pass http://127.0.0.1:8080; } }
}
EOF
nginx -c $PWD/nginx.conf -g 'daemon off;' & server=$!
for _ in $(seq 600); do curl -sf -o /dev/null http://127.0.0.1:8080/ && break; sleep 0.1; done
u=http://127.0.0.1:8080
curl -s $u/; curl -s $u/big | sha256sum
curl -s --compressed $u/big | sha256sum
curl -s http://127.0.0.1:8081/big | sha256sum
curl -s -r 1000-1009 $u/big; echo
for p in none big moved; do curl -s -o /dev/null -w '%{http_code}\n' $u/$p; done
curl -s -w '%{http_code}\n' $u/teapot
curl -s -I $u/big | tr -d '\r' | grep -i '^content-length'
for i in $(seq 50); do curl -s $u/; done | sort | uniq -c | tr -s ' '
curl -s $(seq -f "$u/big?%g" 20) | wc -c
seq 24 | xargs -P 8 -I{} curl -s -o get{} $u/big; cat get* | wc -c; sha256sum get* | cut -d' ' -f1 | sort -u
kill -QUIT $server; wait $server; echo "ended $?"
grep -c 'GET /big?' access.log
