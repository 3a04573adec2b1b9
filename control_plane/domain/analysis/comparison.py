"""From the sufficient statistics of two arms to one measurement. Always valid: look as often as you like.

Below 50 events per arm the betting confidence sequence (exact, bounded metrics), from there on the asymptotic one.
Which of the two is read is decided by the arms' sizes; each covers at all times, and alpha is divided between them
before the start: in half for metrics whose events are rare in health (errors, slow answers), one part in twenty for
betting elsewhere, nothing for betting where there are no bounds to bet within.
Source: the pages of docs/math on betting, confidence sequences and guardrails.
"""

import math
from dataclasses import dataclass

from control_plane.domain.analysis.plan import Resolved, Role, Source
from control_plane.domain.experiments import betting, guardrails, ranking, samples, sequences
from control_plane.domain.experiments.guardrails import Comparison, Judgement
from control_plane.domain.experiments.ranking import Cells
from control_plane.domain.experiments.samples import Estimate, Interval, Mean, Pair
from control_plane.domain.rollouts import Verdict

NOTHING = Mean()
NO_MEANS = frozenset({Source.RATIO, Source.RECALL, Source.AUC, Source.AVERAGE_PRECISION})  # not over customers
_RARE = frozenset({Source.ERROR_RATE, Source.LATENCY})
_EXACT_OF_RARE, _EXACT = 0.5, 0.05  # share of alpha that the betting sequence has
STANDARD_TAU = 0.08  # of a goal, in standard deviations of one customer: tightest at about 2,500 customers per arm
MOST_MARGINS = 3.0  # of a goal's tau: differences much larger than the one that matters are found soon anyway
GOAL_STARTS = 3.0  # tau^2 / variance at which looks at a goal begin


