"""The tables of the store on disk, and the migration of older ones.

Frequent writes touch few pages: adding a message writes only the last page of ``message``, because its row
carries the running totals that opening needs. A packet identifier goes to the small ``in_flight`` table
instead of the message's row, so that sending does not write the message again.
"""

from __future__ import annotations

import sqlite3

from device_sdk.errors import StoreError
from device_sdk.store.checksum import of_row

__all__ = [
    "APPLICATION_ID",
    "COUNTERS",
    "MESSAGE_CHECK",
    "MESSAGE_COLUMNS",
    "MIGRATIONS",
    "PAGE_SIZE",
    "PRAGMAS",
    "SEALED",
    "SESSION_COLUMNS",
    "SIZE",
    "define",
    "insert",
    "migrate",
    "version_of",
]

#: In the header of the file: "DSDK". Any other number marks the database of another program.
APPLICATION_ID = 0x4453444B

#: How messages ended; the words of a ``done`` change. A QoS 0 message that waited ends as ``sent``.
COUNTERS = ("acknowledged", "sent", "refused", "expired", "dropped", "invalidated", "damaged")

#: Columns of the one row of ``session``. ``written`` and ``written_bytes`` are of all messages that ever got
#: a row, ``removed`` and ``removed_bytes`` of those whose row is gone; the difference is in the queue and on
#: the shelf. ``pushed_off``: for which the shelf had no room; they are in a counter besides.
#: ``checked_from``: messages with a smaller sequence number were written by an older release, without a
#: checksum, or were in a file that was lost. In the order of the table: a new one is the last.
SESSION_COLUMNS = (
    "next_sequence",
    "last_packet_id",
    "written",
    "written_bytes",
    "removed",
    "removed_bytes",
    *COUNTERS,
    "pushed_off",
    "checked_from",
)
_FIRST_COLUMNS = SESSION_COLUMNS[:12]  # of version 1
_CHECKED_COLUMNS = SESSION_COLUMNS[:15]  # of version 3

#: Columns of a message: those of a SavedMessage in its order, up to ``expires_at``, and the clock's.
MESSAGE_COLUMNS = "message.sequence, topic, payload, flags, properties, expires_at, life, wall_expiry, boot"

#: The columns by which a message is checked.
MESSAGE_CHECK = "message.written, message.written_bytes, message.checksum"

#: The other tables -> the columns that their checksum is of; that of ``session`` is of SESSION_COLUMNS.
SEALED = {
    "in_flight": "sequence, packet_id, released, turn",
    "received": "packet_id",
    "withheld": "packet_id",
    "subscription": "topic_filter, qos, no_local, retain_as_published, retain_handling",
    "fact": "name, value",
    "shelf": "sequence, place, status, reason, at",
}

#: The size of a message, as in ``store.base.message_size()``.
SIZE = "length(topic) + length(properties) + length(payload)"

