"""Machines of real guests. ``cargo xtask test python`` sets what is needed:
SUPERMACHINE_WORKER, and TEST_IMAGE with busybox in it."""

import asyncio
import http.client
import http.server
import os
import pathlib
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import supermachine
from supermachine import (
    ConfigurationError,
    EndedError,
    GuestError,
    Image,
    StagedFile,
    SupermachineError,
    aio,
)

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import sync  # noqa: E402

REF = os.environ["TEST_IMAGE"]
SCRATCH = tempfile.TemporaryDirectory(prefix="supermachine-python-")
SNAPSHOTS = os.path.join(SCRATCH.name, "snapshots")


def tearDownModule() -> None:
    SCRATCH.cleanup()


class Machines(unittest.TestCase):
    image: Image
    pool: supermachine.Pool

    @classmethod
    def setUpClass(cls) -> None:
        def warmup(vm: supermachine.WarmupVm) -> None:
            vm.write_file("/root/warm", "warm")
            assert vm.exec(["cat", "/root/warm"]).stdout == b"warm"

        cls.image = Image.build(REF, snapshots_dir=SNAPSHOTS, warmup=warmup, warmup_tag="v1")
        cls.pool = cls.image.pool(min=1, max=2)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.pool.shutdown()

    def test_images_tell_what_they_are(self) -> None:
        path = self.image.snapshot_path
        assert path is not None
        self.assertTrue(os.path.exists(path))
        self.assertEqual((self.image.memory_mib, self.image.vcpus), (256, 1))
        self.assertEqual(Image.from_snapshot(path).memory_mib, 256)

    def test_commands_get_files_variables_and_input(self) -> None:
        with self.pool.acquire() as vm:
            self.assertEqual(vm.read_file("/root/warm"), b"warm")
            out = vm.exec(
                ["sh", "-c", "cat; cat /tmp/code; echo $A; pwd; exit 3"],
                files={"/tmp/code": b"staged "},
                env={"A": "value"},
                cwd="/tmp",
                stdin="typed ",
                timeout=60,
            )
            self.assertEqual(out.stdout, b"typed staged value\n/tmp\n")
            self.assertEqual((out.exit_code, out.timed_out), (3, False))
            script = StagedFile("/tmp/run", "#!/bin/sh\necho ran", mode=0o755)
            ran = vm.exec(["/tmp/run"], files=[script], chain=[["echo", "next"]])
            self.assertEqual((ran.stdout, ran.step), (b"ran\nnext\n", 1))
            late = vm.exec(["sleep", "1000"], timeout=0.05)
            self.assertEqual((late.exit_code, late.timed_out), (-1, True))
        with self.assertRaises(EndedError) as caught:
            vm.exec(["true"])
        self.assertEqual(caught.exception.code, "released")
        self.assertIn("released", str(caught.exception))

    def test_what_one_lease_writes_the_next_does_not_see(self) -> None:
        for _ in range(2):
            with self.pool.acquire() as vm:
                with self.assertRaises(SupermachineError):
                    vm.read_file("/root/trace")
                vm.write_file("/root/trace", bytearray(b"\x01\x02"))
                self.assertEqual(vm.read_file("/root/trace"), b"\x01\x02")

    def test_files_are_listed_named_anew_copied_and_removed(self) -> None:
        with self.pool.acquire() as vm:
            vm.mkdir("/tmp/a/b", parents=True)
            vm.write_file("/tmp/a/b/file", "text")
            vm.rename("/tmp/a/b/file", "/tmp/a/b/other")
            (info,) = vm.read_dir("/tmp/a/b")
            self.assertEqual((info.name, info.kind, info.size), ("other", "file", 4))
            out = pathlib.Path(SCRATCH.name) / "out"
            self.assertEqual(vm.copy_out("/tmp/a", out).bytes, 4)
            self.assertEqual((out / "b/other").read_text(), "text")
            vm.remove("/tmp/a", recursive=True)
            with self.assertRaises(SupermachineError):
                vm.stat("/tmp/a")

    def test_streams_are_read_and_written_while_a_command_runs(self) -> None:
        with self.pool.acquire() as vm:
            child = vm.spawn(["cat"])
            child.write("one")
            self.assertEqual(child.read(), b"one")
            child.write("two")
            child.close_stdin()
            self.assertEqual(b"".join(child.stdout()), b"two")
            self.assertEqual(child.wait().exit_code, 0)
            stuck = vm.spawn(["sleep", "1000"])
            ends = []
            waiter = threading.Thread(target=lambda: ends.append(stuck.wait()))
            waiter.start()
            stuck.signal(9)
            waiter.join()
            self.assertEqual(ends[0].signal, 9)

    def test_durable_commands_go_on_and_are_attached_to_again_also_in_forks(self) -> None:
        with self.image.start() as vm:
            script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; exit 3"
            started = vm.spawn(["sh", "-c", script], durable=True)
            self.assertEqual(started.read(), b"one\n")
            id = started.id
            assert id is not None
            del started
            (fork,) = vm.fork()
            for machine in [vm, fork]:
                (info,) = machine.execs()
                self.assertEqual((info.id, info.state, info.exit), (id, "running", None))
                self.assertEqual((info.argv[0], info.stdout_bytes), ("sh", 4))
                machine.write_file("/go", "")
                again = machine.attach(id)
                self.assertEqual(b"".join(again.stdout()), b"one\ntwo\n")
                self.assertEqual(again.wait().exit_code, 3)
                rest = machine.attach(id, stdout=4)
                self.assertEqual(b"".join(rest.stdout()), b"two\n")
                self.assertEqual(b"".join(machine.attach(id, latest=True).stdout()), b"")
                (info,) = machine.execs()
                assert info.exit is not None
                self.assertEqual((info.state, info.exit.exit_code), ("exited", 3))
            fork.release()
            self.assertIsNone(vm.spawn(["true"]).id)
            for bad in [lambda: vm.attach("x"), lambda: vm.attach(id, stdout=1, latest=True)]:
                with self.assertRaises(ConfigurationError):
                    bad()
            cut = vm.exec(["echo", "too much"], max_output_bytes=3, truncate_output=True)
            self.assertEqual((cut.stdout, cut.truncated), (b"too", True))

    def test_machines_are_forked_and_captured(self) -> None:
        with self.image.start() as vm:
            vm.write_file("/root/state", "before")
            (child,) = vm.fork()
            captured = vm.snapshot(os.path.join(SCRATCH.name, "captured"))
            with child, captured.start() as copy:
                self.assertEqual(child.read_file("/root/state"), b"before")
                self.assertEqual(copy.read_file("/root/state"), b"before")
            self.assertGreater(vm.stats()["memory"]["guest_bytes"], 0)

    def test_ports_of_the_guest_are_reached_until_they_are_stopped(self) -> None:
        with self.pool.acquire() as vm:
            vm.write_file("/root/page", "served")
            server = vm.spawn(["sh", "-c", "exec httpd -f -p 127.0.0.1:8000 -h /root"])
            with vm.expose_tcp(0, 8000) as port:
                host, number = port.local_addr
                give_up = time.monotonic() + 60
                while True:
                    try:
                        with urllib.request.urlopen(f"http://{host}:{number}/page") as page:
                            self.assertEqual(page.read(), b"served")
                        break
                    except (ConnectionError, http.client.HTTPException, urllib.error.URLError):
                        # The server is about to listen.
                        if time.monotonic() > give_up:
                            raise
                        time.sleep(0.05)
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection((host, number))
            server.signal(9)

    def test_extra_files_are_part_of_the_image_and_volumes_outlive_machines(self) -> None:
        file = pathlib.Path(SCRATCH.name) / "app.toml"
        file.write_text("answer = 42")
        volume = supermachine.Volume("python-test", "/data", size_mib=64)
        image = Image.build(
            REF,
            snapshots_dir=SNAPSHOTS,
            extra_files=[supermachine.ExtraFile(file, "/etc/app.toml", mode=0o600)],
            volume_slots=1,
        )
        for script, said in [("cat /etc/app.toml > /data/kept", b""), ("cat /data/kept", b"answer = 42")]:
            with image.start(volumes=[volume]) as vm:
                out = vm.exec(["sh", "-c", script])
                self.assertEqual((out.stdout, out.stderr), (said, b""))
                self.assertEqual(vm.stat("/etc/app.toml").mode & 0o777, 0o600)

    def test_guests_reach_what_rules_allow_and_use_secrets_that_they_never_have(self) -> None:
        class Served(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"reached")

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        port = server.server_address[1]
        reach = f"wget -q -O - http://host.supermachine.internal:{port}/ || echo refused"
        value = "sk-0123456789abcdef"
        network = supermachine.Network(
            rules=[
                supermachine.NetworkRule(allow="*.example.com", ports=443, protocol="tcp"),
                supermachine.NetworkRule(deny="any"),
            ],
            host_ports=[port],
            rate_in=10_000_000,
            max_flows=100,
        )
        secret = supermachine.Secret("API_KEY", value, hosts=["api.example.com"])
        self.assertNotIn(value, repr(secret))
        image = Image.build(REF, snapshots_dir=SNAPSHOTS, network=supermachine.Network())
        with image.start(network=network, secrets=[secret]) as vm:
            out = vm.exec(["sh", "-c", f"echo $API_KEY; {reach}"])
            placeholder, said = out.stdout.decode().splitlines()
            self.assertEqual(said, "reached")
            self.assertEqual(len(placeholder), len(value))
            self.assertNotEqual(placeholder, value)
        with image.start(network=supermachine.Network(allow_all=True)) as vm:
            self.assertTrue(vm.exec(["sh", "-c", reach]).stdout.endswith(b"refused\n"))
        with self.assertRaises(ConfigurationError):
            image.start(network=supermachine.Network(rules=[supermachine.NetworkRule()]))

    def test_an_interrupt_ends_a_call_and_the_machine_is_free(self) -> None:
        with self.pool.acquire() as vm:
            main = threading.main_thread().ident
            assert main is not None
            timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
            timer.start()
            with self.assertRaises(KeyboardInterrupt):
                vm.exec(["sleep", "1000"], timeout=0)
            timer.join()
            self.assertEqual(vm.exec(["echo", "well"]).stdout, b"well\n")

    def test_what_cannot_be_is_refused(self) -> None:
        with self.pool.acquire() as vm:
            for call in [
                lambda: vm.exec([]),
                lambda: vm.exec("echo"),  # type: ignore[arg-type]
                lambda: vm.exec([1]),  # type: ignore[list-item]
                lambda: vm.exec(["true"], timeout=-1),
                lambda: vm.exec(["true"], timeout=float("nan")),
                lambda: vm.exec(["true"], env={"A": 1}),
                lambda: vm.exec(["true"], env={"A=B": ""}),
                lambda: vm.exec(["true"], max_cpus=float("inf")),
                lambda: vm.fork(0),
                lambda: Image.build(""),
                lambda: Image.build(REF, memory_mib=-5, snapshots_dir=SNAPSHOTS),
                lambda: Image.build(REF, pull_policy="often"),
                lambda: self.image.pool(max=0),
            ]:
                with self.assertRaises(ConfigurationError) as caught:
                    call()
                self.assertEqual(caught.exception.code, "invalid-argument")
            with self.assertRaises(TypeError):
                vm.exec(["true"], no_such_option=1)
            self.assertEqual(vm.exec(["echo", "well"]).stdout, b"well\n")

    def test_a_warm_up_that_raises_says_what(self) -> None:
        def fails(vm: supermachine.WarmupVm) -> None:
            raise RuntimeError("no numpy here")

        with self.assertRaises(GuestError) as caught:
            Image.build(REF, snapshots_dir=SNAPSHOTS, warmup=fails, warmup_tag="bad")
        self.assertIn("no numpy here", str(caught.exception))


