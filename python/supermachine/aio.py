"""Images, pools and machines for asyncio.

Everything that waits is a coroutine. A cancelled one cancels what it asked for: a
command is killed with its descendants, an ``acquire`` leaves the line, a copy or a
snapshot ends, and machines that are there too late are let go of.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, List, Optional, Sequence, Type

from . import _native, _options
from ._errors import awaited
from ._options import (
    Copied,
    Data,
    ExecInfo,
    ExecResult,
    ExecStatus,
    FileInfo,
    MountChange,
    Path,
    PoolStats,
    VolumeInfo,
    WorkloadStatus,
)
from ._ports import TcpForwarder, UdpForwarder, UnixForwarder
from ._told import NetworkFlow, VmEvent, VmStats, flows
from ._warmup import WarmupVm, on_loop

__all__ = ["Image", "Pool", "Vm", "Child", "Events", "VolumeStore"]


class Image:
    """A baked image: what machines are copies of."""

    def __init__(self, native: _native.Image):
        self._native = native

    @staticmethod
    async def build(
        ref: str,
        *,
        warmup: Optional[Callable[[WarmupVm], Optional[Awaitable[None]]]] = None,
        **options: Any,
    ) -> "Image":
        """Bakes an image into a snapshot, or finds it baked.

        ``warmup`` is called with the machine before it is captured: what it leaves in
        memory and in files, every copy has. Options: ``name``, ``memory_mib``,
        ``vcpus``, ``pull_policy``, ``cmd``, ``entrypoint``, ``env``, ``workdir``,
        ``user``, ``labels``, ``guest_port``, ``listener_required``, ``network``,
        ``extra_files``, ``mounts``, ``tmpfs``, ``volumes``, ``volume_slots``,
        ``warmup_tag``, ``snapshots_dir``. A volume that is given here is mounted, empty,
        before anything runs, and what the warm-up leaves there each copy begins with;
        ``volume_slots`` is how many that outlive it a machine may be given in ``start``.
        Machines have a network interface only if a ``network`` is given here; what they
        reach is said in ``start`` and ``pool``.
        """
        call = _native.Image.build(_options.image(ref, **options), on_loop(warmup))
        return Image(await awaited(call))

    @staticmethod
    async def from_snapshot(path: Path) -> "Image":
        """Opens a snapshot that was made before."""
        return Image(await awaited(_native.Image.from_snapshot(os.fspath(path))))

    async def pool(self, **options: Any) -> "Pool":
        """Makes a pool of its machines.

        Options: ``min`` (1), ``max`` (1), ``acquire_timeout`` (60 seconds; 0 for as long
        as it takes), ``idle_timeout``, ``restore_on_release`` (True), ``restore_timeout``,
        ``memory_mib``, ``vcpus``, ``network``, ``secrets``, ``mounts``, ``tmpfs``.
        """
        return Pool(await awaited(self._native.pool(_options.pool(**options))))

    async def start(self, **options: Any) -> "Vm":
        """Starts a machine that belongs to no pool.

        Options: ``memory_mib``, ``vcpus``, ``name``, ``hostname``, ``labels``, ``network``,
        ``secrets``, ``mounts``, ``tmpfs``, ``volumes``, ``volumes_dir``.
        """
        return Vm(await awaited(self._native.start(_options.machine(**options))))

    @property
    def snapshot_path(self) -> Optional[str]:
        """Where the snapshot is."""
        path = self._native.snapshot_path
        return None if path is None else os.fspath(path)

    @property
    def memory_mib(self) -> Optional[int]:
        """Guest memory in MiB."""
        return self._native.memory_mib

    @property
    def vcpus(self) -> Optional[int]:
        """Virtual CPUs."""
        return self._native.vcpus

    @property
    def digest(self) -> str:
        """What identifies the image that it was baked from."""
        return self._native.digest


class Pool:
    """Machines of one image, ready to be used."""

    def __init__(self, native: _native.Pool):
        self._native = native

    async def acquire(self) -> "Vm":
        """A machine that nobody has used since the snapshot.

        Callers are served in the order of their calls.
        """
        return Vm(await awaited(self._native.acquire()))

    def stats(self) -> PoolStats:
        """How many machines there are, and what they do. It does not wait."""
        return PoolStats(**self._native.stats())

    async def shutdown(self) -> None:
        """Ends the pool: refuses who waits, ends idle machines, waits for those in use."""
        await awaited(self._native.shutdown())

    async def __aenter__(self) -> "Pool":
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.shutdown()


class Vm:
    """A machine, of a pool or of its own, until it is released."""

    def __init__(self, native: _native.Vm):
        self._native = native

    async def exec(self, argv: List[str], **options: Any) -> ExecResult:
        """Runs a command and collects its output; it has a minute by default.

        A command that fails is no error: see ``exit_code``. Options: ``files`` (by path,
        or :class:`StagedFile` with modes), ``timeout`` (seconds; 0 for none), ``env``,
        ``cwd``, ``user``, ``chain``, ``tty``, ``winsize``, ``stdin``,
        ``max_memory_bytes``, ``max_processes``, ``max_cpus``, ``max_output_bytes``.
        """
        call = self._native.exec(_options.command(argv, **options))
        return ExecResult(**await awaited(call))

    async def spawn(self, argv: List[str], **options: Any) -> "Child":
        """Starts a command with its streams open. Options are those of ``exec``."""
        return Child(await awaited(self._native.spawn(_options.command(argv, **options))))

    async def attach(
        self,
        id: str,
        *,
        stdout: Optional[int] = None,
        stderr: Optional[int] = None,
        latest: bool = False,
    ) -> "Child":
        """Takes up the streams of a durable command, also one that has ended.

        ``stdout`` and ``stderr`` say how many bytes of each are left out, ``latest`` that
        all are which it has written so far. What the guest does not keep any more is
        missing, which a read says as an error.
        """
        return Child(await awaited(self._native.attach(id, stdout, stderr, latest)))

    async def execs(self) -> List[ExecInfo]:
        """The durable commands of the machine, oldest first."""
        return _options.execs(await awaited(self._native.execs()))

    async def write_file(self, path: str, contents: Data) -> None:
        """Writes a file in the guest, whole or not at all."""
        await awaited(self._native.write_file(path, _options.data(contents)))

    async def read_file(self, path: str) -> bytes:
        """Reads a file of the guest."""
        contents: bytes = await awaited(self._native.read_file(path))
        return contents

    async def read_dir(self, path: str) -> List[FileInfo]:
        """Lists a directory of the guest."""
        return [FileInfo(**info) for info in await awaited(self._native.read_dir(path))]

    async def stat(self, path: str) -> FileInfo:
        """Says what is at a path of the guest."""
        return FileInfo(**await awaited(self._native.stat(path)))

    async def mkdir(self, path: str, *, parents: bool = False) -> None:
        """Makes a directory in the guest, and those above it if ``parents``."""
        await awaited(self._native.mkdir(path, parents))

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Removes a file of the guest, or a directory with all in it if ``recursive``."""
        await awaited(self._native.remove(path, recursive))

    async def rename(self, old: str, new: str) -> None:
        """Gives a file of the guest another name."""
        await awaited(self._native.rename(old, new))

    async def copy_in(self, host: Path, guest: str) -> Copied:
        """Copies a tree of the host into the guest."""
        return Copied(**await awaited(self._native.copy_in(os.fspath(host), guest)))

    async def copy_out(self, guest: str, host: Path) -> Copied:
        """Copies a tree out of the guest."""
        return Copied(**await awaited(self._native.copy_out(guest, os.fspath(host))))

    async def mount_changes(self, tag: str) -> List[MountChange]:
        """What the guest has changed of the copy-on-write mount with this tag, by path.

        It is compared with what the host's directory has now.
        """
        changes = await awaited(self._native.mount_changes(tag))
        return [MountChange(**change) for change in changes]

    async def apply_changes(
        self, tag: str, changes: Optional[Sequence[MountChange]] = None
    ) -> List[MountChange]:
        """Makes changes of that mount to the directory of the host, and tells which.

        Those in ``changes``, of what ``mount_changes`` has told, or all. One that is not
        what it was then (``added``, now ``deleted``; a file, now a link) is left out; what
        is in a file is what the guest has there now. For the guest nothing changes.
        """
        wanted = _options.wanted_of(changes)
        applied = await awaited(self._native.apply_changes(tag, wanted))
        return [MountChange(**change) for change in applied]

    async def export_changes(
        self, tag: str, file: Path, changes: Optional[Sequence[MountChange]] = None
    ) -> Copied:
        """Writes the same changes into a file of the host, in the place of what is there.

        It is a tar archive in the form of an image's layer, in which ``.wh.NAME`` says
        that NAME was deleted, and is there with all of it or not at all.
        """
        wanted = _options.wanted_of(changes)
        call = self._native.export_changes(tag, os.fspath(file), wanted)
        return Copied(**await awaited(call))

    async def grow_volume(self, name: str, size_mib: int) -> None:
        """Grows a volume that the machine has to this size, while it is mounted."""
        await awaited(self._native.grow_volume(name, size_mib))

    async def expose_tcp(self, host_port: int, guest_port: int) -> TcpForwarder:
        """Connects a TCP port of the host's loopback interface to one of the guest.

        0 takes a port that is free. It is open until it is stopped, or the machine is
        released.
        """
        return TcpForwarder(await awaited(self._native.expose_tcp(host_port, guest_port)))

    async def expose_udp(self, host_port: int, guest_port: int) -> UdpForwarder:
        """Connects a UDP port of the host's loopback interface to one of the guest.

        0 takes a port that is free. Each sender has a socket of its own in the guest, until
        it was silent for two minutes or 256 others came after it.
        """
        return UdpForwarder(await awaited(self._native.expose_udp(host_port, guest_port)))

    async def expose_unix(self, path: Path, guest_port: int) -> UnixForwarder:
        """Connects a Unix socket of the host to a TCP port of the guest.

        The socket is made, for this user alone, and removed when it is stopped.
        """
        call = self._native.expose_unix(os.fspath(path), guest_port)
        return UnixForwarder(await awaited(call))

    async def events(self) -> "Events":
        """What happens to the machine from now on, to be iterated over.

        That it was paused, that its workload listens or has ended, that it ran out of
        memory, its end. What the workload does is known up to a second late. Each caller
        gets all of it.
        """
        return Events(await awaited(self._native.events()))

    async def network_log(self) -> List[NetworkFlow]:
        """What became of the guest's flows, the oldest first.

        They are the latest 4,096 that have ended or were refused; a pool's machine begins
        anew with each reset.
        """
        return flows(await awaited(self._native.network_log()))

    async def workload_signal(self, number: int) -> None:
        """Sends the workload a signal."""
        await awaited(self._native.workload_signal(number))

    async def workload_status(self) -> WorkloadStatus:
        """Tells how the workload is doing."""
        return _options.workload(await awaited(self._native.workload_status()))

    async def snapshot(self, directory: Path) -> Image:
        """Makes a snapshot of the running machine, which goes on."""
        return Image(await awaited(self._native.snapshot(os.fspath(directory))))

    async def fork(self, count: int = 1) -> "List[Vm]":
        """Makes machines that go on where this one is."""
        return [Vm(child) for child in await awaited(self._native.fork(count))]

    async def pause(self) -> None:
        """Stops the guest where it is until ``resume``."""
        await awaited(self._native.pause())

    async def resume(self) -> None:
        """Lets a paused guest go on."""
        await awaited(self._native.resume())

    async def stats(self) -> VmStats:
        """What the machine has used so far, as numbers by name."""
        stats: VmStats = await awaited(self._native.stats())
        return stats

    async def console_log(self) -> str:
        """The end of the guest's console."""
        text: str = await awaited(self._native.console_log())
        return text

    @property
    def id(self) -> str:
        """What ``supermachine ps`` calls it where nothing else is."""
        return self._native.id

    @property
    def engine(self) -> str:
        """Name of the engine that runs the guest."""
        return self._native.engine

    @property
    def is_paused(self) -> bool:
        """Whether somebody has paused it."""
        return self._native.is_paused

    async def shutdown(self, grace: float = 10) -> bool:
        """Stops a machine that is of no pool in good order: whether it did so in time.

        Its workload gets its stop signal, and the guest writes its caches out and turns
        itself off. After ``grace`` seconds the plug is pulled.
        """
        stopped: bool = await awaited(
            self._native.shutdown(_options.milliseconds("grace", grace))
        )
        return stopped

    async def release(self) -> None:
        """Gives the machine back to its pool, or stops it. Once more does nothing."""
        await awaited(self._native.release())

    async def __aenter__(self) -> "Vm":
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.release()


