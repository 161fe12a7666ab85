"""Rows M and P of ``tests/vectors/conformance/scenarios.csv``: a fake broker and a whole client.

Most rows are data, in ``scenarios.py``. Those that need a look at the application, or two clients, are here.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from device_sdk import Message, Subscription
from device_sdk.errors import LocalProtocolError, QueueFullError, SubscribeRefused
from device_sdk.mqtt import (
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    topic_matches,
)
from device_sdk.store.base import StorePolicy
from device_sdk.testing import ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import Step, expect, ignore, send, silence
from tests.conformance.scenarios import END, OPEN, SCENARIOS, Scenario, publish, publishing
from tests.conformance.scene import Scene, accept

#: Rows about TLS: tests/net/test_tls_scenarios.py has a test for each, named after it.
TLS_ROWS = {"M38", "M39", "M40", "M41", "M42", "P08", "P09"}
#: Rows that no test plays, and why.
NOT_PLAYED = dict.fromkeys(("P01", "P07"), "needs the paho façade, not there yet")

_Test = TypeVar("_Test", bound=Callable[..., None])
_played: set[str] = set()


def plays(*rows: str) -> Callable[[_Test], _Test]:
    """Say which rows a test plays."""
    _played.update(rows)
    return lambda test: test


@plays(*(scenario.id for scenario in SCENARIOS))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_scenario(scenario: Scenario) -> None:
    broker = ScriptedBroker(*scenario.scripts, version=scenario.version, answer_pings=scenario.answer_pings)
    scene = Scene(broker, version=scenario.version, **scenario.options)
    scene.start()
    scenario.do(scene)
    scene.advance(scenario.seconds)
    stats = scene.client.stats
    assert (stats.queued, stats.in_flight, stats.acks_held) == (0, 0, 0)
    assert len(scene.arrived) == scenario.arrived
    scene.close()


def scripted(*script: Step, version: str = "5.0", **options: Any) -> Scene:
    return Scene(ScriptedBroker(list(script), version=version), version=version, **options)


@plays("M09")
@pytest.mark.parametrize("before", [True, False], ids=["subscribed before", "subscribed after"])
def test_a_subscription_before_or_after_the_start_is_sent_once(before: bool) -> None:
    scene = scripted(
        *OPEN, expect(Subscribe(1, [Subscription("a", 1)])), send(Suback(1, [1])), *END, version="3.1.1"
    )
    if before:
        request = scene.client.subscribe("a", 1)
        scene.start()
    else:
        scene.start()
        request = scene.client.subscribe("a", 1)
        scene.run()
    assert request.wait(0) == [1]
    scene.close()


@plays("M26", "M27")
@pytest.mark.parametrize("maximum_qos", [0, 1])
def test_a_message_above_maximum_qos_fails_and_others_leave(maximum_qos: int) -> None:
    scene = scripted(
        expect("connect"),
        send(accept(maximum_qos=maximum_qos)),
        *(expect("publish", qos=qos) for qos in range(maximum_qos + 1)),
        ignore(),
    )
    scene.start()
    for qos in range(maximum_qos + 1, 3):
        with pytest.raises(LocalProtocolError, match="Maximum QoS"):
            scene.client.publish("t", b"x", qos=qos)
    for qos in range(maximum_qos + 1):
        scene.client.publish("t", b"x", qos=qos)
    scene.run()
    assert scene.client.stats.queued == 0
    scene.close()


@plays("M28")
@pytest.mark.parametrize("receive_maximum", [1, 20])
def test_a_refused_pubrec_ends_its_message_and_the_next_one_completes(
    receive_maximum: int,
) -> None:
    second = expect("publish", payload=b"second", packet_id=2)
    answer = send(Pubrec(1, 0x80))
    scene = scripted(
        expect("connect"),
        send(accept(receive_maximum=receive_maximum)),
        expect("publish", payload=b"first", packet_id=1),
        *([answer, second] if receive_maximum == 1 else [second, answer]),
        send(Pubrec(2)),
        expect(Pubrel(2)),
        send(Pubcomp(2)),
        *END,
    )
    scene.start()
    first, other = (scene.client.publish("t", payload, qos=2) for payload in (b"first", b"second"))
    scene.run()
    assert (first.state, other.state) == ("refused", "acknowledged")
    assert scene.client.stats.in_flight == 0
    scene.close()


@plays("M35", "M36")
@pytest.mark.parametrize("correlation", [b"corridor\0", None])
def test_a_request_is_answered_on_its_response_topic(correlation: bytes | None) -> None:
    broker = ModelBroker()
    replier, asker = Scene(broker, client_id="replier"), Scene(broker, client_id="asker")

    def reply(request: Message) -> None:
        extra = {} if request.correlation_data is None else {"correlation_data": request.correlation_data}
        assert request.response_topic is not None
        replier.client.publish(request.response_topic, b"re: " + request.payload, properties=extra)

    replier.client.subscribe("questions", on_message=reply)
    asker.client.subscribe("answers/1")
    for scene in (replier, asker):
        scene.start()
    properties: dict[str, Any] = {"response_topic": "answers/1"}
    if correlation is not None:
        properties["correlation_data"] = correlation
    asker.client.publish("questions", b"why", properties=properties)
    for scene in (asker, replier, asker):
        scene.run()
    assert [(m.topic, m.payload, m.correlation_data) for m in asker.arrived] == [
        ("answers/1", b"re: why", correlation)
    ]
    for scene in (replier, asker):
        scene.close()
    assert broker.violations == []


@plays("M43")
@pytest.mark.parametrize(
    ("topic", "levels"),
    [("topic", 1), ("topic/two", 2), ("/topic", 2), ("topic/", 2), ("a//b", 3), ("/", 2), ("///", 4)],
)
def test_empty_levels_of_a_topic_count(topic: str, levels: int) -> None:
    for wanted in range(1, 6):
        assert topic_matches("/".join("+" * wanted), topic) == (wanted == levels)


@plays("M44")
def test_what_is_too_large_for_the_server_fails_and_what_fits_leaves() -> None:
    fits = Publish("test/topic", b"x" * 25)  # 40 bytes with header, topic and property length
    scene = scripted(expect("connect"), send(accept(maximum_packet_size=40)), expect(fits), *END)
    scene.start()
    request = scene.client.subscribe("a" * 40)
    with pytest.raises(LocalProtocolError, match="Maximum Packet Size"):
        scene.client.publish("test/topic", b"x" * 26)
    scene.client.publish("test/topic", b"x" * 25)
    scene.run()
    with pytest.raises(SubscribeRefused, match="Maximum Packet Size"):
        request.wait(0)
    scene.close()


@plays("M45", "M46", "M47")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_properties_reach_the_application(qos: int) -> None:
    properties = {
        "payload_format_indicator": 1,
        "message_expiry_interval": 3600,
        "content_type": "plain/text",
        "response_topic": "response/topic",
        "correlation_data": b"2357289375902345",
        "user_property": [["name", "value"], ["name", "other"]],
    }
    answers = {
        0: [],
        1: [expect(Puback(5))],
        2: [expect(Pubrec(5)), send(Pubrel(5)), expect(Pubcomp(5))],
    }
    incoming = Publish("t", b"message", qos=qos, packet_id=5 if qos else None, properties=properties)
    scene = scripted(*OPEN, send(incoming), *answers[qos], *END)
    scene.start()
    (message,) = scene.arrived
    assert (message.topic, message.payload, message.qos) == ("t", b"message", qos)
    assert (message.payload_format_indicator, message.message_expiry_interval) == (1, 3600)
    assert (message.content_type, message.response_topic) == ("plain/text", "response/topic")
    assert message.correlation_data == b"2357289375902345"
    assert message.user_properties == (("name", "value"), ("name", "other"))
    scene.close()


@plays("P05")
def test_a_client_without_a_name_never_sends_an_empty_one() -> None:
    for clean_start in (True, False):
        scene = scripted(
            expect("connect", client_id=lambda name: 0 < len(name) <= 23, clean_start=clean_start),
            ignore(),
            version="3.1.1",
            client_id="",
            clean_start=clean_start,
        )
        scene.start()
        scene.close()


@plays("P06")
def test_a_full_queue_is_reported_and_the_order_is_kept() -> None:
    scene = scripted(
        *OPEN,
        *(publish(number, 1) for number in range(2)),
        silence(5),
        *(step for number in range(2, 7) for step in (send(Puback(number - 1)), publish(number, 1))),
        send(Puback(6), Puback(7)),
        *END,
        version="3.1.1",
        inflight=2,
        policy=StorePolicy(max_messages=5),
    )
    scene.start()
    publishing(*[1] * 7)(scene)
    with pytest.raises(QueueFullError):
        scene.client.publish("t", b"one too many", qos=1)
    scene.advance(6)
    assert scene.client.stats.in_flight == 0
    scene.close()


def test_every_row_m_and_p_is_played_or_has_a_reason() -> None:
    path = Path(__file__).parents[1] / "vectors" / "conformance" / "scenarios.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["id"] for row in csv.DictReader(file) if row["id"][0] in "MP"}
    tls = (path.parents[2] / "net" / "test_tls_scenarios.py").read_text(encoding="utf-8")
    assert {row for row in TLS_ROWS if f"def test_{row.lower()}_" not in tls} == set()
    assert rows - _played - TLS_ROWS == NOT_PLAYED.keys()
    assert _played <= rows - NOT_PLAYED.keys()
