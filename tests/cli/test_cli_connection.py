"""The options that say how to reach the broker: credentials, TLS, proxy, headers."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path

import pytest

from device_sdk.cli import main
from device_sdk.cli.common import ExitCode, command_parser
from device_sdk.cli.connection import add_connection, one_time_client
from device_sdk.errors import ArgumentError
from device_sdk.net.tls import TlsTransport
from device_sdk.testing import Certificates
from device_sdk.testing.broker_process import MosquittoBroker


def parsed(*words: str) -> argparse.Namespace:
    parser = command_parser("x", "")
    add_connection(parser)
    return parser.parse_args(words)


def test_without_options_there_is_no_tls_and_no_proxy() -> None:
    client = one_time_client(parsed())
    assert "tcp 127.0.0.1:1883" in repr(client)


def test_tls_options_reach_the_stream(tmp_path: Path) -> None:
    ca = Certificates(tmp_path).ca
    client = one_time_client(parsed("--url", "mqtts://localhost", "--ca-file", str(ca)))
    assert "tls localhost:8883" in repr(client)
    with pytest.raises(ArgumentError, match=r"none\.pem"):
        one_time_client(parsed("--url", "mqtts://localhost", "--ca-file", "none.pem"))


def test_tls_options_for_a_url_without_tls_are_used_and_not_ignored(tmp_path: Path) -> None:
    ca = Certificates(tmp_path).ca
    client = one_time_client(parsed("--url", "mqtt://localhost", "--ca-file", str(ca)))
    assert "tls" in repr(client)


def test_each_tls_option_reaches_its_argument(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    ca, crl = certificates.ca, certificates.revocations("crl")
    words = ("--ca-file", str(ca), "--crl-file", str(crl), "--no-check-hostname")
    client = one_time_client(parsed("--url", "mqtts://localhost", *words))
    transport = client._engine.transport
    assert isinstance(transport, TlsTransport)
    context = transport._terms.options.current_context()
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED)
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    with pytest.raises(ArgumentError, match=r"none\.psk|needs Python 3\.13"):
        one_time_client(parsed("--url", "mqtts://localhost", "--psk-file", str(tmp_path / "none.psk")))


def test_a_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    arguments = parsed("-u", "me", "--password-file", str(file))
    assert one_time_client(arguments)._options.password == b"secret"
    monkeypatch.setenv("DEVICE_SDK_PASSWORD", "other")
    assert one_time_client(parsed("-u", "me"))._options.password == b"other"
    with pytest.raises(ArgumentError, match="none"):
        one_time_client(parsed("-u", "me", "--password-file", str(tmp_path / "none")))


def test_a_header_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed("--header", "Authorization: Bearer x").headers == [("Authorization", "Bearer x")]
    with pytest.raises(SystemExit):
        parsed("--header", "nonsense")
    assert "NAME:VALUE" in capsys.readouterr().err


def test_an_option_that_the_stream_has_no_use_for_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["pub", "-t", "t", "-m", "x", "--header", "A:b"]) == ExitCode.USAGE
    assert "headers" in capsys.readouterr().err


@pytest.mark.system
def test_tls_to_a_broker_without_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if not MosquittoBroker.available():
        pytest.skip("needs mosquitto")
    with MosquittoBroker() as broker:
        url = broker.url().replace("mqtt://", "mqtts://")
        assert main(["pub", "-t", "t", "-m", "x", "--url", url]) == ExitCode.NO_CONNECTION
    assert "TLS" in capsys.readouterr().err


# Options of mosquitto_pub


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["-h", "h"], "-h h: -h shows the help and takes no value; -h is --url mqtt://HOST:PORT here"),
        (["-hbroker.example"], "-h is --url mqtt://HOST:PORT here"),
        (["--host", "broker.example"], "--host is --url mqtt://HOST:PORT here"),
        (["-p", "1884"], "-p is --url mqtt://HOST:PORT here"),
        (["-i", "me"], "-i is --client-id here"),
        (["-P", "secret"], "-P is --password-file FILE, or the variable DEVICE_SDK_PASSWORD, here"),
        (["--cafile", "ca.pem"], "--cafile is --ca-file here"),
        (["--psk-identity", "sensor"], "--psk-identity is --psk-file FILE with a line IDENTITY:KEY here"),
        (["-d"], "-d is --log-level debug here"),
        (["-V", "mqttv311"], "is not one of 5.0, 3.1.1, 3.1, auto; did you mean '3.1.1'?"),
        (["-V", "5"], "did you mean '5.0'?"),
    ],
)
@pytest.mark.parametrize("command", [["pub", "-t", "a", "-m", "x"], ["sub", "-t", "a"]])
def test_an_option_of_mosquitto_pub_is_a_usage_error_with_ours(
    command: list[str], options: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in ([command[0], *options, *command[1:]], [*command, *options]):
        assert main(argv) == ExitCode.USAGE
        assert advice in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_pub_and_sub_is_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pub", "sub"):
        assert main([command, option]) == ExitCode.OK
        assert "-h, --help" in capsys.readouterr().out
