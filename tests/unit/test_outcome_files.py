from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from control_plane.errors import InvalidInput, Unavailable
from control_plane.sdk import outcome_files
from control_plane.sdk.predictions import Taken


class Router:
    """Takes what it is given; refuses the outcomes whose value is "bad", naming their places as the router does."""

    def __init__(self) -> None:
        self.taken = dict[str, Mapping[str, object]]()

    def outcomes(self, model: str, reports: Sequence[Mapping[str, object]]) -> Taken:
        bad = [f"outcomes[{n}].value: no" for n, report in enumerate(reports) if report.get("value") == "bad"]
        if bad:
            raise InvalidInput("Refused.", reasons=bad)
        for number, report in enumerate(reports):
            self.taken[str(report.get("outcome_id", f"{len(self.taken)} {number}"))] = report
        return Taken(accepted=len(reports))


def test_a_csv_is_read_by_its_header_and_its_values_as_what_they_spell(tmp_path: Path) -> None:
    router, path = Router(), tmp_path / "outcomes.csv"
    path.write_text("unit_id,value,name,currency\n007,true,,\n008,12.5,chargeback,EUR\n009,left,,\n")
    assert outcome_files.report_file(router, "churn", path).accepted == 3
    assert list(router.taken.values()) == [
        {"unit_id": "007", "value": True},
        {"unit_id": "008", "value": 12.5, "name": "chargeback", "currency": "EUR"},
        {"unit_id": "009", "value": "left"},
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("unit_id,value\n" + "".join(f"u{n},{'bad' if n == 610 else 1}\n" for n in range(700)), 612),
        ('unit_id,value\nu1,1\n"u\n2",bad\n', 4),
        ('{"unit_id": "u", "value": 1}\n\n{"unit_id": "u", "value": "bad"}\n', 3),
    ],
)
def test_what_the_router_refuses_is_named_by_its_line_and_what_was_taken_is_told(text: str, line: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        outcome_files.report_text(Router(), "churn", text)
    assert caught.value.extra["reasons"] == [f"line {line}, column value: no"]
    assert caught.value.extra["accepted"] in {0, 500}
    assert ("500 rows were taken before" in caught.value.detail) == (caught.value.extra["accepted"] == 500)


def test_a_csv_with_bad_rows_names_line_column_and_what_is_expected_and_nothing_of_it_is_taken() -> None:
    router = Router()
    good = "".join(f"u{n},,1,2026-11-01T00:00:00Z,EUR\n" for n in range(700))
    bad = "u1,,nan,2026-11-01T00:00:00Z,EUR\nu1,,1,yesterday,EUR\nu1,,,,euro\n,,1,,\nu1,17,1,,\n"
    with pytest.raises(InvalidInput) as caught:
        outcome_files.report_text(router, "churn", f"unit_id,prediction_id,value,observed_at,currency\n{good}{bad}")
    assert caught.value.extra["reasons"] == [
        "line 702, column value: expected a number, true, false, or text of at most 1000 characters",
        "line 703, column observed_at: expected a time with its zone, such as 2026-11-01T12:00:00Z",
        "line 704, column currency: expected three capital letters",
        "line 704, column value: missing",
        "line 705: expected exactly one of prediction_id and unit_id",
        "line 706, column prediction_id: expected a UUID",
        "line 706: expected exactly one of prediction_id and unit_id",
    ]
    assert router.taken == {}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("unit_id;value", "line 1: expected commas between the columns"),
        ("unit_id,amount,value", "line 1, column amount: unknown; expected "),
        ("unit_id,value,value", "line 1, column value: twice"),
        ("unit_id,name", "line 1, column value: missing"),
    ],
)
def test_a_header_that_does_not_fit_is_said_once(header: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        outcome_files.report_text(Router(), "churn", f"{header}\nu1,1,1\nu2,1,1\n")
    (told,) = caught.value.extra["reasons"]
    assert told.startswith(reason)


def test_a_file_out_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_bytes("\ufeffunit_id,value\r\nZoë,1\r\n".encode())
    router = Router()
    outcome_files.report_file(router, "churn", path)
    outcome_files.report_text(router, "churn", path.read_text("utf-8"))
    assert [row["unit_id"] for row in router.taken.values()] == ["Zoë", "Zoë"]


def test_an_empty_file_and_a_router_that_goes_away_are_said() -> None:
    with pytest.raises(InvalidInput, match="no outcomes"):
        outcome_files.report_text(Router(), "churn", "unit_id,value\n")

    class Gone(Router):
        def outcomes(self, model: str, reports: Sequence[Mapping[str, object]]) -> Taken:
            if self.taken:
                raise Unavailable("The router does not answer.")
            return super().outcomes(model, reports)

    with pytest.raises(Unavailable, match="500 rows were taken before") as caught:
        outcome_files.report_text(Gone(), "churn", "unit_id,value\n" + "".join(f"u{n},1\n" for n in range(700)))
    assert caught.value.extra["accepted"] == 500


@pytest.mark.parametrize("text", ["unit_id,value\nu1,1,2\n", '{"value": 1}\n{"value"\n'])
def test_a_line_that_is_no_outcome_is_named_before_anything_is_sent(text: str) -> None:
    router = Router()
    with pytest.raises(InvalidInput) as caught:
        outcome_files.report_text(router, "churn", text)
    assert caught.value.extra["reasons"][0].startswith("line 2")
    assert router.taken == {}


def test_a_file_with_times_sent_again_is_the_same_outcomes() -> None:
    router = Router()
    text = "unit_id,value,observed_at\nu1,true,2026-11-01T00:00:00Z\nu2,true,2026-11-01T00:00:00Z\n"
    for _ in range(2):
        outcome_files.report_text(router, "churn", text)
    assert len(router.taken) == 2
