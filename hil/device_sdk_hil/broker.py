"""The broker of the rig, and a listener there that no fault of the DUT can reach."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from device_sdk import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk import Message
    from device_sdk_hil.timeline import Timeline

__all__ = ["Arrival", "Broker", "Sequence"]

_SETTLED = "device-sdk-hil/settled"
_LONGEST_RECORDED = 300


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that the listener received. ``sample`` is its payload if that is a JSON object."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    sample: dict[str, Any] | None
    duplicate: bool
    """The same sample (it has a ``seq``) arrived before on this topic."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Gaps, duplicates and order of the numbered samples on a topic: the DUT counts ``seq`` from 0."""

    received: int
    missing: list[int]
    duplicates: list[int]
    in_order: bool
    """The first arrivals of all numbers were in order."""


class Broker:
    """A broker's address, and everything that arrives there from :meth:`start` on.

    Args:
        url: for the listener, and for the DUT if it uses the network.
        timeline: gets every message; a duplicate is marked.
        watch: the topic filter of the listener.
    """

    def __init__(self, url: str, timeline: Timeline, watch: str = "#") -> None:
        self.url = url
        self._timeline = timeline
        self._watch = watch
        self._arrivals: defaultdict[str, list[Arrival]] = defaultdict(list)
        self._samples: set[tuple[str, bytes]] = set()
        self._settled = 0
        self._client = Client(url, receive_maximum=65_535, on_message=self._receive)

    def start(self) -> None:
        """Connect and listen. Raises: the errors of ``Client.connect()``; SubscribeRefused."""
        self._client.connect(self._timeline.patience)
        for topic_filter in (self._watch, _SETTLED):
            self._client.subscribe(topic_filter, qos=2).wait(self._timeline.patience)

    def stop(self) -> None:
        """Disconnect."""
        self._client.close(0)

    def arrivals(self, topic: str) -> list[Arrival]:
        """Return the messages on a topic in the order of arrival."""
        return list(self._arrivals.get(topic, ()))

    def last(self, topic: str) -> bytes | None:
        """Return the payload of the latest message on a topic."""
        arrivals = self._arrivals.get(topic)
        return arrivals[-1].payload if arrivals else None

    def samples(self, topic: str) -> list[dict[str, Any]]:
        """Return the payloads on a topic that are JSON objects."""
        return [arrival.sample for arrival in self.arrivals(topic) if arrival.sample is not None]

    def sequence(self, topic: str) -> Sequence:
        """Return lost, repeated and reordered samples among those with a ``seq``.

        Samples missing at the end cannot be seen here: a DUT that was stopped, with exit status 0, has
        delivered everything.
        """
        numbers = [sample["seq"] for sample in self.samples(topic) if "seq" in sample]
        first = list(dict.fromkeys(numbers))
        return Sequence(
            received=len(first),
            missing=sorted(set(range(max(numbers, default=-1) + 1)) - set(first)),
            duplicates=sorted({number for number in first if numbers.count(number) > 1}),
            in_order=all(one < other for one, other in pairwise(first)),
        )

    def wait_until(
        self, predicate: Callable[[], object], what: str = "", timeout: float | None = None
    ) -> None:
        """Wait until a predicate about the arrivals holds. Raises: TimeoutError: it does not in time."""
        self._timeline.wait_until(predicate, what or "messages at the broker", timeout)

    def wait_for_samples(self, topic: str, count: int, timeout: float | None = None) -> None:
        """Wait until ``count`` more samples have arrived on a topic. Raises: TimeoutError."""
        wanted = len(self.arrivals(topic)) + count
        self.wait_until(
            lambda: len(self._arrivals.get(topic, ())) >= wanted, f"{count} samples on {topic}", timeout
        )

    def settle(self, timeout: float | None = None) -> None:
        """Wait until all messages that the broker has now have arrived here. Raises: TimeoutError."""
        wanted = self._settled + 1
        self._client.publish(_SETTLED, str(wanted), qos=1)
        self.wait_until(lambda: self._settled >= wanted, "the listener at the broker to catch up", timeout)

    def _receive(self, message: Message) -> None:
        if message.topic == _SETTLED:
            self._settled = int(message.payload)
            self._timeline.record("broker", "settled")
            return
        sample = _json_object(message.payload)
        key = (message.topic, message.payload)
        numbered = sample is not None and "seq" in sample
        duplicate = numbered and key in self._samples
        if numbered:
            self._samples.add(key)
        arrival = Arrival(message.topic, message.payload, message.qos, message.retain, sample, duplicate)
        self._arrivals[message.topic].append(arrival)
        text = message.payload[:_LONGEST_RECORDED].decode(errors="backslashreplace")
        marks = {name: True for name in ("retain", "duplicate") if getattr(arrival, name)}
        self._timeline.record(
            "broker", "message", topic=message.topic, qos=message.qos, **marks, payload=text
        )


def _json_object(payload: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(payload)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
