"""Signals as something to wait for."""

from __future__ import annotations

import os
import signal
import time

import pytest

from device_sdk.cli.stop_signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_counted_and_ends_the_wait(number: signal.Signals) -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        signals.wait(20)
        assert signals.count == 1
        begin = time.monotonic()
        signals.wait(0.01)
        assert time.monotonic() - begin >= 0.009, "one signal ends one wait"


def test_a_time_in_the_past_is_no_wait() -> None:
    with StopSignals() as signals:
        signals.wait(-1)
        assert signals.count == 0


def test_the_handlers_of_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_flood_of_signals_does_not_block() -> None:
    with StopSignals() as signals:
        os.write(signals._writer, b"!" * 65536)
        os.kill(os.getpid(), signal.SIGINT)
        signals.wait(20)
        assert signals.count == 1
