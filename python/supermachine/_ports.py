"""Ports of the host that lead to ports of a guest."""

from __future__ import annotations

from types import TracebackType
from typing import Optional, Tuple, Type

from . import _native


class TcpForwarder:
    """A TCP port of the host that leads to one of a guest. Nothing of it waits."""

    def __init__(self, native: _native.TcpForwarder):
        self._native = native

    @property
    def local_addr(self) -> Tuple[str, int]:
        """Where it listens: for :func:`socket.create_connection`."""
        return self._native.local_addr

    def stop(self) -> None:
        """Takes no more connections. Those that are open go on. Once more does nothing."""
        self._native.stop()

    def __enter__(self) -> "TcpForwarder":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()
