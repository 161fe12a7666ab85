"""Another thread that imports paho meanwhile finds nothing of the alias, or all of it."""

from __future__ import annotations

import sys

import pytest

from device_sdk.paho import alias


class Watched(dict[str, object]):
    """sys.modules that a thread looks into after each single entry."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __setitem__(self, name: str, module: object) -> None:
        super().__setitem__(name, module)
        self.seen.append(len(self))


@pytest.mark.parametrize("version1", [False, True])
def test_all_names_are_entered_in_one_step(monkeypatch: pytest.MonkeyPatch, version1: bool) -> None:
    modules = Watched()
    monkeypatch.setattr(sys, "modules", modules)
    alias.install(version1=version1)
    monkeypatch.undo()
    assert modules.seen == []
    assert {"paho", "paho.mqtt", "paho.mqtt.client", "paho.mqtt.publish"} <= set(modules)
