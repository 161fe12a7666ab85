"""TLSOptions: a mistake is an error when the options are made, by the name of the option."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.net.base import open_transport
from device_sdk.net.tls import TLSOptions, TlsTransport
from device_sdk.net.tls_psk import Psk
from device_sdk.testing.certificates import KEY_PASSWORD, Certificates
from tests.net.test_tcp import TcpRig
from tests.net.test_tls import TlsRig, server_context
from tests.net.transport_contract import PATIENCE


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def problem(argument: str, **options: Any) -> str:
    """Return what is wrong with the options; it has to be this argument."""
    with pytest.raises(ArgumentError) as caught:
        TLSOptions(**options)
    assert caught.value.argument == argument
    return str(caught.value)


def connects(options: TLSOptions, certificates: Certificates) -> bool:
    rig = TlsRig(TcpRig(), options, server_context(certificates.server))
    try:
        rig.connect()
    except OSError:
        return False
    finally:
        rig.close()
    return True


# Whom to trust.


def test_each_fault_of_a_ca_file_is_told(tmp_path: Path, certificates: Certificates) -> None:
    for name, content in {"empty.pem": b"", "text.pem": b"no certificate", "key.pem": b"\0\1"}.items():
        (tmp_path / name).write_bytes(content)
        assert f"{name}' holds no CA certificate" in problem("ca_file", ca_file=tmp_path / name)
    assert "No such file" in problem("ca_file", ca_file=tmp_path / "missing.pem")
    assert "Is a directory" in problem("ca_file", ca_file=tmp_path)
    assert "holds no CA certificate" in problem("ca_file", ca_file=certificates.server.key)
    broken = certificates.ca.read_bytes() + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "half.pem").write_bytes(broken)
    assert "half.pem" in problem("ca_file", ca_file=tmp_path / "half.pem")


def test_a_type_that_is_no_path_is_told() -> None:
    with pytest.raises(ArgumentTypeError, match="ca_file"):
        TLSOptions(ca_file=["ca.pem"])  # type: ignore[arg-type]


def test_ca_data_may_be_text_or_bytes(certificates: Certificates) -> None:
    pem = certificates.ca.read_text()
    for data in (pem, pem.encode(), ssl.PEM_cert_to_DER_cert(pem)):
        assert connects(TLSOptions(ca_data=data), certificates)
    for bad in ("", b"", "nothing", b"\1\2\3", 7):
        assert "holds no CA certificate" in problem("ca_data", ca_data=bad)


def test_a_ca_path_has_to_be_prepared(tmp_path: Path, certificates: Certificates) -> None:
    shutil.copy(certificates.ca, tmp_path)
    assert "openssl rehash" in problem("ca_path", ca_path=tmp_path)
    assert "openssl rehash" in problem("ca_path", ca_path=tmp_path / "missing")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, timeout=PATIENCE)
    assert connects(TLSOptions(ca_path=tmp_path), certificates)


def test_without_a_ca_the_system_is_asked_and_with_one_it_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificates: Certificates
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert connects(TLSOptions(), certificates)
    assert not connects(TLSOptions(ca_file=certificates.other_ca), certificates)


def test_a_system_without_ca_certificates_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert "install the package ca-certificates" in problem("ca_file")
    TLSOptions(insecure=True)


# Who we are.


def test_each_fault_of_a_certificate_is_told(tmp_path: Path, certificates: Certificates) -> None:
    def told(argument: str, **options: Any) -> str:
        return problem(argument, ca_file=certificates.ca, **options)

    client, server = certificates.client, certificates.server
    missing = tmp_path / "missing.pem"
    assert "No such file" in told("certificate", certificate=missing, key=client.key)
    assert "No such file" in told("key", certificate=client.certificate, key=missing)
    assert "give certificate=" in told("key", key=client.key)
    assert "is not the key of" in told("key", certificate=client.certificate, key=server.key)
    assert "do not hold" in told("certificate", certificate=client.certificate)
    assert "do not hold" in told("key", certificate=client.key, key=client.key)


def test_a_key_may_be_in_the_file_of_the_certificate(tmp_path: Path, certificates: Certificates) -> None:
    both = tmp_path / "both.pem"
    client = certificates.client
    both.write_bytes(client.key.read_bytes() + client.certificate.read_bytes())
    TLSOptions(ca_file=certificates.ca, certificate=both)


def test_an_encrypted_key_without_its_password_is_an_error_and_never_a_prompt(
    certificates: Certificates,
) -> None:
    def told(password: Any) -> str:
        mine = certificates.encrypted_client
        return problem(
            "key_password",
            ca_file=certificates.ca,
            certificate=mine.certificate,
            key=mine.key,
            key_password=password,
        )

    def no_password() -> str:
        raise OSError("the vault is closed")

    results: list[str] = []
    # In a thread: a prompt would wait for ever.
    asking = threading.Thread(target=lambda: results.append(told(None)), daemon=True)
    asking.start()
    asking.join(PATIENCE)
    assert "is encrypted; give its password" in results[0]
    assert "does not open the private key" in told("wrong")
    assert "does not open the private key" in told(b"")
    assert "does not open the private key" in told("x" * 5000)
    assert "the vault is closed" in told(no_password)
    assert KEY_PASSWORD not in told(KEY_PASSWORD + "!")


# The rest.


def test_options_that_cannot_work_are_told(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert "'1.2' or '1.3'" in problem("minimum_version", minimum_version="1.1")
    assert "knows no cipher suite" in problem("ciphers", ciphers="ROT13")
    assert "1..255" in problem("alpn", alpn=[""])
    assert "1..255" in problem("alpn", alpn=["\N{SNOWMAN}"])
    assert "not one str" in problem("alpn", alpn="mqtt")
    assert "ssl.SSLContext" in problem("context", context="default")
    assert "is a server's" in problem("context", context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    for name, value in {"ca_file": certificates.ca, "alpn": ["mqtt"], "insecure": True}.items():
        assert "is ready as it is" in problem("context", context=context, **{name: value})


def test_a_server_cannot_begin_a_second_handshake() -> None:
    assert TLSOptions(insecure=True).current_context().options & ssl.OP_NO_RENEGOTIATION


def test_the_options_show_no_secret() -> None:
    assert "hunter2" not in repr(TLSOptions(insecure=True, key_password="hunter2"))


def test_a_context_is_made_once_while_its_files_are_the_same(certificates: Certificates) -> None:
    options = TLSOptions(ca_file=certificates.ca)
    assert options.current_context() is options.current_context()


# How a URL gets the layer.


def test_mqtts_has_tls_by_itself_and_any_other_url_by_the_option(certificates: Certificates) -> None:
    tls = TLSOptions(ca_file=certificates.ca, server_name="broker.example")
    places = {
        "mqtts://broker.example": "tls broker.example:8883",
        "mqtt://broker.example": "tls broker.example:1883",
        "serial:///dev/ttyUSB0": "tls serial /dev/ttyUSB0",
        "unix:/run/mqtt.sock": "tls unix /run/mqtt.sock",
        "memory://broker": "tls memory broker",
    }
    for url, description in places.items():
        transport = open_transport(url, tls=tls)
        assert isinstance(transport, TlsTransport)
        assert transport.description == description


def test_a_stream_that_names_no_host_needs_a_server_name(certificates: Certificates) -> None:
    with pytest.raises(ArgumentError, match="server_name: serial /dev/ttyUSB0 names no host"):
        open_transport("serial:///dev/ttyUSB0", tls=TLSOptions(ca_file=certificates.ca))
    open_transport("serial:///dev/ttyUSB0", tls=TLSOptions(insecure=True))


def test_a_name_that_no_host_can_have_is_an_error(certificates: Certificates) -> None:
    tls = TLSOptions(ca_file=certificates.ca, server_name=".example")
    with pytest.raises(ArgumentError, match=r"server_name: '\.example' is no host name"):
        open_transport("mqtts://broker.example", tls=tls)


def test_tls_must_be_options() -> None:
    with pytest.raises(ArgumentTypeError, match="tls: must be TLSOptions, not bool"):
        open_transport("mqtts://broker.example", tls=True)


def test_mqtts_takes_the_options_of_tcp_and_no_path(certificates: Certificates) -> None:
    tls = TLSOptions(ca_file=certificates.ca)
    with pytest.raises(ArgumentError, match="user_timeout"):
        open_transport("mqtts://broker.example", tls=tls, user_timeout=-1)
    with pytest.raises(ArgumentError, match="takes no path"):
        open_transport("mqtts://broker.example/mqtt", tls=tls)


# Revocation lists and keys instead of certificates.


def test_each_fault_of_a_revocation_list_is_told(tmp_path: Path, certificates: Certificates) -> None:
    ca, crl = certificates.ca, certificates.revocations("revoked")
    TLSOptions(ca_file=ca, crl_file=crl)
    (tmp_path / "text.pem").write_bytes(b"no list")
    both = tmp_path / "both.pem"
    both.write_bytes(crl.read_bytes() + certificates.other_ca.read_bytes())
    for file, words in {
        tmp_path / "missing.pem": "No such file",
        tmp_path / "text.pem": "holds no revocation list",
        certificates.server.key: "holds no revocation list",
        certificates.other_ca: "holds certificates too, which would be trusted",
        both: "holds certificates too, which would be trusted",
    }.items():
        assert words in problem("crl_file", ca_file=ca, crl_file=file)
    assert "leave out crl_file=" in problem("insecure", insecure=True, crl_file=crl)


def test_a_file_with_lists_of_several_cas_may_be_given(tmp_path: Path, certificates: Certificates) -> None:
    other = Certificates(tmp_path)
    several = tmp_path / "several.pem"
    several.write_bytes(other.revocations("a").read_bytes() + certificates.revocations("b").read_bytes())
    assert connects(TLSOptions(ca_file=certificates.ca, crl_file=several), certificates)


PAIR = ("sensor-17", bytes(16))


@pytest.mark.skipif(getattr(ssl, "HAS_PSK", False), reason="needs a Python without TLS-PSK")
@pytest.mark.parametrize("option", ["psk", "psk_file"])
def test_a_python_without_psk_says_what_is_needed(option: str, tmp_path: Path) -> None:
    file = tmp_path / "device.psk"
    file.write_text("sensor-17:00112233445566778899aabbccddeeff")
    words = problem(option, **{option: PAIR if option == "psk" else file})
    assert "needs Python 3.13, and an OpenSSL with PSK; this is Python 3." in words


@pytest.mark.parametrize(
    "others",
    [{"ca_file": "ca.pem"}, {"certificate": "c.pem"}, {"insecure": True}, {"check_hostname": False},
     {"crl_file": "crl.pem"}, {"ca_data": "x"}],
)  # fmt: skip
def test_a_key_goes_with_no_certificate(others: dict[str, Any]) -> None:
    (name,) = others
    assert f"replaces all certificates: leave out {name}=" in problem("psk", psk=PAIR, **others)
    assert f"leave out {name}=" in problem("psk_file", psk_file="device.psk", **others)


@pytest.fixture
def psk_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this Python pretend that it has PSK: what is checked before a handshake can be tried with each."""
    monkeypatch.setattr(ssl, "HAS_PSK", True, raising=False)

    def prepare(psk: Psk, context: ssl.SSLContext, *, own_suites: bool) -> None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    monkeypatch.setattr(Psk, "prepare", prepare)


