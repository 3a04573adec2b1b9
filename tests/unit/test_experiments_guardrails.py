import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.experiments import guardrails
from control_plane.domain.experiments.guardrails import Comparison
from control_plane.domain.experiments.samples import Interval
from control_plane.domain.rollouts import Verdict

ends = st.tuples(st.floats(-10, 10), st.floats(-10, 10)).map(sorted)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "comparison"),
    [
        (0.1, 0.3, Verdict.PASS, Comparison.BETTER),
        (-0.4, 0.3, Verdict.PASS, Comparison.EQUIVALENT),
        (-0.4, 3.0, Verdict.PASS, Comparison.UNDECIDED),
        (-0.6, 0.3, Verdict.INCONCLUSIVE, Comparison.UNDECIDED),
        (-0.6, -0.1, Verdict.INCONCLUSIVE, Comparison.WORSE),
        (-0.9, -0.6, Verdict.FAIL, Comparison.WORSE),
        (-math.inf, math.inf, Verdict.INCONCLUSIVE, Comparison.UNDECIDED),
    ],
)
def test_a_guardrail_with_a_margin_of_a_half(low: float, high: float, verdict: Verdict, comparison: Comparison) -> None:
    effect = Interval((low + high) / 2 if math.isfinite(low) else 0.0, low, high)
    judged = guardrails.non_inferior("conversion", effect, margin=0.5, higher_is_better=True)
    assert (judged.verdict, judged.comparison) == (verdict, comparison)
    assert judged.why.startswith("conversion")


@given(ends, st.floats(0, 5))
def test_a_metric_that_should_fall_is_the_mirror_image(pair: list[float], margin: float) -> None:
    low, high = pair
    up, down = Interval((low + high) / 2, low, high), Interval(-(low + high) / 2, -high, -low)
    for judge in (guardrails.non_inferior, guardrails.superior):
        a = judge("m", up, margin=margin, higher_is_better=True)
        b = judge("m", down, margin=margin, higher_is_better=False)
        assert (a.verdict, a.comparison) == (b.verdict, b.comparison)


@given(ends, st.floats(0, 5))
def test_an_effect_the_interval_allows_is_never_decided_against(pair: list[float], margin: float) -> None:
    low, high = pair
    effect = Interval((low + high) / 2, low, high)
    guard = guardrails.non_inferior("m", effect, margin=margin, higher_is_better=True)
    test = guardrails.superior("m", effect, margin=margin, higher_is_better=True)
    if low < -margin:
        assert guard.verdict is not Verdict.PASS
    if high >= -margin:
        assert guard.verdict is not Verdict.FAIL
    if low <= 0 <= high:
        assert test.verdict is Verdict.INCONCLUSIVE
        assert (test.comparison is Comparison.EQUIVALENT) == (-margin <= low and high <= margin)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_no_harm_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        guardrails.non_inferior("m", Interval(0, -1, 1), margin=bad, higher_is_better=True)
