set -eu; cd "$(mktemp -d)"
seq 1000 | grep -c 7
seq 1000 | grep -E '^(1|2)0+$' | paste -sd,
printf 'foo=1\nbar=22\n# baz\n' | grep -Po '(?<==)\d+' | paste -sd+
printf 'foo=1\nbar=22\n# baz\n' | grep -vn '^#'
printf 'one two\nthree four\n' | sed -E 's/(\w+) (\w+)/\2 \1/; 2{s/^/> /}'
seq 10 | sed -n '2~3p;$p' | paste -sd,
printf 'a\nb\nc\n' | sed 'N;s/\n/+/;P;D'
seq 5 | sed '1!G;h;$!d' | paste -sd' '
seq 100000 | awk '{s += $1; q += $1 * $1} END {printf "%.0f %.0f %.6f\n", s, q, sqrt(q)}'
printf 'k1 3\nk2 4\nk1 5\n' | awk '{t[$1] += $2} END {for (k in t) print k, t[k]}' | sort
awk 'BEGIN {printf "%.17g %.10e %g %x %s\n", 0.1, exp(1), atan2(0, -1), 255, substr("microVM", 6)}'
awk 'function f(n) {return n < 2 ? n : f(n - 1) + f(n - 2)} BEGIN {print f(22)}'
awk 'BEGIN {for (i = 0; i < 200000; i++) {x = (x * 1103515245 + 12345) % 2147483648} print x}'
mkdir -p tree/a/b tree/c; seq 3000 > tree/a/x; seq 10 > tree/a/b/y; : > tree/c/empty; ln -s ../a/x tree/c/link
find tree -type f -printf '%p %s\n' | sort
find tree -empty; find tree -type l -exec readlink {} \;
find tree -type f -print0 | sort -z | xargs -0 cat | wc -l
tar -C tree -cf tree.tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
tar -tf tree.tar | paste -sd' '
gzip -9n < tree.tar > tree.tar.gz; gzip -t tree.tar.gz && [ "$(gzip -dc tree.tar.gz | sha256sum)" = "$(sha256sum < tree.tar)" ] && echo same
mkdir copy; tar -C copy -xzf tree.tar.gz; (cd copy && find . -type f -exec sha256sum {} + | sort -k2)
seq 200000 | gzip -1 | gzip -dc | sha256sum
seq 200000 | gzip -9 | gzip -dc | sha256sum
