"""Runs at the start of every example program: takes it to the broker of the test, and makes its clock fast.

The programs name a public broker. ``EXAMPLE_PORTS`` (``1883=34567,80=34568``) says where its ports are here.
"""

from __future__ import annotations

import atexit
import builtins
import io
import os
import queue
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

SPEED = 10
PUBLIC = ("mqtt.eclipseprojects.io", "test.mosquitto.org", "localhost")
PORTS = dict(pair.split("=") for pair in os.environ["EXAMPLE_PORTS"].split(","))

_getaddrinfo = socket.getaddrinfo
_time, _sleep = time.time, time.sleep
_START = _time()


def getaddrinfo(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
    """Resolve the public broker to the one of the test."""
    if host is not None and os.fsdecode(host) in PUBLIC:
        host, port = "127.0.0.1", int(PORTS[str(port)])
    return _getaddrinfo(host, port, *arguments, **named)


def write_lines() -> None:
    """Write whole lines, as another thread may print at the same time."""
    while line := lines.get():
        sys.stdout.write(line)


# is_connected() is true a little before on_connect has done its part, and some programs go on then. So a
# callback is not interrupted: another thread writes what it prints, and threads take turns in waits only.
assert isinstance(sys.stdout, io.TextIOWrapper)
sys.stdout.reconfigure(line_buffering=True)
sys.setswitchinterval(0.5)
lines: queue.SimpleQueue[str] = queue.SimpleQueue()
builtins.print = lambda *values: lines.put(" ".join(map(str, values)) + "\n")  # type: ignore[assignment]
writer = threading.Thread(target=write_lines, daemon=True)
writer.start()
atexit.register(writer.join)
atexit.register(lines.put, "")
socket.getaddrinfo = getaddrinfo
time.time = lambda: _START + SPEED * (_time() - _START)
# Shorter waits are between looks at is_connected(): fewer looks, fewer chances to look in that moment.
time.sleep = lambda seconds: _sleep(float(seconds) / SPEED if float(seconds) >= 1 else 4 * float(seconds))

if "EXAMPLE_ASYNCIO" in os.environ:
    import asyncio

    _asyncio_sleep = asyncio.sleep
    asyncio.sleep = lambda delay, result=None: _asyncio_sleep(delay / SPEED, result)

if "EXAMPLE_SRV" in os.environ:
    import dns.resolver

    def query(*_: object, **__: object) -> list[SimpleNamespace]:
        """Answer any SRV question with the public broker."""
        target = SimpleNamespace(to_text=lambda: f"{PUBLIC[0]}.")
        return [SimpleNamespace(priority=1, weight=1, port=1883, target=target)]

    dns.resolver.query = dns.resolver.resolve = query  # type: ignore[assignment]
