"""When there is enough to learn from, and when a new version is better."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from control_plane.contracts.models import RetrainSpec
from control_plane.domain import retraining
from control_plane.domain.model_config import Feature, FeatureType, Label, ModelConfig, Problem, Training
from control_plane.domain.retraining import Difference, Gathered, Source
from control_plane.domain.rollouts import Verdict

CONFIG = ModelConfig(
    "loans", Problem.BINARY, {"income": Feature(FeatureType.NUMBER)}, training=Training(retrain_rows=500)
)


def judged(difference: Difference | None, *, higher: bool = True, production: str | None = "3") -> retraining.Judged:
    return retraining.judge("roc_auc", difference, higher_is_better=higher, production=production, rows=1_200)


def test_only_a_difference_beyond_doubt_is_better_and_the_sign_is_the_metrics_own() -> None:
    up, down, either = Difference(0.03, 0.01, 0.05), Difference(-0.03, -0.05, -0.01), Difference(0.01, -0.01, 0.03)
    assert [judged(d).verdict for d in (up, down, either)] == [Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE]
    assert [judged(d, higher=False).verdict for d in (up, down, either)] == [
        Verdict.FAIL,
        Verdict.PASS,
        Verdict.INCONCLUSIVE,
    ]
    assert "+0.0300 beside version 3 on the same 1,200 rows (95 %: +0.0100 to +0.0500)" in judged(up).why


def test_what_was_not_compared_is_inconclusive_and_the_first_version_is_better_than_none() -> None:
    assert judged(None).verdict is Verdict.INCONCLUSIVE
    assert judged(Difference(0.03, math.nan, math.nan)).verdict is Verdict.INCONCLUSIVE
    for half in (Difference(0.1, 0.5, math.nan), Difference(-0.1, math.nan, -0.1), Difference(math.nan, 0.1, 0.2)):
        assert judged(half).verdict is Verdict.INCONCLUSIVE
    assert judged(None, production=None).verdict is Verdict.PASS


def test_evidence_without_bounds_is_no_comparison() -> None:
    full = {"version": "3", "value": 0.7, "difference": {"value": 0.1, "low": 0.05, "high": 0.2}}
    assert retraining.comparison(full) == ("3", Difference(0.1, 0.05, 0.2))
    assert retraining.comparison({**full, "difference": {"value": 0.1, "low": None, "high": None}}) == ("3", None)
    assert retraining.comparison({"version": 3, "value": 0.7}) == ("3", None)
    assert retraining.comparison({}) == (None, None)


def test_too_little_is_told_with_every_number() -> None:
    few = Gathered(answers=900, young=300, unlabelled=580, rows=20, classes={"1": 20})
    assert retraining.shortages(few, CONFIG) == [
        "20 labelled rows, 500 are needed (training.retrain_rows)",
        "every label says 1",
    ]
    rare = Gathered(answers=600, rows=600, classes={"1": 9, "0": 591})
    assert retraining.shortages(rare, CONFIG) == ["9 rows of 1, 50 are needed"]
    assert retraining.shortages(Gathered(rows=600, classes={"1": 60, "0": 540}), CONFIG) == []
    assert retraining.told(few, Label(delay_s=2_592_000)).startswith(
        "900 answers, 0 not usable, 300 whose label has not had its 30 days, 580 without a label"
    )


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({}, Source.ARCHIVE),
        ({"data": "/rows.parquet"}, Source.FILE),
        ({"source": "simulated", "seed": 3}, Source.SIMULATED),
        ({"since": "2026-11-01T00:00:00Z", "rows": 1_000}, Source.ARCHIVE),
    ],
)
def test_where_the_rows_come_from_is_never_open(given: dict[str, Any], source: Source) -> None:
    spec = RetrainSpec.model_validate({"reason": "r", **given})
    assert spec.taken_from is source
    assert spec.arguments()["source"] == source
    assert RetrainSpec.model_validate({"reason": "r", **spec.arguments()}).arguments() == spec.arguments()


@pytest.mark.parametrize(
    "given",
    [
        {"source": "archive", "data": "/rows.parquet"},
        {"source": "file"},
        {"data": "/rows.parquet", "since": "2026-11-01T00:00:00Z"},
        {"source": "simulated", "rows": 1_000},
        {"since": "2026-11-01T00:00:00"},
        {"data": "a\0"},
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetrainSpec.model_validate({"reason": "r", **given})
