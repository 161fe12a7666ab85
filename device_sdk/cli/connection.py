"""Command line options for the connection to the broker, and the client made from them."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import device_sdk
from device_sdk import Client
from device_sdk._words import version_hint
from device_sdk.cli.common import Parser
from device_sdk.errors import ArgumentError

if TYPE_CHECKING:
    from device_sdk import TLSOptions

__all__ = ["add_connection", "connect_once", "one_time_client"]

_DEFAULT_URL = "mqtt://127.0.0.1"
_PASSWORD_VARIABLE = "DEVICE_SDK_PASSWORD"

# Option -> argument of TLSOptions.
_TLS = {
    "ca_file": "ca_file", "crl_file": "crl_file", "cert": "certificate", "key": "key",
    "server_name": "server_name", "psk_file": "psk_file",
}  # fmt: skip


# Option of mosquitto_pub and mosquitto_sub, and what people try -> ours. Source: mosquitto_pub(1).
_FOREIGN = {
    **dict.fromkeys(("-h", "--host", "-p", "--port", "-L"), "--url mqtt://HOST:PORT"),
    **dict.fromkeys(("-i", "--id", "--client_id"), "--client-id"),
    **dict.fromkeys(
        ("-P", "--pw", "--password"), f"--password-file FILE, or the variable {_PASSWORD_VARIABLE},"
    ),
    **dict.fromkeys(("--username", "--user"), "--user-name"),
    **dict.fromkeys(("--cafile", "--ca"), "--ca-file"),
    "--capath": "the variable SSL_CERT_DIR",
    "--psk-identity": "--psk-file FILE with a line IDENTITY:KEY",
    "--tls-use-os-certs": "mqtts:// in --url",
    "--mqtt-version": "-V",
    "--protocol-version": "-V",
    **dict.fromkeys(("-d", "--debug"), "--log-level debug"),
    **dict.fromkeys(("-l", "--stdin-line", "-s", "--stdin-file"), "--stdin-lines"),
    "--null-message": "-m ''",
    "-C": "-n",
    "-W": "--timeout",
    "--ws": "ws://HOST:PORT/PATH in --url",
}


def _version(text: str) -> str | None:
    if text == "auto":
        return None
    if text not in ("5.0", "3.1.1", "3.1"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of 5.0, 3.1.1, 3.1, auto{version_hint(text)}")
    return text


def add_connection(parser: Parser) -> None:
    """Add the options to a command's parser."""
    parser.foreign = _FOREIGN
    parser.add_argument(
        "--url", default=_DEFAULT_URL,
        help="mqtt[s]://[user:password@]host[:port], ws[s]://host[:port][/path], unix:/path, serial:/dev/... "
        f"(default: {_DEFAULT_URL})",
    )  # fmt: skip
    parser.add_argument("--client-id", metavar="ID", help="client identifier (default: a random one)")
    parser.add_argument("-u", "--user-name", metavar="NAME", help="user name")
    parser.add_argument(
        "--password-file", metavar="FILE",
        help=f"file with the password in one line (or the variable {_PASSWORD_VARIABLE})",
    )  # fmt: skip
    parser.add_argument(
        "-V", dest="version", type=_version, default="5.0", metavar="VERSION",
        help="MQTT version: 5.0, 3.1.1, 3.1 or auto, 3.1.1 if the broker refuses 5.0 (default: 5.0)",
    )  # fmt: skip
    tls = parser.add_argument_group("TLS", "for mqtts:// and wss://")
    tls.add_argument("--ca-file", metavar="FILE", help="PEM file of the CAs to trust instead of the system's")
    tls.add_argument("--crl-file", metavar="FILE", help="PEM file of revoked certificates, of the same CA")
    tls.add_argument("--cert", metavar="FILE", help="PEM file of the client certificate")
    tls.add_argument("--key", metavar="FILE", help="PEM file of its key")
    tls.add_argument("--server-name", metavar="NAME", help="the name in the broker's certificate")
    tls.add_argument(
        "--psk-file", metavar="FILE",
        help="file with one line IDENTITY:KEY in hexadecimal digits, instead of certificates (Python 3.13)",
    )  # fmt: skip
    tls.add_argument(
        "--no-check-hostname", action="store_true",
        help="check the broker's certificate, but not that it is the host's",
    )  # fmt: skip
    tls.add_argument("--insecure", action="store_true", help="do not check the broker's certificate at all")
    stream = parser.add_argument_group("network")
    stream.add_argument("--proxy", metavar="URL", help="socks5://[user:password@]host:port, http://host:port")
    stream.add_argument(
        "--header", dest="headers", action="append", default=[], type=_header, metavar="NAME:VALUE",
        help="header of the WebSocket request; may be given several times",
    )  # fmt: skip


def one_time_client(arguments: argparse.Namespace) -> Client:
    """Return a client for one use: the broker keeps no session of it."""
    return Client(
        arguments.url,
        client_id=arguments.client_id,
        version=arguments.version,
        user_name=arguments.user_name,
        password=_password(arguments.password_file),
        tls=_tls_options(arguments),
        proxy=arguments.proxy,
        network={"headers": dict(arguments.headers)} if arguments.headers else None,
        clean_start=True,
        session_expiry=0,
    )


def connect_once(client: Client, timeout: float) -> None:
    """Connect within ``timeout`` seconds, or close the client and raise the error.

    The command prints that error as its one line. The client's warning with the same words, and the time of
    an attempt that will not happen, is kept out of the log unless its level is ``info`` or ``debug``.
    """
    log = logging.getLogger("device_sdk.engine")
    log.addFilter(_is_news)
    try:
        client.connect(timeout)
    except BaseException:
        client.close()  # ends the thread that writes the log, so before the filter goes
        raise
    finally:
        log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return logging.getLogger().level < logging.WARNING or "connect_failed" not in (record.args or ())


def _tls_options(arguments: argparse.Namespace) -> TLSOptions | None:
    given = {name: getattr(arguments, option) for option, name in _TLS.items() if getattr(arguments, option)}
    if not (given or arguments.insecure or arguments.no_check_hostname):
        return None
    return device_sdk.TLSOptions(  # loads ssl, so not before
        **given, insecure=arguments.insecure, check_hostname=not arguments.no_check_hostname
    )


def _password(file: str | None) -> str | None:
    if file is None:
        return os.environ.get(_PASSWORD_VARIABLE)
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError("password-file", f"{file} cannot be read: {error}") from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:VALUE")
    return name.strip(), value.strip()
