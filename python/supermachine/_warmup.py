"""Warming machines up before they are captured."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, List, Optional

from . import _native, _options
from ._errors import wait
from ._options import Data, ExecResult


class WarmupVm:
    """The machine that a warm-up is given, until it has ended.

    Its functions wait. A warm-up that is a coroutine function runs on the event loop,
    so that it calls them by :func:`asyncio.to_thread`.
    """

    def __init__(self, native: _native.WarmupVm):
        self._native = native

    def exec(self, argv: List[str], **options: Any) -> ExecResult:
        """Runs a command and collects its output."""
        return ExecResult(**wait(self._native.exec(_options.command(argv, **options))))

    def write_file(self, path: str, contents: Data) -> None:
        """Writes a file in the guest."""
        wait(self._native.write_file(path, _options.data(contents)))

    def read_file(self, path: str) -> bytes:
        """Reads a file of the guest."""
        contents: bytes = wait(self._native.read_file(path))
        return contents


def on_thread(
    warmup: Optional[Callable[[WarmupVm], None]],
) -> Optional[Callable[[_native.WarmupVm], None]]:
    """Has the native part call it with a machine of this package."""
    if warmup is None:
        return None
    function = warmup
    return lambda native: function(WarmupVm(native))


def on_loop(
    warmup: Optional[Callable[[WarmupVm], Optional[Awaitable[None]]]],
) -> Optional[Callable[[_native.WarmupVm], None]]:
    """The same; what it gives is awaited on the event loop that called."""
    if warmup is None:
        return None
    function = warmup
    loop = asyncio.get_running_loop()

    async def run(vm: WarmupVm) -> None:
        given = function(vm)
        if given is not None:
            await given

    def call(native: _native.WarmupVm) -> None:
        vm = WarmupVm(native)
        if asyncio.iscoroutinefunction(function):
            asyncio.run_coroutine_threadsafe(run(vm), loop).result()
        else:
            function(vm)

    return call