class Asyncio(unittest.IsolatedAsyncioTestCase):
    async def test_everything_is_awaited_and_cancelled(self) -> None:
        async def warmup(vm: supermachine.WarmupVm) -> None:
            await asyncio.to_thread(vm.write_file, "/root/warm", "loop")

        image = await aio.Image.build(
            REF, snapshots_dir=SNAPSHOTS, warmup=warmup, warmup_tag="aio"
        )
        async with await image.pool(max=2) as pool, await pool.acquire() as vm:
            self.assertEqual(await vm.read_file("/root/warm"), b"loop")
            outs = await asyncio.gather(*(vm.exec(["echo", str(n)]) for n in range(8)))
            self.assertEqual([out.stdout for out in outs], [b"%d\n" % n for n in range(8)])
            task = asyncio.ensure_future(vm.exec(["sleep", "1000"]))
            await asyncio.sleep(0.1)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            child = await vm.spawn(["tr", "a-z", "A-Z"])
            await child.write("stream")
            await child.close_stdin()
            self.assertEqual([piece async for piece in child.stdout()], [b"STREAM"])
            self.assertEqual((await child.wait()).exit_code, 0)
            with self.assertRaises(ConfigurationError):
                await vm.exec([])

    async def test_64_waiting_acquires_are_served_in_their_order(self) -> None:
        image = await aio.Image.build(REF, snapshots_dir=SNAPSHOTS)
        async with await image.pool(max=2) as pool:
            held = [await pool.acquire(), await pool.acquire()]
            waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(64)]
            await asyncio.to_thread(lambda: None)
            for vm in held:
                await vm.release()
            for one in waiting:
                await (await one).release()
            self.assertEqual(pool.stats().waiting, 0)


class Sources(unittest.TestCase):
    def test_the_module_for_threads_is_made_of_that_for_asyncio(self) -> None:
        here = pathlib.Path(sync.HERE)
        self.assertEqual((here / "_sync.py").read_text(), sync.made((here / "aio.py").read_text()))


if __name__ == "__main__":
    unittest.main()
