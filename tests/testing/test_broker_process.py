"""Real brokers as children: they start, keep what they should, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from device_sdk.errors import ArgumentError, DeviceSdkError, MissingDependency
from device_sdk.testing import broker_process as broker_module
from device_sdk.testing.broker_process import (
    BROKERS,
    ChildBroker,
    IotcoreBroker,
    MosquittoBroker,
    find_broker,
)
from tests.processes import ended_within, processes_with


def answers(url: str) -> bool:
    """Send a CONNECT (MQTT 3.1.1, Clean Session) and tell whether a CONNACK comes back."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 78"))
        return connection.recv(4) == bytes.fromhex("20 02 00 00")


def child(name: str) -> ChildBroker:
    if not BROKERS[name].available():
        pytest.skip(f"needs {name}")
    return BROKERS[name]()


@pytest.mark.system
@pytest.mark.parametrize("name", BROKERS)
def test_a_broker_listens_while_it_is_entered_and_is_gone_afterwards(name: str) -> None:
    with child(name) as broker:
        pid, folder = broker.pid, broker.folder
        assert pid is not None and folder is not None and folder.is_dir()
        assert urlsplit(broker.url("3.1.1")).hostname == "127.0.0.1"
        assert answers(broker.url("3.1.1"))
    assert not folder.exists()
    assert ended_within(pid, 0)
    with pytest.raises(OSError):
        answers(broker.url("3.1.1"))


@pytest.mark.system
def test_stopping_twice_and_starting_twice_do_nothing() -> None:
    broker = child("mosquitto")
    broker.stop()
    with broker:
        pid = broker.pid
        broker.start()
        assert broker.pid == pid
    broker.stop()


@pytest.mark.system
def test_a_restarted_mosquitto_is_on_the_same_port_with_the_data_of_before() -> None:
    with child("mosquitto") as broker:
        url, pid = broker.url(), broker.pid
        # It listens before it handles signals: a SIGTERM in between ends it without its database.
        assert answers(url)
        broker.restart()
        assert broker.folder is not None
        assert (broker.folder / "mosquitto.db").stat().st_size > 0
        assert broker.url() == url
        assert broker.pid != pid
        assert answers(url)


def test_a_port_belongs_to_its_broker_before_it_starts_and_while_it_is_away() -> None:
    brokers = [MosquittoBroker() for _ in range(300)]
    assert len({broker.url() for broker in brokers}) == 300
    port = urlsplit(brokers[0].url()).port
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(("127.0.0.1", port))
    brokers.clear()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


@pytest.mark.system
@pytest.mark.parametrize("name", BROKERS)
def test_a_killed_parent_takes_broker_and_folder_with_it(name: str) -> None:
    child(name)
    marker = f"DEVICE_SDK_TEST_MARKER={os.getpid()}-{name}"
    key, _, value = marker.partition("=")
    program = (
        "import os, signal, sys\n"
        "from device_sdk.testing.broker_process import find_broker\n"
        "broker = find_broker(sys.argv[1])\n"
        "broker.start()\n"
        "print(broker.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program, name],
        env={**os.environ, key: value}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        assert run.wait(20) == -signal.SIGKILL
    assert all(ended_within(pid, 10) for pid in processes_with(marker))
    assert not folder.exists()


@pytest.mark.system
def test_ctrl_c_in_the_terminal_does_not_reach_the_broker() -> None:
    with child("mosquitto") as broker:
        assert broker.pid is not None
        assert os.getsid(broker.pid) != os.getsid(0)


@pytest.mark.system
def test_a_broker_that_ends_at_once_shows_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = child("mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(broker, "_port", taken.getsockname()[1])
        monkeypatch.setattr(broker_module, "_listens", lambda port: False)
        with pytest.raises(DeviceSdkError, match=r"mosquitto ended with status .*Address already in use"):
            broker.start()
    assert broker.folder is None


def test_mosquitto_is_preferred_and_found_outside_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(broker_module, "_ADMIN_FOLDERS", (str(tmp_path),))
    assert broker_module.mosquitto_path() == str(program)
    assert isinstance(find_broker(), MosquittoBroker)


def test_iotcore_is_the_second_choice_or_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IotcoreBroker, "available", classmethod(lambda cls: True))
    assert isinstance(find_broker("iotcore"), IotcoreBroker)
    monkeypatch.setattr(MosquittoBroker, "available", classmethod(lambda cls: False))
    assert isinstance(find_broker(), IotcoreBroker)


def test_no_broker_at_all_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in BROKERS.values():
        monkeypatch.setattr(kind, "available", classmethod(lambda cls: False))
    with pytest.raises(MissingDependency) as caught:
        find_broker()
    assert str(caught.value) == (
        "No MQTT broker found. Install Mosquitto (sudo apt install mosquitto); "
        "the built-in one needs what is not installed: pip install 'iotcore>=0.4'"
    )
    with pytest.raises(MissingDependency):
        find_broker("mosquitto")


def test_an_unknown_broker_and_an_unknown_version_are_named() -> None:
    with pytest.raises(ArgumentError, match="'emqx' is not one of mosquitto, iotcore"):
        find_broker("emqx")
    with pytest.raises(ArgumentError, match=r"'3\.1' is not spoken"):
        IotcoreBroker().url("3.1")
