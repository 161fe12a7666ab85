"""A call into a driver that never returns: its thread is left behind, and everything else goes on."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from device_sdk.drivers import Channel, Driver, Reading
from device_sdk.drivers.bus import LinuxI2C, abandon_bus, close_bus, open_bus
from device_sdk.errors import BusError
from device_sdk.node.life_cycle import HOLD_S, State
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.node.worker import MAX_HUNG, Worker
from tests.node.fakes import CHANNEL, GOOD
from tests.node.hanging import PATIENCE_S, Bus, Call, Hang


@pytest.fixture
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    made = Bus("slow", "quick", name=f"bus of {request.node.name}")
    yield made
    made.worker.stop()
    for step in made.steps.values():
        if isinstance(step, Hang) and step.begun.is_set():
            step.end()
    made.stop()


@pytest.mark.parametrize("method", ["make", "open", "read"])
def test_another_thread_goes_on_at_once_and_what_comes_late_is_dropped(
    bus: Bus, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    hang = bus.hang("slow", method)
    bus.worker.start()
    assert hang.begun.wait(PATIENCE_S)
    bus.clock.advance(29)
    bus.watch.step()
    assert bus.abandoned == 0, "it is still in time"
    bus.overdue(hang, 2)
    bus.sample_of(("quick", 1))
    assert (bus.sensor("slow").state, bus.online["slow"]) == (State.BACKOFF, False)
    assert (bus.sensor("quick").state, bus.online["quick"]) == (State.OK, True)
    assert (bus.abandoned, bus.worker.hung, bus.worker.failed) == (1, 1, False)
    (line,) = [line for line in caplog.messages if "slow" in line]
    assert (
        "sensor slow: backoff: a call to its driver did not return within 30 s and hangs in hanging.py, line "
        in line
    )
    assert line.endswith(
        f"; another thread goes on with {bus.worker.name}, 1 of 3 hang; check supply and wires of the "
        "device, or give it a longer read_timeout; it is tried again when that returns, or in 10 minutes"
    )
    bus.clock.advance(599)
    bus.sample_of(("quick", 1))
    assert bus.made["slow"] == 1, "one thread that hangs in it is enough"
    bus.clock.advance(1)
    bus.sample_of(("slow", 2))
    assert bus.sensor("slow").state == State.OK
    bus.drain()
    hang.end()
    assert bus.worker.hung == 0
    assert ("slow", 1) not in bus.drain(), "the late sample of the driver that was left behind"
    late = [call.method for call in bus.calls if (call.sensor, call.number) == ("slow", 1)]
    assert late == [*("make", "open", "read")[: late.index(method) + 1], "close"]
    assert bus.sensor("slow").state == State.OK, "what it brings late changes nothing"


def test_the_neighbours_get_new_drivers_and_the_old_ones_are_closed(bus: Bus) -> None:
    bus.worker.start()
    bus.sample_of(("quick", 1))
    hang = bus.hang("slow", "read")
    bus.clock.advance(0.02)
    bus.overdue(hang)
    bus.sample_of(("quick", 2))
    quick = [call for call in bus.calls if call.sensor == "quick" and call.method != "read"]
    assert quick == [
        Call("quick", 1, "make"),
        Call("quick", 1, "open"),
        Call("quick", 1, "close"),
        Call("quick", 2, "make"),
        Call("quick", 2, "open"),
    ]
    assert bus.online["quick"]


def test_a_close_that_hangs_is_left_behind_as_well(bus: Bus) -> None:
    def broken() -> None:
        raise BusError("broken")

    bus.steps[Call("slow", 1, "read")] = broken
    hang = bus.hang("slow", "close")
    bus.worker.start()
    bus.overdue(hang)
    bus.sample_of(("quick", 1))
    bus.clock.advance(HOLD_S)
    bus.sample_of(("slow", 2))


def test_two_calls_of_one_sensor_that_hang_fail_the_sensor_and_not_its_bus(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    hangs = [bus.hang("slow", "read", number) for number in (1, 2)]
    bus.worker.start()
    for hang in hangs:
        bus.overdue(hang)
        bus.clock.advance(HOLD_S)
    for _ in range(3):
        bus.clock.advance(1_000)
        bus.sample_of(("quick", 2))
        bus.drain()
    assert (bus.worker.failed, bus.worker.hung, bus.made["slow"]) == (False, 2, 2), "never a third"
    assert [sensor.state for sensor in bus.worker.sensors] == [State.FAILED, State.OK]
    assert bus.online == {"slow": False, "quick": True}
    (line,) = [line for line in caplog.messages if "slow: failed" in line]
    assert line.endswith("; one before still hangs, so it is tried again when both have returned")
    hangs[0].end()
    bus.clock.advance(1_000)
    bus.sample_of(("quick", 2))
    assert (bus.sensor("slow").state, bus.worker.hung) == (State.FAILED, 1)
    hangs[1].end()
    bus.sample_of(("slow", 3))
    assert (bus.sensor("slow").state, bus.worker.hung) == (State.OK, 0)


def test_a_thread_that_waits_for_nothing_else_is_woken_by_the_call_that_returns(
    request: pytest.FixtureRequest,
) -> None:
    bus = Bus("slow", name=f"bus of {request.node.name}")
    hang = bus.hang("slow", "read")
    bus.worker.start()
    bus.overdue(hang)
    bus.clock.advance(1)
    hang.end()
    bus.sample_of(("slow", 2))
    bus.stop()


def test_a_sensor_that_is_alone_on_its_bus_fails_it_until_its_calls_return(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.node.life_cycle.HOLD_S", 0.01)  # its thread waits in real time
    monkeypatch.setattr("device_sdk.node.life_cycle.FIRST_RETRY_S", 0.01)
    bus = Bus("slow", name=f"bus of {request.node.name}")
    hangs = [bus.hang("slow", "read", number) for number in (1, 2)]
    bus.worker.start()
    bus.overdue(hangs[0])
    failed = [bus.worker.failed]
    bus.clock.advance(1)
    bus.overdue(hangs[1])
    failed.append(bus.worker.failed)
    assert "sensor slow: failed: a call to its driver did not return" in caplog.messages[-1]
    bus.clock.advance(1)
    for hang in hangs:
        hang.end()
    bus.sample_of(("slow", 3))
    assert [*failed, bus.worker.failed] == [False, True, False]
    bus.stop()


def test_the_third_thread_that_hangs_is_the_last_and_the_bus_has_failed(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    hangs = [bus.hang("slow", "read", number) for number in (1, 2)]
    bus.worker.start()
    for hang in hangs:
        bus.overdue(hang)
        bus.clock.advance(HOLD_S)
    bus.sample_of(("quick", 2))
    hangs.append(bus.hang("quick", "read", 2))
    bus.clock.advance(1)
    bus.overdue(hangs[-1])
    assert (bus.worker.failed, bus.worker.hung, bus.worker.is_alive) == (True, MAX_HUNG, True)
    assert [sensor.state for sensor in bus.worker.sensors] == [State.FAILED] * 2
    assert bus.online == {"slow": False, "quick": False}
    assert len(bus.threads()) == MAX_HUNG, "and none beside them"
    (line,) = [line for line in caplog.messages if "has failed" in line]
    assert (
        "has failed: 3 calls into drivers never returned, the last of sensor quick in hanging.py, line "
        in line
    )
    assert line.endswith(
        "Offline until the node is restarted: slow, quick. For quick: check supply and wires of the device, "
        "or give it a longer read_timeout"
    )
    begin = time.monotonic()
    bus.worker.stop()
    assert bus.worker.join(PATIENCE_S)
    assert time.monotonic() - begin < PATIENCE_S / 2, "a thread that is known to hang is not waited for"
    bus.drain()
    for hang in hangs:
        hang.end()
    assert bus.worker.failed, "until a restart"
    assert bus.threads() == []
    assert bus.samples.empty()


def test_a_thread_that_comes_back_frees_its_place(bus: Bus) -> None:
    bus.worker.start()
    for number in range(1, 3 * MAX_HUNG):
        hang = bus.hang("slow", "read", number)
        bus.clock.advance(31)
        bus.overdue(hang)
        hang.end()
        assert (bus.worker.hung, bus.worker.failed) == (0, False)
    bus.clock.advance(31)
    bus.sample_of(("slow", 3 * MAX_HUNG))


def test_a_stop_in_the_middle_of_a_hang_starts_nothing_new(bus: Bus) -> None:
    hang = bus.hang("slow", "open")
    bus.worker.start()
    assert hang.begun.wait(PATIENCE_S)
    bus.worker.stop()
    assert not bus.worker.join(0.01)
    bus.overdue(hang)
    assert len(bus.threads()) == 1
    assert bus.abandoned == 0


def test_without_a_thread_to_go_on_the_bus_has_failed(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hang = bus.hang("slow", "read")
    bus.worker.start()
    assert hang.begun.wait(PATIENCE_S)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    bus.overdue(hang)
    monkeypatch.undo()
    assert bus.worker.failed
    assert "the system gives no thread for it (can't start new thread)" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_of_this_package_ends_the_thread_and_that_is_seen(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(Sensor, "run", defect)
    assert bus.worker.is_alive
    bus.worker.start()
    assert bus.worker.join(PATIENCE_S)
    assert not bus.worker.is_alive


class _Ending(BaseException):
    """Derived from what nobody catches by accident."""


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise _Ending


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), _Ending("over"), _Unspeakable(), StopIteration(1)],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["make", "open", "read", "close"])
def test_whatever_a_driver_raises_ends_the_call_and_not_the_thread(
    bus: Bus, error: BaseException, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "device_sdk.node")

    def bad() -> None:
        raise error

    bus.steps[Call("slow", 1, method)] = bad
    if method == "close":
        bus.steps[Call("slow", 1, "read")] = bad
    bus.worker.start()
    bus.sample_of(("quick", 1))
    bus.clock.advance(1)
    number = 2 if method == "make" else 1
    del bus.steps[Call("slow", 1, "read" if method == "close" else method)]
    bus.sample_of(("slow", number))
    (line,) = [line for line in caplog.messages if "slow: backoff" in line]
    assert (type(error).__name__ in line) != isinstance(error, _Unspeakable)


# With a real bus


class _Ioctl:
    """The kernel behind an I2C bus: works, hangs or fails."""

    def __init__(self) -> None:
        self.step: Callable[[], object] | None = None

    def __call__(self, fd: int, request: int, argument: object) -> int:
        if request == 0x0705:  # I2C_FUNCS
            argument.value = 1  # type: ignore[attr-defined]
        elif self.step is not None:
            os.fstat(fd)  # it is open
            self.step()
        return 0


class _OnBus(Driver):
    """Reads by a transfer on a bus that has a name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bus = open_bus(name)
        self._is_open = True

    def channels(self) -> tuple[Channel, ...]:
        return (CHANNEL,)

    def open(self) -> None:
        if not self._is_open:
            self._bus, self._is_open = open_bus(self._name), True

    def read(self) -> tuple[Reading, ...]:
        self._bus.transfer(0x76, b"\0", 1)
        return GOOD

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            close_bus(self._bus)


