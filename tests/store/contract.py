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
from device_sdk.store.base import (
    CHANGES,
    PAGE_BYTES,
    PAGE_MESSAGES,
    SavedMessage,
    SavedSession,
    Store,
    StorePolicy,
)
from device_sdk.store.memory import MemoryStore

__all__ = ["STEPS", "History", "StoreContract", "message", "saved_facts", "shelved"]

Change = tuple[Any, ...]

DEADLINE_S = 10.0

#: How a message can end.
STATUSES = ["acknowledged", "refused", "expired", "dropped"]

#: A flag above MQTT's: of this message's topic only the newest one waits.
KEEP_LAST = 0x10


def message(
    sequence: int,
    payload: bytes = b"x",
    qos: int = 1,
    *,
    topic_field: bytes = b"\0\1t",
    properties: bytes = b"\0",
    expires_at: float | None = None,
    keep_last: bool = False,
) -> Change:
    """Return the change that adds a message."""
    flags = qos << 1 | (KEEP_LAST if keep_last else 0)
    return "message", sequence, topic_field, payload, flags, properties, expires_at


def shelved(sequence: int, status: str = "refused") -> Change:
    """Return the change that puts a message on the shelf."""
    return "shelved", sequence, status, "the broker ends the connection", 1_795_000_000.0


def message_facts(saved: SavedMessage) -> tuple[Any, ...]:
    return tuple(getattr(saved, name) for name in SavedMessage.__slots__)


def saved_facts(saved: SavedSession) -> tuple[Any, ...]:
    """Return everything a SavedSession says, to be compared."""
    return (
        [message_facts(each) for each in saved.messages],
        saved.waiting,
        saved.waiting_bytes,
        dict(saved.latest),
        set(saved.received),
        dict(saved.subscriptions),
        dict(saved.facts),
        saved.next_sequence,
        saved.last_packet_id,
        set(saved.withheld),
        saved.shelved,
    )


def sequences(saved: SavedSession) -> list[int]:
    return [each.sequence for each in saved.messages]


