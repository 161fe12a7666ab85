"""Recognition of what answers instead of an MQTT broker, by its first bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk._peers import in_words, looks_like_mqtt, recognise

LOGIN = b"\r\nDebian GNU/Linux 12 rpi ttyAMA0\r\n\r\nrpi login: "

# First bytes -> what they are called, and a word of the remedy.
KNOWN = [
    (bytes.fromhex("15 03 01 00 02 02 46"), "a server that wants TLS", "mqtts://"),
    (bytes.fromhex("15 03 03 00 02 02 0a"), "a server that wants TLS", "wss://"),
    (bytes.fromhex("16 03 03 00 7a 02 00"), "a server that wants TLS", "mqtts://"),
    (bytes.fromhex("10 17 00 04") + b"MQTT\x05", "our own CONNECT that comes back", "loopback"),
    (bytes.fromhex("10 97 01 00 06") + b"MQIsdp\x03", "our own CONNECT that comes back", "echoes"),
    (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>", "an HTTP server", "ws://"),
    (b"HTTP/1.0 400 Bad request\r\n\r\n", "an HTTP server", "ws://"),
    (b'<!DOCTYPE HTML>\n<html lang="en">', "an HTTP server", "ws://"),
    (b"\n<html><head><title>400", "an HTTP server", "ws://"),
    (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", "an SSH server", "check host and port"),
    (b"220 mail.example ESMTP Postfix\r\n", "a mail or FTP server", "check host and port"),
    (b"220-(vsFTPd 3.0.3)\r\n", "a mail or FTP server", "check host and port"),
    (b"+OK Dovecot ready.\r\n", "(POP3)", "check host and port"),
    (b"* OK [CAPABILITY IMAP4rev1]\r\n", "(IMAP)", "check host and port"),
    (b"RFB 003.008\n", "a VNC server", "check host and port"),
    (b"AMQP\x00\x00\x09\x01", "an AMQP broker", "its port for MQTT"),
    (b'INFO {"server_id":"N', "a NATS server", "its port for MQTT"),
    (b"-ERR unknown command\r\n", "a Redis server", "check host and port"),
    (b"\x4a\x00\x00\x00\x0a8.0.36\x00", "a MySQL or MariaDB server", "check host and port"),
    (bytes.fromhex("ff fd 18 ff fd 20 ff fd 23"), "Telnet", "rfc2217://"),
    (b"$GPGGA,123519,4807.038,N", "a GPS receiver", "which serial port"),
    (b"\r\nNO CARRIER\r\n", "a modem in command mode", "dial"),
    (b"AT+CGATT?\r\r\nOK\r\n", "a modem in command mode", "dial"),
    (LOGIN, "a console", "getty"),
    (b"rpi login: ", "a console", "getty"),
    (b"Password: ", "a console", "getty"),
    (b"pi@rpi:~$ ", "a console", "getty"),
    (b"[    0.000000] Booting Linux on physical CPU 0x0\r\n", "a console", "console="),
    (b"U-Boot 2023.01 (Mar 01 2023)\r\n", "a console", "getty"),
    (b"temperature 21.5\r\n", "it sends text", "console"),
    (b"\r", "it sends text", "console"),
]

PACKETS = [
    bytes.fromhex("20 02 00 00"),
    bytes.fromhex("20 02 00 01"),
    bytes.fromhex("20 03 00 87 00"),
    bytes.fromhex("30 05 00 01 61 68 69"),
    bytes.fromhex("3b 07 00 01 61 00 01 00 00"),
    bytes.fromhex("40 02 00 01"),
    bytes.fromhex("62 02 00 01"),
    bytes.fromhex("90 03 00 01 00"),
    bytes.fromhex("d0 00"),
    bytes.fromhex("e0 01 8b"),
    bytes.fromhex("f0 02 18 00"),
]


@pytest.mark.parametrize(("first", "what", "remedy"), KNOWN, ids=lambda value: repr(value)[:30])
def test_what_answers_is_named_with_what_to_do(first: bytes, what: str, remedy: str) -> None:
    words = recognise(first)
    assert what in words
    assert remedy in words
    assert in_words(first) == words


@pytest.mark.parametrize("first", PACKETS, ids=lambda value: value.hex(" "))
def test_a_packet_of_a_broker_is_called_nothing_else(first: bytes) -> None:
    assert recognise(first) == ""
    assert looks_like_mqtt(first)


@pytest.mark.parametrize("first", [b"\xff\xfe\x80\x00\xff", b"\xc0\xf7\xd1\x76", bytes(8), b"\x81\x00"])
def test_other_bytes_are_shown_with_the_advice_for_a_serial_line(first: bytes) -> None:
    assert not looks_like_mqtt(first)
    words = in_words(first)
    assert first.hex(" ") in words
    assert "baud rate" in words


@given(st.binary(min_size=1, max_size=400))
def test_no_byte_of_the_peer_reaches_a_terminal_or_forges_a_line(first: bytes) -> None:
    assert in_words(first).isascii()
    assert in_words(first).isprintable()
    assert len(in_words(first)) < 600
