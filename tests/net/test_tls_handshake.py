"""TLS: whom we trust, who we are, and what each thing that can be wrong is called."""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from device_sdk._clock import EARLIEST
from device_sdk.errors import ConnectFailedError, TlsError, TransportClosedError
from device_sdk.net import tls_reasons
from device_sdk.net.base import open_transport
from device_sdk.net.memory import MemoryListener, MemoryTransport
from device_sdk.net.tls import TLSOptions, TlsTransport
from device_sdk.net.tls_reasons import clock_problem
from device_sdk.testing.certificates import KEY_PASSWORD, Certificate, Certificates
from tests.net.test_tcp import TcpRig
from tests.net.test_tls import TlsPeer, TlsRig, server_context
from tests.net.transport_contract import PATIENCE, open_files, ready, receive, send_all, soon

MakeRig = Callable[..., TlsRig]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def make_rig(certificates: Certificates) -> Iterator[MakeRig]:
    """Make TLS rigs over TCP; without arguments one where all is well."""
    rigs = []

    def make(options: TLSOptions | None = None, server: ssl.SSLContext | None = None) -> TlsRig:
        options = options or TLSOptions(ca_file=certificates.ca)
        rigs.append(TlsRig(TcpRig(), options, server or server_context(certificates.server)))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def presenting(identity: Certificate, certificates: Certificates, **options: Any) -> TLSOptions:
    """Return options of a client that has a certificate."""
    return TLSOptions(ca_file=certificates.ca, certificate=identity.certificate, key=identity.key, **options)


def refusal(rig: TlsRig) -> str:
    """Open, expect that TLS fails, and return the words; no data has reached the server."""
    server = threading.Thread(target=rig._serve, daemon=True)
    server.start()
    with pytest.raises(TlsError) as caught:
        rig.transport.open(soon())
    peer = rig.accept()
    assert str(caught.value).startswith(f"cannot open {rig.transport.description}: ")
    with pytest.raises(TransportClosedError, match="not open"):
        rig.transport.send(b"x")
    with suppress(ssl.SSLError):
        assert not peer.recv()
    peer.below.close()
    return str(caught.value)


def client_name(peer: TlsPeer) -> str:
    """Return the common name that the client has shown."""
    certificate: Any = peer.ssl.getpeercert()
    (((_, name),),) = certificate["subject"]
    return str(name)


# The broker's certificate.


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("expired", r"has expired; this device's clock says 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
        ("not_yet_valid", "is not valid yet; this device's clock says"),
        ("wrong_name", "does not name 'localhost': connect to a name that it has"),
        ("self_signed", "is self-signed and not trusted: give it as ca_file="),
        ("from_other_ca", "give that CA's certificate as ca_file="),
    ],
)
def test_each_bad_certificate_is_named_with_what_to_do(
    make_rig: MakeRig, certificates: Certificates, kind: str, verdict: str
) -> None:
    rig = make_rig(server=server_context(getattr(certificates, kind)))
    for _ in range(2):  # it is not accepted the second time either
        assert re.search(rf"the broker's certificate\b.*{verdict}", refusal(rig))


# The clock of a device that has none with a battery.


def test_a_clock_that_was_never_set_can_check_no_certificate() -> None:
    problem = clock_problem(ssl.create_default_context(), lambda: 200.0)
    assert "this device's clock says 1970-01-01 00:03 UTC" in problem
    assert "by NTP" in problem


def test_a_clock_that_may_be_right_and_a_context_that_checks_nothing_are_no_problem() -> None:
    assert not clock_problem(ssl.create_default_context(), lambda: float(EARLIEST))
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    assert not clock_problem(unchecked, lambda: 200.0)


