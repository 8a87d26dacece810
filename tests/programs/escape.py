# A root process that tries to get out of its control group, in every way short
# of taking over PID 1. Each attempt leaves a process that sleeps for 54321 s.
import ctypes, os, time

libc = ctypes.CDLL(None, use_errno=True)
CGROUP = "/sys/fs/cgroup"


def survivor(attempt):
    """A daemon that does what it is told first, which this waits for."""
    done, doing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            attempt()
            os.execvp("sleep", ["sleep", "54321"])
        os._exit(0)
    os.close(doing)
    os.wait()
    # Ends when the daemon executes its program.
    os.read(done, 1)
    os.close(done)


def write(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
        return "done"
    except OSError:
        return "refused"


def attempt(paths):
    def run():
        print(" ".join(sorted({write(path, "0") for path in paths})), flush=True)

    survivor(run)


def mounted(place, flags=0):
    os.makedirs(place)
    if flags:
        assert libc.unshare(flags) == 0
    assert libc.mount(b"x", place.encode(), b"cgroup2", 0, None) == 0
    return place


print(open("/proc/self/cgroup").read().strip())
print(sorted(set(os.listdir(CGROUP)) & {"exec", "cgroup.procs", "pids.max"}))
print("limit", write(CGROUP + "/pids.max", "max"), flush=True)
# Nothing above or beside its own group is in sight.
attempt([f"{CGROUP}/../cgroup/exec/cgroup.procs", f"{CGROUP}/exec/exec-0/cgroup.procs"])
# A mount of its own shows the same.
for _ in range(2):
    libc.umount2(CGROUP.encode(), 2)
own = mounted("/tmp/own")
print(os.path.exists(own + "/exec"), flush=True)
attempt([own + "/exec/cgroup.procs"])
# Namespaces of its own are below.
def nested():
    place = mounted("/tmp/nested", 0x02000000 | 0x00020000)
    print(os.path.exists(place + "/exec"), flush=True)


survivor(nested)
time.sleep(1)


# Those of process 1, and of the kernel's own, are above.
def enter():
    of_cgroups = 0x02000000
    doors = [os.open(f"/proc/{pid}/ns/cgroup", os.O_RDONLY) for pid in (1, 2)]
    doors += [os.pidfd_open(pid) for pid in (1, 2)]
    entered = {libc.setns(door, of_cgroups) == 0 for door in doors}
    place = mounted("/tmp/entered")
    moved = write(place + "/cgroup.procs", "0") if True in entered else "refused"
    print(entered, os.path.exists(place + "/exec"), moved, flush=True)


survivor(enter)
time.sleep(1)
# Groups below its own are what nested runtimes need.
os.makedirs(own + "/inner/most")
attempt([own + "/inner/most/cgroup.procs"])
time.sleep(1)
print("populated 1" in open(own + "/inner/cgroup.events").read(), flush=True)
time.sleep(54321)
