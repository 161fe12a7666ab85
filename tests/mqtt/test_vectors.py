"""Every vector of tests/vectors/mqtt: whole, at every prefix, joined, cut short, and written again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from device_sdk.errors import MalformedPacketError, RemoteProtocolError
from device_sdk.mqtt import decode_packet, encode_packet
from device_sdk.mqtt.codes import PROPERTIES, REASON_CODES, VERSIONS, ReasonCode
from device_sdk.mqtt.wire import encode_varint, read_varint

FOLDER = Path(__file__).parents[1] / "vectors" / "mqtt"
VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text())["vectors"]
GOOD = [vector for vector in VECTORS if vector["outcome"] == "ok"]
BAD = [vector for vector in VECTORS if vector["outcome"] != "ok"]


def name_of(vector: dict[str, Any]) -> str:
    return f"{vector['id']} {vector['version']} {vector['name']}"


every_vector = pytest.mark.parametrize("vector", VECTORS, ids=name_of)
every_good_vector = pytest.mark.parametrize("vector", GOOD, ids=name_of)
every_bad_vector = pytest.mark.parametrize("vector", BAD, ids=name_of)


def plain(value: Any) -> Any:
    """A ``decoded`` value as Python has it: ``hex:`` strings are bytes."""
    if isinstance(value, str) and value.startswith("hex:"):
        return bytes.fromhex(value[4:])
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def shown(packet: Any, wanted: Any) -> Any:
    """The decoded packet in the shape of ``wanted``: the fields named there, nested objects as dicts."""
    if isinstance(wanted, dict) and not isinstance(packet, dict):
        return {key: shown(getattr(packet, key), item) for key, item in wanted.items()}
    if isinstance(wanted, list):
        return [shown(item, want) for item, want in zip(packet, wanted, strict=True)]
    return packet


def decode(data: bytes, version: str) -> tuple[Any, int]:
    result = decode_packet(data, version)
    assert result is not None
    return result


def test_all_vectors_are_here() -> None:
    assert (len(GOOD), len(BAD)) == (251, 93)


@every_good_vector
def test_good_vector_decodes_to_its_fields(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    packet, used = decode(data, vector["version"])
    wanted = plain(vector["decoded"])
    assert used == len(data)
    assert shown(packet, wanted) == wanted
    if vector["version"] != "5.0" or "properties" not in vector["decoded"]:
        assert getattr(packet, "properties", {}) == {}


@every_good_vector
def test_good_vector_written_again_decodes_equal(vector: dict[str, Any]) -> None:
    version = vector["version"]
    packet, _ = decode(bytes.fromhex(vector["hex"]), version)
    data = encode_packet(packet, version)
    assert decode(data, version) == (packet, len(data))


@every_bad_vector
def test_bad_vector_raises_what_its_outcome_says(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_packet(bytes.fromhex(vector["hex"]), vector["version"])
    assert isinstance(caught.value, MalformedPacketError) == (vector["outcome"] == "malformed")
    if vector["reason_code"] is not None:
        assert caught.value.reason_code == int(vector["reason_code"], 16)


@every_good_vector
def test_every_prefix_of_a_good_vector_is_incomplete(vector: dict[str, Any]) -> None:
    data = memoryview(bytes.fromhex(vector["hex"]))
    for length in range(len(data)):
        assert decode_packet(data[:length], vector["version"]) is None


@every_bad_vector
def test_no_prefix_of_a_bad_vector_is_a_packet(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    for length in range(len(data)):
        try:
            assert decode_packet(data[:length], vector["version"]) is None
        except RemoteProtocolError:
            return


@every_vector
def test_vector_cut_at_every_length_decodes_or_raises_the_two_errors(vector: dict[str, Any]) -> None:
    """The body ends early and the remaining length agrees: every inner length now points too far."""
    data = bytes.fromhex(vector["hex"])
    try:
        _, start = read_varint(data, 1, len(data))
    except MalformedPacketError:
        start = 2
    for length in range(min(len(data) - start, 300)):
        cut = data[:1] + encode_varint(length) + data[start : start + length]
        try:
            packet, used = decode(cut, vector["version"])
        except RemoteProtocolError:
            continue
        assert used == len(cut)
        assert encode_packet(packet, vector["version"])


@pytest.mark.parametrize("version", VERSIONS)
def test_good_vectors_in_one_buffer_decode_one_after_the_other(version: str) -> None:
    vectors = [vector for vector in GOOD if vector["version"] == version]
    data = memoryview(b"".join(bytes.fromhex(vector["hex"]) for vector in vectors))
    for vector in vectors:
        result = decode_packet(data, version)
        assert result is not None
        wanted = plain(vector["decoded"])
        assert shown(result[0], wanted) == wanted
        data = data[result[1] :]
    assert not data


def rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_reason_code_tables_are_those_of_the_standard() -> None:
    allowed: dict[str, set[int]] = {}
    for row in rows("reason_codes.csv"):
        for packet in row["packets"].lower().split():
            allowed.setdefault(packet, set()).add(int(row["value"]))
    assert allowed == REASON_CODES
    assert sorted(ReasonCode) == sorted(int(row["value"]) for row in rows("reason_codes.csv"))


def test_property_table_is_that_of_the_standard() -> None:
    for row in rows("properties.csv"):
        entry = PROPERTIES[int(row["id"])]
        name = row["name"].lower().replace(" ", "_")
        assert entry.name == name.replace("identifier_available", "identifiers_available")
        assert entry.type == row["type"]
        assert entry.packets == set(row["packets"].lower().split())
        if row["value_range"]:
            minimum, maximum = row["value_range"].split("..")
            assert (entry.minimum, entry.maximum) == (int(minimum), int(maximum))
    assert len(PROPERTIES) == len(rows("properties.csv"))
