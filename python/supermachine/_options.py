"""Options and results as Python has them, and what the native part makes of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ._errors import invalid

Path = Union[str, "os.PathLike[str]"]
Data = Union[str, bytes, bytearray, memoryview]


@dataclass(frozen=True)
class OwnerMap:
    """Numbers of the guest that stand for others of the host.

    ``users`` and ``groups`` are ranges: the first in the guest, the first on the host,
    and how many.
    """

    users: Sequence[Tuple[int, int, int]]
    groups: Sequence[Tuple[int, int, int]]


@dataclass(frozen=True)
class Mount:
    """A directory of the host that a guest may mount, or a file of it.

    ``guest_tag`` is what the guest mounts it by; with ``at`` it is mounted there before
    anything runs. ``symlinks`` is ``deny``, ``opaque`` or ``follow``. With ``file`` it is
    one file, and ``at`` is where the guest has it.

    All files are ``owner``'s (a user and a group) for the guest, root's by default; or
    an ``owner_map`` says what their numbers are there; or owners and modes are what the
    guest says (``recorded_owners``), while on the host all is still the user's who runs
    this. ``dax`` has the guest map files instead of reading them, ``large`` ones or
    ``always``, through a window of ``dax_window_mib`` (256, a multiple of 2).
    """

    host_path: Path
    guest_tag: str
    symlinks: str = "opaque"
    read_only: bool = False
    copy_on_write: bool = False
    at: Optional[str] = None
    file: bool = False
    owner: Optional[Tuple[int, int]] = None
    owner_map: Optional[OwnerMap] = None
    recorded_owners: bool = False
    dax: Optional[str] = None
    dax_window_mib: Optional[int] = None


@dataclass(frozen=True)
class Tmpfs:
    """A file system in the guest's memory.

    It takes ``size_mib`` at most, half of the guest's memory by default. ``mode`` and
    ``owner`` are its directory's; programs there run only if it is ``executable``.
    """

    mount_point: str
    size_mib: Optional[int] = None
    mode: Optional[int] = None
    owner: Optional[Tuple[int, int]] = None
    executable: bool = False


@dataclass(frozen=True)
class ExtraFile:
    """A file of the host that becomes part of an image; its mode unless one is given."""

    host_path: Path
    guest_path: str
    mode: Optional[int] = None


@dataclass(frozen=True)
class Volume:
    """A disk with an ext4 file system.

    It is one that is baked with an image, or one that outlives machines, is of one at a
    time, and is made if need be.
    """

    name: str
    mount_point: str
    size_mib: Optional[int] = None


@dataclass(frozen=True)
class NetworkRule:
    """What may be reached, or what may not: a host, a network, or ``any``.

    It says either ``allow`` or ``deny``. ``ports`` is a port or a range like
    ``8000-8080``, ``protocol`` is ``tcp``, ``udp`` or ``icmp``; without them all are meant.
    """

    allow: Optional[str] = None
    deny: Optional[str] = None
    ports: Union[str, int, None] = None
    protocol: Optional[str] = None


@dataclass(frozen=True)
class Network:
    """What a guest may reach: hosts (``*.example.com``) and networks (``10.1.0.0/16``).

    The first of ``rules`` that fits decides; then what is in ``deny``, then what is in
    ``allow``. Addresses that are not public are refused unless their network is listed.
    ``host_ports`` and ``host_udp_ports`` are ports of the host's loopback interface, which
    the guest reaches at ``host.supermachine.internal``. ``rate_in`` is the most bytes a
    second that the guest gets, ``rate_out`` the most that others get from it; ``burst``
    may pass at once after a silence; ``max_flows`` are the most connections at a time.
    """

    allow_all: bool = False
    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    host_ports: Sequence[int] = ()
    rules: Sequence[NetworkRule] = ()
    host_udp_ports: Sequence[int] = ()
    rate_in: Optional[int] = None
    rate_out: Optional[int] = None
    burst: Optional[int] = None
    max_flows: Optional[int] = None


@dataclass(frozen=True)
class Secret:
    """A secret that the guest never has.

    Its commands find a placeholder in the variable ``name``, which becomes the value in
    headers of requests by HTTPS to ``hosts`` (``api.example.com``, or with a port), and
    only in ``headers`` if any are named. ``authorities`` are certificates in PEM format by
    which the hosts are known; the system's if there are none. The network has to reach
    the hosts, too.
    """

    name: str
    value: str = field(repr=False)
    hosts: Sequence[str] = ()
    headers: Sequence[str] = ()
    authorities: Optional[str] = None


@dataclass(frozen=True)
class StagedFile:
    """A file that is written before a command starts."""

    path: str
    contents: Data
    mode: int = 0o644


@dataclass(frozen=True)
class ExecStatus:
    """How a command ended. ``exit_code`` is -1 if a signal or the time limit ended it.

    ``duration`` is in seconds, ``peak_rss_kib`` that of the command and its
    descendants; ``step`` says which command of a chain ended last, 0 for the first.
    """

    exit_code: int
    signal: Optional[int]
    timed_out: bool
    oom: bool
    peak_rss_kib: int
    duration: float
    step: int


@dataclass(frozen=True)
class ExecResult(ExecStatus):
    """What a command wrote and how it ended."""

    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    truncated: bool


@dataclass(frozen=True)
class ExecInfo:
    """A durable command. ``id`` is for ``Vm.attach``, the same in copies of the machine.

    ``argv`` is cut after about a thousand bytes. ``state`` is ``running``, with its
    ``pid`` in the guest, or ``exited``, with how in ``exit``. ``since_start`` is in
    seconds, ``stdout_bytes`` and ``stderr_bytes`` are what it has written. ``attached``
    says that somebody has its streams.
    """

    id: str
    argv: List[str]
    state: str
    pid: Optional[int]
    exit: Optional[ExecStatus]
    since_start: float
    tty: bool
    attached: bool
    stdout_bytes: int
    stderr_bytes: int


@dataclass(frozen=True)
class FileInfo:
    """What the guest says of a file. ``mtime`` is in seconds since 1970."""

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    target: Optional[str]


@dataclass(frozen=True)
class Copied:
    """What was copied; sockets and devices are skipped."""

    entries: int
    bytes: int
    skipped: int


@dataclass(frozen=True)
class MountChange:
    """How a file of a copy-on-write mount is different in the guest.

    ``path`` is its path in the mount, ``kind`` is ``added``, ``changed`` or ``deleted``,
    and ``file`` what the guest has there: ``file``, ``directory``, ``symlink`` and so on,
    or None if it was deleted. ``size`` is in bytes, as the guest says.
    """

    path: str
    kind: str
    file: Optional[str]
    size: int


@dataclass(frozen=True)
class VolumeInfo:
    """What is known of a volume.

    ``size`` is that for the guest and ``disk_bytes`` what it takes of the host's disk;
    ``changed`` is when it was made or last written to, in seconds since 1970;
    ``in_use_by`` is the machine that has it, and the process that started that.
    """

    name: str
    path: str
    size: int
    disk_bytes: int
    changed: float
    in_use_by: Optional[str]


@dataclass(frozen=True)
class WorkloadStatus:
    """How a workload is doing: ``not-started``, ``running`` or ``exited``."""

    state: str
    exit: Optional[ExecStatus]
    output_bytes: int
    tail: bytes = field(repr=False)


@dataclass(frozen=True)
class PoolStats:
    """How many machines a pool has, and what they do."""

    alive: int
    in_use: int
    idle: int
    waiting: int
    min: int
    max: int


def data(value: Data) -> bytes:
    """Bytes; a string is UTF-8."""
    return value.encode() if isinstance(value, str) else bytes(value)


def milliseconds(what: str, seconds: Optional[float]) -> Optional[int]:
    """So many seconds in whole milliseconds, not less."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        invalid(f"{what} must be seconds, not {seconds!r}")
    if not math.isfinite(seconds) or seconds < 0:
        invalid(f"{what} must be 0 or more seconds, not {seconds!r}")
    return math.ceil(seconds * 1000)


