"""Two clients with one name: each connection of one makes the broker end that of the other, for ever."""

from __future__ import annotations

__all__ = ["TakeOvers"]

# So many connections in a row that the server ends early, without a reason, are no chance. The other client
# comes back after its own wait, 60 s at most by default.
_SUSPICIOUS = 3
_EARLY_S = 90.0


class TakeOvers:
    """Counts connections that the server has ended early; MQTT 3.x gives no reason for that."""

    __slots__ = ("_in_a_row",)

    def __init__(self) -> None:
        self._in_a_row = 0

    def ended(self, lasted: float, *, by_server: bool, client_id: str) -> str:
        """Note the end of a connection; return a hint for its text, ``""`` if there is none."""
        if not by_server or lasted > _EARLY_S:
            self._in_a_row = 0
            return ""
        self._in_a_row += 1
        if self._in_a_row < _SUSPICIOUS:
            return ""
        return (
            f"; the server has ended {self._in_a_row} connections in a row early: does another client use "
            f"the client identifier {client_id!r} as well? (See the log of the server)"
        )