@dataclass(frozen=True, slots=True)
class Arm:
    """Closed units of one arm. `nonzero`: units whose value is not 0, of a cost not that of a right no.

    `beside`, `c`: a ratio's denominator, or what explains the metric, of the same units, with the sum of products of
    deviations; without one they are empty. `cells`: units by score and class, of ranking metrics.
    """

    values: Mean = NOTHING
    nonzero: int = 0
    beside: Mean = NOTHING
    c: float = 0.0
    cells: Cells = ()

    def __add__(self, other: "Arm") -> "Arm":
        nonzero, cells = self.nonzero + other.nonzero, ranking.added(self.cells, other.cells)
        if not (self.beside.count or other.beside.count):
            return Arm(self.values + other.values, nonzero, cells=cells)
        both = self.pair + other.pair
        return Arm(both.y, nonzero, both.x, both.c, cells)

    @property
    def pair(self) -> Pair:
        """Raises ValueError for an arm of units without a second number."""
        return Pair(self.values, self.beside, self.c)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric at one look. `failed`: it could not be measured at all (a query without an answer)."""

    metric: str
    role: Role
    verdict: Verdict
    comparison: Comparison
    why: str
    candidate: Mean = NOTHING
    baseline: Mean = NOTHING
    effect: Interval | None = None
    method: str | None = None
    failed: bool = False


def effect(resolved: Resolved, candidate: Arm, baseline: Arm, *, alpha: float) -> tuple[Interval, str] | None:
    """The always-valid interval of candidate - baseline and how it came about; None while nothing can be said.

    `alpha` is the metric's share. Looks of the asymptotic interval begin at 50 events per arm, a goal's not before it
    could decide; when that was is told from the events seen since.
    """
    arms = (candidate, baseline)
    bounds, exact = _bounds(resolved), exact_share(resolved)
    events = min(_events(resolved, arm) for arm in arms)
    estimated = estimates(resolved, candidate, baseline) if events >= sequences.LEAST_EVENTS else None
    if estimated is not None:
        found = samples.difference(*estimated)
        tau = tau_of(resolved, found.variance, candidate.values.count, baseline.values.count)
        start = found.variance * events / sequences.LEAST_EVENTS
        if resolved.metric.role is Role.GOAL:
            start = min(start, tau**2 / GOAL_STARTS)
        if found.variance <= start:
            interval = sequences.confidence_sequence(found, alpha=alpha * (1 - exact), tau=tau, start=start)
            explained = ", the time before taken out (CUPED)" if resolved.metric.cuped_s else ""
            return interval, f"asymptotic confidence sequence{explained}"
    if bounds is None or not all(arm.values.count for arm in arms):
        return None
    return betting.difference(candidate.values, baseline.values, bounds, alpha=alpha * exact), (
        "betting confidence sequence"
    )


def exact_share(resolved: Resolved) -> float:
    """The part of alpha that the betting sequence has; the asymptotic one has the rest."""
    if _bounds(resolved) is None:
        return 0.0
    return _EXACT_OF_RARE if resolved.metric.source in _RARE else _EXACT


def tau_of(resolved: Resolved, variance: float, candidate: int, baseline: int) -> float:
    """Where the asymptotic interval is tightest, in the metric's unit; `variance`: of the difference, with these sizes.

    A guardrail is decided at its margin: the margin. A goal may be any effect: 0.08 standard deviations of a customer,
    within one and three of the margin that matters.
    """
    sd = math.sqrt(variance * candidate * baseline / (candidate + baseline))
    if resolved.margin <= 0:
        return STANDARD_TAU * sd
    if resolved.metric.role is not Role.GOAL:
        return resolved.margin
    return min(max(STANDARD_TAU * sd, resolved.margin), MOST_MARGINS * resolved.margin)


def compare(resolved: Resolved, candidate: Arm, baseline: Arm, *, alpha: float) -> Measurement:
    """The measurement of one comparison. Values outside of the declared bounds are INCONCLUSIVE, and it says so."""
    role = resolved.metric.role
    sizes = f"{candidate.values.count} and {baseline.values.count} customers closed"

    def undecided(why: str, *, failed: bool = False) -> Measurement:
        said = f"{resolved.name}: {why}"
        verdict, comparison = Verdict.INCONCLUSIVE, Comparison.UNDECIDED
        return Measurement(
            resolved.name,
            role,
            verdict,
            comparison,
            said,
            shown(resolved, candidate),
            shown(resolved, baseline),
            failed=failed,
        )

    try:
        found = effect(resolved, candidate, baseline, alpha=alpha)
    except ValueError as exc:
        return undecided(f"cannot be compared: {exc}.", failed=True)
    if found is None:
        return undecided(f"not enough customers yet, {sizes}.")
    interval, method = found
    judged = _judged(resolved, interval)
    return Measurement(
        resolved.name,
        role,
        judged.verdict,
        judged.comparison,
        f"{judged.why[:-1]} ({sizes}).",
        shown(resolved, candidate),
        shown(resolved, baseline),
        interval,
        method,
    )


def threshold(
    name: str,
    role: Role,
    value: float | None,
    *,
    at_most: float | None,
    at_least: float | None,
    error: str | None = None,
    stale: str | None = None,
) -> Measurement:
    """A number against its limits. No value is INCONCLUSIVE: `stale` why it is no news, `error` why it is missing."""
    if value is None or value != value or error or stale:
        why = error or stale or "there is no value"
        return Measurement(
            name, role, Verdict.INCONCLUSIVE, Comparison.UNDECIDED, f"{name}: {why}.", failed=bool(error)
        )
    if at_most is not None and value > at_most:
        return Measurement(name, role, Verdict.FAIL, Comparison.WORSE, f"{name} is {value:.4g}, above {at_most:g}.")
    if at_least is not None and value < at_least:
        return Measurement(name, role, Verdict.FAIL, Comparison.WORSE, f"{name} is {value:.4g}, below {at_least:g}.")
    return Measurement(name, role, Verdict.PASS, Comparison.UNDECIDED, f"{name} is {value:.4g}, within its limits.")


def _judged(resolved: Resolved, interval: Interval) -> Judgement:
    name, margin, better = resolved.name, resolved.margin, resolved.higher_is_better
    match resolved.metric.role:
        case Role.GOAL:
            return guardrails.superior(name, interval, margin=margin, higher_is_better=better)
        case Role.GUARDRAIL | Role.REPORT if resolved.metric.source is Source.SCORE:
            sides = [
                guardrails.non_inferior(name, interval, margin=margin, higher_is_better=up) for up in (True, False)
            ]
            return max(sides, key=lambda side: SEVERITY[side.verdict])
        case Role.GUARDRAIL | Role.REPORT:
            return guardrails.non_inferior(name, interval, margin=margin, higher_is_better=better)


SEVERITY = {Verdict.PASS: 0, Verdict.INCONCLUSIVE: 1, Verdict.FAIL: 2}


def worst_of(verdicts: "list[Verdict]") -> Verdict:
    """FAIL before INCONCLUSIVE before PASS; of nothing: INCONCLUSIVE, since no data is not good news."""
    return max(verdicts, key=SEVERITY.__getitem__, default=Verdict.INCONCLUSIVE)


def _bounds(resolved: Resolved) -> betting.Bounds | None:
    if resolved.low is None or resolved.high is None:
        return None
    return betting.Bounds(resolved.low, resolved.high, yes_no=resolved.yes_no)


def estimates(resolved: Resolved, candidate: Arm, baseline: Arm) -> tuple[Estimate, Estimate] | None:
    """Both arms' estimates; None while they do not vary, or a denominator is not yet told from 0."""
    try:
        match resolved.metric.source:
            case Source.RATIO | Source.RECALL:
                return samples.ratio(candidate.pair), samples.ratio(baseline.pair)
            case Source.AUC | Source.AVERAGE_PRECISION:
                return _ranked(resolved, candidate), _ranked(resolved, baseline)
            case _:
                arms = means(candidate, baseline)
                if not any(arm.m2 > 0 for arm in arms):
                    return None
                a, b = (Estimate(arm.mean, max(arm.variance, 1e-300) / arm.count) for arm in arms)
                return a, b
    except ValueError:
        return None


