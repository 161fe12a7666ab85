"""The shelf in the database: messages that are not sent any more, and identifiers that are withheld.

A message on the shelf stays in the table ``message``, where it was; a row in ``shelf`` says why it is not
sent. So shelving copies nothing and needs hardly any room, and a row that cannot be read need not be.
"""

from __future__ import annotations

from device_sdk.store.base import places_pushed_off
from device_sdk.store.schema import SIZE, insert

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from device_sdk.store.base import StorePolicy

__all__ = ["ENTRIES", "NOT_ON_SHELF", "count", "push_off", "put", "take_off", "withhold"]

#: In a WHERE clause on ``message``. The shelf is short, so this costs little.
NOT_ON_SHELF = "message.sequence NOT IN (SELECT sequence FROM shelf)"

#: (place, sequence, status, bytes) of each message, in no order: sorting would read their content.
ENTRIES = f"SELECT place, sequence, status, {SIZE} FROM shelf JOIN message USING (sequence)"


def count(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many messages are on the shelf, and their bytes."""
    sizes = [size for *_, size in connection.execute(ENTRIES)]
    return len(sizes), sum(sizes)


def put(connection: sqlite3.Connection, shelved: dict[int, tuple[str, str, float]]) -> set[int]:
    """Put messages on the shelf and return their packet identifiers, which are withheld."""
    withheld: set[int] = set()
    (place,) = connection.execute("SELECT coalesce(max(place), 0) FROM shelf").fetchone()
    for sequence, (status, reason, at) in shelved.items():
        place += 1
        if connection.execute("SELECT 1 FROM message WHERE sequence = ?", (sequence,)).fetchone():
            connection.execute(insert("shelf"), (sequence, place, status, reason, float(at)))
        found = connection.execute(
            "DELETE FROM in_flight WHERE sequence = ? RETURNING packet_id", (sequence,)
        )
        withheld.update(packet_id for (packet_id,) in found.fetchall())
    withhold(connection, withheld)
    return withheld


def withhold(connection: sqlite3.Connection, packet_ids: Iterable[int]) -> None:
    """Remember packet identifiers that no message may have until the session is lost."""
    connection.executemany(insert("withheld", instead="IGNORE"), [(each,) for each in packet_ids])


def take_off(connection: sqlite3.Connection, sequences: Iterable[int]) -> dict[int, str]:
    """Take messages off the shelf and return those that were there, with their status; their rows stay."""
    found: dict[int, str] = {}
    for sequence in sequences:
        rows = connection.execute("DELETE FROM shelf WHERE sequence = ? RETURNING status", (sequence,))
        found.update((sequence, status) for (status,) in rows.fetchall())
    return found


def push_off(connection: sqlite3.Connection, policy: StorePolicy) -> dict[int, str]:
    """Take off the messages for which there is no room, as :func:`take_off` does."""
    kept = sorted(connection.execute(ENTRIES))
    gone = places_pushed_off([size for *_, size in kept], policy)
    return take_off(connection, [kept[place][1] for place in gone])
