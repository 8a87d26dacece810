"""Run any OCI image as a microVM with its own Linux kernel.

>>> from supermachine import Image
>>> image = Image.build("alpine:latest")
>>> with image.pool(max=4) as pool, pool.acquire() as vm:
...     vm.exec(["echo", "hello"]).stdout
b'hello\\n'

``supermachine.aio`` has the same for asyncio.
"""

from __future__ import annotations

import os as _os

from . import _native, aio
from ._errors import (
    BusyError,
    ConfigurationError,
    EndedError,
    GuestError,
    HostError,
    ImageError,
    InstallationError,
    NotFoundError,
    SupermachineError,
    TimedOutError,
)
from ._options import (
    Copied,
    ExecInfo,
    ExecResult,
    ExecStatus,
    ExtraFile,
    FileInfo,
    Mount,
    MountChange,
    Network,
    NetworkRule,
    OwnerMap,
    PoolStats,
    Secret,
    StagedFile,
    Tmpfs,
    Volume,
    VolumeInfo,
    WorkloadStatus,
)
from ._ports import TcpForwarder, UdpForwarder, UnixForwarder
from ._sync import Child, Events, Image, Pool, Vm, VolumeStore
from ._told import NetworkFlow, SecretsUse, VmEvent, VmStats
from ._warmup import WarmupVm

__all__ = [
    "BusyError",
    "Child",
    "ConfigurationError",
    "Copied",
    "EndedError",
    "Events",
    "ExecInfo",
    "ExecResult",
    "ExecStatus",
    "ExtraFile",
    "FileInfo",
    "GuestError",
    "HostError",
    "Image",
    "ImageError",
    "InstallationError",
    "Mount",
    "MountChange",
    "Network",
    "NetworkFlow",
    "NetworkRule",
    "OwnerMap",
    "NotFoundError",
    "Pool",
    "PoolStats",
    "Secret",
    "SecretsUse",
    "StagedFile",
    "SupermachineError",
    "TcpForwarder",
    "TimedOutError",
    "Tmpfs",
    "UdpForwarder",
    "UnixForwarder",
    "Vm",
    "VmEvent",
    "VmStats",
    "Volume",
    "VolumeInfo",
    "VolumeStore",
    "WarmupVm",
    "WorkloadStatus",
    "aio",
]


def _install() -> None:
    """Has the native part use the files that came with this package."""
    here = _os.path.join(_os.path.dirname(__file__), "bin")
    worker = _os.environ.get("SUPERMACHINE_WORKER") or _os.path.join(here, "supermachine-worker")
    own = here if _os.path.exists(_os.path.join(here, "kernel")) else None
    assets = _os.environ.get("SUPERMACHINE_ASSETS") or own
    _native.install(worker if _os.path.exists(worker) else None, assets)


_install()
