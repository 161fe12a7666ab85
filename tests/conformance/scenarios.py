"""Scripts as data: what a fake broker expects and sends, and what the application does meanwhile.

The rows are those of ``tests/vectors/conformance/scenarios.csv``; ``test_scenarios.py`` plays them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from device_sdk import Subscription, Will
from device_sdk.mqtt import (
    Connack,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from device_sdk.testing.scripted_broker import Step, close, expect, expect_close, ignore, send, silence
from tests.conformance.scene import Scene, accept

__all__ = ["END", "OPEN", "SCENARIOS", "Scenario", "publish", "publishing"]

OPEN = [expect("connect"), send(Connack())]
RESUMED = [expect("connect", clean_start=False), send(Connack(True))]
END = [expect("disconnect"), expect_close()]
HOUR = 3600.0


def raw(data: str) -> Step:
    """Send bytes given as hex."""
    return send(bytes.fromhex(data))


@dataclass(frozen=True)
class Scenario:
    """One row: a script for each connection, and what the application does once the first one is there."""

    id: str
    version: str
    scripts: list[list[Step]]
    do: Callable[[Scene], object] = lambda scene: None
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 2.0  # that pass before the client is closed; a second is the wait between two attempts
    arrived: int = 0
    answer_pings: bool = True

    def __str__(self) -> str:
        return self.id


def publishing(*qos: int, topic: str = "t", **fields: Any) -> Callable[[Scene], object]:
    """The application publishes messages with the payloads 0, 1, 2 ... at these QoS."""

    def publish(scene: Scene) -> None:
        for number, each in enumerate(qos):
            scene.client.publish(topic, b"%d" % number, qos=each, **fields)

    return publish


def subscribing(topic: str, qos: int) -> Callable[[Scene], object]:
    return lambda scene: scene.client.subscribe(topic, qos)


def publish(number: int, qos: int, packet_id: int | None = None, *, dup: bool = False) -> Step:
    """Expect message ``number`` of :func:`publishing`; its identifier is one more if nothing else is said."""
    identifier = (number + 1 if packet_id is None else packet_id) if qos else None
    return expect(Publish("t", b"%d" % number, qos=qos, packet_id=identifier, dup=dup))


WILL = Will("topic/on/unexpected/disconnect", b"will message", qos=1, retain=True)
SECRET = ";'[08gn=#"

SCENARIOS = [
    Scenario(
        "M01",
        "3.1.1",
        [[expect("connect", keep_alive=60, clean_start=True, client_id="c"), send(Connack()), *END]],
        options={"clean_start": True},
    ),
    Scenario(
        "M02",
        "3.1.1",
        [
            [
                expect("connect", keep_alive=4),
                send(Connack()),
                *[silence(3.5), expect("pingreq"), send(Pingresp())] * 3,
                *END,
            ]
        ],
        options={"keep_alive": 4},
        seconds=13,
        answer_pings=False,
    ),
    Scenario(
        "M03", "3.1.1", [[expect("connect", clean_start=False), ignore()]], options={"clean_start": False}
    ),
    Scenario(
        "M04",
        "5.0",
        [
            [
                expect("connect", keep_alive=60),
                send(accept(server_keep_alive=4)),
                *[silence(3.5), expect("pingreq"), send(Pingresp())] * 2,
                *END,
            ]
        ],
        seconds=9,
        answer_pings=False,
    ),
    Scenario(
        "M05",
        "3.1.1",
        [[expect("connect", user_name="uname", password=SECRET.encode()), ignore()]],
        options={"user_name": "uname", "password": SECRET},
    ),
    Scenario("M06", "3.1.1", [[expect("connect", will=WILL), ignore()]], options={"will": WILL}),
    Scenario(
        "M07",
        "3.1.1",
        [
            [
                expect("connect", will=Will("w", b"gone", qos=2), user_name="oibvvwqw", password=b"#'^2hg9"),
                ignore(),
            ]
        ],
        options={"will": Will("w", b"gone", qos=2), "user_name": "oibvvwqw", "password": "#'^2hg9"},
    ),
    *(
        Scenario(
            row,
            "3.1.1",
            [[*OPEN, expect(Subscribe(1, [Subscription("a/b", qos)])), send(Suback(1, [qos])), *END]],
            subscribing("a/b", qos),
        )
        for row, qos in (("M08", 0), ("M09", 1), ("M10", 2))
    ),
    Scenario(
        "M11",
        "5.0",
        [[*OPEN, expect(Unsubscribe(1, ["a", "b/#"])), send(Unsuback(1, [0, 0x11])), *END]],
        lambda scene: scene.client.unsubscribe(["a", "b/#"]),
    ),
    Scenario(
        "M12",
        "5.0",
        [[*OPEN, expect(Unsubscribe(1, ["a"])), send(Unsuback(1, [0])), *END]],
        lambda scene: scene.client.unsubscribe("a"),
    ),
    Scenario(
        "M13",
        "3.1.1",
        [[*OPEN, expect(Unsubscribe(1, ["a"])), send(Unsuback(1)), *END]],
        lambda scene: scene.client.unsubscribe("a"),
    ),
    Scenario(
        "M14",
        "3.1.1",
        [[*OPEN, send(Puback(77), Publish("t", qos=1, packet_id=1)), expect(Puback(1)), *END]],
        arrived=1,
    ),
    Scenario(
        "M15",
        "3.1.1",
        [[*OPEN, send(Publish("t", qos=1, packet_id=123)), expect(Puback(123)), *END]],
        arrived=1,
    ),
    Scenario(
        "M16",
        "5.0",
        [
            [
                *OPEN,
                *(
                    step
                    for number, pubrel in enumerate(
                        ["62 02 0001", "62 03 0002 00", "62 04 0003 00 00", "62 09 0004 00 05 1f 0002 6f6b"],
                        1,
                    )
                    for step in (
                        send(Publish("t", qos=2, packet_id=number)),
                        expect(Pubrec(number)),
                        raw(pubrel),
                        expect(Pubcomp(number)),
                    )
                ),
                *END,
            ]
        ],
        arrived=4,
    ),
    Scenario(
        "M17",
        "3.1.1",
        [[*OPEN, send(Pubcomp(77), Publish("t", qos=1, packet_id=1)), expect(Puback(1)), *END]],
        arrived=1,
    ),
    Scenario(
        "M18",
        "3.1.1",
        [
            [
                *OPEN,
                send(Pubrel(77), Publish("t", qos=1, packet_id=1)),
                expect(Pubcomp(77)),
                expect(Puback(1)),
                *END,
            ]
        ],
        arrived=1,
    ),
    Scenario(
        "M19",
        "3.1.1",
        [
            [
                *OPEN,
                send(Publish("t", qos=2, packet_id=13423)),
                expect(Pubrec(13423)),
                send(Pubrel(13423)),
                expect(Pubcomp(13423)),
                *END,
            ]
        ],
        arrived=1,
    ),
    Scenario(
        "M20",
        "3.1.1",
        [[*OPEN, publish(0, 1), close()], [*RESUMED, publish(0, 1, dup=True), send(Puback(1)), *END]],
        publishing(1),
    ),
    Scenario(
        "M21",
        "5.0",
        [
            [
                *OPEN,
                *(publish(number, 1) for number in range(5)),
                raw("40 02 0001  40 03 0002 00  40 03 0003 10  40 04 0004 00 00"),
                raw("40 09 0005 00 05 1f 0002 6f6b"),
                *END,
            ]
        ],
        publishing(*[1] * 5),
    ),
    Scenario(
        "M22",
        "5.0",
        [
            [
                expect("connect"),
                send(accept(receive_maximum=3)),
                *(publish(number, 1) for number in range(3)),
                silence(5),
                send(Puback(1), Puback(2)),
                *(publish(number, 1) for number in (3, 4)),
                silence(5),
                send(Puback(3)),
                publish(5, 1),
                silence(5),
                send(Puback(4), Puback(5), Puback(6)),
                publish(6, 1),
                send(Puback(7)),
                *END,
            ]
        ],
        publishing(*[1] * 7),
        seconds=20,
    ),
    Scenario(
        "M23",
        "3.1.1",
        [[*OPEN, publish(0, 1), silence(HOUR), send(Puback(1)), *END]],
        publishing(1),
        seconds=HOUR + 1,
    ),
    Scenario(
        "M24",
        "3.1.1",
        [
            [*OPEN, publish(0, 2), close()],
            [*RESUMED, publish(0, 2, dup=True), send(Pubrec(1)), expect(Pubrel(1)), close()],
            [*RESUMED, expect(Pubrel(1)), send(Pubcomp(1)), *END],
        ],
        publishing(2),
        seconds=10,
    ),
    Scenario(
        "M25",
        "5.0",
        [
            [
                *OPEN,
                *(publish(number, 2) for number in range(4)),
                raw("50 02 0001  50 03 0002 10  50 04 0003 00 00  50 09 0004 00 05 1f 0002 6f6b"),
                *(expect(Pubrel(number)) for number in (1, 2, 3, 4)),
                raw("70 02 0001  70 03 0002 92  70 04 0003 00 00  70 09 0004 00 05 1f 0002 6f6b"),
                *END,
            ]
        ],
        publishing(*[2] * 4),
    ),
    *(
        Scenario(
            row,
            "5.0",
            [
                [
                    expect("connect"),
                    send(accept(receive_maximum=1)),
                    *(
                        step
                        for number in range(5)
                        for step in (
                            publish(number, 2),
                            *pause,
                            send(Pubrec(number + 1)),
                            expect(Pubrel(number + 1)),
                            *pause,
                            send(Pubcomp(number + 1)),
                        )
                    ),
                    *END,
                ]
            ],
            publishing(*[2] * 5),
            seconds=20,
        )
        for row, pause in (("M29", [silence(1)]), ("M29", []))
    ),
    Scenario(
        "M30",
        "5.0",
        [
            [
                expect("connect"),
                send(accept(receive_maximum=2)),
                publish(0, 2),
                publish(1, 2),
                silence(1),
                send(Pubrec(1), Pubrec(2)),
                expect(Pubrel(1)),
                expect(Pubrel(2)),
                silence(1),
                send(Pubcomp(1)),
                publish(2, 2),
                silence(1),
                send(Pubcomp(2)),
                publish(3, 2),
                send(Pubrec(3)),
                expect(Pubrel(3)),
                silence(1),
                send(Pubcomp(3)),
                publish(4, 2),
                send(Pubrec(4)),
                expect(Pubrel(4)),
                send(Pubcomp(4), Pubrec(5)),
                expect(Pubrel(5)),
                send(Pubcomp(5)),
                *END,
            ]
        ],
        publishing(*[2] * 5),
        seconds=10,
    ),
    Scenario(
        "M31",
        "3.1.1",
        [
            [
                *OPEN,
                publish(0, 2),
                silence(HOUR),
                send(Pubrec(1)),
                expect(Pubrel(1)),
                silence(HOUR),
                send(Pubcomp(1)),
                *END,
            ]
        ],
        publishing(2),
        seconds=2 * HOUR + 1,
    ),
    Scenario(
        "M32",
        "3.1.1",
        [[*OPEN, publish(0, 2), send(Pubrec(1)), expect(Pubrel(1)), send(Pubcomp(1)), *END]],
        publishing(2),
    ),
    Scenario(
        "M33",
        "3.1.1",
        [[*OPEN, expect(Publish("t", b"")), *END]],
        lambda scene: scene.client.publish("t"),
    ),
    Scenario("M34", "3.1.1", [[*OPEN, publish(0, 0), *END]], publishing(0)),
    Scenario(
        "M37",
        "3.1.1",
        [[*OPEN, expect(Publish("t", b"0", retain=True)), *END]],
        publishing(0, retain=True),
    ),
    Scenario(
        "M48",
        "5.0",
        [[*OPEN, expect(Publish("t", b"0", properties={"content_type": "application/json"})), *END]],
        publishing(0, properties={"content_type": "application/json"}),
    ),
    Scenario(
        "M49",
        "5.0",
        [[*OPEN, expect(Publish("t", b"0", properties={"payload_format_indicator": 1})), *END]],
        publishing(0, properties={"payload_format_indicator": 1}),
    ),
    Scenario(
        "P02",
        "3.1.1",
        [[expect("connect"), send(Connack(False, 3)), expect_close()], [*OPEN, *END]],
        seconds=9,
    ),
    Scenario(
        "P03",
        "3.1.1",
        [[expect("connect", user_name="", password=b""), ignore()]],
        options={"user_name": "", "password": ""},
    ),
    Scenario(
        "P03",
        "3.1.1",
        [[expect("connect", user_name="uname", password=b""), ignore()]],
        options={"user_name": "uname", "password": ""},
    ),
    Scenario(
        "P04",
        "3.1.1",
        [[expect("connect", user_name="ú∴n√ame", password=b"\xc3\xbd\xe2\x84\xa2"), ignore()]],
        options={"user_name": "ú∴n√ame", "password": "ý™"},
    ),
]
