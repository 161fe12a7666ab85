"""Topic names, topic filters and the look-up over many filters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.mqtt.topics import (
    FilterTree,
    shared_filter,
    topic_matches,
    validate_filter,
    validate_topic,
)

MATCHES = [
    ("a/b", "a/b"),
    ("a/+", "a/b"),
    ("a/+", "a/"),
    ("+", "a"),
    ("+/+", "/a"),
    ("/+", "/a"),
    ("#", "a/b/c"),
    ("#", "/"),
    ("a/#", "a"),
    ("a/#", "a/b/c"),
    ("+/#", "a"),
    ("a/+/c", "a/b/c"),
    ("a//b", "a//b"),
    ("a/+/b", "a//b"),
    ("$SYS/#", "$SYS/uptime"),
    ("$SYS/+", "$SYS/uptime"),
    ("a/#", "a/$b"),
    ("$share/group/a/#", "a/b"),
    ("$share/group//a", "/a"),
]

MISSES = [
    ("a/b", "a"),
    ("a/b", "A/b"),
    ("a/+", "a"),
    ("a/+", "a/b/c"),
    ("+", "/a"),
    ("a/#", "ab"),
    ("a/b/#", "a"),
    ("#", "$SYS/uptime"),
    ("+/uptime", "$SYS/uptime"),
    ("+", "$SYS"),
    ("$share/group/#", "$SYS/uptime"),
    ("$share/group/a", "$share/group/a"),
    ("a/", "a"),
]


@pytest.mark.conformance("5.0", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@pytest.mark.conformance("3.1.1", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@pytest.mark.parametrize(("topic_filter", "topic"), MATCHES)
def test_filter_matches_topic(topic_filter: str, topic: str) -> None:
    tree = FilterTree()
    tree.insert(topic_filter, "value")
    assert topic_matches(topic_filter, topic)
    assert tree.match(topic) == ["value"]


@pytest.mark.conformance("5.0", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@pytest.mark.conformance("3.1.1", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@pytest.mark.parametrize(("topic_filter", "topic"), MISSES)
def test_filter_does_not_match_topic(topic_filter: str, topic: str) -> None:
    tree = FilterTree()
    tree.insert(topic_filter, "value")
    assert not topic_matches(topic_filter, topic)
    assert tree.match(topic) == []


def beginning(text: str) -> str:
    """A test identifier that stays short."""
    return ascii(text[:12])


@pytest.mark.parametrize(
    "topic", ["a", "/", "//", "a b", "\ufeffa", "$SYS/x", "é/✓", "a" * 65_535, "/" * 199], ids=beginning
)
def test_valid_topic_comes_back_as_utf8(topic: str) -> None:
    assert validate_topic(topic) == topic.encode()


@pytest.mark.conformance(
    "5.0", "MQTT-3.3.2-2", "MQTT-4.7.0-1", "MQTT-4.7.3-1", "MQTT-4.7.3-2", "MQTT-4.7.3-3"
)
@pytest.mark.conformance(
    "3.1.1", "MQTT-3.3.2-2", "MQTT-4.7.1-1", "MQTT-4.7.3-1", "MQTT-4.7.3-2", "MQTT-4.7.3-3"
)
@pytest.mark.parametrize(
    "topic", ["", "#", "a/+", "a+b", "a\0b", "\ud800", "a" * 65_536, "é" * 32_768, "/" * 200], ids=beginning
)
def test_invalid_topic_is_refused_and_the_argument_is_named(topic: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        validate_topic(topic, "response_topic")
    assert caught.value.argument == "response_topic"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("topic", [None, b"a", 5])
def test_topic_that_is_not_a_str_is_a_type_error(topic: Any) -> None:
    with pytest.raises(ArgumentTypeError):
        validate_topic(topic)
    with pytest.raises(ArgumentTypeError):
        validate_filter(topic)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "a",
        "#",
        "+",
        "/",
        "+/#",
        "a/+/b",
        "a/#",
        "$share/g/a",
        "$share/g/#",
        "$share/g//",
        "$share",
        "/" * 199,
    ],
    ids=beginning,
)
def test_valid_filter_comes_back_as_utf8(topic_filter: str) -> None:
    assert validate_filter(topic_filter) == topic_filter.encode()


@pytest.mark.conformance(
    "5.0",
    "MQTT-4.7.1-1",
    "MQTT-4.7.1-2",
    "MQTT-4.7.3-1",
    "MQTT-4.7.3-2",
    "MQTT-4.7.3-3",
    "MQTT-4.8.2-1",
    "MQTT-4.8.2-2",
)
@pytest.mark.conformance(
    "3.1.1", "MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.3-1", "MQTT-4.7.3-2", "MQTT-4.7.3-3"
)
@pytest.mark.parametrize(
    "topic_filter",
    [
        "", "a#", "#/a", "a/#/b", "a+", "a/+b", "+a/b", "##", "a\0", "\udfff", "a" * 65_536, "/" * 200,
        "$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a", "$share/g/a#",
    ],
    ids=beginning,
)  # fmt: skip
def test_invalid_filter_is_refused(topic_filter: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        validate_filter(topic_filter)
    assert caught.value.argument == "topic"


def test_shared_filter_is_the_part_after_the_share_name() -> None:
    assert shared_filter("$share/group/a/#") == "a/#"
    assert shared_filter("a/$share/b") == "a/$share/b"


def test_values_come_in_insertion_order_whatever_their_filters() -> None:
    tree = FilterTree()
    for value, topic_filter in enumerate(["a/#", "a/b", "#", "+/b", "a/b", "a/+", "$share/g/a/b"]):
        tree.insert(topic_filter, value)
    assert tree.match("a/b") == [0, 1, 2, 3, 4, 5, 6]


def test_same_value_twice_is_found_twice_and_removed_once_at_a_time() -> None:
    tree = FilterTree()
    for topic_filter in ("a/b", "a/+"):
        tree.insert(topic_filter, "value")
        tree.insert(topic_filter, "value")
    assert tree.match("a/b") == ["value"] * 4
    for topic_filter in ("a/b", "a/+", "a/+", "a/b"):
        before = len(tree.match("a/b"))
        tree.remove(topic_filter, "value")
        assert len(tree.match("a/b")) == before - 1


def test_removing_what_was_never_inserted_changes_nothing() -> None:
    tree = FilterTree()
    tree.insert("a/+", "value")
    for topic_filter in ("a/b", "a/#", "a/+/c", "+", "#"):
        tree.remove(topic_filter, "value")
    tree.remove("a/+", "other")
    assert tree.match("a/b") == ["value"]


def test_removed_filters_leave_no_branches_behind() -> None:
    tree = FilterTree()
    for topic_filter in ("a/b/+", "a/+/c/#", "#", "a/b"):
        tree.insert(topic_filter, 1)
    for topic_filter in ("a/b", "#", "a/b/+", "a/+/c/#"):
        tree.remove(topic_filter, 1)
    assert not tree._root.children
    assert not tree._root.rest
    assert not tree._exact


def test_thousands_of_levels_are_no_recursion() -> None:
    tree = FilterTree()
    deep = "a/" * 30_000
    tree.insert(deep + "#", "value")
    assert tree.match(deep + "b") == ["value"]
    tree.remove(deep + "#", "value")
    assert tree.match(deep + "b") == []


level = st.sampled_from(["a", "b", "", "$x"])
topics = st.lists(level, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda levels, multi: "/".join([*levels, *multi]),
    st.lists(level | st.just("+"), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(st.lists(filters, max_size=12), st.lists(st.integers(0, 11), max_size=6), topics)
def test_tree_finds_what_topic_matches_says(inserted: list[str], removed: list[int], topic: str) -> None:
    tree = FilterTree()
    for value, topic_filter in enumerate(inserted):
        tree.insert(topic_filter, value)
    gone = {value for value in removed if value < len(inserted)}
    for value in gone:
        tree.remove(inserted[value], value)
    assert tree.match(topic) == [
        value
        for value, topic_filter in enumerate(inserted)
        if value not in gone and topic_matches(topic_filter, topic)
    ]
