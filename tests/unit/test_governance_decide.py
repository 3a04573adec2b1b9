"""What follows from a signal: the decision, whatever the policy and the situation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.contracts import policies
from control_plane.domain.governance import checks, decide
from control_plane.domain.governance.decide import Acted, Outcome, Signal, Situation, Status
from control_plane.domain.governance.policy import (
    PROPOSABLE,
    TELLS,
    Diagnosis,
    Freeze,
    Limits,
    Operation,
    Policy,
    Rule,
    Severity,
    Source,
    Tier,
    When,
)
from control_plane.errors import InvalidInput

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROD = policies.template("prod")
FIRING = Signal(Source.DRIFT, "incident", "churn", Severity.WARNING, Status.FIRING, NOW)
OPEN = Situation(rollout_open=True, previous="1", candidate="3")
SETTLED = Situation(previous="1", candidate="3")

operations = st.sampled_from(sorted(PROPOSABLE))
moments = st.integers(-7_200, 0).map(lambda s: NOW + timedelta(seconds=s))
models = st.sampled_from([None, "churn", "fraud"])
signals = st.builds(
    Signal,
    st.sampled_from(Source),
    st.sampled_from(["incident", "HighErrors"]),
    models,
    st.sampled_from(Severity),
    st.sampled_from(Status),
    moments,
)
situations = st.builds(
    Situation,
    st.sampled_from(["", "we look into it"]),
    st.lists(st.builds(Acted, operations, models, moments, st.booleans()), max_size=6).map(tuple),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "1"]),
    st.booleans(),
    st.sampled_from([None, "3"]),
    st.frozensets(operations, max_size=2),
)
rules = st.dictionaries(operations, st.builds(Rule, st.sampled_from(Tier)), max_size=5)
whens = st.builds(
    When,
    st.lists(st.sampled_from(Source), max_size=2).map(tuple),
    st.sampled_from([(), ("High*",)]),
    st.sampled_from([(), ("churn",)]),
    st.lists(st.sampled_from(Severity), max_size=1).map(tuple),
)
diagnoses = st.builds(Diagnosis, st.just("d"), whens, st.lists(operations, max_size=5).map(tuple))
freezes = st.builds(
    Freeze, st.just("f"), st.just(NOW), st.sampled_from([NOW + timedelta(hours=1), NOW + timedelta(seconds=0)])
)
limits = st.builds(
    Limits, st.integers(0, 3), st.dictionaries(operations, st.sampled_from([0.0, 60.0, 7_000.0]), max_size=4)
)
any_policy = st.builds(
    Policy,
    st.just("p"),
    rules,
    st.lists(diagnoses, max_size=3).map(tuple),
    limits,
    st.lists(freezes, max_size=1).map(tuple),
)


@given(any_policy, signals, situations)
def test_nothing_is_done_that_the_policy_and_the_situation_do_not_allow(
    policy: Policy, signal: Signal, seen: Situation
) -> None:
    found = decide.decide(policy, signal, seen, now=NOW)
    assert found == decide.decide(policy, signal, seen, now=NOW)
    assert all(step.why for step in found.steps)
    assert all(step.operation in found.text and step.why in found.text for step in found.steps)
    done = [step.operation for step in found.steps if step.outcome is Outcome.DO]
    changing = [operation for operation in done if operation not in TELLS]
    moving = [s for s in found.steps if s.operation not in TELLS and s.outcome in {Outcome.DO, Outcome.ASK}]
    if signal.status is Status.RESOLVED:
        assert found.steps == ()
    if seen.halted or signal.model is None or any(f.since <= NOW < f.until for f in policy.freezes):
        assert moving == []
    spent = sum(a.operation not in TELLS and not a.asked and NOW - a.at < timedelta(hours=1) for a in seen.acted)
    assert not changing or spent + len(changing) <= policy.limits.per_hour
    for step in found.steps:
        last = [a.at for a in seen.acted if (a.operation, a.model) == (step.operation, signal.model)]
        span = timedelta(seconds=policy.limits.cool_down_s.get(step.operation, 0.0))
        if step.outcome in {Outcome.DO, Outcome.ASK}:
            assert all(NOW - at >= span for at in last)
            assert step.operation not in seen.waiting or step.operation in TELLS
        tier = policy.rules.get(step.operation, Rule(Tier.AUTOMATIC)).tier
        if step.operation in policy.rules and step.operation not in TELLS:
            assert step.outcome is not Outcome.DO or tier is Tier.AUTOMATIC
            assert step.outcome is not Outcome.ASK or tier is Tier.APPROVAL


def test_drift_under_prod_tells_people_and_asks_for_a_retraining() -> None:
    found = decide.decide(PROD, FIRING, SETTLED, now=NOW)
    assert (found.diagnosis, [(s.operation, s.outcome) for s in found.steps]) == (
        "drift",
        [(Operation.NOTIFY, Outcome.DO), (Operation.RETRAIN, Outcome.ASK)],
    )
    assert found.text.startswith("drift incident of churn is firing: drift, warning (customers are no longer like")


def test_an_outage_in_a_bake_is_taken_back_at_once_and_one_of_a_settled_version_is_asked_about() -> None:
    outage = replace(FIRING, source=Source.SLO, severity=Severity.CRITICAL)
    baking = decide.decide(PROD, outage, OPEN, now=NOW)
    assert {s.operation: s.outcome for s in baking.steps} == {
        Operation.NOTIFY: Outcome.DO,
        Operation.ROLL_BACK: Outcome.DO,
        Operation.ROLL_BACK_SETTLED: Outcome.HOLD,
    }
    settled = decide.decide(PROD, outage, SETTLED, now=NOW)
    assert {s.operation: s.outcome for s in settled.steps}[Operation.ROLL_BACK_SETTLED] is Outcome.ASK


def outcome(policy: Policy, operation: Operation, seen: Situation) -> Outcome:
    outage = replace(FIRING, source=Source.SLO, severity=Severity.CRITICAL)
    found = decide.decide(policy, outage, seen, now=NOW)
    return {step.operation: step.outcome for step in found.steps}[operation]


@pytest.mark.parametrize(("spent", "expected"), [(5, Outcome.DO), (6, Outcome.HOLD)])
def test_the_budget_of_the_hour_is_spent_by_all_models_together(spent: int, expected: Outcome) -> None:
    hour_ago, lately = NOW - timedelta(hours=1), NOW - timedelta(minutes=59)
    acted = (Acted(Operation.RETRAIN, "fraud", lately),) * spent
    acted += (Acted(Operation.RETRAIN, "fraud", hour_ago), Acted(Operation.NOTIFY, "fraud", lately))
    acted += (Acted(Operation.PROMOTE, "fraud", lately, asked=True),)
    assert outcome(PROD, Operation.ROLL_BACK, replace(OPEN, acted=acted)) is expected


@pytest.mark.parametrize(("begins", "expected"), [(0, Outcome.HOLD), (1, Outcome.DO), (-3_600, Outcome.DO)])
def test_a_freeze_holds_from_its_first_moment_to_its_last(begins: int, expected: Outcome) -> None:
    since = NOW + timedelta(seconds=begins)
    frozen = replace(PROD, freezes=(Freeze("year end", since, since + timedelta(hours=1)),))
    assert outcome(frozen, Operation.ROLL_BACK, OPEN) is expected
    assert outcome(frozen, Operation.NOTIFY, OPEN) is Outcome.DO


def test_under_dev_people_are_told_and_nothing_else_happens() -> None:
    for source in Source:
        found = decide.decide(policies.template("dev"), replace(FIRING, source=source), OPEN, now=NOW)
        assert [step.operation for step in found.steps] == [Operation.NOTIFY]


def test_what_no_diagnosis_matches_is_written_down_and_says_so() -> None:
    found = decide.decide(Policy("empty"), FIRING, SETTLED, now=NOW)
    assert (found.diagnosis, [s.operation for s in found.steps]) == ("unknown", [Operation.LOG])


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        ({"error_rate": 0.1}, {"error_rate": 0.01}, "better"),
        ({"error_rate": 0.1, "p95_ms": 10}, {"error_rate": 0.01, "p95_ms": 90}, "worse"),
        ({"accuracy": 0.9}, {"accuracy": 0.8}, "worse"),
        ({"accuracy": 0.9}, {"accuracy": 0.91}, "same"),
        ({"accuracy": None}, {"accuracy": 0.9}, "unknown"),
        ({}, {}, "unknown"),
    ],
)
def test_no_figures_are_no_good_news(
    before: dict[str, float | None], after: dict[str, float | None], effect: str
) -> None:
    assert checks.compare(before, after)[0] == effect


def test_a_policy_that_proposes_the_impossible_is_refused() -> None:
    wrong = {
        "kind": "policy",
        "name": "x",
        "diagnoses": [{"name": "d", "when": {}, "propose": ["erase", "configure"]}],
        "freezes": [{"name": "f", "since": "2026-01-02T00:00:00", "until": "2026-01-01T00:00:00Z"}],
        "schedules": [{"name": "s", "every_s": 1}],
        "limits": {"per_hour": -1, "check_after_s": 1, "cool_down_s": {"retrain": -1}},
    }
    with pytest.raises(InvalidInput) as refused:
        policies.parsed(wrong)
    named = " ".join(refused.value.extra["reasons"])
    for part in (
        "diagnoses.0.propose: erase, configure",
        "freezes.0",
        "schedules.0",
        "per_hour",
        "check_after_s",
        "cool_down_s",
    ):
        assert part in named