class StoreContract(ABC):
    """What every store has to do. A subclass gives the two ways to get one."""

    @abstractmethod
    def new_store(self) -> Store:
        """Return an empty store that is not open."""

    @abstractmethod
    def new_store_with(self, policy: StorePolicy) -> Store:
        """The same with bounds of the shelf."""

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
        assert saved_facts(self.written()) == ([], 0, 0, {}, set(), {}, {}, 1, 0, set(), 0)

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
        again.submit([("done", 1, "acknowledged")], 1)
        again.close()
        last = self.reopened(again)
        assert sequences(last.open()) == [2]
        last.close()

    # Pages

    def page(self, store: Store, after: int) -> list[SavedMessage]:
        """Ask for a page and wait for it."""
        moved = threading.Event()
        store.on_progress = moved.set
        store.request_page(after)
        while (page := store.take_page()) is None:
            assert moved.wait(DEADLINE_S), "no page came"
            moved.clear()
        store.on_progress = None
        return page

    def test_opening_gives_the_first_page_and_says_how_much_waits(self) -> None:
        saved = self.written([message(number, b"12345") for number in range(1, PAGE_MESSAGES + 4)])
        assert sequences(saved) == list(range(1, PAGE_MESSAGES + 1))
        assert (saved.waiting, saved.waiting_bytes) == (PAGE_MESSAGES + 3, (PAGE_MESSAGES + 3) * 9)

    def test_messages_in_flight_do_not_count_as_waiting(self) -> None:
        saved = self.written([message(1, b"1"), message(2, b"22"), ("sent", 1, 5)])
        assert (saved.waiting, saved.waiting_bytes) == (1, 6)

    @pytest.mark.parametrize("close_between", [False, True])
    def test_pages_give_every_waiting_message_once_and_in_order(self, close_between: bool) -> None:
        count = 2 * PAGE_MESSAGES + 7
        store = self.new_store()
        store.open()
        store.submit([message(number) for number in range(1, count + 1)], count)
        if close_between:
            store.close()
            store = self.reopened(store)
            store.open()
        found: list[int] = []
        while page := self.page(store, found[-1] if found else 0):
            assert len(page) <= PAGE_MESSAGES
            found += [each.sequence for each in page]
        assert found == list(range(1, count + 1))
        assert store.take_page() is None
        store.close()

    def test_a_page_ends_at_its_bytes_but_holds_one_message_whatever_its_size(self) -> None:
        store = self.new_store()
        store.open()
        sizes = [PAGE_BYTES + 1, PAGE_BYTES - 100, 200, 5]
        store.submit([message(at, bytes(size)) for at, size in enumerate(sizes, 1)], len(sizes))
        assert [each.sequence for each in self.page(store, 0)] == [1]
        assert [each.sequence for each in self.page(store, 1)] == [2]
        assert [each.sequence for each in self.page(store, 2)] == [3, 4]
        store.close()

    @pytest.mark.parametrize("steps", [[], [1], [1, 2], [1, 2, 3]])
    def test_a_page_reflects_what_was_handed_over_before(self, steps: list[int]) -> None:
        batches: list[list[Change]] = [
            [message(number, qos=2) for number in range(1, 7)],
            [("sent", 1, 1), ("sent", 2, 2), ("done", 3, "dropped"), message(7)],
            [("released", 1), ("done", 4, "expired"), ("done", 1, "acknowledged"), ("lost",)],
            [("sent", 5, 9), ("done", 2, "dropped")],
        ]
        waiting = [[1, 2, 3, 4, 5, 6], [4, 5, 6, 7], [2, 5, 6, 7], [6, 7]][len(steps)]
        for reopen_after in (None, 0, *steps):
            store = self.new_store()
            store.open()
            number = 0
            for at, batch in enumerate(batches[: len(steps) + 1]):
                number += len(batch)
                store.submit(batch, number)
                if at == reopen_after:
                    store.close()
                    store = self.reopened(store)
                    store.open()
                    number = 0
            assert [each.sequence for each in self.page(store, 0)] == waiting
            store.close()

    def test_the_latest_waiting_message_of_a_topic_is_known_where_only_that_one_may_wait(self) -> None:
        a, b = b"\0\1a", b"\0\1b"
        saved = self.written(
            [
                message(1, topic_field=a, keep_last=True),
                message(2, topic_field=b, keep_last=True),
                message(3),
            ],
            [message(4, b"new", topic_field=a, keep_last=True), ("done", 1, "dropped"), ("sent", 2, 1)],
        )
        assert saved.latest == {a: (4, 7)}
        assert saved.messages[-1].flags == KEEP_LAST | 2

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

    @pytest.mark.parametrize("batches", [1, 2, 3])
    def test_a_message_that_is_sent_again_has_the_last_of_its_packet_identifiers(self, batches: int) -> None:
        changes = [[message(1), message(2)], [("sent", 1, 7), ("sent", 2, 8)], [("sent", 1, 9)]]
        kept = [*changes[: batches - 1], [one for rest in changes[batches - 1 :] for one in rest]]
        saved = self.written(*kept)
        assert [(each.sequence, each.packet_id) for each in saved.messages] == [(2, 8), (1, 9)]
        assert (saved.waiting, saved.waiting_bytes) == (0, 0)

    def test_a_message_past_pubrec_is_released(self) -> None:
        (saved,) = self.written([message(1, qos=2), ("sent", 1, 9), ("released", 1)]).messages
        assert (saved.packet_id, saved.released) == (9, True)

    @pytest.mark.parametrize("steps", [[], [("sent", 1, 9)], [("sent", 1, 9), ("released", 1)]])
    def test_a_finished_message_is_gone_from_every_state(self, steps: list[Change]) -> None:
        assert sequences(
            self.written([message(1, qos=2), message(2), *steps, ("done", 1, "acknowledged")])
        ) == [2]

    def test_finishing_an_unknown_message_is_no_problem(self) -> None:
        assert sequences(self.written([message(1), ("done", 77, "acknowledged")])) == [1]

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
        assert (
            self.written(
                [message(1), message(2)], [("done", 2, "acknowledged"), ("done", 1, "acknowledged")]
            ).next_sequence
            == 3
        )

    # The session is lost

    def test_a_lost_session_makes_messages_wait_again_and_forgets_the_rest(self) -> None:
        saved = self.written(
            [message(number, qos=2) for number in range(1, 5)],
            [("sent", 1, 1), ("sent", 2, 2), ("sent", 3, 3), ("released", 2), ("received", 8)],
            [("done", 2, "acknowledged"), ("lost",)],
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

    # The shelf

    @pytest.mark.parametrize("steps", [[], [("sent", 1, 9)], [("sent", 1, 9), ("released", 1)]])
    @pytest.mark.parametrize("apart", [False, True])
    def test_a_shelved_message_leaves_the_queue_and_its_identifier_stays_withheld(
        self, steps: list[Change], apart: bool
    ) -> None:
        first = [message(1, qos=2, keep_last=True), message(2), *steps]
        last = [shelved(1)]
        saved = self.written(*([first, last] if apart else [first + last]))
        assert (sequences(saved), saved.waiting, saved.waiting_bytes, saved.latest) == ([2], 1, 5, {})
        assert (saved.shelved, saved.withheld, saved.next_sequence) == (1, {9} if steps else set(), 3)

    def test_a_shelved_message_is_on_no_page(self) -> None:
        for close_between in (False, True):
            store = self.new_store()
            store.open()
            store.submit([message(1), message(2), message(3), ("sent", 3, 7)], 4)
            if close_between:
                store.close()
                store = self.reopened(store)
                store.open()
            store.submit([shelved(1), shelved(3)], 2 if close_between else 6)
            assert [each.sequence for each in self.page(store, 0)] == [2]
            store.close()
            store = self.reopened(store)
            assert sequences(store.open()) == [2]
            assert [each.sequence for each in self.page(store, 0)] == [2]
            store.close()

    def test_only_a_lost_session_sets_withheld_identifiers_free(self) -> None:
        first = [message(1), ("sent", 1, 9), shelved(1), ("unshelved", 1), ("withheld", 10)]
        assert self.written(first).withheld == {9, 10}
        after = [message(2), ("sent", 2, 11), ("lost",), shelved(2), ("withheld", 12)]
        saved = self.written(first, after)
        assert (saved.withheld, saved.shelved) == ({12}, 1)

    def test_a_lost_session_leaves_the_shelf_as_it_is(self) -> None:
        saved = self.written(
            [message(1, qos=2), message(2), ("sent", 1, 1), ("sent", 2, 2), ("released", 1)],
            [shelved(1), shelved(2), ("lost",)],
        )
        assert (sequences(saved), saved.shelved, saved.withheld) == ([], 2, set())

    def test_a_message_taken_off_the_shelf_is_gone(self) -> None:
        saved = self.written([message(1), message(2), shelved(1), shelved(2), ("unshelved", 1)])
        assert (sequences(saved), saved.shelved) == ([], 1)
        assert self.written([message(1), shelved(1)], [("unshelved", 1), ("unshelved", 77)]).shelved == 0

    @pytest.mark.parametrize("apart", [False, True])
    @pytest.mark.parametrize(
        ("bounds", "sizes", "left"),
        [
            ({"max_shelf_messages": 2}, [1, 1, 1, 1, 1], 2),
            ({"max_shelf_bytes": 40}, [10, 10, 10, 10], 2),  # four bytes of topic and properties each
            ({"max_shelf_bytes": 40}, [10, 60, 10], 2),  # larger than all of the shelf: only itself
            ({"max_shelf_messages": 0}, [1, 1], 0),
        ],
    )
    def test_the_shelf_is_bounded_and_what_has_to_go_is_counted(
        self, bounds: dict[str, int], sizes: list[int], left: int, apart: bool
    ) -> None:
        policy = StorePolicy(min_free=0)
        for name, bound in bounds.items():
            setattr(policy, name, bound)
        store = self.new_store_with(policy)
        store.open()
        number = 0
        moved = threading.Event()
        store.on_progress = moved.set
        for at, size in enumerate(sizes, 1):
            number += 2
            store.submit([message(at, bytes(size)), shelved(at)], number)
            if apart:
                store.expedite(number)
                while store.durable_through < number:
                    assert moved.wait(DEADLINE_S), "not written"
                    moved.clear()
        store.on_progress = None
        store.close()
        assert {kind for kind, _, _ in store.reports} == {"shelf_full"}
        assert sum(int(value or 0) for _, _, value in store.reports) == len(sizes) - left
        store.reports.clear()
        again = self.reopened(store)
        saved = again.open()
        assert (saved.shelved, saved.waiting, list(again.reports)) == (left, 0, [])
        again.close()

    # The rest of the session

    def test_received_identifiers_are_kept_until_completed(self) -> None:
        saved = self.written([("received", 1), ("received", 65_535), ("received", 1), ("completed", 1)])
        assert saved.received == {65_535}

    def test_completing_an_unknown_identifier_is_no_problem(self) -> None:
        assert self.written([("completed", 5)]).received == set()

    def test_the_last_reserved_packet_identifier_is_kept(self) -> None:
        assert (
            self.written([("reserved", 64), ("reserved", 65_535)], [("reserved", 128)]).last_packet_id == 128
        )

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
            ("done", 1, "acknowledged"),
            ("received", 1),
            ("completed", 1),
            ("lost",),
            ("subscribed", "a", 0, False, False, 0),
            ("unsubscribed", "a"),
            ("fact", "name", "value"),
            ("reserved", 64),
            shelved(1),
            ("unshelved", 1),
            ("withheld", 1),
        ]
        assert [change[0] for change in examples] == list(CHANGES)
        assert all(len(change) == 1 + len(CHANGES[change[0]]) for change in examples)
        assert self.written(examples).messages == []

    # Any history

    @settings(max_examples=40, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.data())
    def test_any_history_gives_what_the_memory_store_gives(self, data: st.DataObject) -> None:
        batches = [
            data.draw(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 50)), max_size=15))
            for _ in range(data.draw(st.integers(1, 3)))
        ]
        history = History()
        changes = [[change for step in batch for change in history.changes(*step)] for batch in batches]
        reference = MemoryStore()
        reference.open()
        number = 0
        for batch in changes:
            number += len(batch)
            reference.submit(batch, number)
        reference.close()
        assert saved_facts(self.written(*changes)) == saved_facts(reference.open())


