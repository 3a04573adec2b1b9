from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.domain.analysis import comparison, forecast, judge
from control_plane.domain.analysis import plan as plans
from control_plane.domain.analysis.comparison import Arm
from control_plane.domain.analysis.forecast import Traffic, Usual
from control_plane.domain.analysis.judge import Analysis, Evidence, Live, Tally
from control_plane.domain.analysis.plan import AnalysisPlan, Declared, Metric, OutcomeMetric, Prices, Role
from control_plane.domain.experiments import ranking
from control_plane.domain.experiments.guardrails import Comparison
from control_plane.domain.experiments.ranking import Cells
from control_plane.domain.experiments.samples import Mean, Pair
from control_plane.domain.experiments.srm import Stage
from control_plane.domain.rollouts import Conclusion, Plan, Step, Strategy, Verdict

HOUR = timedelta(hours=1)
BOUGHT = Declared({"bought": OutcomeMetric(), "spent": OutcomeMetric("amount")})
GOAL = AnalysisPlan((Metric("error_rate"), Metric("outcome:bought", Role.GOAL, 0.02)))
RAMP = Plan(Strategy.CANARY, (Step(500, HOUR), Step(5_000, HOUR), Step(8_000, HOUR)), analysis=GOAL)
CLEAN = Mean.of_events(0, 5_000)


def arm(events: int, count: int) -> Arm:
    return Arm(Mean.of_events(events, count), events)


def look(
    *, errors: tuple[int, int] = (0, 0), bought: tuple[int, int] = (1_070, 1_000), step: int = 1, n: int = 10_000,
    plan: AnalysisPlan = GOAL, tally: Tally | None = None, **seen: object,
) -> Analysis:  # fmt: skip
    pairs = {
        "error_rate": (arm(errors[0], n), arm(errors[1], n)),
        "outcome:bought": (arm(bought[0], n), arm(bought[1], n)),
    }
    metrics = [plans.resolve(metric, BOUGHT) for metric in plan.metrics]
    evidence = replace(Evidence(pairs, fallback=CLEAN), **seen)  # type: ignore[arg-type]
    return judge.judge(replace(RAMP, analysis=plan), plan, metrics, evidence, tally or Tally(), step=step, held=True)


def test_a_better_candidate_passes_a_worse_fails_and_an_equal_one_ends_without_a_difference() -> None:
    better, worse, equal = look(bought=(1_300, 1_000)), look(bought=(700, 1_000)), look(n=100_000, bought=(9, 9))
    assert (better.verdict, better.conclusion) == (Verdict.PASS, Conclusion.BETTER)
    assert (worse.verdict, worse.conclusion) == (Verdict.FAIL, Conclusion.WORSE)
    assert (equal.verdict, equal.conclusion) == (Verdict.INCONCLUSIVE, Conclusion.NO_DIFFERENCE)
    promoted = look(n=100_000, bought=(9, 9), plan=replace(GOAL, on_equal="promote"))
    assert promoted.verdict is Verdict.PASS


def test_a_goal_need_not_be_reached_before_the_last_step_that_compares() -> None:
    assert look(step=0).verdict is Verdict.PASS
    assert look(step=1).verdict is Verdict.INCONCLUSIVE
    assert look(step=0, bought=(700, 1_000)).verdict is Verdict.FAIL


def test_a_guardrail_that_is_certainly_worse_fails_however_good_the_goal_is() -> None:
    found = look(errors=(500, 100), bought=(1_500, 1_000))
    assert found.verdict is Verdict.FAIL
    assert "error_rate +0.04" in found.why


def test_nothing_measured_is_inconclusive_and_counts_towards_the_limit_only_after_the_hold() -> None:
    metrics = [plans.resolve(metric, BOUGHT) for metric in GOAL.metrics]
    for held, counted in ((False, 0), (True, 3)):
        found = judge.judge(RAMP, GOAL, metrics, Evidence(), Tally(inconclusive=2), step=0, held=held)
        assert (found.verdict, found.tally.inconclusive) == (Verdict.INCONCLUSIVE, counted)
    assert comparison.worst_of([]) is Verdict.INCONCLUSIVE