#: The first n entries make version n. An entry is never changed once it was released.
MIGRATIONS: list[tuple[str, ...]] = [
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """CREATE TABLE message (
            sequence INTEGER PRIMARY KEY,
            flags INTEGER NOT NULL,
            written INTEGER NOT NULL,        -- running totals, this message included
            written_bytes INTEGER NOT NULL,
            expires_at REAL,                 -- see clock.py; all four NULL: never
            life REAL,
            wall_expiry REAL,
            boot INTEGER,
            topic BLOB NOT NULL,
            properties BLOB NOT NULL,
            payload BLOB NOT NULL            -- last: reading the others never follows its overflow pages
        )""",
        "CREATE INDEX message_latest ON message (sequence) WHERE flags & 16",
        """CREATE TABLE in_flight (
            sequence INTEGER PRIMARY KEY,
            packet_id INTEGER NOT NULL,
            released INTEGER NOT NULL,       -- 1: PUBREC has arrived
            turn INTEGER NOT NULL            -- order of the PUBLISHs, of the PUBRECs where released
        )""",
        "CREATE TABLE received (packet_id INTEGER PRIMARY KEY)",
        """CREATE TABLE subscription (
            topic_filter TEXT PRIMARY KEY,
            qos INTEGER NOT NULL,
            no_local INTEGER NOT NULL,
            retain_as_published INTEGER NOT NULL,
            retain_handling INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE TABLE fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "CREATE TABLE session (" + ", ".join(f"{name} INTEGER NOT NULL" for name in _FIRST_COLUMNS) + ")",
        "INSERT INTO session VALUES (1" + ", 0" * (len(_FIRST_COLUMNS) - 1) + ")",
    ),
    (
        """CREATE TABLE shelf (
            place INTEGER PRIMARY KEY,       -- the order in which they came
            sequence INTEGER NOT NULL UNIQUE,
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            at REAL NOT NULL
        )""",
        "CREATE TABLE withheld (packet_id INTEGER PRIMARY KEY)",
        "ALTER TABLE session ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE session ADD COLUMN pushed_off INTEGER NOT NULL DEFAULT 0",
    ),
    (
        "ALTER TABLE message ADD COLUMN checksum INTEGER",  # see checksum.py; NULL: below checked_from
        "ALTER TABLE session ADD COLUMN checked_from INTEGER NOT NULL DEFAULT 0",
        """UPDATE session SET checked_from =
            max(next_sequence, (SELECT coalesce(max(sequence), 0) + 1 FROM message))""",
        "ALTER TABLE session ADD COLUMN checksum INTEGER",
        f"UPDATE session SET checksum = row_checksum({', '.join(_CHECKED_COLUMNS)})",
        "ALTER TABLE shelf RENAME TO shelf_2",
        """CREATE TABLE shelf (
            sequence INTEGER PRIMARY KEY,
            place INTEGER NOT NULL,          -- without an index: nobody checks the rows of one
            status TEXT NOT NULL,
            reason TEXT NOT NULL,
            at REAL NOT NULL
        )""",
        "INSERT INTO shelf SELECT sequence, place, status, reason, at FROM shelf_2",
        "DROP TABLE shelf_2",
        *(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER" for table in SEALED),
        *(f"UPDATE {table} SET checksum = row_checksum({columns})" for table, columns in SEALED.items()),
    ),
]

#: A third less is written than with SQLite's 4 KiB (docs/decisions/0009).
PAGE_SIZE = 2048

#: For each writing connection. A checkpoint after 512 pages keeps the log at 1 MiB, overwritten in place.
#: Deleted messages are not overwritten with zeros: that would double the writes to a card.
PRAGMAS = (
    f"PRAGMA page_size = {PAGE_SIZE}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA wal_autocheckpoint = 512",
    "PRAGMA journal_size_limit = 1048576",
    "PRAGMA cache_size = -512",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA secure_delete = OFF",
)


def insert(table: str, *, instead: str = "REPLACE") -> str:
    """Return the statement that inserts a row of a table of SEALED, with its checksum."""
    columns = SEALED[table]
    marks = ", ".join(f"?{number}" for number in range(1, columns.count(",") + 2))
    return f"INSERT OR {instead} INTO {table} ({columns}, checksum) VALUES ({marks}, row_checksum({marks}))"


def define(connection: sqlite3.Connection) -> None:
    """Give a connection what the statements here need, and have it take damaged text as it is."""
    connection.create_function("row_checksum", -1, of_row, deterministic=True)
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    connection.execute("PRAGMA cell_size_check = ON")


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """Return the version of the tables, 0 if there are none; nothing is written.

    Raises: StoreError: it belongs to another program, or to a newer release.
    """
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        return 0
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: this is the SQLite database of another program; name another file")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: it was written by a newer release (schema {version}, this one knows up to "
            f"{len(MIGRATIONS)}); update device_sdk or name another file"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables from this version up to date, each step in a transaction. Raises: sqlite3.Error.

    The connection went through :func:`define`.
    """
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
