"""Errors as classes by what a caller can do about them."""

from __future__ import annotations

from typing import Any, Dict, NoReturn, Type

from . import _native


class SupermachineError(Exception):
    """An error of this package.

    ``code`` is a word for programs, and stays the same; ``kind`` says what can be done
    about it; ``retryable`` says whether the same call may work when it is made again.
    """

    def __init__(self, message: str, code: str = "", kind: str = "", retryable: bool = False):
        super().__init__(message)
        self.code = code
        self.kind = kind
        self.retryable = retryable


class ConfigurationError(SupermachineError, ValueError):
    """Ask for something else: this cannot be had."""


class NotFoundError(SupermachineError):
    """Name something that is there."""


class InstallationError(SupermachineError):
    """Install what is missing on this host."""


class ImageError(SupermachineError):
    """Use another image, mend this one, or bake its snapshot again."""


class BusyError(SupermachineError):
    """Try again later, or ask for less."""


class TimedOutError(SupermachineError, TimeoutError):
    """Give it more time."""


class GuestError(SupermachineError):
    """Look at what the guest says."""


class EndedError(SupermachineError):
    """Use another machine: this one is over."""


class HostError(SupermachineError, OSError):
    """See to the host: it has refused something."""

    # OSError has a __str__ of its own, for errors with a number.
    __str__ = Exception.__str__


_CLASSES: Dict[str, Type[SupermachineError]] = {
    "configuration": ConfigurationError,
    "not-found": NotFoundError,
    "installation": InstallationError,
    "image": ImageError,
    "rebake": ImageError,
    "busy": BusyError,
    "timed-out": TimedOutError,
    "guest": GuestError,
    "ended": EndedError,
    "host": HostError,
}


def translated(error: "_native.NativeError") -> SupermachineError:
    """What the native part raised, as an error of this package."""
    code, kind, message, retryable = error.args
    return _CLASSES.get(kind, SupermachineError)(message, code, kind, retryable)


def wait(call: "_native.Call") -> Any:
    """The result of a call; the thread waits for it."""
    try:
        return call.wait()
    except _native.NativeError as error:
        raise translated(error) from None


async def awaited(call: "_native.Call") -> Any:
    """The result of a call; the task waits for it. If it is cancelled, so is the call."""
    try:
        return await call.future()
    except _native.NativeError as error:
        raise translated(error) from None


def invalid(message: str) -> NoReturn:
    """Refuses an argument."""
    raise ConfigurationError(message, "invalid-argument", "configuration")
