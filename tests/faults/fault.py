"""What a fault is: a small change of the source that breaks a statement of the standard."""

from __future__ import annotations

from dataclasses import dataclass

from tests.conformance.catalogue import Key

__all__ = ["Fault", "v5", "v31", "v311"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted fault. For each of its statements a test that names it has to fail."""

    #: What the client then does wrong, in words; unique.
    name: str
    #: The statements that it breaks.
    statements: tuple[Key, ...]
    #: The source file, relative to ``device_sdk/``.
    file: str
    #: Text that is in the file exactly once, and what takes its place.
    old: str
    new: str


def v5(*ids: str) -> tuple[Key, ...]:
    """Statements of MQTT 5.0."""
    return tuple(("5.0", each) for each in ids)


def v311(*ids: str) -> tuple[Key, ...]:
    """Statements of MQTT 3.1.1."""
    return tuple(("3.1.1", each) for each in ids)


def v31(*ids: str) -> tuple[Key, ...]:
    """Statements of MQTT 3.1, by our names."""
    return tuple(("3.1", each) for each in ids)
