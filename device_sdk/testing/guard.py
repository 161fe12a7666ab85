"""Runs one program and ends it when the parent process has ended, even if that was killed.

Called as ``python guard.py FOLDER PROGRAM ARGUMENTS...`` with a pipe as standard input. It is a file of its
own, without any import of the package, because it is run by its path.

- SIGTERM is passed on to the program; the folder stays.
- The end of standard input (closed by the parent, or by the kernel when the parent died) ends the program
  and removes the folder.
- The exit status is that of the program.

The guard leads a session of its own, so Ctrl-C in the terminal reaches neither guard nor program: the parent
still needs them to finish its work.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_GRACE_S = 5.0


def main(arguments: list[str]) -> int:
    """Run the program to its end; see the module's docstring."""
    folder, *command = arguments
    libc = ctypes.CDLL(None)

    def die_with_the_guard() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder, preexec_fn=die_with_the_guard)
    signal.signal(signal.SIGTERM, lambda _number, _frame: program.terminate())
    abandoned = threading.Event()

    def wait_for_the_parent_to_leave() -> None:
        while os.read(0, 4096):
            pass
        abandoned.set()
        program.terminate()
        try:
            program.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            program.kill()

    threading.Thread(target=wait_for_the_parent_to_leave, daemon=True).start()
    status = program.wait()
    if abandoned.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