class Child:
    """A running command with its streams. One that nothing refers to any more is killed."""

    def __init__(self, native: _native.Child):
        self._native = native

    @property
    def id(self) -> Optional[str]:
        """By what ``Vm.attach`` finds it again, if it is durable."""
        return self._native.id

    async def write(self, contents: Data) -> None:
        """Writes to the standard input; waits while the command does not read."""
        await awaited(self._native.write_stdin(_options.data(contents)))

    async def close_stdin(self) -> None:
        """Ends the standard input."""
        await awaited(self._native.close_stdin())

    async def read(self, max_bytes: Optional[int] = None) -> bytes:
        """Reads from the standard output, at most 64 KiB; nothing at its end."""
        contents: bytes = await awaited(self._native.read_stdout(max_bytes))
        return contents

    async def read_stderr(self, max_bytes: Optional[int] = None) -> bytes:
        """Reads from the standard error, at most 64 KiB; nothing at its end."""
        contents: bytes = await awaited(self._native.read_stderr(max_bytes))
        return contents

    async def stdout(self) -> AsyncIterator[bytes]:
        """The standard output in pieces, to its end."""
        while True:
            piece = await self.read()
            if not piece:
                return
            yield piece

    async def stderr(self) -> AsyncIterator[bytes]:
        """The standard error in pieces, to its end."""
        while True:
            piece = await self.read_stderr()
            if not piece:
                return
            yield piece

    async def signal(self, number: int) -> None:
        """Sends a signal to the command's process group; 9 ends all its descendants."""
        await awaited(self._native.signal(number))

    async def resize(self, columns: int, rows: int) -> None:
        """Tells the command's terminal its new size."""
        await awaited(self._native.resize(columns, rows))

    async def wait(self) -> ExecStatus:
        """Waits for the command to end. Output that nobody has begun to read is dropped."""
        return _options.status(await awaited(self._native.wait()))


