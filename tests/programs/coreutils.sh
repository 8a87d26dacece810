set -eu; cd "$(mktemp -d)"
seq 100000 | sha256sum
seq 1 7 100000 | sort -rn | head -n 3 | paste -sd,
seq 5000 | awk '{print ($1 * 7919) % 5003}' | sort -n | uniq | wc -l
seq 5000 | awk '{print ($1 * 7919) % 5003}' | sort -n | md5sum
printf 'b 2\na 10\nc 1\n' | sort -k2,2n | cut -d' ' -f1 | tr -d '\n'; echo
dd if=/dev/zero bs=4096 count=300 2>/dev/null | sha1sum
dd if=/dev/zero of=sparse bs=1 count=0 seek=1000000 2>/dev/null; stat -c %s sparse
printf '\x00\x01\x7f\x80\xff\nA' | od -An -tx1 -c
printf 'abcdefgh' | dd bs=1 skip=2 count=3 2>/dev/null; echo
yes abc | head -c 1000000 | cksum
printf 'The quick brown fox' | base64; printf 'VGhlIHF1aWNr' | base64 -d; echo
factor 1234567890 18446744073709551557 600851475143
expr 12345 \* 6789
numfmt --to=iec 1536000
date -u -d @1000000000 +%FT%TZ
seq 20 | shuf --random-source=/dev/zero | sort -n | tail -n 1
seq 12 | split -l 5 - part.; cat part.aa part.ac | paste -sd' '
join <(printf '1 a\n2 b\n3 c\n') <(printf '1 x\n3 z\n')
seq 30 | pr -3 -t -l 10 | tr -s '\t ' ' '
printf 'x\ty\n' | expand -t 4; fold -w 5 <<<abcdefghijkl; tac <<<$'1\n2\n3' | paste -sd-
mkdir -p d/e; touch d/e/f; ln -s e d/link; readlink -f d/link/f | grep -o 'd/e/f$'; rm -r d
test -e d && echo left || echo gone
