"""The frame of the link: COBS, checksum, and a splitter that keeps little whatever comes."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.net.link.frame import DATA, Splitter, cobs_decode, cobs_encode, decode, encode

U8 = st.integers(0, 255)
SIZES = st.integers(0, 1014)
PAYLOADS = st.binary(max_size=1014) | SIZES.map(bytes) | SIZES.map(b"\1".__mul__)

# Source: Wikipedia, "Consistent Overhead Byte Stuffing", table of encoding examples (2025), without the
# zero at the end.
EXAMPLES = [
    ("00", "01 01"),
    ("00 00", "01 01 01"),
    ("00 11 00", "01 02 11 01"),
    ("11 22 00 33", "03 11 22 02 33"),
    ("11 22 33 44", "05 11 22 33 44"),
    ("11 00 00 00", "02 11 01 01 01"),
    (bytes(range(1, 255)).hex(), "ff" + bytes(range(1, 255)).hex()),
    (bytes(range(255)).hex(), "01 ff" + bytes(range(1, 255)).hex()),
    (bytes(range(1, 256)).hex(), "ff" + bytes(range(1, 255)).hex() + "02 ff"),
    (bytes((*range(2, 256), 0)).hex(), "ff" + bytes(range(2, 256)).hex() + "01 01"),
    (bytes((*range(3, 256), 0, 1)).hex(), "fe" + bytes(range(3, 256)).hex() + "02 01"),
]


@pytest.mark.parametrize(("data", "coded"), EXAMPLES)
def test_cobs_codes_the_published_examples(data: str, coded: str) -> None:
    assert cobs_encode(bytes.fromhex(data)) == bytes.fromhex(coded)
    assert cobs_decode(bytes.fromhex(coded)) == bytes.fromhex(data)


@given(PAYLOADS)
def test_cobs_has_no_zeros_little_overhead_and_loses_nothing(data: bytes) -> None:
    coded = cobs_encode(data)
    assert 0 not in coded
    assert len(coded) <= len(data) + max(1, -(-len(data) // 254))
    assert cobs_decode(coded) == data


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    cobs_decode(data)
    decode(data)


@given(U8, st.integers(0, 65535), U8, U8, U8, PAYLOADS)
def test_a_frame_comes_back_as_it_was(
    kind: int, epoch: int, seq: int, ack: int, credit: int, payload: bytes
) -> None:
    coded = encode(kind, epoch, seq, ack, credit, payload)
    assert (coded[0], coded[-1]) == (0, 0)
    (frame,) = Splitter().feed(coded)
    assert (frame.kind, frame.epoch, frame.seq) == (kind, epoch, seq)
    assert (frame.ack, frame.credit, frame.payload) == (ack, credit, payload)


@given(st.binary(max_size=300), st.data())
def test_a_frame_with_one_bit_wrong_is_no_frame(payload: bytes, data: st.DataObject) -> None:
    coded = bytearray(encode(DATA, 7, 1, 2, 3, payload))
    at = data.draw(st.integers(1, len(coded) - 2))
    coded[at] ^= 1 << data.draw(st.integers(0, 7))
    assert list(Splitter().feed(bytes(coded))) == []


@given(st.lists(PAYLOADS, max_size=4), st.lists(st.integers(0, 5000), max_size=8), st.binary(max_size=99))
def test_frames_are_found_in_any_pieces_behind_any_garbage(
    payloads: list[bytes], cuts: list[int], garbage: bytes
) -> None:
    line = garbage + b"".join(encode(DATA, 1, 0, 0, 0, payload) for payload in payloads)
    places = sorted({0, len(line), *(min(cut, len(line)) for cut in cuts)})
    splitter = Splitter()
    found = [frame.payload for start, end in pairwise(places) for frame in splitter.feed(line[start:end])]
    assert found == payloads


def test_a_line_without_zeros_takes_no_memory_and_is_one_damaged_piece() -> None:
    splitter = Splitter()
    flood = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(100):
            assert not list(splitter.feed(flood))
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    assert [frame.payload for frame in splitter.feed(encode(DATA, 1, 0, 0, 0, b"after"))] == [b"after"]
    assert splitter.damaged == 1


def test_a_frame_above_the_largest_size_is_refused() -> None:
    splitter = Splitter()
    assert len(list(splitter.feed(encode(DATA, 1, 0, 0, 0, bytes(1014))))) == 1
    assert not list(splitter.feed(encode(DATA, 1, 0, 0, 0, b"x" * 1016)))
    assert splitter.damaged == 1
