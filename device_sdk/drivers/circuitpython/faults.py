"""From what a CircuitPython driver raises to our errors. Its object may raise anything at any time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_sdk.drivers.bus.i2c import NO_ACKNOWLEDGE
from device_sdk.drivers.values import shown
from device_sdk.errors import (
    BusError,
    ChecksumError,
    DeviceNotFoundError,
    DeviceSdkError,
    DriverError,
    ReadTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Overdue", "is_absent", "translated"]

# CircuitPython drivers raise RuntimeError for everything; the words identify the fault.
_RUNTIME_ERRORS: tuple[tuple[tuple[str, ...], type[DriverError], str], ...] = (
    (("crc", "checksum"), ChecksumError, "check the cable and the pull-ups, or lower the speed of the bus"),
    (("timeout", "timed out"), ReadTimeoutError, "if it lasts, switch the chip's supply off and on"),
)

# How deep an error of the bus may be in the chain of errors that a driver made of it.
_DEPTH = 5


class Overdue(BaseException):
    """The time of a call is over. No Exception: a driver that waits must not catch it and wait on."""


def is_absent(error: BaseException) -> bool:
    """Return whether a constructor that raised this means that its chip is not there."""
    if isinstance(error, AttributeError):  # of the driver of the TMP117, for one
        return "find" in str(error).lower()
    return isinstance(error, ValueError | RuntimeError)


@contextmanager
def translated(
    place: str, absent: Callable[[BaseException], bool] | None = None, advice: Callable[[], str] = str
) -> Iterator[None]:
    """Translate errors of a CircuitPython driver into ours.

    Args:
        place: what is read, for the message.
        absent: tells which errors mean "no chip".
        advice: called for the end of the message of a chip that is absent.
    """
    try:
        yield
    except (DeviceSdkError, Overdue, KeyboardInterrupt, GeneratorExit):
        raise
    except OSError as error:
        raise _bus_error(place, error) from error
    except BaseException as error:  # also SystemExit: a driver must not end the thread that reads it
        hidden = _bus_fault(error)
        if absent is not None and absent(error):
            # The usual probe hides every fault of the bus behind "no device".
            if isinstance(hidden, OSError) and hidden.errno not in NO_ACKNOWLEDGE:
                raise _bus_error(place, hidden) from None
            raise DeviceNotFoundError(f"{place}: {_words(error)}; {advice()}") from error
        if hidden is not None:
            raise _bus_error(place, hidden) from error
        text = str(_words(error)).lower()
        for words, meaning, remedy in _RUNTIME_ERRORS:
            if isinstance(error, RuntimeError) and any(word in text for word in words):
                raise meaning(f"{place}: {_words(error)}; {remedy}") from error
        raise DriverError(f"{place}: {shown(error)}") from error


def _bus_error(place: str, error: OSError) -> DriverError:
    if isinstance(error, DriverError):
        return error
    failed = BusError(f"{place}: {error.strerror or _words(error)}")
    failed.errno = error.errno
    return failed


def _bus_fault(error: BaseException) -> OSError | None:
    """Return the fault of the bus that a driver has made another error of."""
    cause: BaseException | None = error
    for _ in range(_DEPTH):
        cause = cause and (cause.__cause__ or cause.__context__)
        if isinstance(cause, OSError):
            return cause
    return None


def _words(error: BaseException) -> str:
    """Return the text of an error, without its type; never raises."""
    return shown(error).partition(": ")[2] or shown(error)
