"""A client whose URL leads to something that is no MQTT broker: the error says what it is, and what to do."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import threading
import tty
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client, TLSOptions
from device_sdk.errors import ConnectFailedError, DeviceSdkError, RemoteProtocolError, TransportClosedError
from device_sdk.testing.certificates import Certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 10.0
SSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"
LOGIN = b"\r\nDebian GNU/Linux 12 rpi ttyAMA0\r\n\r\nrpi login: "


@contextmanager
def listening(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server for one connection; yields its port."""

    def run() -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(PATIENCE)
                serve(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
    thread.join(PATIENCE)


def greet(peer: socket.socket, data: bytes) -> None:
    """Speak first, and listen until the client leaves."""
    peer.sendall(data)
    while peer.recv(1000):
        pass


def answer(peer: socket.socket, data: bytes) -> None:
    """Answer what comes first, and end the connection."""
    peer.recv(1000)
    peer.sendall(data)


def failure(url: str, **options: object) -> DeviceSdkError:
    """Return the error of an attempt to connect, which is told by the event as well."""
    told: list[str] = []
    client = Client(url, on_event=lambda event: told.append(event.text), connect_timeout=0.5, **options)  # type: ignore[arg-type]
    with closing(client), pytest.raises(DeviceSdkError) as caught:
        client.connect(PATIENCE)
    assert str(caught.value) in told[0]
    return caught.value


def test_an_ssh_server_is_called_so() -> None:
    with listening(lambda peer: greet(peer, SSH)) as port:
        error = failure(f"mqtt://127.0.0.1:{port}")
    assert isinstance(error, RemoteProtocolError)
    assert str(error) == (
        f"tcp 127.0.0.1:{port}: what answers is no MQTT broker but an SSH server (it sent {SSH!r}): "
        "check host and port; MQTT mostly has 1883, with TLS 8883"
    )


def test_a_peer_is_recognised_from_bytes_that_come_one_by_one() -> None:
    def drip(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"-ERR unknown command\r\n":
            peer.sendall(bytes([byte]))
        while peer.recv(1000):
            pass

    with listening(drip) as port:
        error = failure(f"mqtt://127.0.0.1:{port}")
    assert isinstance(error, TransportClosedError)
    assert "no answer to CONNECT within 0.5 s" in str(error)
    assert "a Redis server" in str(error)


class Silent(http.server.BaseHTTPRequestHandler):
    """Python's web server, without its log."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_http_server_is_called_so_with_and_without_tls() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"127.0.0.1:{server.server_address[1]}"
        assert "but an HTTP server" in str(failure(f"mqtt://{address}"))
        secured = str(failure(f"mqtts://{address}", tls=TLSOptions(insecure=True)))
    finally:
        server.shutdown()
        server.server_close()
    assert "the peer does not speak TLS on this port: what answers is no MQTT broker but an HTTP" in secured


def test_an_ssh_server_behind_tls_is_called_so() -> None:
    with listening(lambda peer: greet(peer, SSH)) as port:
        error = failure(f"mqtts://127.0.0.1:{port}", tls=TLSOptions(insecure=True))
    assert isinstance(error, ConnectFailedError)
    assert "does not speak TLS on this port: what answers is no MQTT broker but an SSH server" in str(error)


def test_a_broker_without_tls_is_suggested_where_no_tls_answers() -> None:
    with listening(lambda peer: answer(peer, b"\x20\x02\x00\x01\x00\x00")) as port:
        error = str(failure(f"mqtts://127.0.0.1:{port}", tls=TLSOptions(insecure=True)))
    assert "it may speak MQTT without TLS, then write mqtt://" in error
    with listening(lambda peer: peer.recv(1000)) as port:
        error = str(failure(f"mqtts://127.0.0.1:{port}", tls=TLSOptions(insecure=True)))
    assert "For one without TLS write mqtt://" in error


def test_a_tls_port_is_called_so_without_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)

    def shake_hands(peer: socket.socket) -> None:
        with suppress(ssl.SSLError):
            context.wrap_socket(peer, server_side=True)

    with listening(shake_hands) as port:
        error = str(failure(f"mqtt://127.0.0.1:{port}"))
    assert "a port that wants TLS does that (then write mqtts://)" in error
    with listening(shake_hands) as port:
        error = str(failure(f"ws://127.0.0.1:{port}"))
    assert "whether it wants TLS (then write wss://)" in error


def test_a_tls_alert_is_recognised() -> None:
    for scheme in ("mqtt", "ws"):
        with listening(lambda peer: answer(peer, bytes.fromhex("15 03 01 00 02 02 46"))) as port:
            error = str(failure(f"{scheme}://127.0.0.1:{port}"))
        assert "a server that wants TLS" in error
        assert "write mqtts:// instead of mqtt://, or wss:// instead of ws://" in error


def test_an_ssh_server_behind_a_websocket_is_called_so() -> None:
    with listening(lambda peer: greet(peer, SSH)) as port:
        assert "an SSH server" in str(failure(f"ws://127.0.0.1:{port}"))


def test_a_port_that_closes_without_a_word_may_want_tls() -> None:
    with listening(lambda peer: peer.recv(1000)) as port:
        error = str(failure(f"mqtt://127.0.0.1:{port}"))
    assert "the server closed the connection before answering CONNECT; a port that wants TLS does" in error
    assert "mqtts://" in error


def test_a_silent_port_may_be_another_one() -> None:
    with listening(lambda peer: greet(peer, b"")) as port:
        error = str(failure(f"mqtt://127.0.0.1:{port}"))
    assert (
        error
        == "no answer to CONNECT within 0.5 s; check that this is the port of an MQTT broker, mostly 1883"
    )


def test_the_words_of_a_broker_stay_as_they_are() -> None:
    with listening(lambda peer: answer(peer, bytes.fromhex("90 03 00 01 00"))) as port:
        error = str(failure(f"mqtt://127.0.0.1:{port}"))
    assert error == "the server sent SUBACK before CONNACK, which it must not"


# A serial line


@contextmanager
def serial_line(*said: bytes, echo: bool = False) -> Iterator[str]:
    """A pty whose other end says this when a client has sent something; yields the URL."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)

    def run() -> None:
        with suppress(OSError):
            heard = os.read(ours, 1000)
            for data in (heard,) if echo else said:
                os.write(ours, data)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"serial://{os.ttyname(theirs)}"
    finally:
        thread.join(PATIENCE)
        os.close(ours)
        os.close(theirs)


def test_a_console_at_the_other_end_of_a_line_is_called_so() -> None:
    with serial_line(LOGIN) as url:
        error = str(failure(url))
    assert "what answers is no MQTT broker" in error
    assert "end the console there" in error


def test_a_wrong_baud_rate_is_thought_of() -> None:
    garbage = bytes.fromhex("c0 f7 d1 76 80 f0 fe 00 86 18")  # PINGREQ of 1943607 bytes, taken as MQTT
    with serial_line(garbage) as url:
        error = str(failure(url))
    assert "what answers does not speak MQTT (it sent c0 f7" in error
    assert "compare baud rate and parity of both ends" in error


def test_a_line_that_echoes_is_called_so() -> None:
    with serial_line(echo=True) as url:
        assert "our own CONNECT that comes back" in str(failure(url))


def test_a_line_without_a_sound_sends_the_user_to_the_wiring() -> None:
    with serial_line() as url:
        error = str(failure(url))
    assert error.startswith("no answer to CONNECT within 0.5 s; nothing came over the line: check the wiring")
