"""Ends that nobody asked for: of processes, threads and handles. Machines end with them,
and the interpreter goes on. The same file is the program that ends, if it is told how."""

import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from typing import List, Optional, Tuple

import supermachine
from supermachine import ConfigurationError, EndedError, Image, SupermachineError

REF = os.environ["TEST_IMAGE"]
PATIENCE = 120.0
LARGEST = 4 * 1024 * 1024


def status(pid: int) -> Optional[Tuple[str, int]]:
    """State and parent of a process."""
    try:
        # The name before them is in brackets, and may have any characters.
        text = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return None
    state, parent = text.split()[:2]
    return state.decode(), int(parent)


def children() -> List[int]:
    """Processes that this one has started and that run."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (status(pid) or ("", 0))[1] == os.getpid()]


def say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


def play(how: str, snapshots: str) -> None:
    """Ends in one of these ways, with a machine that runs a command."""
    if how == "stuck warm-up":

        def stuck(vm: supermachine.WarmupVm) -> None:
            say(children())
            threading.Timer(0.05, os._exit, [7]).start()
            threading.Event().wait()

        Image.build(REF, snapshots_dir=snapshots, warmup=stuck, warmup_tag="stuck")
    image = Image.build(REF, snapshots_dir=snapshots)
    if how == "collected":
        pool = image.pool(min=0, max=1)
        pool.acquire().exec(["true"])
        while pool.stats().in_use > 0:
            gc.collect()
            time.sleep(0.02)
        with pool.acquire():
            say(children())
        os._exit(7)
    vm = image.start()
    threading.Thread(target=vm.exec, args=[["sleep", "1000"]], kwargs={"timeout": 0}, daemon=True).start()
    say(children())
    if how == "exit":
        sys.exit(7)
    if how == "exception":
        raise RuntimeError("on purpose")
    # Until it is killed.
    threading.Event().wait()


@unittest.skipUnless(os.path.exists("/proc/self/stat"), "there is no /proc to look for processes in")
class Ends(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory(prefix="supermachine-ends-")
        cls.image = Image.build(REF, snapshots_dir=cls.scratch.name)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.scratch.cleanup()

    def ended(self, pids: List[int]) -> None:
        give_up = time.monotonic() + PATIENCE
        for pid in pids:
            # Whoever inherits it may never ask for its status.
            while (status(pid) or ("Z", 0))[0] != "Z":
                self.assertLess(time.monotonic(), give_up, f"process {pid} goes on")
                time.sleep(0.02)

    def ends(self, how: str, code: int) -> None:
        command = [sys.executable, __file__, how, self.scratch.name]
        program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # Only a machine that does not come, or a handle that is not collected, takes long.
        late = threading.Timer(300, program.kill)
        late.start()
        self.addCleanup(late.cancel)
        assert program.stdout is not None
        line = program.stdout.readline()
        if not line:
            self.fail(f"it ended before it had a machine: {program.communicate()[1]!r}")
        machines = json.loads(line)
        self.assertTrue(machines, "its machine is no process")
        if code == -signal.SIGKILL:
            program.kill()
        _, errors = program.communicate()
        self.assertEqual(program.returncode, code, errors)
        self.ended(machines)

    def test_a_process_that_exits_takes_its_machines_with_it(self) -> None:
        self.ends("exit", 7)

    def test_one_that_ends_with_an_exception_does(self) -> None:
        self.ends("exception", 1)

    def test_one_that_is_killed_does(self) -> None:
        self.ends("killed", -signal.SIGKILL)

    def test_one_whose_warm_up_never_ends_does(self) -> None:
        self.ends("stuck warm-up", 7)

    def test_a_machine_that_nothing_refers_to_is_free_for_others(self) -> None:
        self.ends("collected", 7)

    def test_threads_share_a_machine_until_it_is_released(self) -> None:
        vm = self.image.start()
        ends: List[object] = []

        def call(argv: List[str]) -> None:
            try:
                ends.append(vm.exec(argv, timeout=0).stdout)
            except SupermachineError as error:
                ends.append(error)

        quick = [threading.Thread(target=call, args=[["echo", "hello"]]) for _ in range(4)]
        for thread in quick:
            thread.start()
        for thread in quick:
            thread.join()
        self.assertEqual(ends, [b"hello\n"] * 4)
        ends.clear()
        stuck = threading.Thread(target=call, args=[["sleep", "1000"]])
        stuck.start()
        vm.release()
        stuck.join()
        # It was killed, or had not begun.
        self.assertEqual(len(ends), 1)
        with self.assertRaises(EndedError):
            vm.exec(["true"])

    def test_what_is_too_large_is_refused_and_the_machine_goes_on(self) -> None:
        large, words = bytes(LARGEST + 1), "x" * (8 * 1024 * 1024)
        with self.image.start() as vm:
            for call in [
                lambda: vm.write_file("/tmp/large", large),
                lambda: vm.exec(["echo", words]),
                lambda: vm.exec(["true"], env={"LARGE": words}),
            ]:
                with self.assertRaisesRegex(ConfigurationError, "larger than its limit|too large"):
                    call()
            # Files of a command may be larger than those of a call.
            size = ["stat", "-c", "%s", "/tmp/large"]
            out = vm.exec(size, files={"/tmp/large": large})
            self.assertEqual(int(out.stdout), len(large))
            with self.assertRaisesRegex(ConfigurationError, "larger than its limit") as caught:
                vm.exec(size, files={"/tmp/large": bytes(256 * 1024 * 1024 + 1)})
            self.assertEqual(caught.exception.code, "protocol")
            vm.write_file("/tmp/large", large[:LARGEST])
            self.assertEqual(len(vm.read_file("/tmp/large")), LARGEST)
            self.assertEqual(vm.exec(["echo", "well"]).stdout, b"well\n")


if __name__ == "__main__":
    play(sys.argv[1], sys.argv[2])
