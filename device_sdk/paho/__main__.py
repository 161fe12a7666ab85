"""Run a program that was written for paho-mqtt, as it is, on device_sdk.

::

    python -m device_sdk.paho [--v1] script.py [argument ...]

The program, and every library it imports, gets the drop-in when it imports paho. Its exit code is ours.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys

from device_sdk.paho import alias

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the script named on the command line. Raises: SystemExit: wrong usage, or from the script."""
    parser = argparse.ArgumentParser(
        prog="python -m device_sdk.paho",
        description="Run a program that was written for paho-mqtt on device_sdk.",
    )
    parser.add_argument("--v1", action="store_true", help="the program expects paho-mqtt 1.x, not 2.x")
    parser.add_argument("script", help="a Python program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="handed to the program")
    options = parser.parse_args(arguments)
    if not os.path.isfile(options.script):
        parser.error(f"there is no file {options.script!r}")
    alias.install(version1=options.v1)
    sys.argv[:] = [options.script, *options.arguments]
    # As for `python script.py`: its own folder first, instead of the one we were started in.
    sys.path[0] = os.path.dirname(os.path.abspath(options.script))
    runpy.run_path(options.script, run_name="__main__")


if __name__ == "__main__":
    main()
