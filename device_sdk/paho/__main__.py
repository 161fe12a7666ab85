"""Run a program that was written for paho-mqtt, as it is, on device_sdk.

::

    python -m device_sdk.paho [--v1] script.py [argument ...]
    python -m device_sdk.paho [--v1] -m module [argument ...]

The program, and every library it imports, gets the drop-in when it imports paho. Its exit code is ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import sys

from device_sdk.paho import alias

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the script or module named on the command line.

    Raises: SystemExit: wrong usage, or from the program.
    """
    parser = argparse.ArgumentParser(
        prog="python -m device_sdk.paho",
        usage="%(prog)s [-h] [--v1] (script | -m module) [argument ...]",
        description="Run a program that was written for paho-mqtt on device_sdk.",
    )
    parser.add_argument("--v1", action="store_true", help="the program expects paho-mqtt 1.x, not 2.x")
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, help="a module or package, as for python -m"
    )
    parser.add_argument("script", nargs="?", help="a Python program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="handed to the program")
    options = parser.parse_args(arguments)
    program = [options.script, *options.arguments] if options.module is None else options.module
    if not (program and program[0]):
        parser.error("name a script, or -m and a module")
    alias.install(version1=options.v1)
    sys.argv[:] = program
    if options.module is None:
        _run_script(parser, program[0])
    else:
        _run_module(parser, program[0])


def _run_script(parser: argparse.ArgumentParser, path: str) -> None:
    if not os.path.isfile(path):
        parser.error(f"there is no file {path!r}")
    # As for `python script.py`: its own folder first, instead of the one we were started in.
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    runpy.run_path(path, run_name="__main__")


def _run_module(parser: argparse.ArgumentParser, name: str) -> None:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # its package lacks another one
        found = None
    if found is None:
        parser.error(f"there is no module {name!r}")
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
