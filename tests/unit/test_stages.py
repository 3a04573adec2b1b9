import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.stages import (
    BY_HAND,
    Candidate,
    Change,
    Gates,
    Incumbent,
    OpenRollout,
    Stage,
    decide_promotion,
    decide_stage,
    standing,
    succession,
)

GOOD = Candidate(
    "2",
    Stage.STAGING,
    "sha256:aa",
    needs={"amount": "number"},
    metric="average_precision",
    value=0.72,
    cost=120.0,
    trivial_cost=900.0,
    validated=True,
)
GATES = Gates(minimum=0.5, max_degradation=0.05, costs_declared=True)
STABLE = Incumbent("1", sends={"amount": "number"}, candidate_value=0.72, value=0.70)
ROLLOUT = OpenRollout("r-1", "3", "baking")


def reasons(candidate: Candidate = GOOD, gates: Gates = GATES, **more: object) -> list[str]:
    arguments = {"incumbent": STABLE, "rollout": None} | more
    return [r.split(":")[0] for r in decide_promotion(candidate, gates, **arguments).reasons]  # type: ignore[arg-type]


def test_a_version_that_passes_every_gate_is_allowed() -> None:
    assert reasons() == []
    assert reasons(incumbent=None) == []


@pytest.mark.parametrize(
    ("candidate", "gate"),
    [
        (replace(GOOD, digest=None), "digest"),
        (replace(GOOD, deleted=True), "deleted"),
        (replace(GOOD, stage=Stage.ARCHIVED), "stage"),
        (replace(GOOD, stage=Stage.PRODUCTION), "stage"),
        (replace(GOOD, config_problems=("name: bad",)), "config"),
        (replace(GOOD, value=0.4999), "metric"),
        (replace(GOOD, value=None), "metric"),
        (replace(GOOD, metric=None), "metric"),
        (replace(GOOD, value=math.nan), "metric"),
        (replace(GOOD, cost=900.0), "cost"),
        (replace(GOOD, cost=None), "cost"),
        (replace(GOOD, cost=math.nan), "cost"),
        (replace(GOOD, validated=False), "validated_data"),
        (replace(GOOD, validated=None), "validated_data"),
        (replace(GOOD, needs={"amount": "number", "age": "integer"}), "features"),
        (replace(GOOD, needs={"amount": "text"}), "features"),
    ],
)
def test_each_gate_refuses_alone_and_by_its_name(candidate: Candidate, gate: str) -> None:
    assert reasons(candidate) == [gate]


def test_every_gate_that_is_not_met_is_named_with_its_numbers() -> None:
    candidate = replace(GOOD, value=0.41, cost=950.0, validated=None, digest=None, needs={"age": "integer"})
    incumbent = replace(STABLE, candidate_value=0.41)
    told = decide_promotion(candidate, GATES, incumbent=incumbent, rollout=ROLLOUT).reasons
    assert told == (
        "digest: version 2 has no artifact digest to verify its servers against.",
        "rollout: rollout r-1 of version 3 is baking; finish or abort it first.",
        "metric: average_precision 0.4100 is below the minimum 0.5000.",
        "cost: 950.00 is not below 900.00, the cost of the trivial answer.",
        "validated_data: the training data of version 2 was never validated (INCONCLUSIVE).",
        "degradation: average_precision 0.4100 is worse than Production version 1 (0.7000) by more than 0.0500.",
        "features: clients of Production do not send age.",
    )


def test_no_comparison_on_the_same_hold_out_is_inconclusive_and_refuses() -> None:
    for incumbent in (replace(STABLE, value=None), replace(STABLE, candidate_value=None)):
        assert reasons(incumbent=incumbent) == ["degradation"]


def test_without_a_declared_minimum_nothing_passes() -> None:
    assert reasons(gates=replace(GATES, minimum=None)) == ["metric"]


def test_a_gate_that_is_declared_off_asks_for_nothing() -> None:
    off = replace(GATES, better_than_trivial=False, validated_data=False, costs_declared=False)
    assert reasons(replace(GOOD, cost=None, trivial_cost=None, validated=None), off) == []


def test_without_costs_the_metric_is_held_against_the_trivial_answer() -> None:
    gates, bare = replace(GATES, costs_declared=False), replace(GOOD, cost=None, trivial_cost=None)
    assert reasons(bare, gates) == ["trivial"]  # INCONCLUSIVE
    assert reasons(replace(bare, trivial_value=0.72), gates) == ["trivial"]
    assert reasons(replace(bare, trivial_value=0.71), gates) == []


def test_an_integer_where_a_number_is_needed_is_no_change_for_clients() -> None:
    assert reasons(incumbent=replace(STABLE, sends={"amount": "integer"})) == []
    assert reasons(replace(GOOD, needs={"amount": "integer"})) == ["features"]


values = st.floats(-10, 10)


@given(values, values, st.floats(0, 5), st.booleans())
def test_degradation_is_judged_in_the_direction_of_the_metric(old: float, new: float, allowed: float, up: bool) -> None:
    gates = Gates(-100 if up else 100, allowed, higher_is_better=up, better_than_trivial=False, validated_data=False)
    candidate = replace(GOOD, value=new)
    named = reasons(candidate, gates, incumbent=replace(STABLE, candidate_value=new, value=old))
    loss = old - new if up else new - old
    if abs(loss - allowed) > 1e-9:
        assert (named == ["degradation"]) == (loss > allowed)


@given(st.sampled_from(Stage), st.sampled_from(Stage))
def test_nothing_enters_or_leaves_production_without_a_rollout(a: Stage, b: Stage) -> None:
    decision = decide_stage(replace(GOOD, stage=a), b, rollout=None)
    assert decision.allowed == (b in BY_HAND[a])
    if Stage.PRODUCTION in (a, b):
        assert not decision.allowed


def test_staging_asks_for_a_digest_and_a_config_and_for_no_evidence() -> None:
    bare = Candidate("2", Stage.DEVELOPMENT, "sha256:aa")
    assert decide_stage(bare, Stage.STAGING, rollout=None).allowed
    assert (
        len(decide_stage(replace(bare, digest=None, config_problems=("x",)), Stage.STAGING, rollout=None).reasons) == 2
    )
    assert not decide_stage(bare, Stage.ARCHIVED, rollout=OpenRollout("r", "2", "pending")).allowed


moves = st.lists(st.tuples(st.sampled_from("12345"), st.booleans()), max_size=30)


@given(moves)
def test_rolling_back_walks_the_production_history_backwards(history: list[tuple[str, bool]]) -> None:
    """Against a stack kept by hand: replace pushes, roll back pops."""
    changes: list[Change] = []
    stack: list[str] = []
    for version, back in history:
        if back and len(stack) > 1:
            gone = stack.pop()
            changes += [
                Change(gone, Stage.PRODUCTION, Stage.STAGING),
                Change(stack[-1], Stage.ARCHIVED, Stage.PRODUCTION),
            ]
        elif not back and version not in stack[-1:]:
            if stack:
                changes.append(Change(stack[-1], Stage.PRODUCTION, Stage.ARCHIVED))
            changes.append(Change(version, Stage.STAGING, Stage.PRODUCTION))
            stack.append(version)
        assert succession(changes) == tuple(stack)
        producing = [v for v, stage in standing(changes).items() if stage is Stage.PRODUCTION]
        assert producing == stack[-1:]