def test_an_attempt_before_the_clock_is_set_says_so_and_the_next_one_comes_soon(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as early:
        early.setattr(tls_reasons, "EARLIEST", 1 << 40)
        with pytest.raises(
            ConnectFailedError, match="no certificate can be checked until it is set"
        ) as caught:
            make_rig().transport.open(soon())
    assert caught.value.retry == "soon"
    make_rig().connect()


@pytest.mark.parametrize(("kind", "retry"), [("not_yet_valid", "soon"), ("expired", "never")])
def test_a_certificate_that_time_makes_valid_is_tried_again_soon(
    make_rig: MakeRig, certificates: Certificates, kind: str, retry: str
) -> None:
    rig = make_rig(server=server_context(getattr(certificates, kind)))
    server = threading.Thread(target=rig._serve, daemon=True)
    server.start()
    with pytest.raises(TlsError) as caught:
        rig.transport.open(soon())
    assert caught.value.retry == retry
    rig.accept().below.close()


def test_a_client_certificate_is_not_accepted_from_a_server(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    stolen = certificates.issue("stolen", client=True)
    assert "is not meant for a server" in refusal(make_rig(server=server_context(stolen)))


def test_a_self_signed_certificate_may_be_its_own_ca(make_rig: MakeRig, certificates: Certificates) -> None:
    own = certificates.self_signed
    make_rig(TLSOptions(ca_file=own.certificate), server_context(own)).connect()


@pytest.mark.parametrize(
    ("host", "fine"),
    [("127.0.0.1", True), ("::1", True), ("::1%lo", True), ("localhost.", True), ("127.0.0.2", False)],
)
def test_the_host_is_looked_for_in_the_certificate(
    make_rig: MakeRig, certificates: Certificates, host: str, fine: bool
) -> None:
    rig = make_rig()
    rig.transport = TlsTransport(rig.below.transport, TLSOptions(ca_file=certificates.ca), host)
    if fine:
        rig.connect()
    else:
        assert "does not name the address 127.0.0.2" in refusal(rig)


def test_a_server_name_goes_before_the_host_and_to_the_server(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    asked: list[str | None] = []
    server = server_context(certificates.wrong_name)
    server.sni_callback = lambda connection, name, context: asked.append(name)
    make_rig(TLSOptions(ca_file=certificates.ca, server_name="other.example"), server).connect()
    assert asked == ["other.example"]


def test_insecure_accepts_anybody_and_says_so_each_time(
    make_rig: MakeRig, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig(TLSOptions(insecure=True), server_context(certificates.expired))
    for _ in range(2):
        rig.connect()
        rig.transport.close()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in warnings] == ["device_sdk.net.tls"] * 2
    assert "INSECURE" in warnings[0].getMessage()


def test_a_ready_context_is_used_as_it_is(
    make_rig: MakeRig, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    assert refusal(make_rig(TLSOptions(context=context), server_context(certificates.wrong_name)))
    context.check_hostname = False
    make_rig(TLSOptions(context=context), server_context(certificates.wrong_name)).connect()
    assert "the name in the certificate is not checked" in caplog.text


def test_without_the_name_the_chain_is_still_checked(
    make_rig: MakeRig, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    tls = TLSOptions(ca_file=certificates.ca, check_hostname=False)
    make_rig(tls, server_context(certificates.wrong_name)).connect()
    assert "INSECURE, the name in the certificate is not checked" in caplog.text
    for kind in ("expired", "self_signed", "from_other_ca"):
        assert refusal(make_rig(tls, server_context(getattr(certificates, kind))))


# Revocation lists.


def test_a_revoked_certificate_is_refused_and_others_are_not(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    revoked = certificates.issue("stolen-server")
    crl = certificates.revocations("one-revoked", revoked)
    tls = TLSOptions(ca_file=certificates.ca, crl_file=crl)
    make_rig(tls, server_context(certificates.server)).connect()
    assert "has been revoked" in refusal(make_rig(tls, server_context(revoked)))


@pytest.mark.parametrize(
    ("days", "words"),
    [((-30, -1), "the list in crl_file= has expired"), ((1, 30), "the list in crl_file= is not valid yet")],
)
def test_a_list_that_is_not_in_force_proves_nothing(
    make_rig: MakeRig, certificates: Certificates, days: tuple[float, float], words: str
) -> None:
    crl = certificates.revocations("not-in-force", days=days)
    words_of_refusal = refusal(make_rig(TLSOptions(ca_file=certificates.ca, crl_file=crl)))
    assert words in words_of_refusal
    assert "this device's clock says" in words_of_refusal


def test_the_list_of_another_ca_proves_nothing(
    make_rig: MakeRig, certificates: Certificates, tmp_path: Path
) -> None:
    crl = Certificates(tmp_path).revocations("foreign")  # of a CA with the same name
    words = refusal(make_rig(TLSOptions(ca_file=certificates.ca, crl_file=crl)))
    assert "cannot be looked up: crl_file= has no list of the CA that issued it" in words


def test_a_new_list_is_used_for_the_next_connection_although_a_session_could_be_resumed(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    server = certificates.issue("soon-revoked")
    tls = TLSOptions(ca_file=certificates.ca, crl_file=certificates.revocations("current"))
    rig = make_rig(tls, server_context(server))
    for _ in range(2):
        rig.connect()
        rig.transport.close()
    certificates.revocations("current", server)
    assert "has been revoked" in refusal(rig)


# Our certificate.


@pytest.mark.parametrize("password", [KEY_PASSWORD, KEY_PASSWORD.encode(), lambda: KEY_PASSWORD])
def test_a_client_certificate_with_an_encrypted_key_is_shown(
    make_rig: MakeRig, certificates: Certificates, password: Any
) -> None:
    options = presenting(certificates.encrypted_client, certificates, key_password=password)
    peer = make_rig(options, server_context(certificates.server, certificates.ca)).connect()
    assert client_name(peer) == "encrypted-client"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_broker_that_wants_a_certificate_says_so(
    make_rig: MakeRig, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    server = server_context(certificates.server, certificates.ca)
    server.maximum_version = version
    rig = make_rig(server=server)
    threading.Thread(target=rig._serve, daemon=True).start()
    # In TLS 1.3 the client is through with the handshake before the server has looked at its certificate.
    with pytest.raises((TlsError, TransportClosedError), match=r"certificate=\.\.\., key=\.\.\."):
        rig.transport.open(soon())
        assert ready(rig.transport)
        rig.transport.recv()


def test_a_client_certificate_that_the_broker_does_not_trust_is_called_so(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    options = presenting(certificates.client_from_other_ca, certificates)
    rig = make_rig(options, server_context(certificates.server, certificates.ca))
    threading.Thread(target=rig._serve, daemon=True).start()
    rig.transport.open(soon())
    assert ready(rig.transport)
    for _ in range(2):
        with pytest.raises(TransportClosedError, match="of a CA that the broker trusts"):
            rig.transport.recv()
        with pytest.raises(TransportClosedError, match="of a CA that the broker trusts"):
            rig.transport.send(b"x")


# Replaced at run time.


def test_a_new_client_certificate_is_used_from_the_next_connect_on(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    mine = certificates.issue("rotated", client=True)
    rig = make_rig(presenting(mine, certificates), server_context(certificates.server, certificates.ca))
    before = rig.connect().ssl.getpeercert()
    rig.transport.close()
    assert rig.connect().ssl.getpeercert() == before
    rig.transport.close()
    certificates.issue("rotated", client=True)
    after = rig.connect().ssl.getpeercert()
    assert before and after and before["serialNumber"] != after["serialNumber"]


def test_a_new_ca_is_trusted_and_the_old_one_is_not(make_rig: MakeRig, certificates: Certificates) -> None:
    ca = certificates.folder / "replaced-ca.pem"
    ca.write_bytes(certificates.ca.read_bytes())
    rig = make_rig(TLSOptions(ca_file=ca))
    rig.connect()
    rig.transport.close()
    ca.write_bytes(certificates.other_ca.read_bytes())
    assert "the broker's certificate" in refusal(rig)
    rig.server = server_context(certificates.from_other_ca)
    rig.connect()


def test_a_file_that_breaks_fails_every_attempt_until_it_is_mended(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    ca = certificates.folder / "broken-ca.pem"
    ca.write_bytes(certificates.ca.read_bytes())
    rig = make_rig(TLSOptions(ca_file=ca))
    for problem in ("", "garbage", None):
        if problem is None:
            ca.unlink()
        else:
            ca.write_text(problem)
        for _ in range(3):
            with pytest.raises(TlsError, match=r"ca_file: .*broken-ca\.pem"):
                rig.transport.open(soon())
            rig.below.accept()
    ca.write_bytes(certificates.ca.read_bytes())
    rig.connect()


# What is agreed upon.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_reconnect_resumes_the_session_if_it_may(
    make_rig: MakeRig, certificates: Certificates, version: ssl.TLSVersion, wanted: bool
) -> None:
    server = server_context(certificates.server)
    server.maximum_version = version
    rig = make_rig(TLSOptions(ca_file=certificates.ca, session_resumption=wanted), server)
    for number in range(4):
        peer = rig.connect()
        assert isinstance(rig.transport, TlsTransport) and rig.transport.ssl_object is not None
        assert rig.transport.ssl_object.session_reused == peer.ssl.session_reused == (wanted and number > 0)
        send_all(rig.transport, b"hello")
        assert receive(peer, 5) == b"hello"
        (rig.transport.close if number % 2 else rig.transport.abort)()
        rig.transport.close()
        peer.close()


def test_a_session_does_not_outlive_the_files_that_it_was_checked_with(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    ca = certificates.folder / "session-ca.pem"
    ca.write_bytes(certificates.ca.read_bytes())
    rig = make_rig(TLSOptions(ca_file=ca))
    rig.connect()
    rig.transport.close()
    ca.write_bytes(certificates.other_ca.read_bytes())
    assert "the broker's certificate" in refusal(rig)


def test_a_server_that_forgot_the_session_gets_a_full_handshake(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    rig = make_rig()
    rig.connect()
    rig.transport.close()
    rig.server = server_context(certificates.server)
    assert not rig.connect().ssl.session_reused


def test_the_broker_chooses_among_the_alpn_protocols(make_rig: MakeRig, certificates: Certificates) -> None:
    server = server_context(certificates.server)
    server.set_alpn_protocols(["x-amzn-mqtt-ca", "mqtt"])
    rig = make_rig(TLSOptions(ca_file=certificates.ca, alpn=["mqtt", "other"]), server)
    assert rig.connect().ssl.selected_alpn_protocol() == "mqtt"
    assert isinstance(rig.transport, TlsTransport) and rig.transport.ssl_object is not None
    assert rig.transport.ssl_object.selected_alpn_protocol() == "mqtt"


def test_the_ciphers_of_tls_1_2_can_be_chosen(make_rig: MakeRig, certificates: Certificates) -> None:
    server = server_context(certificates.server)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    suite = "ECDHE-ECDSA-AES128-GCM-SHA256"
    cipher = make_rig(TLSOptions(ca_file=certificates.ca, ciphers=suite), server).connect().ssl.cipher()
    assert cipher is not None and cipher[0] == suite


def test_an_older_version_than_asked_for_is_refused(make_rig: MakeRig, certificates: Certificates) -> None:
    server = server_context(certificates.server)
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    options = TLSOptions(ca_file=certificates.ca, minimum_version="1.3")
    assert "minimum_version" in refusal(make_rig(options, server))


# A peer that does strange things.


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x00\x00\x00", b"\xff" * 50]
)
def test_a_peer_that_does_not_speak_tls_is_called_so(make_rig: MakeRig, answer: bytes) -> None:
    rig = make_rig()

    def talk() -> None:
        peer = rig.below.accept()
        send_all(peer, answer)

    threading.Thread(target=talk, daemon=True).start()
    with pytest.raises(TlsError, match="does not speak TLS"):
        rig.transport.open(soon())


def test_a_silent_peer_is_given_until_the_deadline(make_rig: MakeRig) -> None:
    rig = make_rig()
    before = open_files()
    with pytest.raises(ConnectFailedError, match="timed out in the handshake"):
        rig.transport.open(time.monotonic() + 0.05)
    assert open_files() == before
    rig.below.accept().close()
    rig.connect()


class ServedInMemory:
    """A TLS server behind ``memory://``, in a thread; it sends at most so many bytes, then closes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.listener = MemoryListener("tls")
        self.budget = 1 << 30
        self.sent = 0
        self.piece: int | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with suppress(OSError, Exception):
            while True:
                self._serve(self.listener.accept(PATIENCE))

    def _serve(self, end: MemoryTransport) -> None:
        end.limit_send(self.piece)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = self.context.wrap_bio(incoming, outgoing, server_side=True)
        self.sent = 0
        with suppress(OSError):
            while ready(end):
                data = end.recv()
                if data == b"":
                    break
                incoming.write(data or b"")
                with suppress(ssl.SSLError):
                    if connection.version() is None or not self._is_through(connection):
                        connection.do_handshake()
                    connection.write(connection.read())
                answer = outgoing.read()[: self.budget - self.sent]
                self.sent += len(answer)
                while answer:
                    answer = answer[end.send(answer) :]
                if self.sent >= self.budget:
                    break
        end.close()

    def _is_through(self, connection: ssl.SSLObject) -> bool:
        return connection.get_channel_binding("tls-unique") is not None


@pytest.fixture
def served(certificates: Certificates) -> Iterator[ServedInMemory]:
    server = server_context(certificates.server)
    server.num_tickets = 0
    served = ServedInMemory(server)
    yield served
    served.listener.close()


def test_a_peer_that_closes_after_any_byte_of_the_handshake_is_an_error(
    served: ServedInMemory, certificates: Certificates
) -> None:
    transport = open_transport(
        "memory://tls", tls=TLSOptions(ca_file=certificates.ca, server_name="localhost")
    )
    transport.open(soon())
    whole = served.sent - 8  # the length of an ECDSA signature varies by a few bytes
    transport.close()
    assert 500 < whole < 2000
    for served.budget in range(whole):
        with pytest.raises(ConnectFailedError, match="closed"):
            transport.open(soon())
    served.budget = 1 << 30
    transport.open(soon())
    transport.close()


def test_a_handshake_and_data_in_single_bytes_are_fine(
    served: ServedInMemory, certificates: Certificates
) -> None:
    served.piece = 1
    inner = open_transport("memory://tls")
    assert isinstance(inner, MemoryTransport)
    inner.limit_send(1)
    transport = TlsTransport(inner, TLSOptions(ca_file=certificates.ca), "localhost")
    transport.open(soon())
    send_all(transport, b"echo" * 100)
    assert receive(transport, 400) == b"echo" * 100
    transport.close()


def test_an_end_without_close_notify_is_the_end_of_the_stream(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    send_all(peer, b"last words")
    peer.below.close()
    assert receive(rig.transport, 1000) == b"last words"
    assert [rig.transport.recv() for _ in range(2)] == [b"", b""]


def test_a_record_that_is_cut_off_is_not_delivered(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    peer.ssl.write(b"half a record")
    send_all(peer.below, peer._outgoing.read()[:-1])
    peer.below.close()
    assert receive(rig.transport, 1000) == b""


def test_close_notify_ends_the_stream_although_the_connection_stays(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    peer.ssl.write(b"data")
    with suppress(ssl.SSLWantReadError):
        peer.ssl.unwrap()
    send_all(peer.below, peer._outgoing.read())  # data and close_notify in one read
    assert receive(rig.transport, 4) == b"data"
    assert ready(rig.transport, 1), "nothing tells of the end"
    assert [rig.transport.recv() for _ in range(2)] == [b"", b""]
    with pytest.raises(TransportClosedError, match=": closed by the peer"):
        rig.transport.send(b"x")


def test_close_sends_close_notify(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    rig.transport.close()
    assert ready(peer)
    peer._incoming.write(peer.below.recv() or b"")
    assert peer.ssl.read() == b""  # the end by close_notify; without it this raises


def test_a_changed_byte_ends_the_stream_with_an_error(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    peer.ssl.write(b"whole")
    peer.ssl.write(b"changed")
    records = bytearray(peer._outgoing.read())
    records[-1] ^= 1
    send_all(peer.below, bytes(records))
    assert receive(rig.transport, 5) == b"whole"
    assert ready(rig.transport, 1), "nothing tells of the error"
    for _ in range(2):
        with pytest.raises(TransportClosedError, match=r"TLS failed .*BAD_RECORD_MAC"):
            rig.transport.recv()
    assert ready(peer)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        peer.recv()


def test_plain_bytes_after_the_handshake_are_an_error(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    send_all(peer.below, b"\xd0\x00 this is no record")
    assert ready(rig.transport)
    with pytest.raises(TransportClosedError):
        rig.transport.recv()


def test_what_the_peer_sends_behind_its_handshake_is_there_at_once(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    server = server_context(certificates.server)
    server.maximum_version = ssl.TLSVersion.TLSv1_2  # there the server is the last to speak
    rig = make_rig(server=server)

    def serve() -> None:
        peer = TlsPeer(rig.below.accept(), server)
        held = bytearray()
        until = soon()
        while time.monotonic() < until:
            try:
                peer.ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                if peer._outgoing.pending:
                    held += peer._outgoing.read()
                    send_all(peer.below, bytes(held))
                    held.clear()
                ready(peer.below, 0.1)
                peer._incoming.write(peer.below.recv() or b"")
        peer.ssl.write(b"early")
        send_all(peer.below, peer._outgoing.read())
        rig.peers.put(peer)

    threading.Thread(target=serve, daemon=True).start()
    rig.transport.open(soon())
    rig.accept()
    assert receive(rig.transport, 5) == b"early"


def test_a_send_that_fails_tells_what_the_peer_said_before(
    make_rig: MakeRig, certificates: Certificates
) -> None:
    options = presenting(certificates.client_from_other_ca, certificates)
    rig = make_rig(options, server_context(certificates.server, certificates.ca))
    server = threading.Thread(target=rig._serve, daemon=True)
    server.start()
    rig.transport.open(soon())
    rig.accept().reset()
    assert ready(rig.transport)
    for _ in range(2):
        with pytest.raises(TransportClosedError, match="of a CA that the broker trusts"):
            rig.transport.send(b"x")
    with pytest.raises(TransportClosedError, match="of a CA that the broker trusts"):
        rig.transport.recv()


def test_data_before_a_failed_send_is_still_delivered(make_rig: MakeRig) -> None:
    rig = make_rig()
    peer = rig.connect()
    send_all(peer, b"goodbye")
    assert ready(rig.transport)
    peer.reset()
    until = soon()
    with pytest.raises(TransportClosedError):
        while time.monotonic() < until:
            rig.transport.send(b"x")
    assert receive(rig.transport, 100) == b"goodbye"
