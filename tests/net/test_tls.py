"""TlsTransport: the contract over TCP, a serial line, a Unix socket and memory, and OpenSSL at the end."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from device_sdk.net.base import Transport
from device_sdk.net.tls import TLSOptions, TlsTransport
from device_sdk.testing.certificates import Certificate, Certificates
from tests.net.test_memory import MemoryRig
from tests.net.test_serial import PtyRig
from tests.net.test_tcp import TcpRig
from tests.net.test_unix import UnixRig
from tests.net.transport_contract import (
    PATIENCE,
    Abilities,
    Peer,
    Rig,
    TransportContract,
    open_files,
    ready,
    receive,
    send_all,
    soon,
)

Base = TcpRig | PtyRig | UnixRig | MemoryRig


def server_context(identity: Certificate, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a server's context that demands a client certificate if it is given a CA for them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsPeer:
    """The server's side of TLS over the peer of another rig."""

    def __init__(self, below: Peer, context: ssl.SSLContext) -> None:
        self.below = below
        self.fileno = below.fileno
        self.reset = below.reset
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = b""
        self._owed = 0
        self._ended = False

    def handshake(self) -> None:
        until = soon()
        done = False
        while not done:
            assert time.monotonic() < until, "no handshake came"
            try:
                self.ssl.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            finally:
                send_all(self.below, self._outgoing.read())
            if not done and (data := self.below.recv()):
                self._incoming.write(data)
            elif not done and data is None:
                ready(self.below, 0.1)

    def recv(self) -> bytes | None:
        if not self._ended:
            data = self.below.recv()
            self._ended = data == b""
            self._incoming.write(data or b"")
        self._push()
        found = []
        with suppress(ssl.SSLWantReadError):
            while data := self.ssl.read(65536):
                found.append(data)
            self._ended = True
        return b"".join(found) or (b"" if self._ended else None)

    def send(self, data: bytes) -> int:
        if not self._push():
            return 0
        taken = min(self._owed, len(data))
        self._owed = 0
        while taken < len(data):
            piece = data[taken : taken + 16384]
            self.ssl.write(piece)
            if not self._push():
                self._owed = len(piece)
                break
            taken += len(piece)
        return taken

    def wants_write(self) -> bool:
        return self.below.wants_write()

    def flush(self) -> None:
        self.below.flush()

    def close(self) -> None:
        with suppress(OSError, ssl.SSLError):
            self.ssl.unwrap()
        with suppress(OSError):
            self._push()
        self.below.close()

    def _push(self) -> bool:
        self._unsent += self._outgoing.read()
        self._unsent = self._unsent[self.below.send(self._unsent) :] if self._unsent else b""
        return not self._unsent


class TlsRig(Rig):
    """TLS on top of the transport of another rig."""

    def __init__(self, below: Base, options: TLSOptions, server: ssl.SSLContext) -> None:
        self.below = below
        self.options = options
        self.server = server
        lags = isinstance(below, PtyRig)
        self.can = Abilities(
            ends_in_order=below.can.ends_in_order,
            resets=below.can.resets,
            cheap_to_open=isinstance(below, MemoryRig),  # for the others a few opens, see below
            lags=lags,
        )
        self.transport = TlsTransport(below.transport, options, "localhost")
        self.peers: SimpleQueue[TlsPeer] = SimpleQueue()
        if isinstance(below, PtyRig):
            below.plug()

    def connect(self) -> TlsPeer:
        if isinstance(self.below, PtyRig):
            self.below.plug()
        server = threading.Thread(target=self._serve, daemon=True)
        server.start()
        self.transport.open(soon())
        peer = self.accept()
        while ready(self.transport, 0.05 if self.can.lags else 0):  # the tickets of TLS 1.3
            assert self.transport.recv() is None
        return peer

    def _serve(self) -> None:
        peer = TlsPeer(self.below.accept(), self.server)
        with suppress(OSError):  # ssl.SSLError is one: the test looks at the client
            peer.handshake()
        self.peers.put(peer)

    def accept(self) -> TlsPeer:
        return self.peers.get(timeout=PATIENCE)

    def unreachable(self) -> Transport:
        return TlsTransport(self.below.unreachable(), self.options, "localhost")

    @contextmanager
    def unresponsive(self) -> Iterator[Transport]:
        yield self.transport  # nobody does the server's part of the handshake
        if isinstance(self.below, MemoryRig):
            with suppress(TimeoutError):
                while True:
                    self.below.listener.accept(0).close()

    def close(self) -> None:
        self.transport.close()
        self.below.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class TlsContract(TransportContract):
    """The contract of a stream, for TLS over the rig that :meth:`below` gives."""

    def below(self, folder: Path) -> Base:
        raise NotImplementedError

    @pytest.fixture
    def rig(self, tmp_path: Path, certificates: Certificates) -> Iterator[TlsRig]:
        below = self.below(tmp_path)
        rig = TlsRig(below, TLSOptions(ca_file=certificates.ca), server_context(certificates.server))
        yield rig
        rig.close()

    def test_many_orderly_ends_leave_no_descriptor_behind(self, rig: TlsRig) -> None:
        rig.connect().close()
        rig.transport.close()
        before = open_files()
        for _ in range(10 if rig.can.lags else 100):
            peer = rig.connect()
            rig.transport.close()
            peer.close()
        assert open_files() <= before

    def test_a_large_message_behind_small_ones_arrives_in_one_piece(self, rig: TlsRig) -> None:
        peer = rig.connect()
        for size in (1, 16383, 16384, 16385, 65536, 65537, 200_000):
            sender = threading.Thread(target=send_all, args=(rig.transport, b"x" * size), daemon=True)
            sender.start()
            assert receive(peer, size) == b"x" * size
            sender.join(PATIENCE)
            sender = threading.Thread(target=send_all, args=(peer, b"y" * size), daemon=True)
            sender.start()
            assert receive(rig.transport, size) == b"y" * size
            sender.join(PATIENCE)


class TestTlsOverTcp(TlsContract):
    def below(self, folder: Path) -> Base:
        return TcpRig()


class TestTlsOverASerialLine(TlsContract):
    def below(self, folder: Path) -> Base:
        return PtyRig(folder)


class TestTlsOverAUnixSocket(TlsContract):
    def below(self, folder: Path) -> Base:
        return UnixRig(folder)


class TestTlsInMemory(TlsContract):
    def below(self, folder: Path) -> Base:
        return MemoryRig()
