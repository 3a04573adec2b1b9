"""Reports: one value, two forms, and a summary that says nothing else."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator

from control_plane.adapters import typeset
from control_plane.contracts import reports
from control_plane.domain.reports import facts, summary
from control_plane.domain.reports.facts import Facts, Kind, Report
from control_plane.services.reports import calendar_month
from tests.support.report_facts import AT, everything

FACTS = everything()


def bare(kind: Kind) -> Facts:
    """All that is there of a model nobody has trained, served or watched."""
    found = everything(kind)
    inventory = facts.Inventory("m", None, None, None, None, None, None, None, None, False, ("owner", "purpose"))
    nothing = {"lineage": None, "scores": (), "gate": None, "importances": (), "release": None, "service": None}
    return replace(found, inventory=inventory, drift=None, timeline=(), approvals=(), limits=(), **nothing)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("make", [everything, bare])
def test_every_kind_is_valid_against_the_published_schema_and_is_a_pdf(kind: Kind, make: object) -> None:
    found = make(kind)  # type: ignore[operator]
    document = reports.document(Report(found, summary.sentences(found)))
    schema = reports.schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(document))
    assert reports.adapter().validate_json(document).facts == found
    assert typeset.pdf(document.decode()).startswith(b"%PDF-")


def test_text_of_people_cannot_break_the_document() -> None:
    odd = '#panic("x") $ \\ [ ] _ * ` <a> "q" \u202e é'
    found = replace(FACTS, timeline=(facts.Happened(AT, odd, odd, odd * 40),), limits=(odd,), title=odd)
    document = reports.document(Report(found, (odd,)))
    assert typeset.pdf(document.decode()).startswith(b"%PDF-")


def test_the_pictures_are_vectors() -> None:
    document = reports.document(Report(FACTS, summary.sentences(FACTS))).decode()
    assert b"/Subtype /Image" not in typeset.pdf(document)
    assert len(typeset.pages(document, ppi=30)) == 3


def test_the_template_says_nothing_the_facts_do_not_hold() -> None:
    for kind in Kind:
        for found in (everything(kind), bare(kind)):
            text = " ".join(summary.sentences(found))
            assert summary.unsupported(text, found) == [], kind
            assert text.startswith("This report documents")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("roc_auc rose to 0.8449 from 0.8277.", []),
        ("It is 0.845, or 84.49 percent; 1,284,332 predictions; on 2026-03-31; version 12.", []),
        ("Better by 0.0210 on 3 looks.", []),
        ("roc_auc rose to 0.851.", ["0.851"]),
        ("Availability was 99.99 % and 17 requests failed.", ["17"]),
        ("A drop of -0.3 was seen, 2e9 euros lost.", ["-0.3", "2e9"]),
        ("It cost 18,241 EUR.", ["18,241"]),
    ],
)
def test_a_number_nobody_measured_is_found(text: str, wrong: list[str]) -> None:
    assert summary.unsupported(text, FACTS) == wrong
    assert (summary.usable(text, FACTS) is None) == (not wrong)


def test_a_summary_that_is_empty_or_endless_is_not_taken() -> None:
    assert summary.usable("  ", FACTS) == "it was empty"
    assert "longer" in (summary.usable("word " * 1_000, FACTS) or "")


def test_an_overdue_review_is_in_the_summary() -> None:
    late = replace(FACTS.inventory, review_overdue=True)
    assert "overdue since 2026-09-26" in " ".join(summary.sentences(replace(FACTS, inventory=late)))


def test_a_month_ends_where_the_next_begins() -> None:
    assert calendar_month("2026-02") == (datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))
    assert calendar_month("2026-12")[1] == datetime(2027, 1, 1, tzinfo=UTC)


def test_nothing_in_the_facts_has_a_place_for_personal_data() -> None:
    names = set(re.findall(r'"([a-z_]+)":', json.dumps(reports.schema())))
    assert not names & {"unit_id", "prediction_id", "request_id", "payload", "outcome", "value_of"}
