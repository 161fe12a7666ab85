"""docs/link_vectors.json is what this end does, and says what docs/link.md says."""

from __future__ import annotations

import json
from zlib import crc32

from device_sdk.net.link.frame import Splitter, cobs_decode, decode
from tests.net.link_vectors import PATH, text


def test_the_file_is_up_to_date() -> None:
    assert PATH.read_text(encoding="utf-8") == text(), "run python -m tests.net.link_vectors"


def test_the_checksum_is_that_of_the_page() -> None:
    assert crc32(b"123456789") == 0xCBF43926


def test_every_vector_can_be_read_back() -> None:
    found = json.loads(PATH.read_text(encoding="utf-8"))
    for each in found["cobs"]:
        assert cobs_decode(bytes.fromhex(each["coded"])) == bytes.fromhex(each["data"])
    for each in found["frames"]:
        line = bytes.fromhex(each["line"])
        assert (line[0], line[-1], line[1:-1].count(0)) == (0, 0, 0)
        frame = decode(line[1:-1])
        assert frame is not None
        assert {"payload": frame.payload.hex(), "kind": frame.kind, "epoch": frame.epoch} == {
            name: each[name] for name in ("payload", "kind", "epoch")
        }
    for line in found["damaged"]:
        assert not list(Splitter().feed(bytes.fromhex(line)))
