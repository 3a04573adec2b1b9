import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from control_plane.domain.model_config import ModelConfig, problems

PARSE = TypeAdapter(ModelConfig)
SMALL: dict[str, Any] = {"name": "risk", "problem": "regression", "features": {"amount": {"type": "number"}}}


def test_the_smallest_model_yaml_is_usable() -> None:
    config = PARSE.validate_python(SMALL)
    assert problems(config) == []
    assert config.rollout.strategy == "blue_green"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"featurs": {}}, "featurs"),
        ({"slo": {"p95": 1}}, r"slo\.p95"),
        ({"features": {"amount": {"type": "float"}}}, r"features\.amount\.type"),
        ({"metric": {"name": "auc"}}, r"metric\.name"),
        ({"registry": {"gates": {"minimum": 1}}}, r"registry\.gates\.minimum"),
    ],
)
def test_an_undeclared_key_or_value_is_named(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        PARSE.validate_python(SMALL | change)


def test_everything_wrong_is_said_at_once() -> None:
    config = PARSE.validate_python(
        {
            "name": "Risk!\n",
            "problem": "binary",
            "features": {
                "leak": {"type": "number"},
                "amount": {"type": "number", "range": [5, 1]},
                "kind": {"type": "text", "range": [0, 1], "categories": ["a"]},
            },
            "target": {"column": "bad"},
            "never_features": ["leak"],
            "decision": {"threshold": 1.5},
            "training": {"test_share": 1},
            "slo": {"deadline_ms": 0},
            "serving": {"workers": 0, "rate_limit_rps": 0},
            "business": {
                "Kind": {"kind": "sum", "feature": "kind"},
                "saved": {"kind": "expected_saving", "feature": "amount", "decision": "maybe"},
            },
        }
    )
    found = problems(config)
    starts = [reason.split(":")[0] for reason in found]
    assert starts == [
        "name",
        "features.leak",
        "features.amount.range",
        "features.kind.range",
        "features.kind.categories",
        "target.positive",
        "decision.threshold",
        "training.test_share",
        "slo.deadline_ms",
        "serving.rate_limit_rps",
        "serving.workers",
        "business.Kind",
        "business.Kind.feature",
        "business.saved.feature",
        "business.saved",
        "business.saved.decision",
    ]


def test_a_trailing_newline_does_not_make_a_valid_name() -> None:
    assert problems(PARSE.validate_python(SMALL | {"name": "risk\n"}))


@pytest.mark.parametrize("problem", ["multiclass", "regression"])
def test_costs_of_a_problem_that_has_no_yes_are_refused(problem: str) -> None:
    found = problems(PARSE.validate_python(SMALL | {"problem": problem, "costs": {"false_positive": 5}}))
    assert found == [f"costs: only a binary problem has costs; this one is {problem}"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"drift": {"psi": -1, "bins": 0, "alpha": 5}}, "drift"),
        ({"drift": {"performance_drop": math.nan}}, "drift.performance_drop"),
        ({"problem": "binary", "costs": {"false_positive": math.nan}}, "costs.false_positive"),
        ({"registry": {"gates": {"max_degradation": math.inf}}}, "registry.gates.max_degradation"),
        ({"training": {"test_from": "yesterday"}}, "training.test_from"),
        ({"label": {"delay_s": -100}}, "label.delay_s"),
        ({"rollout": {"strategy": "canary", "bake_s": -5}}, "rollout.bake_s"),
        ({"rollout": {"strategy": "canary", "steps": [{"weight": 500, "hold_s": 1}]}}, "rollout.steps.0"),
        ({"rollout": {"strategy": "canary", "steps": [{"weight": 5, "hold_s": -1}]}}, "rollout.steps.0"),
    ],
)
def test_a_setting_beyond_its_range_is_named(change: dict[str, Any], place: str) -> None:
    found = problems(PARSE.validate_python(SMALL | change))
    assert [reason.split(":")[0] for reason in found] == [place]
