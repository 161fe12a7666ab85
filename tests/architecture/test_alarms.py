"""Each decision record says how one would notice that it was wrong: here is who watches each of these alarms.

What is watched names the tests or the rule that would fail. The others need a user, a broker in the field, a
clock or a real card; they are listed with that reason, so that a new record cannot forget to think of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.architecture.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))

BY_USERS = "only users can tell"
BY_BENCHMARKS = "benchmarks/ measure it: a test that depends on the machine's speed or memory proves nothing"


class Alarm(NamedTuple):
    """What the record says, in its words; and the tests or the rule that watch, or why nothing here can."""

    text: str
    watched_by: tuple[str, ...] = ()
    unwatched: str = ""


ALARMS = {
    "0001": [
        Alarm("A bug is fixed in one shell only", unwatched="no source says that a change is a fix"),
        Alarm("a shell begins to look at packet types", ("packets in a shell",)),
        Alarm("the call-count test cannot be met", ("tests/test_call_counts.py",)),
    ],
    "0002": [
        Alarm(
            "A message that waits for the next keep alive although the client is connected",
            (
                "tests/test_call_counts.py::test_a_burst_of_qos_0_wakes_the_network_once_and_leaves_in_few_sends",
            ),
        ),
        Alarm(
            "a system-call count per message at QoS 0 that grows with the rate",
            (
                "tests/test_call_counts.py::test_a_burst_of_qos_0_wakes_the_network_once_and_leaves_in_few_sends",
            ),
        ),
        Alarm("`benchmarks/` above 0.10 of paho-mqtt's CPU", unwatched=BY_BENCHMARKS),
    ],
    "0003": [
        Alarm("The engine asks what kind of transport it has", ("kinds of transport in the engine",)),
        Alarm("a stream needs a method that the others only stub", ("contract methods for one stream",)),
        Alarm(
            "two loops treat the same stream differently",
            ("tests/net/transport_contract.py", "tests/aio/test_aio_streams.py"),
        ),
    ],
    "0004": [
        Alarm("A bug that a dataclass would have prevented", unwatched="takes a reader of the bug"),
        Alarm("a Python release in which these modules load in no time", unwatched=BY_BENCHMARKS),
        Alarm(
            "users who install five extras for a first program",
            ("tests/test_packaging.py::test_the_client_can_be_imported_without_any_extra",),
        ),
    ],
    "0005": [
        Alarm("A codec defect found by a user that no vector could have expressed", unwatched=BY_USERS),
        Alarm(
            "vectors edited in the same change as the code that they fail",
            ("tests/architecture/test_commits.py::test_vectors_and_the_codec_change_in_different_commits",),
        ),
    ],
    "0006": [Alarm("A broker that sends its whole backlog at once", unwatched="takes such a broker")],
    "0008": [
        Alarm("`session_lost` events at a first start that nobody can explain", unwatched=BY_USERS),
    ],
    "0009": [
        Alarm(
            "more than 15 KB (one commit) or 650 B (a hundred) per message or more than 24 MiB of memory",
            unwatched=BY_BENCHMARKS,
        ),
        Alarm("the power-cut harness loses a stored message", ("tests/torture/test_power_cut.py",)),
        Alarm("users report damaged files", unwatched=BY_USERS),
    ],
    "0010": [Alarm("An error of a user in `mqtt/` or `engine/`", unwatched=BY_USERS)],
    "0011": [Alarm("The counters of a real card", unwatched="takes a real card")],
    "0012": [
        Alarm(
            "Brokers report more than 130 connects an hour from one device",
            ("tests/engine/test_life_cycle.py::test_an_hour_with_two_bad_brokers_is_no_storm",),
        ),
        Alarm("users of a cluster find messages twice", unwatched=BY_USERS),
        Alarm(
            "a device stays on its second broker although the first is well",
            ("tests/engine/test_life_cycle.py::test_no_history_breaks_a_promise",),
        ),
    ],
    "0013": [
        Alarm("`benchmarks/store.py` prints the memory", unwatched=BY_BENCHMARKS),
        Alarm(
            "`tests/engine/test_queue.py` counts the objects",
            (
                "tests/engine/test_queue.py::test_of_a_long_queue_only_two_pages_are_in_memory",
                "tests/engine/test_queue.py::test_any_history_brings_every_message_once_and_in_order",
            ),
        ),
    ],
    "0014": [
        Alarm(
            "A user whose root file system has no room for it",
            ("tests/test_packaging.py::test_it_installs_alone_and_within_its_size",),
        ),
    ],
    "0015": [
        Alarm("A server ends connections for silence", ("tests/mqtt/test_protocol_keep_alive.py",)),
        Alarm("`tests/test_call_counts.py` counts more calls", ("tests/test_call_counts.py",)),
    ],
    "0016": [
        Alarm(
            "The simulation or the conformance suite fails",
            ("tests/simulation/test_engine_runs.py", "tests/mqtt/test_write_ahead.py"),
        ),
        Alarm("a QoS 2 receiver with a store on disk is too slow", unwatched=BY_BENCHMARKS),
    ],
    "0017": [Alarm("Users report retained messages that come twice", unwatched=BY_USERS)],
    "0018": [
        Alarm("`stats.discarded` grows in programs whose handlers wait", unwatched=BY_USERS),
        Alarm(
            "memory of a client with a waiting handler grows beyond `inbox_bytes`",
            ("tests/security/test_bytes_in_hand.py", "tests/engine/test_manual_ack.py"),
        ),
    ],
    "0019": [
        Alarm(
            "A change to one rule of MQTT touches more than three modules",
            unwatched="nothing in the source says which rule a change is about",
        ),
        Alarm(
            "the table of what is still to be mended, `tests/house/to_mend.toml`, grows",
            ("tests/architecture/test_rules.py::test_the_rule_holds_except_where_it_is_to_be_mended",),
        ),
    ],
    "0021": [
        Alarm(
            "A line comes into `tests/house/to_mend.toml`",
            ("tests/architecture/test_rules.py::test_the_rule_holds_except_where_it_is_to_be_mended",),
        ),
        Alarm(
            "a test of a dropped client finds it alive",
            ("tests/client/test_dropped.py", "tests/engine/test_outgoing.py"),
        ),
        Alarm(
            "a change to one part needs a change to another one each time",
            unwatched="nothing in the source says what a change was for",
        ),
    ],
    "0027": [
        Alarm(
            "A log line, an error or an event with a control character in it",
            ("tests/security/test_hostile_text.py", "tests/architecture/test_outside_text.py"),
        ),
        Alarm(
            "A fault of the field that the log does not show because it was folded into another",
            unwatched=BY_USERS,
        ),
        Alarm("Programs that compare `str(error)` with what a broker sent", unwatched=BY_USERS),
    ],
    "0028": [
        Alarm(
            "A broker of MQTT 3.1.1 that has another word for the same thing",
            unwatched="takes such a broker",
        ),
    ],
    "0032": [
        Alarm(
            "A broker that shows a certificate although it knows the key",
            unwatched="takes such a broker",
        ),
    ],
    "0029": [
        Alarm(
            "A broker that ends connections because of packets before CONNACK",
            unwatched="takes such a broker",
        ),
        Alarm("A program whose `disconnect()` takes a second each time", unwatched=BY_USERS),
    ],
    "0023": [
        Alarm(
            "`tests/store/test_damaged_bits.py` finds an altered message or a silent loss",
            ("tests/store/test_damaged_bits.py",),
        ),
        Alarm("users are told of torn logs after every power cut", unwatched=BY_USERS),
        Alarm("the shelf of a node fills up with messages that are sound", unwatched=BY_USERS),
    ],
    "0030": [
        Alarm(
            "A start in `tests/store/test_bad_disks.py` fails or dies",
            ("tests/store/test_bad_disks.py",),
        ),
        Alarm(
            "users find `database is locked` beside a node whose disk is not full",
            ("tests/store/test_bad_disks.py::test_the_reserve_is_given_up_for_a_start",),
        ),
        Alarm("samples of a node come twice though its disk never failed", unwatched=BY_USERS),
    ],
    "0020": [Alarm("Users look for `device_sdk.hil` and do not find it", unwatched=BY_USERS)],
    "0022": [
        Alarm(
            "A program publishes on the topic of its birth, and finds its messages `dropped` although it "
            "meant them to be kept",
            unwatched=BY_USERS,
        ),
        Alarm(
            "a server takes the packet identifier of a birth that it has not acknowledged for a repetition "
            "at QoS 1",
            unwatched="it breaks [MQTT-4.3.2-5], and no server that we know does",
        ),
    ],
    "0024": [
        Alarm("Users find good messages on the shelf", ("tests/engine/test_poison.py",)),
        Alarm(
            "a client reconnects for ever because of one message that no event names",
            (
                "tests/engine/test_poison.py::test_the_only_message_is_refused_only_if_the_broker_names_the_fault",
            ),
        ),
        Alarm(
            "a node with one topic is offline for hours because of one message",
            (
                "tests/engine/test_poison.py::test_good_messages_of_one_topic_survive_a_broker_in_a_crash_loop",
            ),
        ),
    ],
    "0025": [
        Alarm("A subscriber that is busy decoding", unwatched=BY_BENCHMARKS),
        Alarm("`stats.skipped` of a program whose broker only cuts", unwatched=BY_USERS),
    ],
    "0033": [
        Alarm(
            "A moment of one clock that is taken for one of the other",
            (
                "tests/client/test_suspend.py::test_no_moment_of_one_clock_is_taken_for_one_of_the_other",
                "tests/architecture/test_time.py::test_who_uses_a_clock_that_stands_still_in_suspend_is_known",
            ),
        ),
        Alarm(
            "a connection that is ended as slept through on a machine that was only busy",
            (
                "tests/engine/test_suspend.py::test_a_machine_that_is_only_slow_is_not_taken_for_one_that_slept",
            ),
        ),
        Alarm("a battery that the four looks a minute empty", unwatched=BY_USERS),
    ],
    "0034": [
        Alarm(
            "A client of `version=None` that speaks 3.1.1 to a broker that has never refused 5.0",
            ("tests/engine/test_versions.py::test_nothing_else_is_a_refusal_of_the_version",),
        ),
        Alarm(
            "programs that set `version=None` everywhere and miss what 5.0 gives",
            unwatched=BY_USERS,
        ),
    ],
    "0035": [
        Alarm(
            "Threads of a node that become more",
            ("tests/node/test_hung.py::test_the_third_thread_that_hangs_is_the_last_and_the_bus_has_failed",),
        ),
        Alarm(
            "a sample that is older than the one before it",
            ("tests/node/test_hung.py::test_another_thread_goes_on_at_once_and_what_comes_late_is_dropped",),
        ),
        Alarm("users whose sensors are slower than 50 s", unwatched=BY_USERS),
        Alarm("a watchdog that restarts nodes whose sensors work", unwatched=BY_USERS),
    ],
    "0026": [
        Alarm(
            "because a packet identifier that it remembers is never used again",
            unwatched="no broker that we know counts them",
        ),
    ],
    "0031": [
        Alarm(
            "A broker counts connections for money or against an attack, and the first one of each start is "
            "too much",
            unwatched=BY_USERS,
        ),
    ],
    "0036": [
        Alarm(
            "A sample arrives with a time of 1970 or of the last shutdown",
            ("tests/node/clock/test_wall_clock.py", "tests/node/clock/test_gate.py"),
        ),
        Alarm(
            "a sample that was taken before a kill is missing after the time is known",
            ("tests/system/test_node_clock.py",),
        ),
        Alarm("users of boards with a battery ask why nothing arrives for ten minutes", unwatched=BY_USERS),
    ],
    "0037": [
        Alarm(
            "Bytes that were delivered and not sent",
            ("tests/net/test_link_session.py::test_ends_that_restart_at_any_moment_never_mix_two_epochs",),
        ),
        Alarm(
            "frames that are repeated on a quiet line",
            ("tests/net/test_link_session.py::test_a_quiet_line_at_any_rate_repeats_nothing",),
        ),
        Alarm("boards that cannot keep a window of frames", unwatched=BY_USERS),
        Alarm("a line with less than 80 % of its rate for bulk data", unwatched=BY_BENCHMARKS),
    ],
    "0038": [
        Alarm("A chip that does not stand the question whether it is there", unwatched=BY_USERS),
        Alarm(
            "a restart of a known chip that `watch` finds where there was none",
            ("tests/pages/test_circuitpython.py",),
        ),
    ],
}

# 0007 is an index.
INDEXES = {"0007"}


def clauses(record: Path) -> list[str]:
    """Return what a record says in its last section, one alarm each, on one line."""
    _, _, section = record.read_text(encoding="utf-8").partition("\n## How we would notice that ")
    text = " ".join(section.partition("\n")[2].partition("\n## ")[0].split())
    return [clause.strip() for clause in text.split(";")]


each_record = pytest.mark.parametrize(
    "record", [pytest.param(path, id=path.name[:4]) for path in RECORDS if path.name[:4] not in INDEXES]
)


@each_record
def test_every_alarm_of_a_record_has_somebody_who_watches_or_a_reason(record: Path) -> None:
    """If a record has changed its alarms, say here who watches the new ones."""
    alarms = ALARMS.get(record.name[:4], [])
    section = "; ".join(clauses(record))
    assert not [alarm.text for alarm in alarms if alarm.text not in section]
    unheard = [
        clause
        for clause in clauses(record)
        if not any(alarm.text in clause or clause in alarm.text for alarm in alarms)
        and not clause.startswith("then ")
    ]
    assert not unheard


def test_an_alarm_is_watched_or_has_a_reason_why_not() -> None:
    for alarms in ALARMS.values():
        for alarm in alarms:
            assert bool(alarm.watched_by) != bool(alarm.unwatched), alarm.text


def test_whoever_watches_is_there() -> None:
    rules = {rule.name for rule in RULES}
    for alarm in (alarm for alarms in ALARMS.values() for alarm in alarms):
        for watcher in alarm.watched_by:
            path, _, name = watcher.partition("::")
            if watcher not in rules:
                text = (ROOT / path).read_text(encoding="utf-8")
                assert re.search(rf"^(async )?def {name}\b" if name else "def test_", text, re.MULTILINE), (
                    watcher
                )


def test_no_alarm_is_of_a_record_that_is_gone() -> None:
    assert ALARMS.keys() | INDEXES == {path.name[:4] for path in RECORDS}
