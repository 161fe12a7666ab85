"""A proxy that writes down every packet between clients and a broker: what really happened."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import NamedTuple

from device_sdk.mqtt import decode_packet

__all__ = ["Seen", "Witness"]

_POLL_S = 0.2


class Seen(NamedTuple):
    """One packet. ``connection`` counts from 1; ``upwards`` is from client to broker."""

    connection: int
    upwards: bool
    kind: str
    packet_id: int
    qos: int
    dup: bool
    topic: str
    payload: bytes
    reason_code: int


class Witness:
    """Listens on a free loopback port and passes everything on to another one. Context manager."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_S)
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[Seen] = []
        self._connections = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Witness:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _begin(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                client.close()
                continue
            self._connections += 1
            open_ends = [2]
            for source, sink, upwards in ((client, server, True), (server, client, False)):
                source.settimeout(_POLL_S)
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._begin(self._pass_on, self._connections, source, sink, upwards, open_ends)

    def _pass_on(
        self, connection: int, source: socket.socket, sink: socket.socket, upwards: bool, open_ends: list[int]
    ) -> None:
        rest = b""
        while not self._stopping.is_set():
            try:
                data = source.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not data:
                break
            rest = self._note(connection, upwards, rest + data)
            try:
                sink.sendall(data)
            except OSError:
                break
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            open_ends[0] -= 1
            last = not open_ends[0]
        if last:
            source.close()
            sink.close()

    def _note(self, connection: int, upwards: bool, data: bytes) -> bytes:
        """Write down the whole packets, before they are passed on; return what is left."""
        at = 0
        while (decoded := decode_packet(data[at:], "5.0")) is not None:
            packet, used = decoded
            at += used
            seen = Seen(
                connection,
                upwards,
                packet.type,
                getattr(packet, "packet_id", 0) or 0,
                getattr(packet, "qos", 0),
                getattr(packet, "dup", False),
                getattr(packet, "topic", ""),
                getattr(packet, "payload", b""),
                getattr(packet, "reason_code", 0),
            )
            self.seen.append(seen)
        return data[at:]
