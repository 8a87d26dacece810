# What the scripts beside this one share: to say of each step whether it passed.

# What the step writes that runs now.
log=/tmp/step.log

# Why a step failed, from what it wrote.
why() { tail -n 1 $log; }

# Runs a command as the step of a name.
step() {
    name=$1
    shift
    if "$@" > $log 2>&1; then
        echo "passed $name"
    else
        echo "failed $name: $(why)"
    fi
}

# Fails if a command says anything, which is the first line of it then.
silent() {
    found=$("$@" 2>&1 | head -n 1)
    echo "$found"
    [ -z "$found" ]
}