def words(what: str, value: Any) -> List[str]:
    """A list of strings, and not a string, which would be one of letters."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        invalid(f"{what} must be a list of strings")
    for word in value:
        if not isinstance(word, str):
            invalid(f"{what} must be a list of strings, not of {type(word).__name__}")
    return list(value)


def variables(what: str, value: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """Names and values, which are strings."""
    for name, text in (value or {}).items():
        if not isinstance(name, str) or not isinstance(text, str):
            invalid(f"{what} must have strings, not {name!r}: {text!r}")
    return dict(value or {})


def mounts_of(given: Sequence[Mount]) -> List[Dict[str, Any]]:
    """The same for the native part."""
    return [
        {
            "host_path": os.fspath(mount.host_path),
            "guest_tag": mount.guest_tag,
            "symlinks": mount.symlinks,
            "read_only": mount.read_only,
            "copy_on_write": mount.copy_on_write,
            "at": mount.at,
            "file": mount.file,
            "owner": mount.owner,
            "owner_map": None
            if mount.owner_map is None
            else (list(mount.owner_map.users), list(mount.owner_map.groups)),
            "recorded_owners": mount.recorded_owners,
            "dax": mount.dax,
            "dax_window_mib": mount.dax_window_mib,
        }
        for mount in given
    ]


def tmpfs_of(given: Sequence[Tmpfs]) -> List[Dict[str, Any]]:
    """The same for the native part."""
    return [
        {
            "mount_point": tmpfs.mount_point,
            "size_mib": tmpfs.size_mib,
            "mode": tmpfs.mode,
            "owner": tmpfs.owner,
            "executable": tmpfs.executable,
        }
        for tmpfs in given
    ]


def volumes_of(given: Sequence[Volume]) -> List[Tuple[str, Optional[int], str]]:
    """The same for the native part."""
    return [(volume.name, volume.size_mib, volume.mount_point) for volume in given]


def wanted_of(
    given: Optional[Sequence[MountChange]],
) -> Optional[List[Tuple[str, str, Optional[str]]]]:
    """The same for the native part."""
    if given is None:
        return None
    return [(change.path, change.kind, change.file) for change in given]


def network_of(given: Optional[Network]) -> Optional[Dict[str, Any]]:
    """The same for the native part."""
    if given is None:
        return None
    return {
        "allow_all": given.allow_all,
        "allow": words("allow", given.allow),
        "deny": words("deny", given.deny),
        "host_ports": list(given.host_ports),
        "rules": [
            {
                "allow": rule.allow,
                "deny": rule.deny,
                "ports": None if rule.ports is None else str(rule.ports),
                "protocol": rule.protocol,
            }
            for rule in given.rules
        ],
        "host_udp_ports": list(given.host_udp_ports),
        "rate_in": given.rate_in,
        "rate_out": given.rate_out,
        "burst": given.burst,
        "max_flows": given.max_flows,
    }


def secrets_of(given: Sequence[Secret]) -> List[Dict[str, Any]]:
    """The same for the native part."""
    return [
        {
            "name": secret.name,
            "value": secret.value,
            "hosts": words("hosts", secret.hosts),
            "headers": words("headers", secret.headers),
            "authorities": secret.authorities,
        }
        for secret in given
    ]


def command(
    argv: Sequence[str],
    *,
    files: Union[Mapping[str, Data], Sequence[StagedFile], None] = None,
    timeout: Optional[float] = None,
    env: Optional[Mapping[str, str]] = None,
    cwd: Optional[str] = None,
    user: Optional[str] = None,
    chain: Sequence[Sequence[str]] = (),
    tty: bool = False,
    winsize: Optional[Tuple[int, int]] = None,
    stdin: Optional[Data] = None,
    max_memory_bytes: Optional[int] = None,
    max_processes: Optional[int] = None,
    max_cpus: Optional[float] = None,
    max_output_bytes: Optional[int] = None,
    truncate_output: bool = False,
    durable: bool = False,
) -> Dict[str, Any]:
    """The options of a command for the native part."""
    staged: List[Tuple[str, bytes, Optional[int]]] = []
    if isinstance(files, Mapping):
        staged = [(path, data(contents), None) for path, contents in files.items()]
    elif files is not None:
        staged = [(file.path, data(file.contents), file.mode) for file in files]
    return {
        "argv": words("argv", argv),
        "staged": staged,
        "timeout_ms": milliseconds("timeout", timeout),
        "env": variables("env", env),
        "cwd": cwd,
        "user": user,
        "chain": [words("chain", step) for step in chain],
        "tty": tty,
        "winsize": winsize,
        "stdin": None if stdin is None else data(stdin),
        "max_memory_bytes": max_memory_bytes,
        "max_processes": max_processes,
        "max_cpus": max_cpus,
        "max_output_bytes": max_output_bytes,
        "truncate_output": truncate_output,
        "durable": durable,
    }


def pool(
    *,
    min: int = 1,
    max: Optional[int] = None,
    acquire_timeout: Optional[float] = None,
    idle_timeout: Optional[float] = None,
    restore_on_release: bool = True,
    restore_timeout: Optional[float] = None,
    memory_mib: Optional[int] = None,
    vcpus: Optional[int] = None,
    network: Optional[Network] = None,
    secrets: Sequence[Secret] = (),
    mounts: Sequence[Mount] = (),
    tmpfs: Sequence[Tmpfs] = (),
) -> Dict[str, Any]:
    """The options of a pool for the native part."""
    return {
        **machine(
            memory_mib=memory_mib,
            vcpus=vcpus,
            network=network,
            secrets=secrets,
            mounts=mounts,
            tmpfs=tmpfs,
        ),
        "min": min,
        "max": max,
        "acquire_timeout_ms": milliseconds("acquire_timeout", acquire_timeout),
        "idle_timeout_ms": milliseconds("idle_timeout", idle_timeout),
        "restore_on_release": restore_on_release,
        "restore_timeout_ms": milliseconds("restore_timeout", restore_timeout),
    }


def machine(
    *,
    memory_mib: Optional[int] = None,
    vcpus: Optional[int] = None,
    name: Optional[str] = None,
    hostname: Optional[str] = None,
    labels: Optional[Mapping[str, str]] = None,
    network: Optional[Network] = None,
    secrets: Sequence[Secret] = (),
    mounts: Sequence[Mount] = (),
    tmpfs: Sequence[Tmpfs] = (),
    volumes: Sequence[Volume] = (),
    volumes_dir: Optional[Path] = None,
) -> Dict[str, Any]:
    """The options of a machine for the native part."""
    return {
        "memory_mib": memory_mib,
        "vcpus": vcpus,
        "name": name,
        "hostname": hostname,
        "labels": variables("labels", labels),
        "network": network_of(network),
        "secrets": secrets_of(secrets),
        "mounts": mounts_of(mounts),
        "tmpfs": tmpfs_of(tmpfs),
        "volumes": volumes_of(volumes),
        "volumes_dir": None if volumes_dir is None else os.fspath(volumes_dir),
    }


def image(
    ref: str,
    *,
    name: Optional[str] = None,
    memory_mib: Optional[int] = None,
    vcpus: Optional[int] = None,
    pull_policy: str = "missing",
    cmd: Optional[Sequence[str]] = None,
    entrypoint: Optional[Sequence[str]] = None,
    env: Optional[Mapping[str, str]] = None,
    workdir: Optional[str] = None,
    user: Optional[str] = None,
    labels: Optional[Mapping[str, str]] = None,
    guest_port: Optional[int] = None,
    listener_required: bool = False,
    network: Optional[Network] = None,
    extra_files: Sequence[ExtraFile] = (),
    mounts: Sequence[Mount] = (),
    tmpfs: Sequence[Tmpfs] = (),
    volumes: Sequence[Volume] = (),
    volume_slots: Optional[int] = None,
    warmup_tag: Optional[str] = None,
    snapshots_dir: Optional[Path] = None,
) -> Dict[str, Any]:
    """The options of a bake for the native part."""
    if not isinstance(ref, str):
        invalid("ref must name an image")
    return {
        "ref": ref,
        "name": name,
        "memory_mib": memory_mib,
        "vcpus": vcpus,
        "pull_policy": pull_policy,
        "cmd": None if cmd is None else words("cmd", cmd),
        "entrypoint": None if entrypoint is None else words("entrypoint", entrypoint),
        "env": variables("env", env),
        "workdir": workdir,
        "user": user,
        "labels": variables("labels", labels),
        "guest_port": guest_port,
        "listener_required": listener_required,
        "network": network_of(network),
        "extra_files": [
            (os.fspath(file.host_path), file.guest_path, file.mode) for file in extra_files
        ],
        "mounts": mounts_of(mounts),
        "tmpfs": tmpfs_of(tmpfs),
        "volumes": volumes_of(volumes),
        "volume_slots": volume_slots,
        "warmup_tag": warmup_tag,
        "snapshots_dir": None if snapshots_dir is None else os.fspath(snapshots_dir),
    }


def status(told: Dict[str, Any]) -> ExecStatus:
    """How a command ended."""
    return ExecStatus(**told)


def execs(told: List[Dict[str, Any]]) -> List[ExecInfo]:
    """The durable commands of a machine."""
    ended = [info["exit"] for info in told]
    return [
        ExecInfo(**{**info, "exit": None if exit is None else status(exit)})
        for info, exit in zip(told, ended)
    ]


def workload(told: Dict[str, Any]) -> WorkloadStatus:
    """How a workload is doing."""
    exit = told["exit"]
    return WorkloadStatus(**{**told, "exit": None if exit is None else status(exit)})