class Kernel:
    """For ``bus = "fake:tests.node.test_hung:kernel_bus"``."""

    def __init__(self) -> None:
        self.ioctl = _Ioctl()
        self.opened = 0

    def open(self, *_: object) -> int:
        self.opened += 1
        return os.memfd_create(f"bus{self.opened}", os.MFD_CLOEXEC)

    def open_now(self) -> list[str]:
        """Names of the descriptors that are open: the first that was opened is bus1."""
        links = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                pass  # that of listdir
        return sorted(link[7:11] for link in links if link.startswith("/memfd:bus"))


KERNEL = Kernel()
BUS = "fake:tests.node.test_hung:kernel_bus"


def kernel_bus() -> LinuxI2C:
    return LinuxI2C(1, open_device=KERNEL.open, ioctl=KERNEL.ioctl)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(f"{__name__}.KERNEL", made)
    return made


def on_bus(bus: Bus, name: str) -> Sensor:
    """A sensor beside those of the bench, whose driver reads by a bus that the kernel has."""
    return Sensor(
        name,
        lambda: _OnBus(BUS),
        Schedule(0.01, bus.clock()),
        on_readings=lambda *_: bus.samples.put((name, 0)),
        on_online=lambda online: bus.online.update({name: online}),
        clock=bus.clock,
    )