def test_a_candidate_whose_calls_fall_back_is_never_passed_and_fails_above_the_limit() -> None:
    some = look(bought=(1_500, 1_000), fallback=Mean.of_events(100, 5_000))
    assert (some.verdict, some.conclusion) == (Verdict.INCONCLUSIVE, None)
    assert "2.0%" in some.why
    assert look(fallback=Mean.of_events(2_000, 5_000)).verdict is Verdict.FAIL
    live = look(bought=(1_500, 1_000), live=Live(100, 40))
    assert (live.verdict, live.conclusion) == (Verdict.FAIL, Conclusion.WORSE)
    assert look(bought=(1_500, 1_000), live=Live(100, 2)).verdict is Verdict.INCONCLUSIVE
    assert look(bought=(1_500, 1_000), live=Live(3, 3)).verdict is Verdict.INCONCLUSIVE  # three are no proof


def test_arms_of_the_wrong_size_pause_the_rollout_and_prove_nothing() -> None:
    found = look(bought=(700, 1_000), stages=(Stage((6_000, 5_000), (1, 1)),))
    assert (found.verdict, found.conclusion) == (Verdict.INCONCLUSIVE, None)
    assert "units do not fit the weights" in found.pause


def test_no_traffic_and_queries_without_an_answer_pause_it_after_their_limits() -> None:
    def asked(why: str) -> dict[str, object]:
        return {
            "queries": (comparison.threshold("promql:q", Role.GUARDRAIL, None, at_most=1, at_least=None, error=why),)
        }

    assert "Nobody asked" in look(idle_s=3_601).pause
    assert look(idle_s=3_599).pause == ""
    broken = look(**asked("no answer"), tally=Tally(errors=3))  # type: ignore[arg-type]
    assert (broken.tally.errors, broken.pause) == (4, "")
    assert "no answer" in look(**asked("no answer"), tally=broken.tally).pause  # type: ignore[arg-type]
    assert look(tally=broken.tally).tally.errors == 0  # in a row
    limited = replace(GOAL, inconclusive_limit=2)
    assert look(plan=limited).pause == ""
    assert "undecided" in look(plan=limited, tally=Tally(inconclusive=1)).pause
    assert look(bought=(700, 1_000), idle_s=9_999).pause == ""  # a failure comes first


def test_what_is_left_of_baseline_may_fail_a_late_step_and_need_not_pass_it() -> None:
    goal = (1_300, 1_000)
    assert look(step=2, bought=goal).verdict is Verdict.PASS
    late = {"error_rate": (arm(400, 2_000), arm(10, 500))}
    assert look(step=2, bought=goal, late=late).verdict is Verdict.FAIL
    assert look(step=1, bought=goal, late=late).verdict is Verdict.PASS


def test_a_query_without_news_is_inconclusive_and_a_crossed_limit_fails() -> None:
    def read(value: float | None, **more: str) -> Verdict:
        return comparison.threshold("promql:q", Role.GUARDRAIL, value, at_most=2, at_least=1, **more).verdict

    found = [read(1.5), read(3), read(0), read(None), read(float("nan")), read(1.5, stale="old"), read(1.5, error="x")]
    assert found == [Verdict.PASS, *[Verdict.FAIL] * 2, *[Verdict.INCONCLUSIVE] * 4]


@given(st.lists(st.sampled_from(list(Verdict)), min_size=1), st.sampled_from(list(Verdict)))
def test_another_measurement_never_makes_a_verdict_better(verdicts: list[Verdict], more: Verdict) -> None:
    order = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL]
    assert order.index(comparison.worst_of([*verdicts, more])) >= order.index(comparison.worst_of(verdicts))


@settings(max_examples=25)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 4), st.integers(0, 300), st.integers(0, 300))
def test_only_evidence_against_no_harm_ever_passes(a: int, b: int, step: int, ea: int, eb: int) -> None:
    """Whatever is seen: PASS means that every guardrail's interval excludes its margin."""
    found = look(step=min(step, 2), n=300, bought=(a, b), errors=(ea, eb))
    if found.verdict is Verdict.PASS:
        guard = next(m for m in found.measurements if m.metric == "error_rate")
        assert guard.effect is not None
        assert guard.effect.high <= 0.01
    if found.verdict is Verdict.FAIL:
        assert any(m.effect is not None and (m.effect.low > 0.01 or m.effect.high < 0) for m in found.measurements)