@pytest.mark.parametrize(
    ("psk", "words"),
    [
        (("", b"x"), "the identity has 0 bytes"),
        (("x" * 129, b"x"), "the identity has 129 bytes"),
        (("a\0b", b"x"), "the identity has 3 bytes"),
        (("a\ud800", b"x"), "the identity is no text in UTF-8"),
        (("a", b""), "the key has 0 bytes"),
        (("a", bytes(257)), "the key has 257 bytes"),
        (("a", "00"), "must be a str, the identity, and bytes, the key"),
        ("a:00", "must be a pair"),
        (lambda: None, "must be a pair"),
        (lambda: 1 / 0, "the callable for it raised ZeroDivisionError"),
    ],
)
def test_each_fault_of_a_key_is_told(psk_here: None, psk: Any, words: str) -> None:
    assert words in problem("psk", psk=psk)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds 0 entries"),
        ("# only a comment\n\n", "holds 0 entries"),
        ("a:00\nb:00\n", "holds 2 entries"),
        ("sensor-17", "does not hold IDENTITY:KEY"),
        ("sensor-17:xyz", "does not hold IDENTITY:KEY"),
        (":00", "the identity has 0 bytes"),
        ("a:", "the key has 0 bytes"),
    ],
)
def test_each_fault_of_a_file_with_a_key_is_told(
    psk_here: None, tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "device.psk"
    file.write_text(content)
    assert words in problem("psk_file", psk_file=file)
    assert "sensor" not in problem("psk_file", psk_file=file)  # nor the key


def test_a_key_is_read_again_for_each_connection_and_never_shown(psk_here: None, tmp_path: Path) -> None:
    assert "No such file" in problem("psk_file", psk_file=tmp_path / "missing.psk")
    file = tmp_path / "device.psk"
    file.write_text(f"{PAIR[0]}:{PAIR[1].hex()}\n")
    tls = TLSOptions(psk_file=file)
    assert tls.current_context().verify_mode == ssl.CERT_NONE
    assert PAIR[1].hex() not in repr(tls)
    file.write_text("nothing")
    with pytest.raises(ArgumentError, match="does not hold IDENTITY:KEY"):
        tls.current_context()
    asked: list[tuple[str, bytes]] = []

    def ask() -> tuple[str, bytes]:
        asked.append(PAIR)
        return PAIR

    tls = TLSOptions(psk=ask)
    before = len(asked)
    tls.current_context()
    assert len(asked) == before + 1
    with pytest.raises(ArgumentError, match="give one or the other"):
        TLSOptions(psk=PAIR, psk_file=file)


def test_a_key_needs_no_host_name(psk_here: None) -> None:
    open_transport("serial:///dev/ttyUSB0", tls=TLSOptions(psk=PAIR))
