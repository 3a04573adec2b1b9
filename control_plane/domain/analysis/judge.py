"""All measurements of one look, folded into one verdict, and what follows from it.

    what is found                                           verdict        what follows
    candidate's requests fall back or fail above the limit  FAIL           abort (after `failure_limit` further looks)
    goal worse, guardrail worse than its margin             FAIL           the same
    fallbacks above `max_contamination`                     INCONCLUSIVE   wait: no comparison counts
    arms not as large as their weights say (SRM)            INCONCLUSIVE   pause: somebody has to look
    no difference beyond the goal's margin                  INCONCLUSIVE   end, stable stays (or promote, if so planned)
    no traffic for `no_traffic_s`                           INCONCLUSIVE   pause
    guardrails not worse; at the last step that compares,   PASS           next step
      the goal better

Steps of at most 50 % compare slices of one size and decide; in later ones what is left of baseline guards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from control_plane.domain.analysis import comparison
from control_plane.domain.analysis.comparison import NOTHING, Arm, Measurement, worst_of
from control_plane.domain.analysis.plan import AnalysisPlan, Resolved, Role, Source
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.experiments import betting, srm
from control_plane.domain.experiments.guardrails import Comparison
from control_plane.domain.experiments.samples import Mean
from control_plane.domain.experiments.srm import Srm
from control_plane.domain.rollouts import Conclusion, Plan, Verdict

DECIDES = BUCKETS // 2  # the largest weight at which baseline is as large as the candidate's slice
SRM_ALPHA = 0.001
_LIVE_ALPHA = 1e-6  # of one look at the newest requests, which is repeated with new ones
Pairs = Mapping[str, tuple[Arm, Arm]]  # metric -> candidate, baseline


@dataclass(frozen=True, slots=True)
class Live:
    """The candidate's newest requests. `bad`: failed, or answered by another version."""

    requests: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """`decided`: all steps up to 50 % together; `late`: the current step where it is larger. `fallback`: share of each
    closed candidate customer's requests that others had to answer. `queries`: measurements of promql metrics."""

    decided: Pairs = field(default_factory=dict[str, tuple[Arm, Arm]])
    late: Pairs = field(default_factory=dict[str, tuple[Arm, Arm]])
    stages: tuple[srm.Stage, ...] = ()
    fallback: Mean = NOTHING
    live: Live = Live()
    queries: tuple[Measurement, ...] = ()
    idle_s: float = 0.0  # since anybody was last asked for an answer in this rollout


@dataclass(frozen=True, slots=True)
class Tally:
    """Looks in a row, since the step began or was resumed."""

    inconclusive: int = 0  # after the hold
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Analysis:
    """`pause`: why somebody has to look; empty: nobody has to. `conclusion`: what the comparison ended with."""

    verdict: Verdict
    why: str
    measurements: tuple[Measurement, ...] = ()
    srm: Srm | None = None
    conclusion: Conclusion | None = None
    pause: str = ""
    tally: Tally = Tally()


def judge(
    plan: Plan,
    analysis: AnalysisPlan,
    metrics: Sequence[Resolved],
    seen: Evidence,
    tally: Tally,
    *,
    step: int,
    held: bool,
) -> Analysis:
    """One look at a rollout that is progressing. `held`: the step's shortest time is over.

    `metrics`: those of `analysis` that are compared, in its order.
    """
    if plan.steps[step].weight == 0:
        return _before_anyone(analysis, seen, tally, held=held)
    alpha = share_of_alpha(plan, analysis)
    decided = [_compare(metric, seen.decided, alpha) for metric in metrics]
    is_late = plan.steps[step].weight > DECIDES
    late = [_late(_compare(m, seen.late, alpha)) for m in metrics if is_late and m.metric.role is Role.GUARDRAIL]
    ratio = srm.check(seen.stages, alpha=SRM_ALPHA)
    measured = (_fallbacks(analysis, seen), *decided, *late, *seen.queries)
    found = _folded(plan, analysis, measured, ratio, step)
    errors = tally.errors + 1 if any(m.failed for m in measured) else 0
    waits = held and found.verdict is Verdict.INCONCLUSIVE
    tally = Tally(tally.inconclusive + 1 if waits else 0, errors)
    return replace(found, tally=tally, pause=_pause(analysis, found, seen, tally, ratio))


