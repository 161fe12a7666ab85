"""Becomes the program in its arguments, which the kernel kills when its parent has died.

Called as ``python -I -S launch.py PARENT PROGRAM ARGUMENTS...``; PARENT is the caller's process identifier.
A file of its own, run by its path: doing this between fork and exec of a process with threads can deadlock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(arguments: list[str]) -> int:
    """Replace this process by the program; 127 if there is no such program."""
    parent, *command = arguments
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the kernel knew
        return 1
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
