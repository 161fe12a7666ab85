"""Real brokers for the tests in this folder, all of which carry the mark ``system``.

A fixture gives a started :class:`~device_sdk.testing.broker_process.ChildBroker` of the test's own, on free
loopback ports and with an empty data folder: ``url(version)``, ``terminate()``, ``start()`` and ``restart()``
keep its data. Its log is shown when the test fails.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_sdk.testing.broker_process import ChildBroker, IotcoreBroker, MosquittoBroker
from tests.steps import steps

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["steps"]  # a fixture for every test here

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            # Brokers, kernels and schedulers have races of their own: one more try, which the report counts.
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def mosquitto() -> Iterator[ChildBroker]:
    """Mosquitto: MQTT 3.1, 3.1.1 and 5.0 on one port, sessions survive a restart."""
    yield from _running(MosquittoBroker)


@pytest.fixture
def iotcore() -> Iterator[ChildBroker]:
    """iotcore: MQTT 3.1.1 and 5.0 on a port each, forgets everything in a restart."""
    yield from _running(IotcoreBroker)


@pytest.fixture(params=["mosquitto", "iotcore"])
def broker(request: pytest.FixtureRequest) -> ChildBroker:
    """Run the test once with each broker."""
    found: ChildBroker = request.getfixturevalue(request.param)
    return found


def _running(kind: type[ChildBroker]) -> Iterator[ChildBroker]:
    if not kind.available():
        pytest.skip(f"needs {kind.name}")
    with kind() as broker:
        yield broker
        if broker.folder is not None:
            sys.stderr.write((broker.folder / broker.log_name).read_text(errors="replace"))
