"""A fake I2C bus for another process: the chips stay with the rig, the drivers run in the DUT.

The DUT opens ``fake:device_sdk_hil.remote_bus:bus_<number>``, which this module makes on demand
(:func:`__getattr__`). Each transaction is one datagram in each direction, over an abstract Unix socket of
that name, which leaves no file behind::

    {"address": 118, "write": "f7", "read": 8}    ->    {"errno": 0, "data": "5ad3908196007fff"}

So the test controls the chips, and like real ones they keep their state when the DUT is killed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import selectors
import socket
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from device_sdk.drivers.bus.i2c import I2CBus, transfer_error
from device_sdk.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BusServer", "RemoteI2CBus"]

_MAX_BYTES = 65_536  # of a datagram; an I2C message of Linux has 8,192, twice that in hex
_PATIENCE_S = 10.0
_NAME = re.compile(r"bus_[0-9a-f]{16}")


class BusServer:
    """Makes a bus of this process usable by others. It runs in one daemon thread.

    Args:
        bus: carries out the transactions.
        on_transfer: called for each one, in that thread, with the address and the ``errno``, 0 for success.
    """

    def __init__(self, bus: I2CBus, on_transfer: Callable[[int, int], object]) -> None:
        attribute = f"bus_{secrets.token_hex(8)}"
        self.name = f"fake:{__name__}:{attribute}"
        self._bus = bus
        self._on_transfer = on_transfer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(_socket_name(attribute))
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stop, selectors.EVENT_READ)
        self._thread = Thread(target=self._run, name="hil-bus", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and every connection: for the DUT the adapter was pulled out. Idempotent."""
        if self._stop < 0:
            return
        os.eventfd_write(self._stop, 1)
        self._thread.join(_PATIENCE_S)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._stop)
        self._stop = -1

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._stop:
                    return
                if key.fileobj is self._listener:
                    peer, _ = self._listener.accept()
                    peer.settimeout(_PATIENCE_S)
                    self._selector.register(peer, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    self._serve(key.fileobj)

    def _serve(self, peer: socket.socket) -> None:
        try:
            request = peer.recv(_MAX_BYTES)
            if request:
                peer.send(self._carry_out(request))
                return
        except OSError:  # the DUT was killed
            pass
        self._selector.unregister(peer)
        peer.close()

    def _carry_out(self, request: bytes) -> bytes:
        wanted = json.loads(request)
        address, write = wanted["address"], wanted["write"]
        code, data = 0, b""
        try:
            data = self._bus.transfer(
                address, None if write is None else bytes.fromhex(write), wanted["read"]
            )
        except BusError as error:
            code = error.errno or errno.EIO
        self._on_transfer(address, code)
        return json.dumps({"errno": code, "data": data.hex()}).encode()


class RemoteI2CBus(I2CBus):
    """The DUT's end: an I2C bus like any other, whose adapter is gone when the rig is."""

    def __init__(self, attribute: str) -> None:
        super().__init__(attribute)
        self._socket: socket.socket | None = None

    def transfer(self, address: int, write: bytes | None, read_count: int | None) -> bytes:
        """Let the rig carry out the transaction; see :meth:`I2CBus.transfer`."""
        request = {"address": address, "write": None if write is None else write.hex(), "read": read_count}
        with self.locked():
            try:
                answer = self._ask(json.dumps(request).encode())
            except OSError as error:
                self.deinit()
                gone = errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.ENODEV
                raise transfer_error(self.name, address, gone) from error
        if answer["errno"]:
            raise transfer_error(self.name, address, answer["errno"])
        return bytes.fromhex(answer["data"])

    def deinit(self) -> None:
        """Close the connection; the next transaction opens one again."""
        ours, self._socket = self._socket, None
        if ours is not None:
            ours.close()

    def _ask(self, request: bytes) -> dict[str, Any]:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.settimeout(_PATIENCE_S)
            self._socket.connect(_socket_name(self.name))
        self._socket.send(request)
        answer = self._socket.recv(_MAX_BYTES)
        if not answer:
            raise ConnectionResetError("the rig has ended")
        found: dict[str, Any] = json.loads(answer)
        return found


def __getattr__(name: str) -> Callable[[], RemoteI2CBus]:
    """Return the factory of the bus of this name, for :func:`device_sdk.drivers.bus.open_bus`."""
    if not _NAME.fullmatch(name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(RemoteI2CBus, name)


def _socket_name(attribute: str) -> str:
    return f"\0device-sdk-hil-{attribute}"
