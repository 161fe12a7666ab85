"""device_sdk.paho.matcher: a mapping of topic filters with a look-up by topic name."""

from __future__ import annotations

import pytest

from device_sdk.paho.matcher import MQTTMatcher
from tests.calls import Calls


def matcher(*filters: str) -> MQTTMatcher:
    made = MQTTMatcher()
    for topic_filter in filters:
        made[topic_filter] = topic_filter
    return made


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("a/b", "a/b"),
        ("a/+", "a/b"),
        ("a/#", "a"),
        ("a/#", "a/b/c"),
        ("+/+", "/a"),
        ("#", "a/b"),
        ("/#", "/a"),
        ("$SYS/#", "$SYS/a"),
        ("$share/group/a/+", "a/b"),
        ("$share/group/#", "a"),
    ],
)
def test_a_filter_is_found_by_a_topic_it_matches(topic_filter: str, topic: str) -> None:
    assert list(matcher(topic_filter).iter_match(topic)) == [topic_filter]


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("a/b", "a"),
        ("a/+", "a/b/c"),
        ("a/+", "a"),
        ("#", "$SYS/a"),
        ("+/a", "$SYS/a"),
        ("$share/group/a", "$share/group/a"),
        ("$share/group/#", "$SYS/a"),
    ],
)
def test_a_filter_is_not_found_by_another_topic(topic_filter: str, topic: str) -> None:
    assert list(matcher(topic_filter).iter_match(topic)) == []


def test_all_matching_filters_are_found_in_the_order_of_their_insertion() -> None:
    made = matcher("#", "a/b", "x", "a/+", "$share/g/a/b")
    assert list(made.iter_match("a/b")) == ["#", "a/b", "a/+", "$share/g/a/b"]


def test_a_second_value_replaces_the_first() -> None:
    made = matcher("a/+")
    made["a/+"] = "new"
    assert made["a/+"] == "new"
    assert list(made.iter_match("a/b")) == ["new"]


def test_a_deleted_filter_is_not_found() -> None:
    made = matcher("a/+", "a/b", "$share/g/a/b")
    del made["a/b"]
    assert list(made.iter_match("a/b")) == ["a/+", "$share/g/a/b"]
    del made["a/+"]
    del made["$share/g/a/b"]
    assert list(made.iter_match("a/b")) == []


@pytest.mark.parametrize("missing", ["a", "a/b/c", "x", "+/b"])
def test_a_filter_that_is_not_there_is_a_key_error(missing: str) -> None:
    made = matcher("a/b")
    with pytest.raises(KeyError, match=missing.replace("+", r"\+")):
        made[missing]
    with pytest.raises(KeyError, match=missing.replace("+", r"\+")):
        del made[missing]


def test_the_matcher_may_change_during_an_iteration() -> None:
    made = matcher("a", "#")
    found = []
    for value in made.iter_match("a"):
        found.append(value)
        for name in ("a", "#"):
            if len(found) == 1:
                del made[name]
    assert found == ["a", "#"]


def calls_of_a_look_up(filters: int) -> int:
    made = matcher(*(f"site/{number}/+/state" for number in range(filters)))
    with Calls("call", "c_call") as calls:
        found = made.iter_match("site/7/door/state")
    assert list(found) == ["site/7/+/state"]
    return calls.total


def test_a_look_up_does_the_same_work_however_many_filters_there_are() -> None:
    assert calls_of_a_look_up(10_000) == calls_of_a_look_up(10)
