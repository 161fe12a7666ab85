"""A running node: one client, one worker per bus, from start to drain."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.drivers.base import make_driver
from device_sdk.drivers.bus import abandon_bus
from device_sdk.errors import DeviceSdkError
from device_sdk.node.availability import Availability
from device_sdk.node.clock.build import make_gate, with_time
from device_sdk.node.life_cycle import ONLINE
from device_sdk.node.outlet import Outlet
from device_sdk.node.schedule import Schedule, phase_offset
from device_sdk.node.sensor import Sensor
from device_sdk.node.uplink import Uplink
from device_sdk.node.watch import Watch
from device_sdk.node.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from device_sdk import Client
    from device_sdk.drivers import Driver
    from device_sdk.engine.events import ClientEvent
    from device_sdk.node.sample import Sample
    from device_sdk.node.tables import NodeConfig, SensorTable

__all__ = ["Service"]

# A read in progress gets this long to end before the node stops without it.
_WORKERS_S = 3.0
# How often a drain checks for room in the queue, and asks ``hurry()``.
_POLL_S = 0.1

log = Log("device_sdk.node")


class Service:
    """A node: reads its sensors on time and publishes each sample, from :meth:`start` to :meth:`stop`.

    ::

        with Service(load_config("node.toml")):
            ...                                  # it runs in threads of its own

    One thread owns the object. ``error``: why there is no connection at present, or ``None``.

    Raises: ArgumentError: values of the configuration that cannot work together. MissingDependency: the
    broker's URL needs a package that is not installed.
    """

    def __init__(self, config: NodeConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.error: BaseException | None = None
        self._uplink = Uplink(config, self._on_event)
        self._availability = Availability(self._uplink, [sensor.availability for sensor in config.sensor])
        self._folding = Folding(log, clock)
        self._outlets: dict[str, Outlet] = {}
        self._gate = make_gate(config, self._uplink, self._lose)
        start = clock()
        self._watch = Watch(clock)
        advice = {table.name: table.advice for table in config.sensor}
        buses: dict[str, tuple[str, list[Sensor]]] = {}
        for table in config.sensor:
            phase = phase_offset(config.node.id, table.name, table.interval)
            outlet = self._outlets[table.topic] = Outlet(table, self._gate, self._availability, clock)
            sensor = Sensor(
                table.name,
                partial(_make_driver, table),
                Schedule(table.interval, start, phase),
                on_readings=with_time(config, table.name, self._gate, outlet),
                on_online=partial(self._availability.set, table.availability),
                place=table.place,
                read_timeout=table.read_timeout,
                clock=clock,
            )
            buses.setdefault(table.worker, (table.bus_name, []))[1].append(sensor)
        self.workers = tuple(
            Worker(
                name,
                sensors,
                watch=self._watch,
                advice=advice,
                abandon_bus=partial(abandon_bus, bus),
                clock=clock,
            )
            for name, (bus, sensors) in buses.items()
        )

    @property
    def client(self) -> Client:
        """The present client, for its state and its counters: see :mod:`device_sdk.node.uplink`."""
        return self._uplink.client

    @property
    def is_alive(self) -> bool:
        """Whether its threads run. One that ended by itself is a defect of this package."""
        return self._watch.is_alive and all(worker.is_alive for worker in self.workers)

    @property
    def healthy(self) -> bool:
        """Whether it is alive and no bus has failed: else a restart helps."""
        return self.is_alive and not any(worker.failed for worker in self.workers)

    @property
    def status(self) -> str:
        """How it is, in one line: sensors that are offline, buses that have failed, the connection."""
        sensors = [sensor for worker in self.workers for sensor in worker.sensors]
        away = [f"{sensor.name} ({sensor.state})" for sensor in sensors if sensor.state not in ONLINE]
        words = [f"{len(sensors) - len(away)} of {len(sensors)} sensors online"]
        words += [f"not {', '.join(away)}"] if away else []
        words += [f"{worker.name} has failed: restart the node" for worker in self.workers if worker.failed]
        hung = sum(worker.hung for worker in self.workers)
        words += [f"threads that hang in drivers: {hung}"] if hung else []
        missed = sum(sensor.schedule.missed for sensor in sensors)
        words += [f"ticks missed: {missed}"] if missed else []
        words += [f"no connection: {self.error}"] if self.error else []
        return "; ".join(words)

    def start(self) -> None:
        """Begin to connect and to sample; returns at once."""
        log.info(
            "node %s: %s on %s, broker %s",
            self.config.node.id,
            "1 sensor" if len(self.config.sensor) == 1 else f"{len(self.config.sensor)} sensors",
            ", ".join(worker.name for worker in self.workers),
            self._uplink.transport.description,
        )
        self._uplink.start()
        self._watch.start()
        self._gate.start()
        for worker in self.workers:
            worker.start()

    def stop(self, drain: float | None = None, *, hurry: Callable[[], bool] = lambda: False) -> int:
        """Stop sampling, publish ``offline``, wait for all acknowledgements, and close.

        Args:
            drain: seconds to wait at most; ``None``: ``node.drain`` of the configuration. The sensors may
                take 3 s more, the client 4.
            hurry: called ten times a second; true ends the wait.

        Returns: the number of messages that the broker did not acknowledge. They are lost; :attr:`error` is
        the reason.
        """
        if drain is None:
            drain = self.config.node.drain
        self._stop_workers()
        self._gate.stop()
        self._uplink.stop()
        for outlet in self._outlets.values():
            outlet.end()
        self._folding.sum_up()
        deadline = time.monotonic() + drain
        said = self._say_offline(deadline, hurry)
        reason = self.error
        if not said:
            # After an orderly DISCONNECT the retained state would stay "online".
            self._uplink.transport.abort()
        lost = self._uplink.close(max(0.0, deadline - time.monotonic()) if said else 0.0)
        self.error = reason or TimeoutError(f"the broker did not acknowledge them within {drain:g} s")
        return lost

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _stop_workers(self) -> None:
        deadline = time.monotonic() + _WORKERS_S
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            if not worker.join(max(0.0, deadline - time.monotonic())):
                log.warning("the thread of %s hangs in a driver and is left behind", worker.name)
        self._watch.stop()
        self._watch.join(max(0.0, deadline - time.monotonic()))

    def _say_offline(self, deadline: float, hurry: Callable[[], bool]) -> bool:
        """Publish ``offline`` for all sensors and wait for the acknowledgement: False if it was late.

        It is the last message in the queue, so all earlier ones have been acknowledged too, or will be in a
        moment. The node's own ``offline`` is the farewell of the client.
        """
        while not hurry() and (left := deadline - time.monotonic()) > 0:
            last = self._availability.end()
            try:
                if last is not None:
                    last.wait(min(_POLL_S, left))
                    return True
                time.sleep(min(_POLL_S, left))  # the queue is full
            except TimeoutError:
                continue
            except DeviceSdkError:
                return True  # refused: waiting does not help
        return False

    def _lose(self, sample: Sample, error: DeviceSdkError) -> None:
        outlet = self._outlets.get(sample.topic)  # none if the sensor was in an earlier configuration
        if outlet is not None:
            outlet.lose(error)
        else:
            text = "a sample on %s that waited for the time is lost: %s"
            self._folding.warning("lost", sample.topic, text, sample.topic, error)

    def _on_event(self, event: ClientEvent) -> None:
        # The client logs its events itself.
        if event.kind == "connected":
            self.error = None
            self._availability.connected()
        elif event.kind in ("disconnected", "connect_failed"):
            self.error = event.error
            self._availability.disconnected()


def _make_driver(table: SensorTable) -> Driver:
    return make_driver(table.driver, table.driver_options, table.unchanged_after)
