"""What is told of machines: events, flows, figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, TypedDict


@dataclass(frozen=True)
class VmEvent:
    """Something that happened to a machine, ``at`` so many seconds since 1970.

    ``event`` is ``started`` (told first), ``paused``, ``resumed``, ``reset`` (brought back
    to its snapshot), ``listening`` (its workload, on ``port``), ``workload-exited`` (with
    ``code``, or by ``signal``), ``oom-killed`` (``program`` with ``pid``, as there was no
    memory left), ``ended`` (for a ``reason``; ``orderly`` if the guest turned itself off or
    the machine was stopped; nothing follows), or ``missed`` (``count`` events were not
    taken in time; 0 if nobody counted them, and nothing follows).
    """

    event: str
    at: float
    port: Optional[int] = None
    code: Optional[int] = None
    signal: Optional[int] = None
    pid: Optional[int] = None
    program: Optional[str] = None
    reason: Optional[str] = None
    orderly: Optional[bool] = None
    count: Optional[int] = None


@dataclass(frozen=True)
class SecretsUse:
    """What became of secrets on a flow, by their names.

    ``used`` were put into requests; of ``misplaced`` ones the placeholder was where none is
    replaced; ``refused`` says why the connection was ended, if it was.
    """

    used: List[str]
    misplaced: List[str]
    refused: Optional[str]


@dataclass(frozen=True)
class NetworkFlow:
    """What became of one of a guest's flows.

    That is a connection, an exchange of datagrams, or a question for a name that it may not
    ask. ``number`` counts them in the order in which they ended, at ``ended`` (seconds since
    1970) after ``lasted`` seconds. ``name`` is what the guest was told the ``address`` for,
    or asked for. ``protocol`` is ``tcp``, ``udp`` or ``icmp``; of the last the ``port`` is 0.
    ``cause`` is what decided whether it was ``allowed``: ``rule``, with its number in
    ``rule``; ``default``, as no rule fits; ``not-public``, ``host-port``, ``name-server``,
    ``name``, ``limit``, ``shown`` or ``secret``. ``end`` is ``denied``, ``closed``,
    ``guest-reset``, ``remote-reset``, ``refused``, ``unreachable``, ``failed``,
    ``timed-out``, ``displaced`` or ``rewound``.
    """

    number: int
    ended: float
    lasted: float
    name: Optional[str]
    address: str
    port: int
    protocol: str
    allowed: bool
    cause: str
    rule: Optional[int]
    sent_bytes: int
    received_bytes: int
    end: str
    secrets: Optional[SecretsUse]


class MemoryStats(TypedDict):
    """A machine's memory in bytes; None where the system does not tell."""

    guest_bytes: int
    ballooned_bytes: int
    added_bytes: int
    touched_bytes: Optional[int]
    host_bytes: Optional[int]


class FaultStats(TypedDict):
    """Page faults of a worker, without and with waiting for a disk."""

    minor: int
    major: int


class ExitStats(TypedDict):
    """How often an engine stopped running the guest, by reason."""

    total: int
    mmio_reads: int
    mmio_writes: int
    firmware: int
    waits: int
    kicks: int


class DiskStats(TypedDict):
    """What a disk has moved."""

    reads: int
    read_bytes: int
    writes: int
    written_bytes: int


class NetworkStats(TypedDict):
    """What a machine's network has done."""

    connections: int
    refused: int
    look_ups: int
    sent_bytes: int
    received_bytes: int
    waits: int
    lost_datagrams: int


class RestoreStats(TypedDict):
    """What copying and resetting a machine took, in pages of 4 KiB."""

    resets: int
    pages_restored: int
    pages_prefetched: int
    prefetch_hits: Optional[int]


class VmStats(TypedDict):
    """What a machine has used so far, and what it has now. Times are in microseconds."""

    uptime_us: int
    cpu_us: int
    guest_us: int
    instructions: Optional[int]
    is_paused: bool
    vcpus: int
    memory: MemoryStats
    faults: Optional[FaultStats]
    exits: ExitStats
    disks: List[DiskStats]
    network: Optional[NetworkStats]
    restore: RestoreStats


def flows(told: List[Dict[str, Any]]) -> List[NetworkFlow]:
    """What the native part tells of flows."""

    def flow(told: Dict[str, Any]) -> NetworkFlow:
        secrets = told.pop("secrets")
        return NetworkFlow(secrets=None if secrets is None else SecretsUse(**secrets), **told)

    return [flow(one) for one in told]
