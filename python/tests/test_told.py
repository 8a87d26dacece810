"""What machines tell of themselves, ways into them, and calls that are given up, with real
guests. ``cargo xtask test python`` sets what is needed."""

import asyncio
import json
import os
import signal
import socket
import tempfile
import time
import unittest
from typing import Any, Awaitable, Callable, List

import supermachine
from supermachine import ConfigurationError, EndedError, Image, Network, NetworkRule, aio

REF = os.environ["TEST_IMAGE"]
# Sockets have short names.
SCRATCH = tempfile.TemporaryDirectory(prefix="sm-")
SNAPSHOTS = os.path.join(SCRATCH.name, "snapshots")
PATIENCE = 120.0


def tearDownModule() -> None:
    SCRATCH.cleanup()


def about(vm: Any) -> Any:
    """What other processes read of a machine."""
    path = os.path.join(os.path.dirname(os.fspath(vm._native.exec_path)), "vm.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def answered(ask: Callable[[], bytes]) -> bytes:
    """The first answer of a service that is about to be there."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            answer = ask()
        except OSError:
            answer = b""
        if answer:
            return answer
        assert time.monotonic() < give_up, "nobody answers"
        time.sleep(0.05)


class Told(unittest.TestCase):
    image: Image

    @classmethod
    def setUpClass(cls) -> None:
        cls.image = Image.build(REF, snapshots_dir=SNAPSHOTS, network=Network())

    def test_machines_tell_what_happens_to_them_until_their_end(self) -> None:
        vm = self.image.start()
        events = vm.events()
        vm.pause()
        self.assertTrue(vm.is_paused)
        vm.resume()
        vm.shutdown(60)
        seen = list(events)
        self.assertEqual(
            [event.event for event in seen], ["started", "paused", "resumed", "ended"]
        )
        self.assertTrue(seen[-1].orderly)
        self.assertLess(abs(seen[0].at - time.time()), 600)
        with self.assertRaises(EndedError):
            vm.events()

    def test_closed_events_end_and_machines_of_pools_are_not_shut_down(self) -> None:
        with self.image.pool(min=0, max=1) as pool, pool.acquire() as vm:
            with vm.events() as events:
                self.assertEqual(next(events).event, "started")
            self.assertEqual(list(events), [])
            with self.assertRaises(ConfigurationError):
                vm.shutdown()

    def test_machines_tell_what_they_are_what_they_use_and_where_guests_went(self) -> None:
        network = Network(rules=[NetworkRule(deny="192.0.2.0/24")], allow=["*.example.com"])
        with self.image.start(labels={"team": "blue"}, network=network) as vm:
            self.assertEqual(about(vm)["labels"], {"team": "blue"})
            self.assertEqual(about(vm)["engine"], vm.engine)
            self.assertIn(vm.id, os.fspath(vm._native.exec_path))
            vm.exec(["wget", "-q", "-O", "-", "http://192.0.2.1:81/"])
            stats = vm.stats()
            self.assertEqual(stats["memory"]["guest_bytes"], 256 << 20)
            assert stats["network"] is not None
            self.assertGreater(stats["network"]["refused"], 0)
            [flow] = [flow for flow in vm.network_log() if flow.address == "192.0.2.1"]
            self.assertEqual((flow.port, flow.protocol, flow.allowed), (81, "tcp", False))
            self.assertEqual((flow.cause, flow.rule, flow.end), ("rule", 0, "denied"))
            self.assertIsNone(flow.secrets)
        with self.assertRaises(ConfigurationError):
            self.image.start(labels={"team": 7})

    def test_machines_are_reached_by_unix_sockets_and_have_ports_for_datagrams(self) -> None:
        script = (
            "mkdir -p /www; echo served > /www/page; exec httpd -f -p 127.0.0.1:80 -h /www"
        )
        with self.image.start() as vm:
            server = vm.spawn(["sh", "-c", script])
            path = os.path.join(SCRATCH.name, "s")

            def fetch() -> bytes:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(5)
                    client.connect(path)
                    client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
                    pieces = iter(lambda: client.recv(4096), b"")
                    return b"".join(pieces)

            with vm.expose_unix(path, 80) as door:
                self.assertEqual(door.path, path)
                self.assertIn(b"served", answered(fetch))
            self.assertFalse(os.path.exists(path))
            # Nothing of the image answers datagrams: the library's tests have what does.
            with vm.expose_udp(0, 53) as port, socket.socket(type=socket.SOCK_DGRAM) as other:
                with self.assertRaises(OSError):
                    other.bind(port.local_addr)
                port.stop()
                other.bind(port.local_addr)
            server.signal(signal.SIGKILL)


class GivenUp(unittest.IsolatedAsyncioTestCase):
    async def given_up(self, call: Awaitable[Any], after: float = 0.03) -> None:
        task = asyncio.ensure_future(call)
        await asyncio.sleep(after)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not await holds():
            self.assertLess(time.monotonic(), give_up, what)
            await asyncio.sleep(0.02)

    async def test_cancelled_tasks_end_though_their_machine_does_nothing_any_more(self) -> None:
        image = await aio.Image.build(REF, snapshots_dir=SNAPSHOTS, network=Network())
        vm = await image.start()
        child = await vm.spawn(["cat"])
        events = await vm.events()
        self.assertEqual((await events.__anext__()).event, "started")
        out = os.path.join(SCRATCH.name, "out")
        worker = about(vm)["worker_pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            calls: List[Awaitable[Any]] = [
                vm.exec(["true"]),
                vm.spawn(["true"]),
                vm.execs(),
                vm.write_file("/tmp/file", "x"),
                vm.read_file("/etc/passwd"),
                vm.read_dir("/"),
                vm.stat("/"),
                vm.mkdir("/tmp/dir"),
                vm.copy_in(__file__, "/tmp/copy"),
                vm.copy_out("/etc/passwd", out),
                vm.workload_status(),
                vm.snapshot(os.path.join(SCRATCH.name, "stuck")),
                vm.fork(1),
                vm.pause(),
                vm.stats(),
                vm.network_log(),
                vm.console_log(),
                events.__anext__(),
                child.read(),
                child.wait(),
            ]
            for call in calls:
                await self.given_up(call)
        finally:
            os.kill(worker, signal.SIGCONT)

        async def goes_on() -> bool:
            return not vm.is_paused

        await self.until("it was paused for nobody", goes_on)
        self.assertEqual((await vm.exec(["echo", "well"])).stdout, b"well\n")
        with self.assertRaises(supermachine.SupermachineError):
            await aio.Image.from_snapshot(os.path.join(SCRATCH.name, "stuck"))
        await vm.release()

    async def test_cancelled_copies_and_streams_leave_nothing_in_the_guest(self) -> None:
        image = await aio.Image.build(REF, snapshots_dir=SNAPSHOTS, network=Network())
        vm = await image.start()
        made = await vm.exec(["/bin/busybox", "truncate", "-s", "60G", "/tmp/large"])
        self.assertEqual(made.exit_code, 0)
        await self.given_up(vm.copy_out("/tmp/large", os.path.join(SCRATCH.name, "large")), 0.1)

        async def is_over() -> bool:
            count = "ps -o args | grep -v grep | grep -c 'files pack'; true"
            return (await vm.exec(["sh", "-c", count])).stdout == b"0\n"

        await self.until("it goes on packing", is_over)
        child = await vm.spawn(["cat"])
        for turn in range(3):
            await self.given_up(child.read(4), turn / 1000)
            await child.write(f"turn{turn}")
            self.assertEqual(await child.read(4), b"turn")
            self.assertEqual(await child.read(), str(turn).encode())
        await vm.release()