def means(candidate: Arm, baseline: Arm) -> tuple[Mean, Mean]:
    """Both arms, what the time before explains taken out where it is known (CUPED)."""
    if candidate.beside.m2 + baseline.beside.m2 > 0:
        return samples.cuped(candidate.pair, baseline.pair)
    return candidate.values, baseline.values


def _ranked(resolved: Resolved, arm: Arm) -> Estimate:
    return (ranking.auc if resolved.metric.source is Source.AUC else ranking.average_precision)(arm.cells)


def shown(resolved: Resolved, arm: Arm) -> Mean:
    """The metric's own value in the arm, where it is no mean over customers; NOTHING where there is none yet."""
    try:
        match resolved.metric.source:
            case Source.RATIO | Source.RECALL:
                return Mean(arm.values.count, samples.ratio(arm.pair).value)
            case Source.AUC | Source.AVERAGE_PRECISION:
                return Mean(arm.values.count, _ranked(resolved, arm).value)
            case _:
                return arm.values
    except ValueError:
        return NOTHING


def _events(resolved: Resolved, arm: Arm) -> int:
    """What the normal approximation is trusted by: of shares the rarer kind, else customers whose value is not 0."""
    values = arm.values
    match resolved.metric.source:
        case Source.AUC | Source.AVERAGE_PRECISION:
            return min(ranking.classes(arm.cells))
        case Source.RECALL:  # hits and misses
            return min(arm.nonzero, round(values.count * (arm.beside.mean - values.mean)))
        case _:
            pass
    if (resolved.low, resolved.high) == (0.0, 1.0):
        return min(values.events, values.count - values.events)
    return arm.nonzero if values.count >= 2 else 0