class Events:
    """What happens to a machine, from ``Vm.events``: to be iterated over, once.

    What is not taken is kept, up to 1,024 events; the machine never waits for it.
    """

    def __init__(self, native: _native.Events):
        self._native = native

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> VmEvent:
        event = await awaited(self._native.next())
        if event is None:
            raise StopAsyncIteration
        return VmEvent(**event)

    async def close(self) -> None:
        """Has it end, also for who waits. Once more does nothing."""
        await awaited(self._native.close())

    async def __aenter__(self) -> "Events":
        return self

    async def __aexit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()


class VolumeStore:
    """A directory of volumes: of disks that outlive machines."""

    def __init__(self, native: _native.VolumeStore):
        self._native = native

    @staticmethod
    def of_user() -> "VolumeStore":
        """That of this user.

        It is the directory in the environment variable ``SUPERMACHINE_VOLUMES``, else
        ``~/.local/supermachine-volumes``.
        """
        return VolumeStore(_native.VolumeStore.of_user())

    @staticmethod
    def at(directory: Path) -> "VolumeStore":
        """That in a directory, which is made, for its owner alone, with the first volume."""
        return VolumeStore(_native.VolumeStore.at(os.fspath(directory)))

    async def create(self, name: str, size_mib: int) -> None:
        """Makes an empty volume, with a file system."""
        await awaited(self._native.create(name, size_mib))

    async def list(self) -> List[VolumeInfo]:
        """All volumes, by their names."""
        return [VolumeInfo(**info) for info in await awaited(self._native.list())]

    async def inspect(self, name: str) -> VolumeInfo:
        """What is known of a volume."""
        return VolumeInfo(**await awaited(self._native.inspect(name)))

    async def remove(self, name: str) -> None:
        """Removes a volume and all that is in it, if no machine has it."""
        await awaited(self._native.remove(name))

    async def prune(self, *, all: bool = False) -> List[str]:
        """Removes what was left of volumes that were never finished.

        If ``all``, every volume that no machine has, too; the names of these.
        """
        names: List[str] = await awaited(self._native.prune(all))
        return names

    async def grow(self, name: str, size_mib: int) -> None:
        """Grows a volume that no machine has; for another there is ``Vm.grow_volume``."""
        await awaited(self._native.grow(name, size_mib))

    async def export(self, name: str, file: Path) -> None:
        """Copies what a volume holds to a file, in the place of what has its name.

        It is the image of a disk with an ext4 file system, with holes.
        """
        await awaited(self._native.export(name, os.fspath(file)))

    async def import_(self, name: str, file: Path) -> None:
        """Makes a volume of what ``export`` has written, or another tool that makes ext4."""
        await awaited(self._native.import_(name, os.fspath(file)))
