"""What users can see of the package is what ``public_surface.txt`` says, until a change of it is meant."""

from __future__ import annotations

import difflib

import pytest

import device_sdk
from tests.surface import FILE, surface


def test_the_public_surface_is_what_the_file_says() -> None:
    """If the change is meant: ``python -m tests.surface``, and explain the difference of the file."""
    written, found = FILE.read_text(encoding="utf-8").splitlines(), surface().splitlines()
    difference = difflib.unified_diff(written, found, "public_surface.txt", "the package", lineterm="", n=1)
    assert "\n".join(difference) == ""


@pytest.mark.parametrize(
    "line",
    [
        "class Delivery",  # what publish() returns
        "    from device_sdk, device_sdk.engine.outgoing.delivery",
        "class Stats",  # only an annotation leads there
        "    attribute bytes_sent",
        "class paho.v1 Client",
        "    is a TransportError, DeviceSdkError, OSError, Exception, BaseException",
        "    store_failed",
        "    device_sdk.packets",
        "command device-sdk queue",
        "    69 MISSING",
        '        qos: {"default": 1, "maximum": 2, "minimum": 0, "type": "integer"}',
    ],
)
def test_it_speaks_of_what_users_meet(line: str) -> None:
    assert line in FILE.read_text(encoding="utf-8").splitlines()


def test_a_method_that_moves_to_a_base_class_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start = vars(device_sdk.Client)["start"]
    monkeypatch.delattr(device_sdk.Client, "start")
    monkeypatch.setattr(device_sdk.Client.__mro__[1], "start", start, raising=False)
    assert device_sdk.Client.start is start
    assert surface() == FILE.read_text(encoding="utf-8")


def test_a_default_that_changes_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: device_sdk.Client, drain: float = 6.0) -> None: ...

    monkeypatch.setattr(device_sdk.Client, "close", close)
    assert "    method close(drain: float = 6.0) -> None" in surface().splitlines()
