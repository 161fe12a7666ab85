"""The matrix of brokers, versions and streams: which test runs where, and the page that tells it.

A test says what it shows with :func:`on_every_broker` and gets a :class:`Place`. The page
``docs/brokers-tested.md`` is written from the same list by ``python -m tests.system``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from device_sdk import Client
from tests.system.brokers import BROKERS, Case, cases, selected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.matrix_broker import Deviation, MatrixBroker

    Test = TypeVar("Test", bound=Callable[..., object])

__all__ = ["FEATURES", "Feature", "Place", "deviation_of", "on_every_broker"]

T = TypeVar("T")
_numbers = itertools.count()


@dataclass(frozen=True)
class Feature:
    """What one test of the matrix shows, and where."""

    test: str
    cases: list[Case]


FEATURES: dict[str, Feature] = {}
"""Filled by the decorator, in the order of the tests."""


@dataclass
class Place:
    """A started broker, and one way to it."""

    broker: MatrixBroker
    case: Case
    deviation: Deviation | None
    topic: str = field(default_factory=lambda: f"matrix/{next(_numbers)}")
    """The test's own: the broker is shared."""

    @property
    def name(self) -> str:
        """A client identifier for this test alone."""
        return self.topic.replace("/", "-")

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of a client for this way, together with others."""
        return self.broker.options(self.case.stream, self.case.version) | more

    def client(self, **more: Any) -> Client:
        """Return a client for this way, not started."""
        return Client(**self.options(**more))

    def neighbour(self, **more: Any) -> Client:
        """Return a client of the same broker over TCP, unless it has only one way."""
        stream = self.case.stream if self.broker.alone else "tcp"
        return Client(**(self.broker.options(stream, self.case.version) | more))

    def expected(self, usual: T) -> T:
        """Return what this broker is known to do instead of the usual."""
        if self.deviation is None:
            return usual
        assert isinstance(self.deviation.expected, type(usual))
        return self.deviation.expected


def on_every_broker(
    feature: str, where: Callable[[Case], bool] = lambda case: True
) -> Callable[[Test], Test]:
    """Run a test with each selected broker, in each version, over each stream; ``where`` leaves ways out."""
    found = [case for case in cases() if where(case)]

    def decorate(test: Test) -> Test:
        FEATURES[feature] = Feature(test.__name__, found)
        chosen = selected()
        ways = [_parameter(feature, case) for case in found if case.broker in chosen]
        marked: Test = pytest.mark.parametrize("place", ways, indirect=True)(test)
        return marked

    return decorate


def deviation_of(feature: str, case: Case) -> Deviation | None:
    """Return what is known of the broker there, ``None`` when it does as the rest."""
    known = BROKERS[case.broker].deviations
    return next((each for each in known if each.concerns(feature, case.version, case.stream)), None)


def _parameter(feature: str, case: Case) -> Any:
    deviation = deviation_of(feature, case)
    marks = []
    if deviation is not None and deviation.expected is None:
        marks.append(pytest.mark.xfail(reason=deviation.reason, strict=True))
    return pytest.param((case, deviation), id=str(case), marks=marks)
