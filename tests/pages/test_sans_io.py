"""Every program of docs/sans-io.md runs and prints what the page says."""

from __future__ import annotations

import pytest

from device_sdk import Client
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.broker_process import MosquittoBroker
from tests.pages.page import blocks
from tests.pages.program import SECONDS, Places, Program

BLOCKS = blocks("sans-io.md")
SOCKET = "With a socket and a loop of your own"
PRINTING = ["A whole conversation", "With a store", "Packets only"]


def of(heading: str, language: str) -> str:
    (found,) = [each.text for each in BLOCKS if (each.heading, each.language) == (heading, language)]
    return found


def test_there_are_no_other_blocks() -> None:
    both = [(heading, language) for heading in PRINTING for language in ("python", "text")]
    assert sorted((each.heading, each.language) for each in BLOCKS) == sorted([*both, (SOCKET, "python")])


@pytest.mark.parametrize("heading", PRINTING)
def test_a_program_prints_what_the_page_says(heading: str) -> None:
    assert Program(of(heading, "python")).join() == of(heading, "text").splitlines()


def test_the_loop_drives_a_connection_to_the_model_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    with BrokerServer(ModelBroker()) as server:
        Places(monkeypatch).ports["broker.example", 1883] = server.port
        assert_published()
        assert server.broker.payloads("site/17/state") == [b"online"]
        assert server.broker.violations == []


@pytest.mark.system
def test_the_loop_drives_a_connection_to_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    if not MosquittoBroker.available():
        pytest.skip("needs mosquitto")
    with MosquittoBroker() as broker, Client(broker.url()) as watcher:
        inbox = watcher.messages()
        watcher.connect(SECONDS)
        watcher.subscribe("#", qos=1).wait(SECONDS)
        Places(monkeypatch).ports["broker.example", 1883] = int(broker.url().rpartition(":")[2])
        assert_published()
        assert inbox.get(SECONDS).payload == b"online"


def assert_published() -> None:
    published, over = Program(of(SOCKET, "python")).join()
    assert published == "online acknowledged"
    assert over.startswith("over: the server closed the connection")
