"""Two clients with one name: the third connection in a row that the server ends early is suspicious."""

from __future__ import annotations

import pytest

from device_sdk.engine.connecting.take_overs import TakeOvers
from device_sdk.mqtt.packets import Disconnect
from tests.engine.rig import Rig

QUESTION = "does another client use the client identifier 'rig' as well?"


def ends(rig: Rig, lasts: float = 5.0) -> str:
    """Connect, be online for a while, and have the server close; the text of that."""
    rig.connect()
    rig.advance(lasts)
    rig.sent()
    rig.lose()
    [*_, event] = rig.event_objects()
    rig.advance(60)
    return event.text


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_the_third_connection_that_the_server_ends_early_comes_with_the_question(version: str) -> None:
    rig = Rig(version=version, keep_alive=0)
    texts = [ends(rig) for _ in range(4)]
    assert [QUESTION in text for text in texts] == [False, False, True, True]
    assert "the server has ended 3 connections in a row early" in texts[2]
    assert "; next attempt in" in texts[2]


def test_a_connection_that_lasts_ends_the_row() -> None:
    rig = Rig(version="3.1.1", keep_alive=0)
    texts = [ends(rig, lasts) for lasts in (5, 5, 100, 5, 5)]
    assert not any(QUESTION in text for text in texts)


def test_an_end_on_our_side_or_with_a_reason_is_no_take_over() -> None:
    watch = TakeOvers()
    for by_server in (True, True, False, True, True):
        assert watch.ended(1.0, by_server=by_server, client_id="rig") == ""
    assert watch.ended(1.0, by_server=True, client_id="rig")


def test_a_server_that_says_why_needs_no_question() -> None:
    rig = Rig(keep_alive=0)
    for _ in range(4):
        rig.connect()
        rig.feed(Disconnect(0x8E))
        [*_, event] = rig.event_objects()
        assert "another client has connected with the client identifier 'rig'" in event.text
        assert QUESTION not in event.text
        rig.advance(60)
