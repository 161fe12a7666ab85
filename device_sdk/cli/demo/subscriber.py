"""The demo's subscriber: a process of its own with a persistent session, and the handle on it.

The process writes lines of JSON: its state and the sequence numbers that it received since the last line, in
the order of arrival and with repetitions, so that a duplicate shows as a number that comes twice::

    {"state": "connected", "received": [12, 13, 14]}

The parent writes one line, the options; as arguments other users could read the password in them. Closing
the pipe is the request to end. If the parent is killed, the kernel closes it, and the process ends as well.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from device_sdk import Client, ReconnectPolicy
from device_sdk.cli.common import set_up_logging
from device_sdk.cli.demo.plan import LONGEST_WAIT_S
from device_sdk.cli.terminal import as_json, complain, say_json
from device_sdk.errors import DeviceSdkError

if TYPE_CHECKING:
    from device_sdk import Message

__all__ = ["SubscriberProcess", "main"]

_REPORT_S = 0.2
_READY_S = 15.0
_STOP_S = 10.0
_CONNECT_S = 10.0


class SubscriberProcess:
    """The parent's side: starts the process, counts what it reports, ends it.

    ``state`` is the connection state of its client, ``seen`` holds each sequence number that arrived, and
    ``arrived`` counts all arrivals. They are written by one thread and may be read by any.
    """

    def __init__(self, url: str, topic: str, client_id: str, version: str, session_expiry: int) -> None:
        self.state = "starting"
        self.seen: set[int] = set()
        self.arrived = 0
        self._options = {
            "url": url,
            "topic": topic,
            "client_id": client_id,
            "version": version,
            "session_expiry": session_expiry,
            "log_level": logging.getLogger().level,
        }
        self._subscribed = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None

    @property
    def received(self) -> int:
        """How many different sequence numbers arrived."""
        return len(self.seen)

    @property
    def duplicates(self) -> int:
        """How many arrivals repeated a number."""
        return self.arrived - len(self.seen)

    def start(self) -> None:
        """Start the process and wait until its subscription is acknowledged.

        Raises: DeviceSdkError: it ended, or took longer than 15 s; its messages are on standard error.
        """
        package_parent = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "device_sdk.cli.demo.subscriber"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the parent alone
        )  # fmt: skip
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(as_json(self._options) + "\n")
            self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, name="demo-subscriber", daemon=True)
        self._listener.start()
        self._subscribed.wait(_READY_S)
        if self.state in ("starting", "ended"):
            raise DeviceSdkError(f"the subscriber process could not subscribe (it is {self.state!r})")

    def stop(self) -> None:
        """Ask the process to end and wait for its last report; kill it after 10 s."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None and self._listener is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._listener.join(_STOP_S)
        process.stdout.close()

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            report = json.loads(line)
            self.seen.update(report["received"])
            self.arrived += len(report["received"])
            self.state = report["state"]
            self._subscribed.set()
        self.state = "ended"
        self._subscribed.set()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> int:
    """Subscribe and report until standard input ends."""
    options = json.loads(sys.stdin.readline())
    set_up_logging(options["log_level"], who="subscriber")
    received: deque[int] = deque()

    def record(message: Message) -> None:
        received.append(json.loads(message.payload)["seq"])

    client = Client(
        options["url"],
        client_id=options["client_id"],
        version=options["version"],
        clean_start=False,
        session_expiry=options["session_expiry"],
        reconnect=ReconnectPolicy(longest=LONGEST_WAIT_S),
    )
    try:
        client.connect(_CONNECT_S)
        client.subscribe(options["topic"], qos=1, on_message=record).wait(_CONNECT_S)
        with suppress(BrokenPipeError):
            _report_until_parent_leaves(client, received)
        client.close()
        # No handler runs any more: report the rest.
        with suppress(BrokenPipeError):
            _report(client, received)
    except (DeviceSdkError, TimeoutError) as error:
        complain(error, "demo subscriber")
        return 1
    finally:
        client.close(drain=0)
    return 0


def _report_until_parent_leaves(client: Client, received: deque[int]) -> None:
    parent_left = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        parent_left.set()

    threading.Thread(target=watch, daemon=True).start()
    last_state = ""
    while True:
        if received or client.state != last_state:
            last_state = client.state
            _report(client, received)
        if parent_left.wait(_REPORT_S):
            return


def _report(client: Client, received: deque[int]) -> None:
    numbers = [received.popleft() for _ in range(len(received))]
    say_json({"state": client.state, "received": numbers}, flush=True)


if __name__ == "__main__":
    sys.exit(main())