def judge_bake(limit: float, live: Live) -> Analysis:
    """One look at a version that answers everybody. There is nothing left to compare with: only its own failures."""
    found = _too_many(limit, live, "requests of the last minute failed")
    if found is not None:
        return Analysis(Verdict.FAIL, found, conclusion=Conclusion.WORSE)
    return Analysis(Verdict.INCONCLUSIVE, f"{live.bad} of {live.requests} requests of the last minute failed.")


def _before_anyone(analysis: AnalysisPlan, seen: Evidence, tally: Tally, *, held: bool) -> Analysis:
    """A step for the allow-list alone: nobody is compared, only the candidate's own failures count."""
    limit, live = analysis.fallback_limit, seen.live
    if why := _too_many(limit, live, "requests of the allow-list were not answered by the candidate"):
        return Analysis(Verdict.FAIL, why, conclusion=Conclusion.WORSE)
    enough = live.requests > 0 and live.bad <= limit * live.requests
    said = f"{live.bad} of {live.requests} requests of the allow-list in the last minute failed or fell back."
    if enough:
        return Analysis(Verdict.PASS, said)
    found = Analysis(Verdict.INCONCLUSIVE, said)
    tally = Tally(tally.inconclusive + 1 if held else 0)
    return replace(found, tally=tally, pause=_pause(analysis, found, seen, tally, srm.check((), alpha=SRM_ALPHA)))


def share_of_alpha(plan: Plan, analysis: AnalysisPlan) -> float:
    """Of one metric and one kind of step: Bonferroni over all that may end the rollout."""
    late = any(DECIDES < step.weight < BUCKETS for step in plan.steps)
    return analysis.alpha / max(1, len(analysis.judged)) / (2 if late else 1)


def last_deciding(plan: Plan) -> int:
    """Index of the last step that compares slices of one size; -1: there is none."""
    return max((at for at, step in enumerate(plan.steps) if 0 < step.weight <= DECIDES), default=-1)


def _compare(metric: Resolved, pairs: Pairs, alpha: float) -> Measurement:
    return comparison.compare(metric, *pairs.get(metric.name, (Arm(), Arm())), alpha=alpha)


def _late(measured: Measurement) -> Measurement:
    """What is left of baseline guards: it may fail the candidate, and need not pass it again."""
    why = f"after 50 %: {measured.why}"
    role = measured.role if measured.verdict is Verdict.FAIL else Role.REPORT
    return replace(measured, why=why, role=role)


def _fallbacks(plan: AnalysisPlan, seen: Evidence) -> Measurement:
    """The candidate's own answers: FAIL certainly above the limit, INCONCLUSIVE above the contamination accepted."""
    name, live, closed = "fallbacks", seen.live, seen.fallback

    def found(verdict: Verdict, why: str) -> Measurement:
        compared = Comparison.WORSE if verdict is Verdict.FAIL else Comparison.UNDECIDED
        return Measurement(name, Role.GUARDRAIL, verdict, compared, f"{name}: {why}", candidate=closed)

    if why := _too_many(plan.fallback_limit, live, "requests of the last minute were not answered by the candidate"):
        return found(Verdict.FAIL, why)
    if closed.count and betting.interval(closed, betting.Bounds(), alpha=plan.alpha).low > plan.fallback_limit:
        return found(Verdict.FAIL, f"{closed.mean:.1%} of calls fell back, limit {plan.fallback_limit:.1%}.")
    shares = [closed.mean if closed.count else 0.0, live.bad / live.requests if live.requests else 0.0]
    if max(shares) > plan.max_contamination:
        return found(
            Verdict.INCONCLUSIVE,
            f"{max(shares):.1%} of calls fell back; above {plan.max_contamination:.1%} no comparison counts.",
        )
    if not closed.count:
        return found(Verdict.INCONCLUSIVE, "no customer of the candidate has closed yet.")
    return found(Verdict.PASS, f"{closed.mean:.2%} of calls fell back.")


