"""`supermachine mcp`, as the official client of the protocol sees it.

`cargo xtask test mcp` runs this with the client from PyPI.
"""

import asyncio
import base64
import os
import pathlib
import subprocess
import unittest

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

TOOL = os.environ["SUPERMACHINE"]
IMAGE = os.environ["TEST_IMAGE"]
# No call of these tests takes as long on any host.
PATIENCE = 120


class Server:
    """A server and one client of it."""

    def __init__(self, *arguments):
        self.parameters = StdioServerParameters(
            command=TOOL, args=["mcp", *arguments], env=dict(os.environ)
        )

    async def __aenter__(self):
        self.transport = stdio_client(self.parameters)
        read, write = await self.transport.__aenter__()
        self.session = ClientSession(read, write)
        await self.session.__aenter__()
        self.hello = await self.session.initialize()
        return self

    async def __aexit__(self, *what):
        await self.session.__aexit__(*what)
        await self.transport.__aexit__(*what)

    async def call(self, tool, **arguments):
        """What a tool replies; what it refuses is raised."""
        called = self.session.call_tool(tool, arguments)
        result = await asyncio.wait_for(called, PATIENCE)
        if getattr(result, "is_error", None) or getattr(result, "isError", False):
            raise Refused(result.content[0].text)
        structured = getattr(result, "structured_content", None)
        return structured or result.structuredContent


class Refused(Exception):
    pass


def workers():
    """Workers that have this process' server as their ancestor."""
    listed = subprocess.run([TOOL, "ps", "-q"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


class Tools(unittest.IsolatedAsyncioTestCase):
    async def test_an_agent_works_in_a_machine(self):
        async with Server("--image", IMAGE) as server:
            listed = await server.session.list_tools()
            names = {tool.name for tool in listed.tools}
            self.assertEqual(
                names,
                {"run", "exec", "read_file", "write_file", "snapshot", "fork", "stop", "list"},
            )
            started = await server.call("run", image=IMAGE, command=["uname", "-m"])
            self.assertEqual(started["outcome"]["stdout"], "aarch64\n")
            machine = started["machine"]

            script = "#!/bin/sh\ncat; echo $WHO >&2; pwd; exit 3\n"
            wrote = await server.call(
                "write_file", machine=machine, path="/srv/do", content=script, executable=True
            )
            self.assertEqual(wrote["bytes"], len(script))
            outcome = await server.call(
                "exec",
                machine=machine,
                command=["/srv/do"],
                stdin="in\n",
                cwd="/srv",
                env={"WHO": "agent"},
            )
            self.assertEqual(
                (outcome["status"], outcome["stdout"], outcome["stderr"]),
                (3, "in\n/srv\n", "agent\n"),
            )

            bytes_ = bytes(range(256))
            await server.call(
                "write_file",
                machine=machine,
                path="/srv/bytes",
                content=base64.b64encode(bytes_).decode(),
                encoding="base64",
            )
            read = await server.call("read_file", machine=machine, path="/srv/bytes")
            self.assertEqual(read["encoding"], "base64")
            self.assertEqual(base64.b64decode(read["content"]), bytes_)
            read = await server.call("read_file", machine=machine, path="/srv/do")
            self.assertEqual((read["encoding"], read["content"]), ("utf8", script))

            forks = (await server.call("fork", machine=machine, count=2))["machines"]
            self.assertEqual(len({machine, *forks}), 3)
            await server.call("exec", machine=forks[0], command=["rm", "/srv/do"])
            for other in (machine, forks[1]):
                outcome = await server.call("exec", machine=other, command=["cat", "/srv/do"])
                self.assertEqual(outcome["stdout"], script)

            kept = await server.call("snapshot", machine=machine, name="kept")
            left = await server.call("stop", machine=machine)
            self.assertEqual(left["machines"], forks)
            again = await server.call("run", image=kept["image"], command=["cat", "/srv/do"])
            self.assertEqual(again["outcome"]["stdout"], script)
            with self.assertRaisesRegex(Refused, "no machine `m1` runs"):
                await server.call("exec", machine=machine, command=["true"])

            # By default nothing of a network is there.
            outcome = await server.call("exec", machine=forks[0], command=["ls", "/sys/class/net"])
            self.assertEqual(outcome["stdout"].split(), ["lo"])
        self.assertEqual(workers(), [])

    async def test_what_a_client_asks_for_is_bounded(self):
        bounds = ["--image", IMAGE, "--max-machines", "2", "--max-memory", "300", "-m", "256"]
        bounds += ["--timeout", "5s", "--max-output", "1000", "--max-snapshots", "0"]
        async with Server(*bounds) as server:
            machine = (await server.call("run", image=IMAGE))["machine"]
            refused = [
                ("fork", {"machine": machine, "count": 2}, "too many"),
                ("fork", {"machine": machine, "count": 2**60}, "too many"),
                ("fork", {"machine": machine, "count": 0}, "too many"),
                ("run", {"image": IMAGE, "memory_mib": 4096}, "300 MiB"),
                ("run", {"image": IMAGE, "vcpus": 64}, "virtual CPUs"),
                ("run", {"image": "busybox"}, "may not be run"),
                ("run", {"image": "rootfs:/etc"}, "may not be run"),
                ("exec", {"machine": machine, "command": []}, "empty"),
                ("exec", {"machine": machine, "command": ["a\0b"]}, ""),
                ("exec", {"machine": machine, "command": ["true"], "timeout_seconds": 6}, "5 sec"),
                ("exec", {"machine": machine, "command": ["true"], "timeout_seconds": -1}, "5 sec"),
                ("exec", {"machine": machine, "comand": ["true"]}, "comand"),
                ("snapshot", {"machine": machine, "name": "../x"}, "letters"),
                ("snapshot", {"machine": machine, "name": "x"}, "no more may be made"),
                ("read_file", {"machine": machine, "path": "/dev/zero"}, ""),
                ("read_file", {"machine": machine, "path": "/bin/busybox"}, "1000"),
                ("no_such_tool", {}, "no tool"),
                ("list", {"x": 1}, "x"),
            ]
            for tool, arguments, words in refused:
                with self.subTest(tool=tool, arguments=arguments):
                    with self.assertRaisesRegex(Refused, words):
                        await server.call(tool, **arguments)
            flood = await server.call("exec", machine=machine, command=["seq", "100000"])
            self.assertTrue(flood["truncated"])
            self.assertLessEqual(len(flood["stdout"]), 1000)
            slow = await server.call(
                "exec", machine=machine, command=["sleep", "1000"], timeout_seconds=0.5
            )
            self.assertTrue(slow["timed_out"])
            # What was refused took no room.
            fork = await server.call("fork", machine=machine)
            self.assertEqual(len(fork["machines"]), 1)

    async def test_files_of_the_host_cannot_be_named(self):
        async with Server() as server:
            secret = pathlib.Path(os.environ["TMPDIR"], "secret.tar")
            secret.write_bytes(b"")
            for image in [
                f"tar:{secret}",
                "rootfs:/",
                "oci:/tmp",
                "docker:busybox",
                "snapshot:/tmp",
                "/",
                "../..",
                "..",
                ".",
                "",
            ]:
                with self.subTest(image=image):
                    with self.assertRaises(Refused) as refused:
                        await server.call("run", image=image)
                    self.assertNotIn("registry-1", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
