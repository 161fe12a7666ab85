"""The contract of every store: subclass :class:`StoreContract`, say how one is made, and run it.

Each test writes changes, closes, and looks at what the next process finds.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_sdk.errors import StoreError
from device_sdk.store.base import CHANGES, SavedMessage, SavedSession, Store
from device_sdk.store.memory import MemoryStore

__all__ = ["StoreContract", "saved_facts"]

Change = tuple[Any, ...]

DEADLINE_S = 10.0


def message(
    sequence: int,
    payload: bytes = b"x",
    qos: int = 1,
    *,
    topic_field: bytes = b"\0\1t",
    properties: bytes = b"\0",
    expires_at: float | None = None,
) -> Change:
    """Return the change that adds a message."""
    return "message", sequence, topic_field, payload, qos << 1, properties, expires_at


def message_facts(saved: SavedMessage) -> tuple[Any, ...]:
    return tuple(getattr(saved, name) for name in SavedMessage.__slots__)


def saved_facts(saved: SavedSession) -> tuple[Any, ...]:
    """Return everything a SavedSession says, to be compared."""
    messages = [message_facts(each) for each in saved.messages]
    return messages, set(saved.received), dict(saved.subscriptions), dict(saved.facts), saved.next_sequence


def sequences(saved: SavedSession) -> list[int]:
    return [each.sequence for each in saved.messages]


class StoreContract(ABC):
    """What every store has to do. A subclass gives the two ways to get one."""

    @abstractmethod
    def new_store(self) -> Store:
        """Return an empty store that is not open."""

    @abstractmethod
    def reopened(self, store: Store) -> Store:
        """Return a store with the data of ``store``, which was closed; not open."""

    # Helpers

    def written(self, *batches: Sequence[Change]) -> SavedSession:
        """Submit each batch, close, and return what the next process finds."""
        store = self.new_store()
        store.open()
        number = 0
        for batch in batches:
            number += len(batch)
            store.submit(batch, number)
        store.close()
        again = self.reopened(store)
        try:
            return again.open()
        finally:
            again.close()

    # Opening and closing

    def test_a_new_store_is_empty(self) -> None:
        assert saved_facts(self.written()) == ([], set(), {}, {}, 1)

    def test_a_second_client_cannot_open_it_until_the_first_has_closed_it(self) -> None:
        store = self.new_store()
        store.open()
        second = self.reopened(store)
        with pytest.raises(StoreError):
            second.open()
        store.close()
        second.open()
        second.close()

    def test_closing_twice_is_fine(self) -> None:
        store = self.new_store()
        store.open()
        store.close()
        store.close()

    def test_the_numbers_begin_again_with_each_client(self) -> None:
        store = self.new_store()
        store.open()
        store.submit([message(1), message(2)], 2)
        store.close()
        again = self.reopened(store)
        again.open()
        assert again.durable_through == 0
        again.submit([("done", 1)], 1)
        again.close()
        last = self.reopened(again)
        assert sequences(last.open()) == [2]
        last.close()

    # Progress

    def test_changes_become_durable_and_the_store_says_so(self) -> None:
        store = self.new_store()
        store.open()
        moved = threading.Event()
        store.on_progress = moved.set
        store.submit([message(1), message(2)], 2)
        store.submit([message(3)], 3)
        store.expedite(3)
        while store.durable_through < 3:
            assert moved.wait(DEADLINE_S), f"durable through {store.durable_through} of 3"
            moved.clear()
        assert store.failure is None
        store.close()

    def test_close_makes_everything_durable(self) -> None:
        assert sequences(self.written([message(number) for number in range(1, 200)])) == list(range(1, 200))

    def test_no_changes_are_no_problem(self) -> None:
        assert sequences(self.written([message(1)], [], [message(2)])) == [1, 2]

    # Messages

    @pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)), bytes(100_000)])
    @pytest.mark.parametrize("expires_at", [None, 0.0, 1234.5])
    def test_a_message_comes_back_as_it_was(self, payload: bytes, expires_at: float | None) -> None:
        change = message(
            7, payload, 2, topic_field=b"\0\3\xc3\xa9x", properties=b"\3\3\0\0", expires_at=expires_at
        )
        (saved,) = self.written([change]).messages
        assert (saved.sequence, saved.topic_field, saved.payload) == (7, b"\0\3\xc3\xa9x", payload)
        assert (saved.flags, saved.properties, saved.expires_at) == (4, b"\3\3\0\0", expires_at)
        assert (saved.packet_id, saved.released) == (0, False)
        assert type(saved.payload) is bytes

    def test_a_message_keeps_its_packet_identifier(self) -> None:
        (saved,) = self.written([message(1), ("sent", 1, 65_535)]).messages
        assert (saved.packet_id, saved.released) == (65_535, False)

    def test_a_message_past_pubrec_is_released(self) -> None:
        (saved,) = self.written([message(1, qos=2), ("sent", 1, 9), ("released", 1)]).messages
        assert (saved.packet_id, saved.released) == (9, True)

    @pytest.mark.parametrize("steps", [[], [("sent", 1, 9)], [("sent", 1, 9), ("released", 1)]])
    def test_a_finished_message_is_gone_from_every_state(self, steps: list[Change]) -> None:
        assert sequences(self.written([message(1, qos=2), message(2), *steps, ("done", 1)])) == [2]

    def test_finishing_an_unknown_message_is_no_problem(self) -> None:
        assert sequences(self.written([message(1), ("done", 77)])) == [1]

    def test_messages_in_flight_come_in_the_order_of_sending_before_those_that_wait(self) -> None:
        batch = [message(number) for number in range(1, 6)]
        saved = self.written(batch, [("sent", 3, 1), ("sent", 1, 2)])
        assert sequences(saved) == [3, 1, 2, 4, 5]

    def test_released_messages_come_in_the_order_of_their_pubrecs(self) -> None:
        batch = [message(number, qos=2) for number in range(1, 5)]
        sent = [("sent", number, number) for number in range(1, 5)]
        saved = self.written(batch, sent, [("released", 3), ("released", 1)])
        assert [each.sequence for each in saved.messages if each.released] == [3, 1]
        assert [each.sequence for each in saved.messages if not each.released] == [2, 4]

    def test_a_sequence_number_is_never_given_twice(self) -> None:
        assert self.written([message(1), message(2)], [("done", 2), ("done", 1)]).next_sequence == 3

    # The session is lost

    def test_a_lost_session_makes_messages_wait_again_and_forgets_the_rest(self) -> None:
        saved = self.written(
            [message(number, qos=2) for number in range(1, 5)],
            [("sent", 1, 1), ("sent", 2, 2), ("sent", 3, 3), ("released", 2), ("received", 8)],
            [("done", 2), ("lost",)],
        )
        assert sequences(saved) == [1, 3, 4]
        assert [each.packet_id for each in saved.messages] == [0, 0, 0]
        assert saved.received == set()

    def test_losing_the_session_keeps_subscriptions_and_facts(self) -> None:
        saved = self.written(
            [("subscribed", "a/#", 1, False, False, 0), ("fact", "client_id", "c")], [("lost",)]
        )
        assert (list(saved.subscriptions), saved.facts) == (["a/#"], {"client_id": "c"})

    def test_messages_of_a_lost_session_can_be_sent_again(self) -> None:
        saved = self.written([message(1), ("sent", 1, 5), ("lost",), ("sent", 1, 6)])
        assert [each.packet_id for each in saved.messages] == [6]

    # The rest of the session

    def test_received_identifiers_are_kept_until_completed(self) -> None:
        saved = self.written([("received", 1), ("received", 65_535), ("received", 1), ("completed", 1)])
        assert saved.received == {65_535}

    def test_completing_an_unknown_identifier_is_no_problem(self) -> None:
        assert self.written([("completed", 5)]).received == set()

    def test_subscriptions_are_kept_with_their_options(self) -> None:
        saved = self.written(
            [("subscribed", "a/#", 1, False, False, 0), ("subscribed", "é/+", 0, True, True, 2)],
            [("subscribed", "a/#", 2, False, True, 1), ("unsubscribed", "é/+"), ("unsubscribed", "never")],
        )
        assert {name: tuple(options) for name, options in saved.subscriptions.items()} == {
            "a/#": (2, False, True, 1)
        }

    @pytest.mark.parametrize("value", ["text é", 42, 1.5, None, b"\0bytes"])
    def test_facts_are_kept_and_the_last_one_counts(self, value: Any) -> None:
        saved = self.written([("fact", "name", "old"), ("fact", "name", value), ("fact", "other", 1)])
        assert saved.facts == {"name": value, "other": 1}

    def test_every_kind_of_change_is_taken(self) -> None:
        examples: list[Change] = [
            message(1, qos=2),
            ("sent", 1, 1),
            ("released", 1),
            ("done", 1),
            ("received", 1),
            ("completed", 1),
            ("lost",),
            ("subscribed", "a", 0, False, False, 0),
            ("unsubscribed", "a"),
            ("fact", "name", "value"),
        ]
        assert [change[0] for change in examples] == list(CHANGES)
        assert all(len(change) == 1 + len(CHANGES[change[0]]) for change in examples)
        assert self.written(examples).messages == []

    # Any history

    @settings(suppress_health_check=[HealthCheck.differing_executors])
    @given(st.data())
    def test_any_history_gives_what_the_memory_store_gives(self, data: st.DataObject) -> None:
        batches = [
            data.draw(st.lists(st.tuples(st.sampled_from(_STEPS), st.integers(0, 50)), max_size=15))
            for _ in range(data.draw(st.integers(1, 3)))
        ]
        history = _History()
        changes = [[change for step in batch for change in history.changes(*step)] for batch in batches]
        reference = MemoryStore()
        reference.open()
        number = 0
        for batch in changes:
            number += len(batch)
            reference.submit(batch, number)
        reference.close()
        assert saved_facts(self.written(*changes)) == saved_facts(reference.open())


_STEPS = ["message", "sent", "released", "done", "received", "completed", "lost", "subscribed", "fact"]


class _History:
    """Turns random steps into changes that a client could make."""

    def __init__(self) -> None:
        self.last = 0
        self.waiting: list[int] = []
        self.in_flight: list[int] = []
        self.past_pubrec: list[int] = []

    def changes(self, step: str, choice: int) -> list[Change]:
        return list(getattr(self, "_" + step)(choice))

    def _message(self, choice: int) -> list[Change]:
        self.last += 1 + choice % 2
        self.waiting.append(self.last)
        return [message(self.last, b"%d" % choice, 2, expires_at=float(choice) if choice % 2 else None)]

    def _sent(self, choice: int) -> list[Change]:
        if not self.waiting:
            return []
        self.in_flight.append(self.waiting.pop(0))
        return [("sent", self.in_flight[-1], choice + 1)]

    def _released(self, choice: int) -> list[Change]:
        if not self.in_flight:
            return []
        self.past_pubrec.append(self.in_flight.pop(choice % len(self.in_flight)))
        return [("released", self.past_pubrec[-1])]

    def _done(self, choice: int) -> list[Change]:
        states = [state for state in (self.waiting, self.in_flight, self.past_pubrec) if state]
        if not states:
            return []
        state = states[choice % len(states)]
        return [("done", state.pop(choice % len(state)))]

    def _received(self, choice: int) -> list[Change]:
        return [("received", choice + 1)]

    def _completed(self, choice: int) -> list[Change]:
        return [("completed", choice + 1)]

    def _lost(self, _: int) -> list[Change]:
        finished: list[Change] = [("done", sequence) for sequence in self.past_pubrec]
        self.waiting = sorted(self.in_flight + self.waiting)
        self.in_flight, self.past_pubrec = [], []
        return [*finished, ("lost",)]

    def _subscribed(self, choice: int) -> list[Change]:
        topic_filter = f"t/{choice % 3}"
        if choice % 4 == 0:
            return [("unsubscribed", topic_filter)]
        return [("subscribed", topic_filter, choice % 3, False, True, choice % 3)]

    def _fact(self, choice: int) -> list[Change]:
        return [("fact", f"name {choice % 2}", str(choice))]
