# A repository of thousands of objects: committed, packed, cloned and checked.
. /suite/steps.sh
place=/share/git
mkdir -p $place /tmp/git
export HOME=/tmp/git
git config --global user.name test
git config --global user.email test@localhost
git config --global init.defaultBranch main
git config --global advice.detachedHead false
git config --global protocol.file.allow always
git config --global gc.auto 0
cd $place

why() { grep -v '^dangling' $log | tail -n 1; }

# Whether all objects are there and as they were, and files as they were committed.
whole() {
    git -C "$1" fsck --full --strict --no-dangling --no-progress 2>&1 | tee /tmp/git/fsck
    [ ! -s /tmp/git/fsck ] || return 1
    [ "$(git -C "$1" rev-parse --is-bare-repository)" = true ] && return
    git -C "$1" status --porcelain > /tmp/git/status
    cat /tmp/git/status
    [ ! -s /tmp/git/status ]
}

commit() {
    git init -q work && cd work && python3 - <<'END' || return 1
import os, random, subprocess
chance = random.Random(7)
names = [f"d{n % 50}/e{n % 7}/f{n}" for n in range(1500)]
for step in range(8):
    for name in names if step == 0 else chance.sample(names, 200):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "w") as file:
            for line in range(chance.randrange(1, 40)):
                file.write(f"{step} {line} {chance.random()}\n")
        if chance.random() < 0.02:
            os.chmod(name, 0o755)
    if step == 3:
        os.symlink("d1/e1", "link")
    if step == 5:
        os.rename("d9", "moved")
        names = [name.replace("d9/", "moved/", 1) if name.startswith("d9/") else name for name in names]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", "commit", "-q", "-m", f"step {step}"], check=True)
    subprocess.run(["git", "tag", f"step{step}"], check=True)
END
    cd .. && whole work && [ "$(git -C work count-objects | cut -d' ' -f1)" -gt 3000 ]
}

linked_clone() { git clone -q work linked && whole linked; }
sent_clone() { git clone -q --no-local work sent && whole sent; }
repack() { git -C work repack -q -a -d -f && whole work && whole linked; }

switches() {
    cd sent
    for step in 0 7 3 5 1 6; do
        git checkout -q step$step && [ -z "$(git status --porcelain)" ] || return 1
    done
    git checkout -q main && cd .. && whole sent
}

merge() {
    cd linked && git checkout -q -b side step4 && echo side > d2/side && git add d2/side &&
        git commit -q -m side && git checkout -q main && git merge -q --no-edit side &&
        cd .. && whole linked
}

bare_push() {
    git init -q --bare bare.git && git -C linked push -q --all $place/bare.git &&
        whole bare.git && [ "$(git -C bare.git rev-parse main)" = "$(git -C linked rev-parse main)" ]
}

worktree() { git -C work worktree add -q $place/tree step2 && whole tree; }
collect() { git -C linked gc -q --prune=now && whole linked && git -C linked count-objects | grep -q '^0 '; }

# The same files as on a file system of the guest's own.
same() { git clone -q --no-local work /tmp/git/own && diff -r --no-dereference -x .git work /tmp/git/own; }

for name in commit linked_clone sent_clone repack switches merge bare_push worktree collect same; do
    cd $place
    step $name $name
done
rm -rf $place /tmp/git
echo end
