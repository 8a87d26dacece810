"""Ports of the host that lead to ports of a guest."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Optional, Tuple, Type, TypeVar

from . import _native

Self = TypeVar("Self", bound="_Forwarder")


class _Forwarder:
    """What is stopped at the end of a ``with``."""

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()


class TcpForwarder(_Forwarder):
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


class UdpForwarder(_Forwarder):
    """A UDP port of the host that leads to one of a guest. Nothing of it waits."""

    def __init__(self, native: _native.UdpForwarder):
        self._native = native

    @property
    def local_addr(self) -> Tuple[str, int]:
        """Where it takes datagrams: for :meth:`socket.socket.connect`."""
        return self._native.local_addr

    def stop(self) -> None:
        """Takes no more datagrams. Once more does nothing."""
        self._native.stop()


class UnixForwarder(_Forwarder):
    """A Unix socket of the host that leads to a TCP port of a guest. Nothing of it waits."""

    def __init__(self, native: _native.UnixForwarder):
        self._native = native

    @property
    def path(self) -> str:
        """Where the socket is."""
        path: str = os.fspath(self._native.path)
        return path

    def stop(self) -> None:
        """Takes no more connections, and removes the socket. Once more does nothing."""
        self._native.stop()
