"""Text from outside, made safe: what is changed, how long it may be, and tracebacks."""

from __future__ import annotations

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk._log import Log
from device_sdk._printable import LONGEST, printable
from device_sdk._traceback import safe_traceback
from device_sdk.config.faults import ConfigFaults, Fault
from device_sdk.errors import ConfigError, DeviceSdkError, RefusedError

HOSTILE = "\n\x1b[2J\u202e"

# Line ends and controls, marks of direction and of no width, lone surrogates, unassigned, private use.
UNSAFE = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}


@given(st.text(st.characters(exclude_categories=[])), st.integers(100, 300))
def test_the_result_is_one_safe_line_of_limited_length_and_stays_as_it_is(text: str, longest: int) -> None:
    shown = printable(text, longest)
    assert len(shown) <= longest
    assert not {unicodedata.category(c) for c in shown} & UNSAFE
    assert printable(shown, longest) == shown


def test_readable_text_is_left_alone() -> None:
    for text in ("", "21.5 °C", "C:\\temp", "größer 測量 данные", "a" * LONGEST):
        assert printable(text) is text


def test_each_unsafe_character_is_written_as_in_a_literal() -> None:
    assert printable("a\n\x1b[2J\u202eb\0\x7f\x85\u2028\ud800") == (
        "a\\n\\x1b[2J\\u202eb\\x00\\x7f\\x85\\u2028\\ud800"
    )


def test_a_long_text_keeps_its_beginning_and_its_end_and_says_how_long_it_was() -> None:
    shown = printable("who: " + "x" * 65_535 + "; the advice", 200)
    assert shown.startswith("who: xxx")
    assert shown.endswith("x; the advice")
    assert "(65,552 characters)" in shown
    assert len(shown) == 200


# Errors


def error_classes() -> list[type[DeviceSdkError]]:
    found: list[type[DeviceSdkError]] = [DeviceSdkError]
    for each in found:
        found += each.__subclasses__()
    return [each for each in found if each.__module__ == "device_sdk.errors"]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_the_text_of_every_error_is_safe(kind: type[DeviceSdkError]) -> None:
    text = f"from outside {HOSTILE}" + "x" * 100_000
    error = kind.__new__(kind, text)
    Exception.__init__(error, text)
    assert printable(str(error)) == str(error)
    assert HOSTILE in error.args[0], "what was received is still there"


def test_a_refusal_keeps_the_reason_string_as_it_was_received() -> None:
    error = RefusedError("refused", 0x87, HOSTILE, ((HOSTILE, HOSTILE),))
    assert str(error) == "refused: \\n\\x1b[2J\\u202e"
    assert (error.reason_string, error.user_properties) == (HOSTILE, ((HOSTILE, HOSTILE),))


def test_a_list_of_faults_has_one_line_for_each() -> None:
    faults = [Fault(f"sensor{HOSTILE}", f"expected a text, found {HOSTILE}", 3), Fault("node", "x" * 9_000)]
    lines = str(ConfigFaults(f"node{HOSTILE}.toml", faults)).split("\n")
    assert len(lines) == 3
    assert all(printable(line.strip()) == line.strip() for line in lines)
    assert "\n" not in str(ConfigError(f"node{HOSTILE}.toml cannot be read"))


# The log


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as caught:
        return caught


def chain() -> BaseException:
    """An exception with a cause, a note and a group, with hostile texts in each."""
    error = raised(ValueError(f"payload {HOSTILE}"))
    error.add_note(f"a note\nWARNING forged {HOSTILE}")
    group = ExceptionGroup(f"several {HOSTILE}", [ValueError(f"one {HOSTILE}"), KeyError(HOSTILE)])
    group.__cause__ = error
    return raised(group)


def test_a_traceback_shows_everything_and_no_line_of_it_is_forged() -> None:
    shown = safe_traceback(chain())
    assert all(printable(line) == line for line in shown.split("\n"))
    assert shown.count("\\n\\x1b[2J\\u202e") >= 4
    assert "The above exception was the direct cause" in shown
    assert "raise error" in shown
    assert not [line for line in shown.splitlines() if line.startswith(("WARNING", "payload"))]


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError


def test_every_value_of_a_line_is_safe_and_a_number_is_a_number(caplog: pytest.LogCaptureFixture) -> None:
    log = Log("device_sdk.test")
    log.warning("%s, %d of %.1f, %s %s", f"topic {HOSTILE}", 3, 4.25, ValueError(HOSTILE), Unspeakable())
    assert caplog.messages == [
        "topic \\n\\x1b[2J\\u202e, 3 of 4.2, \\n\\x1b[2J\\u202e <Unspeakable>",
    ]
    assert caplog.records[0].funcName == "test_every_value_of_a_line_is_safe_and_a_number_is_a_number"


def test_a_traceback_in_the_log_is_safe_in_every_formatter(caplog: pytest.LogCaptureFixture) -> None:
    error = chain()
    Log("device_sdk.test").warning("%s failed", HOSTILE, error=error)
    (record,) = caplog.records
    assert record.exc_info is not None and record.exc_info[1] is error
    lines = logging.Formatter("%(message)s").format(record).split("\n")
    assert lines[0] == "\\n\\x1b[2J\\u202e failed"
    assert all(printable(line) == line for line in lines)


def test_what_nobody_wants_to_see_is_not_made_into_text(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []

    class Costly:
        def __str__(self) -> str:
            asked.append(1)
            return ""

    with caplog.at_level(logging.WARNING, "device_sdk.test"):
        Log("device_sdk.test").debug("%s", Costly())
    assert not asked
