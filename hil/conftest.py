"""Loads the plugin even if device_sdk is not installed; its scenarios need a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["device_sdk_hil.plugin"]

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
