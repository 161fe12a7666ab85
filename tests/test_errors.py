"""Errors cross the border of a process, as those of a pool of processes do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from device_sdk import errors
from device_sdk.errors import (
    ArgumentError,
    DeviceSdkError,
    MissingDependency,
    RefusedError,
    RemoteProtocolError,
)

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DeviceSdkError)
]


def example(kind: type[DeviceSdkError]) -> DeviceSdkError:
    """Return an error of this kind, made as the package makes it."""
    if issubclass(kind, RefusedError):
        return kind("refused", 0x87, "not you", (("a", "b"),))
    if issubclass(kind, RemoteProtocolError):
        return kind("malformed", 0x93)
    if issubclass(kind, ArgumentError | MissingDependency):
        return kind("qos", "must be 0, 1 or 2")
    return kind("what was wrong")


@pytest.mark.parametrize(
    "way", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"]
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_it_was(
    kind: type[DeviceSdkError], way: Callable[[DeviceSdkError], object]
) -> None:
    error = example(kind)
    error.retry = "never"
    arrived = way(error)
    assert type(arrived) is kind
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))
