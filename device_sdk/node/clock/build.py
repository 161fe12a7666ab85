"""The gate of a node, made from the configuration."""

from __future__ import annotations

import json
import os
import threading
from functools import partial
from typing import TYPE_CHECKING

from device_sdk import StorePolicy
from device_sdk._clock import boot_id, boottime
from device_sdk.engine.build import store_for
from device_sdk.errors import StoreUnavailableError
from device_sdk.node.clock.evidence import EVIDENCE, RTC
from device_sdk.node.clock.gate import Gate, Hooks
from device_sdk.node.clock.sources import from_message, from_sensor
from device_sdk.node.clock.waiting_room import WaitingRoom
from device_sdk.node.clock.wall_clock import WallClock
from device_sdk.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk import Delivery
    from device_sdk.errors import DeviceSdkError
    from device_sdk.node.clock.sources import Take
    from device_sdk.node.sample import Sample
    from device_sdk.node.tables import NodeConfig, QueueTable
    from device_sdk.node.uplink import Uplink
    from device_sdk.store.base import Store

__all__ = ["FILE_SUFFIX", "make_gate", "with_time"]

#: The file of the waiting samples lies beside that of the queue.
FILE_SUFFIX = ".samples"


def make_gate(
    config: NodeConfig, uplink: Uplink, on_lost: Callable[[Sample, DeviceSdkError], object]
) -> Gate:
    """Return the gate in front of the uplink, not started."""
    clock, file = config.clock, config.queue.file

    def publish(sample: Sample, payload: bytes) -> Delivery:
        return uplink.publish(sample.topic, payload, qos=sample.qos, retain=sample.retain)

    def on_time(some_went_without: bool) -> None:
        uplink.clock_was_set()
        if some_went_without:
            uplink.publish(clock.announce, _announcement(wall_clock), qos=1, retain=True)

    wall_clock = WallClock((*EVIDENCE, RTC) if clock.rtc else EVIDENCE)
    room = WaitingRoom(partial(_store, config.queue), clock.max_samples, clock.max_bytes)
    hooks = Hooks(publish, on_lost, on_time, is_durable=file is not None)
    gate = Gate(wall_clock, room, hooks, clock.patience)
    if clock.topic is not None:
        uplink.listen(clock.topic, from_message(gate.offer, clock.topic))
    return gate


def with_time(config: NodeConfig, name: str, gate: Gate, take: Take) -> Take:
    """Return what takes the readings of a sensor, which may be the one that gives the time."""
    clock = config.clock
    return from_sensor(gate.offer, name, clock.channel, take) if name == clock.sensor else take


def _store(queue: QueueTable, wanted: bool) -> Store:
    """Return the store for samples that wait; in memory without a file, or if neither is there or wanted.

    Raises: StoreUnavailableError: the disk does not say in time whether there is one.
    """
    if queue.file is None:
        return MemoryStore()
    path = queue.file + FILE_SUFFIX
    if not wanted and not _exists(path, queue.open_timeout):
        return MemoryStore()
    policy = StorePolicy(durability=queue.durability, open_timeout=queue.open_timeout)
    store = store_for(path, policy)
    assert store is not None
    return store


def _exists(path: str, patience: float) -> bool:
    """As :func:`os.path.exists`, for a disk that may hang."""
    found: list[bool] = []
    looking = threading.Thread(target=lambda: found.append(os.path.exists(path)), daemon=True)
    looking.start()
    looking.join(patience)
    if not found:
        raise StoreUnavailableError(f"{path}: the disk did not answer within {patience:g} s (open_timeout)")
    return found[0]


def _announcement(clock: WallClock) -> bytes:
    """Return one moment in both clocks, for samples of this start that went without a time."""
    uptime = boottime()
    utc = clock.utc(uptime)
    moment = {"boot": boot_id(), "uptime": round(uptime, 3), "time": None if utc is None else round(utc, 3)}
    return json.dumps(moment, separators=(",", ":")).encode()
