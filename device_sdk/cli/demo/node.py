"""The demo's node: samples the host sensor and publishes each sample as one numbered JSON message."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Self

from device_sdk import Client, ReconnectPolicy
from device_sdk.cli.demo.plan import LONGEST_WAIT_S
from device_sdk.drivers import open_driver
from device_sdk.errors import QueueFullError

if TYPE_CHECKING:
    from device_sdk.drivers import Reading

__all__ = ["Node"]

_CONNECT_S = 10.0


class Node:
    """A sensor node. Not thread-safe: the demo's loop drives it.

    ``published`` counts the samples taken, with sequence numbers 0 to ``published - 1``; ``rejected`` those
    that the full queue rejected; ``peak_queue`` is the largest number that waited to be acknowledged.
    """

    def __init__(self, url: str, topic: str, client_id: str, version: str, session_expiry: int) -> None:
        self.published = 0
        self.rejected = 0
        self.peak_queue = 0
        self.last_sample = ""
        self._topic = topic
        self._outage = _OutageClock()
        self._client = Client(
            url,
            client_id=client_id,
            version=version,
            # A session that began with Clean Start is not kept over a restart of every broker.
            clean_start=False,
            session_expiry=session_expiry,
            reconnect=ReconnectPolicy(longest=LONGEST_WAIT_S),
            on_connect=self._outage.ended,
            on_disconnect=self._outage.began,
        )
        self._sensor = open_driver("host")

    def start(self) -> None:
        """Connect within 10 s. Raises: as :meth:`Client.connect`."""
        self._client.connect(_CONNECT_S)

    def sample(self) -> None:
        """Read the sensor once and publish the values at QoS 1."""
        readings = self._sensor.read()
        payload = {
            "seq": self.published,
            "time": round(readings[0].time, 3),
            "readings": {r.channel: {"value": r.value, "unit": r.unit} for r in readings},
        }
        self.published += 1
        try:
            self._client.publish(self._topic, json.dumps(payload), qos=1)
        except QueueFullError:
            self.rejected += 1
        self.peak_queue = max(self.peak_queue, self.queue)
        self.last_sample = _in_short(readings)

    @property
    def state(self) -> str:
        """Connection state of the client."""
        return self._client.state

    @property
    def acknowledged(self) -> int:
        """How many samples the broker has acknowledged."""
        return self._client.stats.acknowledged

    @property
    def queue(self) -> int:
        """How many samples wait: for the network, or for their acknowledgement."""
        return self.published - self.rejected - self.acknowledged

    @property
    def longest_outage(self) -> float:
        """Longest time without a connection so far, in seconds; one that lasts still counts."""
        return self._outage.longest()

    def stop(self) -> None:
        """Close sensor and client. Unacknowledged samples are dropped."""
        self._sensor.close()
        self._client.close(drain=0)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _OutageClock:
    """Measures the times between a disconnect and the next connect. Fed on the callback thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._longest = 0.0

    def began(self, *_: object) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def ended(self, *_: object) -> None:
        self._longest = self.longest()
        self._since = None

    def longest(self) -> float:
        since = self._since
        return self._longest if since is None else max(self._longest, time.monotonic() - since)


def _in_short(readings: tuple[Reading, ...]) -> str:
    """Two values for the screen, as they were published."""
    values = {reading.channel: reading.value for reading in readings}
    available = values["memory.available"]
    assert isinstance(available, int)
    return f"load {values['load.1m']}, {available / 1e6:,.0f} MB free"
