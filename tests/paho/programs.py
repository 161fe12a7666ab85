"""Runs programs out of a document in this process, with ``paho.mqtt`` being the drop-in."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_sdk.paho import alias
from tests.paho.conftest import SECONDS
from tests.steps import eventually

__all__ = ["PUBLIC", "Program", "Sensor", "blocks", "paho_is_ours", "take_to"]

PUBLIC = "mqtt.eclipseprojects.io"


def blocks(document: Path) -> dict[str, str]:
    """Return the Python blocks of a document by the heading above each."""
    found = re.findall(
        r"^## ([^\n]+)\n+(?:(?!^#).)*?^```python\n(.*?)^```$",
        document.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return dict(found)


@contextlib.contextmanager
def paho_is_ours(*, version1: bool = False) -> Iterator[None]:
    """Let ``import paho.mqtt`` find the drop-in, until the end of the block."""
    before = _take_paho()
    alias.install(version1=version1)
    try:
        yield
    finally:
        _take_paho()
        sys.modules.update(before)


def _take_paho() -> dict[str, Any]:
    names = [name for name in sys.modules if name.partition(".")[0] == "paho"]
    return {name: sys.modules.pop(name) for name in names}


def take_to(port: int, monkeypatch: pytest.MonkeyPatch, broker: str = PUBLIC) -> None:
    """Take connections to the broker that a document names to this port on 127.0.0.1."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, wanted: Any, *arguments: Any, **named: Any) -> Any:
        if host in (broker, broker.encode()):
            assert wanted == 1883
            host, wanted = "127.0.0.1", port
        return look_up(host, wanted, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class Program:
    """A program in a thread of its own. ``names``: what it finds defined; in the end, what it has defined."""

    def __init__(self, code: str, **names: Any) -> None:
        self.printed: list[str] = []
        self.names: dict[str, Any] = {"__name__": "__main__", "print": self._print, **names}
        self._code = compile(code, "a program of the document", "exec")
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _print(self, *values: object) -> None:
        self.printed.append(" ".join(map(str, values)))

    def _run(self) -> None:
        try:
            exec(self._code, self.names)
        except BaseException as error:
            self._error = error

    def wait_for_line(self, line: str) -> None:
        """Wait until it has printed this. Raises: TimeoutError; what the program raised."""
        eventually(lambda: line in self.printed or self._error)
        self._raise_error()

    def join(self) -> None:
        """Wait for its end. Raises: what the program raised."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), f"it still runs, and has printed {self.printed}"
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class Sensor(SimpleNamespace):
    """The sensor of the documents: gives its values, and then ends the program that reads it."""

    values: list[float]

    def blocking_read(self) -> float:
        """Return the next value. Raises: EOFError: there is none."""
        if not self.values:
            raise EOFError("the sensor has no more values")
        return self.values.pop(0)
