"""Standard output and standard error that may be closed, full, or without a reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from device_sdk.cli.common import ExitCode
from device_sdk.cli.terminal import complain

__all__ = ["WatchedOutput", "drop_errors", "lost_output", "watch_output"]


# Of the process; a test has another one in its place.
_OWN: Any = sys.__stdout__


class WatchedOutput(io.BufferedWriter):
    """A file that remembers why it could not be written: an OSError does not say to which file it belongs.

    Not the raw file: an exception from a signal, after its write, would have the buffer write the same again.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, as :meth:`io.BufferedWriter.write`."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Flush, as :meth:`io.BufferedWriter.flush`."""
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


def watch_output() -> WatchedOutput | None:
    """Watch standard output, and put something in the place of streams that are closed.

    Their descriptors would become those of the next sockets. Writing to a closed standard output is an error,
    as with every command; to a closed standard error it does nothing. Returns: ``None``: standard output is
    not the process's own, as in a test.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
    stdout: Any = sys.stdout
    if stdout is None:
        descriptor, encoding, errors, by_line = os.open(os.devnull, os.O_RDONLY), "utf-8", "strict", False
    elif stdout is _OWN:
        descriptor, encoding, errors = stdout.fileno(), stdout.encoding, stdout.errors or "strict"
        by_line = stdout.line_buffering or stdout.write_through
    else:
        return None
    watched = WatchedOutput(io.FileIO(descriptor, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(watched, encoding=encoding, errors=errors, line_buffering=by_line)
    return watched


def lost_output(error: OSError) -> ExitCode:
    """Say that standard output could not be written, drop what is left in it, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
    if error.errno == errno.EPIPE:  # as in ``device-sdk sub ... | head -1``
        return ExitCode.INTERRUPTED
    why = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
    complain(f"standard output cannot be written: {why}")
    return ExitCode.FAILED


def drop_errors() -> None:
    """Drop what standard error does not take, or Python ends with an exit code of its own."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
