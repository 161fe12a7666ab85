"""What the broker says beside yes in PUBACK, PUBREC and PUBCOMP: a program finds it at the delivery."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import PublishRefused
from device_sdk.mqtt.packets import Puback, Pubcomp, Pubrec
from tests.engine.rig import Rig, SlowStore

WORDS = {"reason_string": "nobody listens", "user_property": [["node", "a"], ["node", "b"]]}
PAIRS = (("node", "a"), ("node", "b"))
NOTHING = (None, ())


def online(**options: Any) -> Rig:
    rig = Rig(**options)
    rig.connect()
    return rig


def said(delivery: Delivery) -> tuple[int | None, str | None, tuple[tuple[str, str], ...]]:
    return delivery.reason_code, delivery.reason_string, delivery.user_properties


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Puback(1), (0, *NOTHING)),
        (b"\x40\x03\x00\x01\x00", (0, *NOTHING)),
        (Puback(1, 0x10), (0x10, *NOTHING)),
        (Puback(1, 0x10, WORDS), (0x10, "nobody listens", PAIRS)),
        (Puback(1, 0x00, {"reason_string": "stored twice"}), (0, "stored twice", ())),
    ],
)
def test_puback(answer: Any, expected: Any) -> None:
    rig = online()
    delivery = rig.publish(b"x")
    assert said(delivery) == (None, *NOTHING)
    rig.feed(answer)
    delivery.wait(0)
    assert (delivery.state, said(delivery)) == ("acknowledged", expected)


@pytest.mark.parametrize(
    ("pubrec", "pubcomp", "expected"),
    [
        (Pubrec(1), Pubcomp(1), (0, *NOTHING)),
        (Pubrec(1, 0x10), Pubcomp(1), (0x10, *NOTHING)),
        (Pubrec(1, 0x10, WORDS), Pubcomp(1), (0x10, "nobody listens", PAIRS)),
        (Pubrec(1), Pubcomp(1, 0x92, {"reason_string": "forgotten"}), (0x92, "forgotten", ())),
        (Pubrec(1, 0x10), Pubcomp(1, 0x92), (0x10, *NOTHING)),
    ],
)
@pytest.mark.parametrize("has_store", [False, True])
def test_pubrec_and_pubcomp(pubrec: Any, pubcomp: Any, expected: Any, has_store: bool) -> None:
    store = SlowStore() if has_store else None
    rig = online(store=store)
    delivery = rig.publish(b"x", 2)
    for answer in (pubrec, pubcomp):
        if store is not None:
            store.commit()
        rig.feed(answer)
    delivery.wait(0)
    assert (delivery.state, said(delivery)) == ("acknowledged", expected)


@pytest.mark.parametrize(("qos", "kind"), [(1, Puback), (2, Pubrec)])
def test_a_refusal_is_the_same_at_the_delivery_and_in_the_error(qos: int, kind: Any) -> None:
    rig = online()
    delivery = rig.publish(b"x", qos)
    rig.feed(kind(1, 0x99, WORDS))
    with pytest.raises(PublishRefused) as caught:
        delivery.wait(0)
    error = caught.value
    assert said(delivery) == (error.reason_code, error.reason_string, error.user_properties)
    assert said(delivery) == (0x99, "nobody listens", PAIRS)


def test_pubrec_counts_although_the_session_is_lost_before_pubcomp() -> None:
    rig = online()
    delivery = rig.publish(b"x", 2)
    rig.feed(Pubrec(1, 0x10))
    rig.lose()
    rig.advance(1)
    rig.connect()
    assert (delivery.state, delivery.reason_code) == ("acknowledged", 0x10)


def test_a_message_without_an_answer_has_no_reason_code() -> None:
    rig = online()
    assert rig.publish(b"x", 0).reason_code is None
    rig.lose()
    dropped = rig.publish(b"x", 0)
    assert (dropped.state, dropped.reason_code) == ("dropped", None)


def test_mqtt_3_knows_success_only() -> None:
    rig = online(version="3.1.1")
    delivery = rig.publish(b"x")
    assert delivery.reason_code is None
    rig.feed(Puback(1))
    assert said(delivery) == (0, *NOTHING)
