"""A signal may interrupt a program that uses an I2C bus anywhere: the bus is free afterwards."""

from __future__ import annotations

from device_sdk.testing.fake_i2c import FakeI2CBus
from tests.interrupts import Interrupter, in_another_thread, places


def ctrl_c() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_anywhere_in_a_locked_block_leaves_the_bus_free() -> None:
    bus = FakeI2CBus()

    def use() -> None:
        with bus.locked():
            bus.try_lock()
            bus.unlock()
            with bus.locked():
                pass

    def interrupted(interrupter: Interrupter) -> None:
        try:
            interrupter.run(use)
        except KeyboardInterrupt:
            assert interrupter.reached

        def take() -> None:
            assert bus.try_lock()
            bus.unlock()

        in_another_thread(take)

    found = places(interrupted, ctrl_c)
    assert any("locked" in place for place in found)
    assert any("_acquire" in place for place in found)
