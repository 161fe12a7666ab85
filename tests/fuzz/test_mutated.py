"""Mutated seeds: 200,000 inputs for each target in CI, a tenth of that elsewhere.

``DEVICE_SDK_FUZZ_INPUTS`` sets the number for each target and ``DEVICE_SDK_FUZZ_SEED`` the seed of the
mutator (1): each run is the same as the last one until somebody wants another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from device_sdk.errors import RemoteProtocolError
from device_sdk.mqtt.inbound import Inbound
from device_sdk.mqtt.protocol import Protocol
from tests.fuzz.mutate import fuzz, mutations
from tests.fuzz.run import main, read_corpus
from tests.fuzz.targets import TARGETS

INPUTS = int(os.environ.get("DEVICE_SDK_FUZZ_INPUTS") or (200_000 if os.environ.get("CI") else 20_000))
SEED = int(os.environ.get("DEVICE_SDK_FUZZ_SEED") or 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_seeds_hold_the_invariants_of_their_target(name: str) -> None:
    fuzz(TARGETS[name], list(read_corpus(name).values()), INPUTS, SEED)


def test_the_mutator_makes_the_same_inputs_again() -> None:
    seeds = [b"one", b"another"]
    first = list(mutations(seeds, 500, 7))
    assert first == list(mutations(seeds, 500, 7))
    assert first != list(mutations(seeds, 500, 8))
    assert len(set(first)) > 300


def test_a_finding_shows_the_seed_and_the_bytes() -> None:
    def target(data: bytes) -> None:
        if data[:1] == b"\x00":
            raise IndexError("broken")

    with pytest.raises(AssertionError, match=r"seed 3, input \d+: IndexError: broken\n  bytes: 00"):
        fuzz(target, [b"\x01\x02"], 10_000, 3)


# A fuzzer that finds nothing may be blind: faults that it has to see


def _unchecked_length(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    stop = position + 2 + (data[position] << 8 | data[position + 1])
    return data[position + 2 : stop], stop


def _unchecked_number(data: bytes, position: int, end: int) -> tuple[int, int]:
    return data[position] << 8 | data[position + 1], position + 2


def _forgets_the_end(protocol: Protocol, data: bytes, now: float) -> list[object]:
    events: list[object] = []
    try:
        protocol.framing.feed(data, now, events, lambda packet, events: True)
    except RemoteProtocolError:
        pass
    return events


def _any_alias(inbound: Inbound, topic: str, properties: dict[str, int] | None) -> str:
    if properties and topic:
        inbound.aliases[properties.get("topic_alias", 0)] = topic
    return topic


@pytest.mark.parametrize(
    ("target", "where", "fault"),
    [
        ("packet_connect", "device_sdk.mqtt.wire.read_binary", _unchecked_length),
        ("receive_311", "device_sdk.mqtt.protocol.Protocol.receive_data", _forgets_the_end),
        ("receive_50", "device_sdk.mqtt.inbound.Inbound._resolve_alias", _any_alias),
        ("decode_50", "device_sdk.mqtt.decode.read_uint16", _unchecked_number),
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, where: str, fault: Callable[..., object]
) -> None:
    monkeypatch.setattr(where, fault)
    with pytest.raises(AssertionError, match="bytes: "):
        fuzz(TARGETS[target], list(read_corpus(target).values()), 20_000, 1)


def test_the_script_runs_a_target_without_atheris(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["url", "--runs", "100", "--plain"]) == 0
    assert "url: 100 inputs, nothing found" in capsys.readouterr().out
    assert main(["nonsense"]) == 2
    assert "packet_publish" in capsys.readouterr().err


def test_without_atheris_the_script_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert main(["url"]) == 77
    assert ".[fuzz]" in capsys.readouterr().err
