"""The faults can all be planted, and a sample of them is noticed. The rest: ``python -m tests.faults``."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.catalogue import proofs, statements
from tests.faults.fault import Fault, v5
from tests.faults.run import anchor_problems, run_all
from tests.faults.table import FAULTS

#: One or two from each table, none of which makes a client wait.
SAMPLE = (
    "the reserved flags of a packet with a body of its own are not looked at",
    "packet identifier 0 is read in PUBLISH",
    "the value of a string pair is not checked when it is read",
    "a session that the client does not know is resumed",
    "the server's receive maximum is ignored",
    "DUP is not set on a repeat",
    "the window is ignored when messages are repeated",
    "PUBREC with an error code is answered with PUBREL",
    "the codes of SUBACK are read from the end",
)


def test_the_faults_have_names_of_their_own_and_break_many_statements() -> None:
    assert [name for name, count in Counter(fault.name for fault in FAULTS).items() if count > 1] == []
    assert len(FAULTS) >= 100
    assert len({key for fault in FAULTS for key in fault.statements}) >= 150


def test_every_fault_can_be_planted() -> None:
    """If one cannot, because the source has moved on: write the same fault into the new source."""
    assert anchor_problems(FAULTS) == {}


def test_a_fault_that_breaks_the_import_of_its_module_or_of_others_cannot_be_planted() -> None:
    file, old = "mqtt/codes.py", "VERSIONS: Mapping[str, tuple[str, int]] ="
    faults = [
        Fault("does not import", (), file, old, f"raise ImportError\n{old}"),
        Fault("takes a name away", (), file, old, f"_{old}"),
        Fault("stale", (), file, "this text is not there", "x"),
        Fault("good", (), file, old, old + "  "),
    ]
    problems = anchor_problems(faults)
    assert "would not import: ImportError" in problems["does not import"]
    assert "would not have VERSIONS" in problems["takes a name away"]
    assert "0 times, not once" in problems["stale"]
    assert "good" not in problems


def test_every_fault_breaks_statements_that_exist_and_that_tests_name() -> None:
    known = statements().keys() & proofs().keys()
    assert [
        fault.name for fault in FAULTS if not fault.statements or not known.issuperset(fault.statements)
    ] == []


@pytest.mark.timeout(300)  # ten runs of pytest, each of which is given up by itself
def test_a_sample_of_the_faults_is_noticed_by_the_tests_that_name_their_statements() -> None:
    chosen = [fault for fault in FAULTS if fault.name in SAMPLE]
    assert len(chosen) == len(SAMPLE)
    outcomes = list(run_all(chosen, workers=2))
    assert [(one.fault.name, one.unnoticed, one.trouble) for one in outcomes if not one.noticed] == []


def test_source_that_does_not_import_counts_as_trouble_and_a_harmless_change_as_unnoticed() -> None:
    """The machine can say no: otherwise every fault would look noticed."""
    file, old = "mqtt/codes.py", "VERSIONS: Mapping[str, tuple[str, int]] ="
    statement = v5("MQTT-3.1.2-1")
    faults = [
        Fault("does not import", statement, file, old, f"raise ImportError\n{old}"),
        Fault("harmless", statement, file, old, old + "  "),
        Fault("stale", statement, file, "this text is not there", "x"),
    ]
    broken, harmless, stale = run_all(faults, workers=1)
    assert broken.trouble.startswith("pytest ended with")
    assert (harmless.unnoticed, harmless.trouble) == ([*statement], "")
    assert "0 times, not once" in stale.trouble
    assert not (broken.noticed or harmless.noticed or stale.noticed)