@pytest.mark.parametrize(
    ("code", "state"),
    [(errno.EIO, State.BACKOFF), (errno.ENODEV, State.ABSENT), (errno.ENXIO, State.ABSENT)],
    ids=errno.errorcode.get,
)
def test_the_first_error_of_a_port_that_went_away_closes_its_descriptor(
    kernel: Kernel, code: int, state: State
) -> None:
    bus = Bus()
    sensor = on_bus(bus, "climate")
    sensor.run()
    assert (sensor.state, kernel.open_now()) == (State.OK, ["bus1"])

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    kernel.ioctl.step = fail
    bus.clock.advance_to(sensor.due)
    sensor.run()
    assert (sensor.state, kernel.open_now()) == (state, [])
    kernel.ioctl.step = None
    bus.clock.advance_to(sensor.due)
    sensor.run()
    assert (sensor.state, kernel.open_now()) == (State.OK, ["bus2"])
    sensor.end()
    assert kernel.open_now() == []


def test_a_transfer_that_hangs_keeps_its_descriptor_and_lock_and_the_others_get_new_ones(
    kernel: Kernel,
) -> None:
    bus = Bus()
    first, second = on_bus(bus, "first"), on_bus(bus, "second")
    worker = Worker(
        "real", [first, second], watch=bus.watch, abandon_bus=partial(abandon_bus, BUS), clock=bus.clock
    )
    worker.start()
    bus.sample_of(("second", 0))
    hang, rest = Hang(), threading.Event()

    def step() -> None:
        if not hang.begun.is_set():
            hang()
        rest.set()

    kernel.ioctl.step = step
    bus.clock.advance(0.02)
    bus.overdue(hang)
    assert rest.wait(PATIENCE_S)
    bus.sample_of(("second", 0))
    assert (first.state, second.state) == (State.BACKOFF, State.OK)
    assert kernel.open_now() == ["bus1", "bus2"]
    hang.end()
    assert kernel.open_now() == ["bus2"], "the late thread has released its bus"
    bus.clock.advance(1)
    bus.sample_of(("first", 0))
    worker.stop()
    assert worker.join(PATIENCE_S)
    assert kernel.open_now() == []