def test_equal_arms_looked_at_again_and_again_are_rarely_called_different() -> None:
    """20 customers at a time, 100 tests: at most alpha of them may ever cry wolf (here with room for chance)."""
    draw, alarms = np.random.default_rng(5), 0
    metric = plans.resolve(Metric("outcome:bought", Role.GOAL, 0.05), BOUGHT)
    for _ in range(100):
        arms = np.cumsum(draw.binomial(20, 0.1, size=(2, 100)), axis=1)
        for at in range(29, 100, 5):
            one, other = (arm(int(row[at]), 20 * (at + 1)) for row in arms)
            if comparison.compare(metric, one, other, alpha=0.05).comparison in {Comparison.BETTER, Comparison.WORSE}:
                alarms += 1
                break
    assert alarms <= 9


def test_amounts_wait_for_fifty_customers_who_spent_and_bounded_ones_begin_at_once() -> None:
    spent = plans.resolve(Metric("outcome:spent", Role.GOAL, 5.0), BOUGHT)
    few = Arm(Mean.of([100.0] * 40 + [0.0] * 1_000), 40)
    assert comparison.compare(spent, few, few, alpha=0.05).effect is None
    assert comparison.compare(spent, *[Arm(Mean.of([100.0, 90.0] * 40), 80)] * 2, alpha=0.05).effect is not None
    bounded = Declared({"spent": OutcomeMetric("amount", low=0, high=100)})
    assert comparison.compare(plans.resolve(spent.metric, bounded), few, few, alpha=0.05).effect is not None
    beyond = comparison.compare(plans.resolve(spent.metric, bounded), *[Arm(Mean.of([500.0]), 1)] * 2, alpha=0.05)
    assert (beyond.verdict, beyond.failed) == (Verdict.INCONCLUSIVE, True)


def test_a_plan_that_cannot_be_carried_out_is_refused_with_every_reason() -> None:
    wrong = AnalysisPlan(
        (
            Metric("convrsion", Role.GOAL),
            Metric("outcome:bought"),
            Metric("promql:queue", query="q"),
            Metric("label_error"),
            Metric("score", Role.GOAL),
            Metric("latency", limit_ms=-1.0),
            Metric("latency", at_most=3.0),
        ),
        alpha=0.9,
        observation_s=-1,
        max_contamination=0.5,
        error_limit=0,
    )
    declared = replace(BOUGHT, label_depends_on_decision=True)
    found = plans.problems(wrong, declared, strategy="canary", prometheus=False)
    assert len(found) == 14, "\n".join(found)
    assert "known are error_rate" in found[1]
    assert "outcome:bought" in found[1]
    assert plans.problems(GOAL, BOUGHT, strategy="ab_test", prometheus=False) == []
    assert "goal" in plans.problems(AnalysisPlan(), BOUGHT, strategy="ab_test", prometheus=False)[0]
    with pytest.raises(ValueError, match="not declared"):
        plans.resolve(Metric("outcome:nope"), BOUGHT)


def test_a_cost_is_a_goal_where_costs_are_declared_and_labels_do_not_depend_on_the_decision() -> None:
    goal = AnalysisPlan((Metric("cost", Role.GOAL, 0.5),))

    def refused(**said: object) -> list[str]:
        return plans.problems(goal, replace(BOUGHT, **said), strategy="ab_test", prometheus=False)  # type: ignore[arg-type]

    prices = Prices(2.0, 50.0, 1.0, 0.0)
    assert refused(prices=prices) == []
    assert "declares no costs" in refused()[0]
    assert "bounds, not differences" in refused(prices=prices, label_depends_on_decision=True)[0]
    unpriced = AnalysisPlan((Metric("cost"),))
    assert "margin" in plans.problems(unpriced, replace(BOUGHT, prices=prices), strategy="canary", prometheus=False)[0]
    resolved = plans.resolve(goal.metrics[0], replace(BOUGHT, prices=prices, label_delay_s=60.0))
    assert (resolved.low, resolved.high, resolved.delay_s) == (0.0, 50.0, 60.0)
    cheap, dear = (Arm(Mean.of([0.0, 0.0, value] * 2_000), 2_000) for value in (2.0, 50.0))
    assert comparison.compare(resolved, cheap, dear, alpha=0.05).verdict is Verdict.PASS
    by_amount = plans.resolve(goal.metrics[0], replace(BOUGHT, prices=replace(prices, own="amount")))
    assert (by_amount.low, by_amount.high) == (None, None)