STEPS = [
    "message",
    "sent",
    "released",
    "done",
    "received",
    "completed",
    "lost",
    "subscribed",
    "fact",
    "reserved",
    "shelved",
    "unshelved",
    "withheld",
]


class History:
    """Turns random steps into changes that a client could make."""

    def __init__(self) -> None:
        self.last = 0
        self.waiting: list[int] = []
        self.in_flight: list[int] = []
        self.past_pubrec: list[int] = []
        self.shelf: list[int] = []

    def adopt(self, store: MemoryStore) -> None:
        """Go on with what a store holds, after a process has died."""
        self.waiting = sorted(store._waiting)
        self.in_flight = list(store._in_flight)
        self.past_pubrec = list(store._past_pubrec)
        self.shelf = list(store._shelf)

    def changes(self, step: str, choice: int) -> list[Change]:
        """Return what one step amounts to; ``choice`` is any number."""
        return list(getattr(self, "_" + step)(choice))

    def _message(self, choice: int) -> list[Change]:
        self.last += 1 + choice % 2
        self.waiting.append(self.last)
        expires_at = float(choice) if choice % 2 else None
        return [message(self.last, b"%d" % choice, 2, expires_at=expires_at, keep_last=choice % 5 == 0)]

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
        return [("done", state.pop(choice % len(state)), STATUSES[choice % len(STATUSES)])]

    def _shelved(self, choice: int) -> list[Change]:
        states = [state for state in (self.waiting, self.in_flight, self.past_pubrec) if state]
        if not states:
            return []
        state = states[choice % len(states)]
        self.shelf.append(state.pop(choice % len(state)))
        return [shelved(self.shelf[-1])]

    def _unshelved(self, choice: int) -> list[Change]:
        if not self.shelf:
            return []
        return [("unshelved", self.shelf.pop(choice % len(self.shelf)))]

    def _withheld(self, choice: int) -> list[Change]:
        return [("withheld", choice + 1)]

    def _received(self, choice: int) -> list[Change]:
        return [("received", choice + 1)]

    def _completed(self, choice: int) -> list[Change]:
        return [("completed", choice + 1)]

    def _lost(self, _: int) -> list[Change]:
        finished: list[Change] = [("done", sequence, "acknowledged") for sequence in self.past_pubrec]
        self.waiting = sorted(self.in_flight + self.waiting)
        self.in_flight, self.past_pubrec = [], []
        return [*finished, ("lost",)]

    def _reserved(self, choice: int) -> list[Change]:
        return [("reserved", choice + 1)]

    def _subscribed(self, choice: int) -> list[Change]:
        topic_filter = f"t/{choice % 3}"
        if choice % 4 == 0:
            return [("unsubscribed", topic_filter)]
        return [("subscribed", topic_filter, choice % 3, False, True, choice % 3)]

    def _fact(self, choice: int) -> list[Change]:
        return [("fact", f"name {choice % 2}", str(choice))]
