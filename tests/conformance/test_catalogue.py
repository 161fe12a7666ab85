"""Every statement that binds a client is named by a test or has a reason, and the page says which."""

from __future__ import annotations

from tests.conformance.catalogue import PAGE, ROOT, departures, exemptions, page, proofs, statements


def test_every_statement_that_binds_a_client_has_a_test_or_a_reason() -> None:
    covered = proofs().keys() | exemptions().keys()
    assert [key for key, each in statements().items() if each.required and key not in covered] == []


def test_tests_and_exemptions_name_only_statements_that_exist() -> None:
    assert (proofs().keys() | exemptions().keys()) - statements().keys() == set()


def test_an_exemption_has_a_reason_and_no_test() -> None:
    assert [key for key, reason in exemptions().items() if len(reason) < 20] == []
    assert exemptions().keys() & proofs().keys() == set()


def test_a_departure_is_of_a_statement_and_has_its_decision_record() -> None:
    for row in departures():
        assert (row["version"], row["id"]) in statements()
        record = ROOT / "docs" / "decisions" / row["record"]
        assert row["id"] in record.read_text(encoding="utf-8"), row


def test_no_statement_was_lost() -> None:
    required = [each for each in statements().values() if each.required]
    counts = [sum(each.version == version for each in required) for version in ("5.0", "3.1.1", "3.1")]
    assert counts == [133 + 40, 75 + 20, 9]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m tests.conformance"