def test_a_forecast_grows_with_the_precision_wanted_and_falls_with_traffic() -> None:
    def takes(rate: float, margin: float, share: float = 0.1) -> float:
        plan = AnalysisPlan((Metric("outcome:bought", Role.GOAL, margin),))
        metrics = [plans.resolve(metric, BOUGHT) for metric in plan.metrics]
        usual = {"outcome:bought": Usual(share, (share * (1 - share)) ** 0.5)}
        found = forecast.forecast(replace(RAMP, analysis=plan), plan, metrics, Traffic(rate, usual))
        assert found.seconds is not None
        return found.seconds

    assert takes(10_000, 0.01) > takes(10_000, 0.02) > takes(1e9, 0.02)
    assert takes(100, 0.02) > takes(10_000, 0.02)
    assert takes(1e12, 0.02) == pytest.approx(3 * 3_600 + 60)  # the holds and one observation


def test_a_plan_that_could_never_decide_is_refused_with_the_time_it_would_take() -> None:
    plan = AnalysisPlan((Metric("error_rate", margin=0.001),))
    metrics = [plans.resolve(metric, BOUGHT) for metric in plan.metrics]
    slow = forecast.forecast(RAMP, plan, metrics, Traffic(50.0, {"error_rate": Usual(0.01, 0.1)}))
    why = forecast.refusal(slow, plan)
    assert why is not None
    assert "days" in why
    assert "50 customers a day" in why
    unseen = forecast.forecast(RAMP, plan, metrics, Traffic())
    assert (unseen.seconds, forecast.refusal(unseen, plan)) == (None, None)
    unknown = AnalysisPlan((Metric("outcome:spent", Role.GOAL, 1.0),))
    resolved = [plans.resolve(metric, BOUGHT) for metric in unknown.metrics]
    assert forecast.forecast(RAMP, unknown, resolved, Traffic(100.0)).seconds is None


def test_a_version_that_answers_everybody_is_judged_by_its_own_failures() -> None:
    assert judge.judge_bake(0.1, Live(200, 80)).verdict is Verdict.FAIL
    assert judge.judge_bake(0.1, Live(200, 2)).verdict is Verdict.INCONCLUSIVE
    assert judge.judge_bake(0.1, Live()).verdict is Verdict.INCONCLUSIVE


def test_a_ratio_recall_and_ranks_are_compared_once_enough_is_seen_and_shown_as_themselves() -> None:
    draw = np.random.default_rng(8)
    said = replace(BOUGHT, binary=True)

    def spender(lift: float) -> Arm:
        sessions = draw.poisson(3, 4_000) + 1.0
        spend = sessions * draw.gamma(2.0, 5.0 * lift, 4_000)
        pair = Pair.of(spend, sessions)
        return Arm(pair.y, 4_000, pair.x, pair.c)

    each = plans.resolve(Metric("ratio:each", Role.GOAL, 0.5, numerator="outcome:spent", denominator="requests"), said)
    better = comparison.compare(each, spender(1.2), spender(1.0), alpha=0.05)
    assert better.comparison is Comparison.BETTER
    assert (better.candidate.mean, better.baseline.mean) == pytest.approx((12.0, 10.0), rel=0.05)
    assert comparison.compare(each, *[Arm(Mean.of([9.0] * 40), 40, Mean.of([1.0] * 40))] * 2, alpha=0.05).effect is None

    def ranked(apart: float, units: int) -> Arm:
        truth = draw.random(units) < 0.3
        scores = 1 / (1 + np.exp(-draw.normal(apart * truth - 1, 1)))
        cells: Cells = ()
        for score, positive in zip(scores, truth, strict=True):
            cells = ranking.added(cells, ((ranking.cell(float(score), positive=bool(positive)), 1),))
        return Arm(Mean(units), 0, cells=cells)

    auc = plans.resolve(Metric("auc", margin=0.02), said)
    worse = comparison.compare(auc, ranked(0.5, 2_000), ranked(1.5, 2_000), alpha=0.05)
    assert (worse.verdict, worse.baseline.mean) == (Verdict.FAIL, pytest.approx(0.855, abs=0.03))
    few = comparison.compare(auc, ranked(1.5, 100), ranked(1.5, 100), alpha=0.05)
    assert (few.effect, few.failed) == (None, False)


