"""Fifty kills, and nothing that was stored is missing, nothing of QoS 2 comes twice, and order holds."""

from __future__ import annotations

import pytest

from device_sdk.testing.broker_process import MosquittoBroker
from tests.torture.kills import torture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not MosquittoBroker.available(), reason="needs mosquitto"),
]


def test_fifty_kills_lose_nothing_and_repeat_nothing() -> None:
    report = torture(50)
    assert report.kills >= 50
    assert report.stored > 100
    assert not report.faults, f"{report}; {report.examples}"


def test_when_the_broker_is_killed_only_what_it_had_acknowledged_may_be_missing() -> None:
    report = torture(10, seed=2, kill_broker=True)
    assert report.restarts or report.kills >= 10
    assert not report.faults, f"{report}; {report.examples}"
