"""Acknowledgements for a packet identifier that is not in use: what SECURITY.md and docs/limits.md say."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_sdk.errors import RemoteProtocolError
from device_sdk.mqtt import Packet, Puback, Pubcomp, Pubrec, Pubrel, Suback, Unsuback
from tests.mqtt.peer import connected, end_of, every_version

ROOT = Path(__file__).resolve().parents[2]
NOT_FOUND = 0x92  # Packet Identifier not found. Source: MQTT 5.0 §3.6.2.1, §3.7.2.1


@every_version
@pytest.mark.parametrize("packet", [Puback(7), Pubcomp(7)], ids=["puback", "pubcomp"])
def test_puback_and_pubcomp_are_ignored(version: str, packet: Packet) -> None:
    """Nothing in the standard forbids them: our side may have lost the session that they belong to."""
    peer = connected(version)
    assert peer.receive(packet, packet) == []
    assert peer.sent() == []
    assert (len(peer.session), peer.session.requests) == (0, {})


@every_version
@pytest.mark.parametrize(
    ("packet", "answer"), [(Pubrec(7), Pubrel), (Pubrel(7), Pubcomp)], ids=["pubrec", "pubrel"]
)
def test_pubrec_and_pubrel_are_answered_so_that_the_server_can_end_the_exchange(
    version: str, packet: Packet, answer: type[Pubrel | Pubcomp]
) -> None:
    peer = connected(version)
    assert peer.receive(packet) == []
    assert peer.sent() == [answer(7, NOT_FOUND if version == "5.0" else 0)]
    assert (len(peer.session), peer.session.received) == (0, {})


def test_a_pubrec_that_refuses_is_not_answered() -> None:
    """It ends the exchange. Source: MQTT 5.0 §4.3.3 [MQTT-4.3.3-4]."""
    peer = connected("5.0")
    assert peer.receive(Pubrec(7, 0x97)) == []
    assert peer.sent() == []


@every_version
@pytest.mark.parametrize("kind", [Suback, Unsuback], ids=["suback", "unsuback"])
def test_suback_and_unsuback_end_the_connection(version: str, kind: type[Suback | Unsuback]) -> None:
    """A server sends one for each SUBSCRIBE. Source: MQTT 5.0 §3.8.4 [MQTT-3.8.4-1], [MQTT-3.8.4-2]."""
    peer = connected(version)
    codes = [] if kind is Unsuback and version != "5.0" else [0]
    error = end_of(peer.receive(kind(7, codes)))
    assert isinstance(error, RemoteProtocolError)
    assert error.reason_code == 0x82
    assert "which we never sent" in str(error)


def test_an_answer_to_the_other_request_ends_the_connection() -> None:
    peer = connected("5.0")
    peer.protocol.unsubscribe(["a"])
    (asked,) = peer.sent()
    error = end_of(peer.receive(Suback(asked.packet_id, [0])))  # type: ignore[attr-defined]
    assert isinstance(error, RemoteProtocolError)
    assert error.reason_code == 0x82


def test_both_pages_say_so() -> None:
    security = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    limits = " ".join((ROOT / "docs" / "limits.md").read_text(encoding="utf-8").split())
    assert "| SUBACK or UNSUBACK without a request, an acknowledgement of the wrong kind," in security
    for page in (security, limits):
        assert "PUBACK and PUBCOMP are ignored" in page
        assert "PUBREC and PUBREL are answered, in MQTT 5.0 with 0x92" in page
