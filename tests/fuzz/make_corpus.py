"""Write the corpus: ``python -m tests.fuzz.make_corpus``. corpus/README.md says what the groups are.

Every seed comes from our own encoder or from the wire vectors: the same checkout writes the same files.
Files whose names begin with ``found-`` are inputs that once failed; they are kept as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_sdk.errors import MalformedPacketError
from device_sdk.mqtt import (
    Auth,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
    encode_packet,
)
from device_sdk.mqtt.wire import read_varint
from tests.fuzz.targets import PACKET_NAMES, TARGETS, VERSION_NAMES, target_name

CORPUS = Path(__file__).parent / "corpus"
VECTORS = Path(__file__).parents[1] / "vectors" / "mqtt" / "vectors.json"
FOUND = "found-"
_LONGEST_SEED = 300  # longer ones make slow inputs that reach nothing new

_V5 = "5.0"
_PROPERTIES: dict[str, Any] = {"reason_string": "because", "user_property": [["k", "v"], ["k", "w"]]}

_URLS = {
    "plain": "mqtt://broker.example",
    "port": "tcp://10.0.0.1:1883",
    "credentials": "mqtts://user:s3cret%40x@broker.example:8883",
    "ipv6": "mqtt://[fe80::1%25eth0]:1883",
    "path-and-query": "wss://h/mqtt?a=1&b=%26",
    "serial": "serial:/dev/ttyUSB0?baud=9600",
    "international": "mqtt://bücher.example",
    "bad-percent": "mqtt://%zz@h",
    "bad-port": "mqtt://h:65536",
    "bad-bracket": "mqtt://[::1",
}


def seeds() -> dict[str, dict[str, bytes]]:
    """Return target -> name -> bytes."""
    found: dict[str, dict[str, bytes]] = {name: {} for name in TARGETS}
    shown: set[tuple[str, int]] = set()
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        data = bytes.fromhex(vector["hex"])
        if len(data) > _LONGEST_SEED:
            continue
        name = f"{vector['id']}-{_slug(vector['name'])}"
        version = vector["version"]
        number, flags = data[0] >> 4, data[0] & 15
        start = _body_start(data)
        if number and start:
            in_body = bytes((VERSION_NAMES.index(version) << 6 | flags,)) + data[start:]
            found[f"packet_{PACKET_NAMES[number]}"][name] = in_body
        # Whole packets are about the fixed header: one good one of each type, and all that are wrong there.
        if not (number and start) or (vector["outcome"] == "ok" and (version, number) not in shown):
            found[target_name("decode", version)][name] = data
            shown.add((version, number))
    for version in VERSION_NAMES:
        found[target_name("receive", version)] = dict(_streams(version))
    found["url"] = {name: url.encode() for name, url in _URLS.items()}
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]


def _body_start(data: bytes) -> int:
    """Return where the body begins, or 0 where the vector's remaining length is its fault."""
    try:
        length, start = read_varint(data, 1, len(data))
    except MalformedPacketError:
        return 0
    return start if start + length == len(data) else 0


# What a server may send, and must not, after CONNACK. The client of the target waits for answers to the
# packet identifiers 1 (past PUBREC), 2 (QoS 1), 3 (QoS 2), 4 (QoS 1), 5 (SUBSCRIBE of two), 6 (UNSUBSCRIBE).

_IN_PIECES = bytes((7, 1, 1, 2, 3, 5, 8, 13))


def _streams(version: str) -> Iterator[tuple[str, bytes]]:
    v5 = version == _V5
    explained = _PROPERTIES if v5 else {}
    dialogues: dict[str, list[Packet]] = {
        "messages": [
            Publish("t", b"zero"),
            Publish("t", b"one", qos=1, packet_id=1, retain=True),
            Publish("a/b", b"two", qos=2, packet_id=2, dup=True),
        ],
        "exchange-out": [Pubcomp(1), Puback(2), Pubrec(3), Pubcomp(3), Puback(4)],
        "exchange-in": [Publish("t", qos=2, packet_id=9), Pubrel(9), Pubrel(7)],
        "same-identifier-twice": [
            Publish("t", qos=2, packet_id=8),
            Publish("t", qos=2, packet_id=8, dup=True),
        ],
        "requests": [Suback(5, [1, 2]), Unsuback(6, [0] if v5 else []), Pingresp()],
        "wrong-answers": [Pubrec(2), Puback(3), Pubcomp(3)],
        "unknown-answers": [Puback(77), Pubrec(78), Pubcomp(79), Pubrel(80)],
        "suback-count": [Suback(5, [0])],
        "second-connack": [Connack()],
        "window": [Publish("t", qos=1, packet_id=number) for number in range(1, 7)],
        "longer-than-127": [Publish("t/" + "x" * 60, bytes(120), qos=1, packet_id=1)],
    }
    if v5:
        dialogues |= {
            "refused": [Puback(2, 0x87, explained), Pubrec(3, 0x97, explained), Pubcomp(1, 0x92)],
            "aliases": [
                Publish("t", properties={"topic_alias": 1}),
                Publish("", b"again", properties={"topic_alias": 1}),
                Publish("u", properties={"topic_alias": 2, "subscription_identifier": [1, 2]}),
            ],
            "not-text": [Publish("t", b"\xff", properties={"payload_format_indicator": 1})],
            "alias-unset": [Publish("", properties={"topic_alias": 2})],
            "properties": [
                Publish(
                    "t",
                    properties={
                        "payload_format_indicator": 1,
                        "message_expiry_interval": 60,
                        "content_type": "text/plain",
                        "response_topic": "r",
                        "correlation_data": b"c",
                        "user_property": [["k", "v"]] * 3,
                    },
                )
            ],
            "auth": [Auth(0x18, {"authentication_method": "m", "authentication_data": b"d"})],
            "disconnect": [Disconnect(0x8B, explained | {"server_reference": "other"}), Pingresp()],
        }
    for name, packets in dialogues.items():
        stream = b"".join(encode_packet(packet, version) for packet in packets)
        yield name, b"\0" + stream
        yield f"{name}-in-pieces", _IN_PIECES + stream
    for name, stream in _poison(version).items():
        yield name, b"\0" + stream
        yield f"{name}-in-pieces", _IN_PIECES + stream
    yield "too-large", b"\0\x30\xff\xff\x7f"
    yield "no-control-packet", b"\0\xd0\x00\x00\x00"


def _poison(version: str) -> dict[str, bytes]:
    """Messages of other clients that are skipped, and one behind them. The maximum is 1,000 bytes."""
    behind = encode_packet(Publish("t", b"behind"), version)
    bad = b"\x00\x02a\xff\x00\x01"
    if version != _V5:
        large = encode_packet(Publish("t", bytes(1_000), qos=2, packet_id=1), version)
        return {"above-the-maximum": large + behind, "not-utf-8": b"\x32\x06" + bad + behind}
    alias = b"\x03\x23\x00\x01"
    again = b"\x30\x06\x00\x00" + alias
    pair = b"\x34\x0f\x00\x01t\x00\x02" + b"\x09\x23\x00\x02\x26\x00\x01\xff\x00\x00"
    return {"not-utf-8": b"\x32\x0a" + bad + alias + again + pair + behind}


def write(folder: Path = CORPUS) -> None:
    """Write all seeds below ``folder``; remove what is no longer made, and nothing that was found."""
    for target, inputs in seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for path in (folder / target).iterdir():
            if path.name not in inputs and not path.name.startswith(FOUND):
                path.unlink()
        for name, data in inputs.items():
            (folder / target / name).write_bytes(data)


if __name__ == "__main__":
    write()
