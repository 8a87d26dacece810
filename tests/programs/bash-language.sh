set -u; cd "$(mktemp -d)"
a=(one two three); a+=(four)
echo "${#a[@]} ${a[2]} ${a[@]:1:2} ${!a[*]}"
declare -A m=([x]=1 [y]=2); m[z]=3
for k in x y z; do printf '%s=%s;' "$k" "${m[$k]}"; done; echo
echo $((2**40 + 7 * (3 - 10) % 5)) $((0xff & ~0x0f)) $((-7 / 2)) $((1 << 62)) $((9223372036854775807 + 1))
s="Hello, World"; echo "${s^^} ${s,,} ${s/World/Bash} ${s:7} ${#s} ${s%%,*} ${s##*, }"
cat <<EOF
here $((6 * 7)) ${a[0]}
EOF
cat <<'EOF'
literal $x
EOF
tr a-z A-Z <<<"here string"
false | true; echo "pipe ${PIPESTATUS[*]}"
set -o pipefail; false | true; echo "pipefail $?"; set +o pipefail
(exit 7); echo "subshell $?"
sleep 0.05 & wait $!; echo "wait $?"
(sleep 5) & p=$!; kill -TERM $p; wait $p; echo "killed $?"
bash -c 'kill -SEGV $$' 2>/dev/null; echo "segv $?"
nonexistent-command 2>/dev/null; echo "missing $?"
trap 'echo "caught USR1"' USR1; kill -USR1 $$
f() { local x=$1; ((x <= 1)) && { echo 1; return; }; echo $((x * $(f $((x - 1))))); }
echo "fact $(f 10)"
[[ "abc123" =~ ^([a-z]+)([0-9]+)$ ]] && echo "${BASH_REMATCH[1]}-${BASH_REMATCH[2]}"
comm -3 <(printf '1\n2\n') <(printf '1\n3\n')
i=0; while read -r line; do i=$((i + ${#line})); done < <(seq 1 1000); echo "chars $i"
mapfile -t lines < <(seq 5); echo "${lines[*]}"
printf '%05d|%-6s|%x|%o|%e|%q\n' 42 ab 255 8 12345.678 "a b"
exec 3>fd3; echo via3 >&3; exec 3>&-; cat fd3
echo {a..e} {1..10..3} pre{X,Y}post
case "file.tar.gz" in *.tar.*) echo tarball;; *) echo no;; esac
coproc C { read l; echo "got $l"; read l; }; echo ping >&"${C[1]}"; read r <&"${C[0]}"; echo "$r"; eval "exec ${C[1]}>&-"; wait
set -m; sleep 30 & kill -KILL %sleep; wait %sleep; echo "job $?"
echo "sum $(for ((i = 0; i < 300; i++)); do echo $i; done | { t=0; while read n; do ((t += n)); done; echo $t; })"
