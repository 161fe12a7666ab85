"""What systemd is told, on real datagram sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk.node.systemd import Notifier
from device_sdk.testing import ManualClock
from tests.node.manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    made = Manager(
        path if request.param == "path" else f"@device-sdk-test-{os.getpid()}-{time.monotonic_ns()}"
    )
    yield made
    made.close()


def test_the_words_arrive_one_datagram_each(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready()
    notifier.status("3 sensors, all online")
    notifier.status("3 sensors, all online")
    notifier.status("line\nWATCHDOG=1 \x1b[31m")
    notifier.alive()
    notifier.stopping()
    assert manager.heard() == [
        "READY=1",
        "STATUS=3 sensors, all online",
        "STATUS=line\\nWATCHDOG=1 \\x1b[31m",
        "STOPPING=1",
    ], "no word for a watchdog that there is not, and none that a text smuggles in"


def test_the_watchdog_is_fed_when_half_of_its_time_is_over(manager: Manager) -> None:
    clock = ManualClock()
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "60000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    notifier = Notifier(environment, clock=clock)
    assert notifier.interval == 30
    fed = []
    for _ in range(100):
        notifier.alive()
        fed += [clock()] * len(manager.heard())
        clock.advance(1)
    assert [time - fed[0] for time in fed] == [0, 27, 54, 81]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 400},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
    ids=str,
)
def test_without_a_watchdog_that_waits_for_this_process_none_is_fed(
    environment: dict[str, str], manager: Manager
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, **environment})
    assert notifier.interval is None
    notifier.alive()
    assert manager.heard() == []


@pytest.mark.parametrize(
    "address",
    ["", "notify", "vsock:2:1234", "/nobody/listens/here", "/" + "x" * 300, "/with\0zero", "@" + "y" * 200],
    ids=lambda address: repr(address[:20]),
)
def test_an_address_that_does_not_work_harms_nobody(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    notifier.ready()
    notifier.status("fine")
    notifier.alive()
    notifier.stopping()


def test_a_manager_that_does_not_read_is_not_waited_for(manager: Manager) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    for number in range(500):
        notifier.status(f"status {number}")
    assert manager.heard()[0] == "STATUS=status 0"
