"""Whether a candidate that answers copies is fit, by pairs: the same request answered by both. Pure.

One customer counts once, by the first pair, so that pairs are independent; the interval of the mean difference of pairs
is a betting confidence sequence: exact, from the first pair on, and valid however often it is looked at. All metrics
are bounded: a share of pairs, or a difference of two values within 0 and 1.

    all metrics certainly not worse than their margins, hold over   PASS: fit
    any certainly worse                                             FAIL: not fit
    else                                                            INCONCLUSIVE: wait
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from control_plane.domain.analysis.comparison import NOTHING, SEVERITY, Measurement, worst_of
from control_plane.domain.analysis.judge import Analysis, Tally
from control_plane.domain.analysis.plan import AnalysisPlan, Resolved, Role, Source
from control_plane.domain.experiments import betting, guardrails
from control_plane.domain.experiments.samples import Mean
from control_plane.domain.rollouts import Conclusion, Verdict

METHOD: Final = "betting confidence sequence of pairs"


@dataclass(frozen=True, slots=True)
class Pairs:
    """One metric over customers: the differences of their pairs, and either side by itself."""

    differences: Mean = NOTHING
    candidate: Mean = NOTHING
    baseline: Mean = NOTHING


def judge(
    plan: AnalysisPlan,
    metrics: Sequence[Resolved],
    found: Mapping[str, Pairs],
    tally: Tally,
    *,
    idle_s: float,
    held: bool,
    exhausted: bool = False,
) -> Analysis:
    """One look. `idle_s`: since the last pair; `held`: the shortest time is over; `exhausted`: no more are read."""
    alpha = plan.alpha / max(1, len(plan.judged))
    measured = tuple(_compare(metric, found.get(metric.name, Pairs()), alpha) for metric in metrics)
    guards = [one for one in measured if one.role is Role.GUARDRAIL]
    verdict = worst_of([one.verdict for one in guards])
    decisive = [one.why for one in guards if one.verdict is verdict]
    match verdict:
        case Verdict.FAIL:
            judged = Analysis(verdict, f"Not fit: {' '.join(decisive)}", measured, conclusion=Conclusion.WORSE)
        case Verdict.PASS:
            judged = Analysis(verdict, f"Fit: {' '.join(decisive)}", measured, conclusion=Conclusion.NOT_WORSE)
        case Verdict.INCONCLUSIVE:
            judged = Analysis(verdict, " ".join(decisive) or "Nothing is compared.", measured)
    errors = tally.errors + 1 if any(one.failed for one in measured) else 0
    waits = held and verdict is Verdict.INCONCLUSIVE
    tally = Tally(tally.inconclusive + 1 if waits else 0, errors)
    return replace(judged, tally=tally, pause=_pause(plan, judged, tally, idle_s, exhausted))


def _compare(metric: Resolved, pairs: Pairs, alpha: float) -> Measurement:
    name, role, count = metric.name, metric.metric.role, pairs.differences.count

    def undecided(why: str, *, failed: bool = False) -> Measurement:
        comparison = guardrails.Comparison.UNDECIDED
        said = f"{name}: {why}"
        sides = pairs.candidate, pairs.baseline
        return Measurement(name, role, Verdict.INCONCLUSIVE, comparison, said, *sides, failed=failed)

    if not count:
        return undecided("no customer's request was answered by both yet.")
    share = metric.metric.source is Source.DISAGREEMENT
    bounds = betting.Bounds(yes_no=True) if share else betting.Bounds(-1.0, 1.0)
    try:
        interval = betting.interval(pairs.differences, bounds, alpha=alpha)
    except ValueError as exc:
        return undecided(f"cannot be compared: {exc}.", failed=True)
    ways = (True, False) if metric.metric.source is Source.SCORE else (False,)
    judged = max(
        (guardrails.non_inferior(name, interval, margin=metric.margin, higher_is_better=up) for up in ways),
        key=lambda one: SEVERITY[one.verdict],
    )
    said = f"{judged.why[:-1]} ({count} customers)."
    sides = pairs.candidate, pairs.baseline
    return Measurement(name, role, judged.verdict, judged.comparison, said, *sides, interval, METHOD)


def _pause(plan: AnalysisPlan, judged: Analysis, tally: Tally, idle_s: float, exhausted: bool) -> str:
    if judged.verdict is not Verdict.INCONCLUSIVE:
        return ""
    if tally.errors >= plan.error_limit:
        return f"Not measured {tally.errors} times in a row: {judged.why}"
    if idle_s > plan.no_traffic_s:
        return f"No request was answered by both for {idle_s:.0f} s: there is nothing to decide on."
    if exhausted:
        return f"As many pairs as are read did not decide: {judged.why}"
    limit = plan.inconclusive_limit
    if limit is not None and tally.inconclusive >= limit:
        return f"Still undecided after {tally.inconclusive} looks beyond the hold: {judged.why}"
    return ""
