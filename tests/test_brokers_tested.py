"""The page about the brokers says what the tests do, and every departure of a broker belongs to a test."""

from __future__ import annotations

import pytest

from tests.system.brokers import BROKERS, EVERY_RUN, cases, selected
from tests.system.matrix import FEATURES, deviation_of
from tests.system.table import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m tests.system"


def test_every_departure_belongs_to_a_feature_and_a_way_that_are_tested() -> None:
    page()  # the tests of the matrix have entered themselves
    used = [deviation_of(feature, case) for feature, found in FEATURES.items() for case in found.cases]
    assert [each for kind in BROKERS.values() for each in kind.deviations if each not in used] == []


def test_every_way_is_tested_with_each_feature_of_all_versions() -> None:
    page()
    assert FEATURES["QoS 1"].cases == cases()
    assert len(cases()) == len(set(cases())) > 40


def test_a_run_is_about_two_brokers_unless_it_says_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVICE_SDK_BROKERS", raising=False)
    assert selected() == EVERY_RUN
    monkeypatch.setenv("DEVICE_SDK_BROKERS", "all")
    assert selected() == tuple(BROKERS)
    monkeypatch.setenv("DEVICE_SDK_BROKERS", "mosquito")
    with pytest.raises(ValueError, match="names mosquito; there are mosquitto, iotcore"):
        selected()
