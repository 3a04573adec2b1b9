"""What stands beside a decision, against scipy, statsmodels and closed forms."""

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

from control_plane.domain.analysis import beside
from control_plane.domain.analysis import plan as plans
from control_plane.domain.analysis.beside import Beside
from control_plane.domain.analysis.comparison import Arm
from control_plane.domain.analysis.plan import Declared, Metric, OutcomeMetric, Resolved, Role
from control_plane.domain.experiments.guardrails import Comparison
from control_plane.domain.experiments.samples import Mean, Pair

DECLARED = Declared(
    {"bought": OutcomeMetric(), "left": OutcomeMetric(higher_is_better=False), "spent": OutcomeMetric("amount")}
)
RNG = np.random.default_rng(8)


def metric(name: str, **more: object) -> Resolved:
    return plans.resolve(Metric(name, Role.GOAL, 0.01, **more), DECLARED)  # type: ignore[arg-type]


def shares(candidate: int, baseline: int, units: int) -> tuple[Arm, Arm]:
    a, b = (Arm(Mean.of_events(events, units), events) for events in (candidate, baseline))
    return a, b


def report(resolved: Resolved, pair: tuple[Arm, Arm]) -> Beside:
    [found] = beside.reports([resolved], {resolved.name: pair}, share=0.05, alpha=0.05)
    return found


def test_shares_have_the_z_test_and_the_beta_posterior_and_the_interval_that_decides() -> None:
    found = report(metric("outcome:bought"), shares(620, 500, 10_000))
    assert found.decides.comparison is Comparison.BETTER
    assert found.lift == pytest.approx(0.24)
    assert found.one_look is not None
    assert found.one_look.test == "two-proportion z"
    assert found.one_look.p == pytest.approx(proportions_ztest([620, 500], [10_000, 10_000])[1], rel=1e-9)
    assert found.one_look.interval is not None
    assert 0 < found.one_look.interval.low < 0.012 < found.one_look.interval.high
    draws = [RNG.beta(1 + events, 1 + 10_000 - events, 400_000) for events in (620, 500)]
    assert found.posterior is not None
    assert found.posterior.better == pytest.approx(float((draws[0] > draws[1]).mean()), abs=0.001)


def test_of_a_metric_that_should_fall_better_means_lower() -> None:
    pair = shares(500, 530, 10_000)
    falls, rises = report(metric("outcome:left"), pair).posterior, report(metric("outcome:bought"), pair).posterior
    assert falls is not None
    assert rises is not None
    assert falls.better == pytest.approx(1 - rises.better)
    assert falls.better > 0.5 > rises.better
    assert rises.loss - falls.loss == pytest.approx(-rises.interval.effect, rel=1e-9)  # of choosing the candidate
    assert falls.interval == rises.interval


def test_few_events_are_tested_exactly_and_no_customers_not_at_all() -> None:
    few = report(metric("outcome:bought"), shares(3, 0, 50))
    assert few.one_look is not None
    assert (few.one_look.test, few.one_look.interval, few.lift) == ("fisher", None, None)
    assert few.one_look.p == pytest.approx(stats.fisher_exact([[3, 47], [0, 50]]).pvalue, rel=1e-9)
    closed = sum(
        np.exp(special.betaln(1 + i, 51 + 48) - np.log(48 + i) - special.betaln(1 + i, 48) - special.betaln(1, 51))
        for i in range(4)
    )
    assert few.posterior is not None
    assert few.posterior.better == pytest.approx(closed, abs=1e-9)
    nobody = report(metric("outcome:bought"), (Arm(), Arm()))
    assert (nobody.one_look, nobody.posterior, nobody.lift) == (None, None, None)


def test_amounts_have_welch_and_ratios_a_posterior_alone() -> None:
    spent = [RNG.lognormal(3 + lift, 1, 400) for lift in (0.2, 0.0)]
    arms = [Arm(Mean.of(values), len(values)) for values in spent]
    found = report(metric("outcome:spent"), (arms[0], arms[1]))
    theirs = stats.ttest_ind(*spent, equal_var=False)
    assert found.one_look is not None
    assert (found.one_look.test, found.one_look.p) == ("welch t", pytest.approx(theirs.pvalue, rel=1e-9))
    assert found.posterior is not None
    assert found.posterior.better == pytest.approx(float(stats.norm.cdf(theirs.statistic)), rel=1e-9)
    asked = [RNG.poisson(4, 400) + 1.0 for _ in "ab"]
    pairs = [Pair.of(*both) for both in zip(spent, asked, strict=True)]
    ratio = metric("ratio:spend", numerator="outcome:spent", denominator="requests")
    found = report(ratio, (Arm(pairs[0].y, 400, pairs[0].x, pairs[0].c), Arm(pairs[1].y, 400, pairs[1].x, pairs[1].c)))
    assert found.one_look is None
    assert found.posterior is not None
    assert 0 < found.posterior.better < 1


def test_p_values_are_adjusted_over_the_metrics_that_have_one() -> None:
    metrics = [metric("outcome:bought"), metric("outcome:spent"), metric("outcome:left")]
    pairs = {"outcome:bought": shares(560, 500, 10_000), "outcome:left": shares(450, 500, 10_000)}
    found = beside.reports(metrics, pairs, share=0.05 / 3, alpha=0.05)
    assert [one.one_look is None for one in found] == [False, True, False]
    looks = [one.one_look for one in found if one.one_look is not None]
    assert [look.adjusted for look in looks] == pytest.approx(
        multipletests([look.p for look in looks], method="holm")[1]
    )
