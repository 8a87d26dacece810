set -eu; cd "$(mktemp -d)"
for d in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 blake2b512 blake2s256 sm3; do
  printf abc | openssl dgst -r -$d | sed "s/ .*/ $d/"
  seq 50000 | openssl dgst -r -$d | sed "s/ .*/ $d/"
done
seq 1000 | openssl dgst -r -sha256 -hmac secret | cut -d' ' -f1
k=000102030405060708090a0b0c0d0e0f; iv=f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff
for c in aes-128-cbc aes-128-ctr aes-128-ecb aes-128-ofb aes-128-cfb; do
  v="-iv $iv"; [ $c = aes-128-ecb ] && v=
  seq 20000 | openssl enc -$c -K $k $v > $c.bin; sha256sum < $c.bin
  openssl enc -d -$c -K $k $v < $c.bin | cmp_in=$(seq 20000 | sha256sum) bash -c '[ "$(sha256sum)" = "$cmp_in" ] && echo back'
done
for c in aes-256-cbc aes-256-ctr chacha20 camellia-256-cbc aria-256-cbc; do
  seq 20000 | openssl enc -$c -K $k$k -iv $iv | sha256sum
done
openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:password -kdfopt salt:salt -kdfopt iter:4096 PBKDF2
openssl kdf -keylen 32 -kdfopt pass:p -kdfopt salt:s -kdfopt n:1024 -kdfopt r:8 -kdfopt p:1 SCRYPT
for m in "-cipher AES-128-CBC -macopt hexkey:$k CMAC" "-macopt hexkey:$k$k Poly1305" "-cipher AES-256-GCM -macopt hexkey:$k$k -macopt hexiv:f0f1f2f3f4f5f6f7f8f9fafb GMAC"; do
  seq 1000 | openssl mac $m
done
openssl genrsa -out rsa.pem 2048 2>/dev/null; openssl rsa -in rsa.pem -pubout -out rsa.pub 2>/dev/null
seq 100 > m; openssl dgst -sha256 -sign rsa.pem -out s m; openssl dgst -sha256 -verify rsa.pub -signature s m
seq 101 > w; openssl dgst -sha256 -verify rsa.pub -signature s w 2>/dev/null || echo refused
openssl rsa -in rsa.pem -check -noout
openssl ecparam -genkey -name prime256v1 -noout -out ec.pem; openssl ec -in ec.pem -pubout -out ec.pub 2>/dev/null
openssl dgst -sha384 -sign ec.pem -out s m; openssl dgst -sha384 -verify ec.pub -signature s m
openssl genpkey -algorithm ed25519 -out ed.pem; openssl pkey -in ed.pem -pubout -out ed.pub
openssl pkeyutl -sign -inkey ed.pem -rawin -in m -out s; openssl pkeyutl -verify -pubin -inkey ed.pub -rawin -in m -sigfile s
for i in 1 2; do openssl genpkey -algorithm x25519 -out x$i; openssl pkey -in x$i -pubout -out p$i; done
openssl pkeyutl -derive -inkey x1 -peerkey p2 -out d1; openssl pkeyutl -derive -inkey x2 -peerkey p1 -out d2
[ "$(sha256sum < d1)" = "$(sha256sum < d2)" ] && echo agreed
openssl prime 170141183460469231731687303715884105727; openssl prime -hex FFFFFFFFFFFFFFC5
openssl rand -hex 16 | wc -c