def _too_many(limit: float, live: Live, what: str) -> str | None:
    if not live.requests:
        return None
    arm = Mean.of_events(live.bad, live.requests)
    low = betting.interval(arm, betting.Bounds(yes_no=True), alpha=_LIVE_ALPHA).low
    if low <= limit:
        return None
    return f"{live.bad} of {live.requests} {what}: certainly above {limit:.1%}."


def _folded(plan: Plan, analysis: AnalysisPlan, measured: tuple[Measurement, ...], ratio: Srm, step: int) -> Analysis:
    goal = next((m for m in measured if m.role is Role.GOAL), None)
    guards = [m for m in measured if m.role is Role.GUARDRAIL]
    worst = worst_of([m.verdict for m in guards])
    fallbacks = measured[0]
    failed = [m for m in (*guards, *([goal] if goal else [])) if m.verdict is Verdict.FAIL]
    if fallbacks.verdict is Verdict.FAIL:
        return Analysis(Verdict.FAIL, fallbacks.why, measured, ratio, Conclusion.WORSE)
    if ratio.mismatch:  # the arms are not what they should be: a difference between them proves nothing
        return Analysis(Verdict.INCONCLUSIVE, f"Sample ratio: {ratio.why}.", measured, ratio)
    if fallbacks.verdict is Verdict.INCONCLUSIVE:
        return Analysis(Verdict.INCONCLUSIVE, fallbacks.why, measured, ratio)
    if failed:
        return Analysis(Verdict.FAIL, " ".join(m.why for m in failed), measured, ratio, Conclusion.WORSE)
    equal = goal is not None and goal.comparison is Comparison.EQUIVALENT
    if equal and worst is Verdict.PASS and analysis.on_equal == "keep":
        why = f"No difference: {goal.why}" if goal else ""
        return Analysis(Verdict.INCONCLUSIVE, why, measured, ratio, Conclusion.NO_DIFFERENCE)
    if worst is Verdict.INCONCLUSIVE:
        open_ones = [m.why for m in guards if m.verdict is Verdict.INCONCLUSIVE]
        return Analysis(Verdict.INCONCLUSIVE, " ".join(open_ones), measured, ratio)
    if goal is not None and step >= last_deciding(plan) and goal.verdict is not Verdict.PASS and not equal:
        return Analysis(Verdict.INCONCLUSIVE, goal.why, measured, ratio)
    better = goal is not None and goal.verdict is Verdict.PASS
    why = " ".join(m.why for m in (*([goal] if goal else []), *guards[1:]))
    return Analysis(Verdict.PASS, why, measured, ratio, Conclusion.BETTER if better else Conclusion.NOT_WORSE)


def _pause(plan: AnalysisPlan, found: Analysis, seen: Evidence, tally: Tally, ratio: Srm) -> str:
    if found.verdict is Verdict.FAIL or found.conclusion is not None:
        return ""
    if ratio.mismatch:
        return found.why
    if tally.errors >= plan.error_limit:
        broken = next(m.why for m in found.measurements if m.failed)
        return f"Not measured {tally.errors} times in a row: {broken}"
    if seen.idle_s > plan.no_traffic_s:
        return f"Nobody asked for {seen.idle_s:.0f} s: there is nothing to decide on."
    limit = plan.inconclusive_limit
    if limit is not None and tally.inconclusive >= limit:
        return f"Still undecided after {tally.inconclusive} looks beyond the hold: {found.why}"
    return ""


def compared(metrics: Sequence[Resolved]) -> list[Resolved]:
    """Those that come from our own records."""
    return [metric for metric in metrics if metric.metric.source is not Source.PROMQL]


def finite(value: float) -> float | None:
    """For documents: JSON knows no infinity."""
    return value if math.isfinite(value) else None