def test_the_time_before_takes_its_share_of_the_variance_out_and_leaves_the_effect() -> None:
    draw = np.random.default_rng(9)

    def measured(cuped_s: float | None, lift: float) -> list[Arm]:
        arms = []
        for shift in (lift, 0.0):
            before = draw.gamma(2.0, 10.0, 3_000)
            pair = Pair.of(before + draw.normal(shift, 4.0, 3_000), before)
            arms.append(Arm(pair.y, 3_000, pair.x, pair.c) if cuped_s else Arm(pair.y, 3_000))
        return arms

    widths = []
    for cuped_s in (None, 86_400.0):
        spent = plans.resolve(Metric("outcome:spent", Role.GOAL, 1.0, cuped_s=cuped_s), BOUGHT)
        found = comparison.compare(spent, *measured(cuped_s, 1.0), alpha=0.05)
        assert found.effect is not None
        assert found.effect.low <= 1.0 <= found.effect.high
        widths.append(found.effect.high - found.effect.low)
        assert ("CUPED" in (found.method or "")) == (cuped_s is not None)
    assert widths[1] < 0.5 * widths[0]


def test_parts_of_a_ratio_and_what_explains_a_metric_are_checked_by_name() -> None:
    wrong = AnalysisPlan(
        (
            Metric("ratio:a", margin=1.0, numerator="outcome:nope", denominator="requests"),
            Metric("ratio:b", numerator="outcome:spent", denominator="outcome:bought"),
            Metric("error_rate", numerator="outcome:spent"),
            Metric("latency", cuped_s=60.0),
            Metric("outcome:bought", margin=0.1, cuped_s=-1.0),
            Metric("auc"),
        )
    )
    found = plans.problems(wrong, BOUGHT, strategy="canary", prometheus=False)
    for said in (
        "numerator: give one of",
        "margin above 0",
        "belong to ratio",
        "belongs to outcome",
        "cuped_s is above",
    ):
        assert any(said in line for line in found), said
    assert any("binary" in line for line in found)
    assert len(found) == 6
    depends = replace(BOUGHT, binary=True, label_depends_on_decision=True)
    ranks = AnalysisPlan(tuple(Metric(name) for name in ("auc", "average_precision", "recall")))
    assert len(plans.problems(ranks, depends, strategy="canary", prometheus=False)) == 3
    assert (
        plans.problems(ranks, replace(depends, label_depends_on_decision=False), strategy="canary", prometheus=False)
        == []
    )


@pytest.mark.parametrize(
    "looked", [pytest.param((200, 20), id="short"), pytest.param((4_000, 100), marks=pytest.mark.slow, id="long")]
)
@pytest.mark.parametrize("name", ["auc", "average_precision", "recall"])
def test_ranks_of_equal_arms_looked_at_again_and_again_are_rarely_called_different(
    name: str, looked: tuple[int, int]
) -> None:
    tests, looks = looked
    draw, alarms = np.random.default_rng(10), 0
    metric = plans.resolve(Metric(name, Role.GOAL, 0.05), replace(BOUGHT, binary=True))
    for _ in range(tests):
        arms = [Arm(), Arm()]
        for _ in range(looks):
            for at in (0, 1):
                truth = draw.random(100) < 0.3
                steps = np.clip(np.floor((draw.normal(truth * 1.2 - 1, 1) + 10) * 20), 0, 399).astype(int)
                if name == "recall":
                    pair = Pair.of((truth & (steps > 190)).astype(float), truth.astype(float))
                    arms[at] += Arm(pair.y, pair.y.events, pair.x, pair.c)
                else:
                    values, counts = np.unique(steps + 400 * truth, return_counts=True)
                    cells = tuple(zip(map(int, values), map(int, counts), strict=True))
                    arms[at] += Arm(Mean(100), 0, cells=cells)
            found = comparison.compare(metric, arms[0], arms[1], alpha=0.05).comparison
            if found in {Comparison.BETTER, Comparison.WORSE}:
                alarms += 1
                break
    assert alarms / tests <= 0.05 + 3 * (0.05 * 0.95 / tests) ** 0.5
