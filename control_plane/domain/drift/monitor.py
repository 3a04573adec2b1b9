"""One look at a model in Production: what drifted, how surely, how much it matters, and whether it is an alarm.

Alarms come from `evidence.py`, over whole days and the day so far; scores of the last hours say how far things moved.
What is usual is learnt from the version's own days, by weekday once there are enough, and is the reference until then.
The false alarms a model is allowed (`drift.alpha` per 90 days) are shared out over the kinds of drift: ALPHAS.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any

import numpy as np

from control_plane.domain.drift import evidence
from control_plane.domain.drift.decide import FeatureDrift, Finding, Issue, Policy, Report
from control_plane.domain.drift.estimate import Estimate
from control_plane.domain.drift.evidence import Baseline, Day, Evidence, Scores, Settings, State
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import Drift
from control_plane.domain.rollouts import Verdict

_LEARNT = 28  # usual days, the first ones
_BY_WEEKDAY = 16  # from so many on each weekday is a season of its own
_LEAST_DAYS = 9
_EARLY_DAY_SD = 0.03  # of days that are taken for alike
_BROKEN = frozenset({Issue.MISSING, Issue.ALL_NULLS, Issue.NEW_TYPE})
_ERRORS = frozenset({"mae", "rmse", "log_loss"})  # smaller is better
_SHORT = "It may be the day: "  # before the evidence, where one look says drift and the evidence does not yet
_OF_QUALITY = frozenset({"absent", "outside", "unseen"})


class Kind(StrEnum):
    """`drift_type` of the gauge."""

    DATA = "data"
    PREDICTION = "prediction"
    TARGET = "target"
    PERFORMANCE = "performance"
    QUALITY = "quality"


class Severity(StrEnum):
    LOW = "low"  # features moved, what the model says did not
    MEDIUM = "medium"
    HIGH = "high"  # what the model says moved with them, or it is less often right


ALPHAS: Mapping[Kind, float] = {Kind.DATA: 0.5, Kind.PREDICTION: 0.25, Kind.TARGET: 0.125, Kind.PERFORMANCE: 0.125}


@dataclass(frozen=True, slots=True)
class Course:
    """Measured days of one version: `closed` whole ones, `same_hour` those up to the hour that is now, `today`."""

    closed: Mapping[date, Day]
    same_hour: Mapping[date, Day]
    today: Day | None


@dataclass(frozen=True, slots=True)
class Weighed:
    """`basis`: what was taken for usual, in words. `evidence` None: `why` not."""

    evidence: Evidence | None
    basis: str
    why: str
    learnt: bool = False  # from days of its own, so a lasting distance from the reference is known and usual


@dataclass(frozen=True, slots=True)
class Reading:
    """One kind of drift now. `score`: largest PSI (data, prediction, target), drop of the metric, share of bad rows."""

    kind: Kind
    verdict: Verdict
    alarm: bool
    score: float | None
    why: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the predictions' shift a drifted feature explains: importance times distance; shares sum to 1."""

    name: str
    psi: float
    importance: float
    share: float


@dataclass(frozen=True, slots=True)
class Past:
    """What closed days leave behind: stakes, the days that teach what is usual, and how many were bet on."""

    state: State
    taught: tuple[date, ...] = ()
    days: int = 0
    learnt: dict[int, Baseline] = field(default_factory=dict[int, Baseline])  # by the number of days they are made of


def begin(scores: Scores) -> Past:
    return Past(evidence.start(scores))


def advance(
    past: Past,
    closed: Mapping[date, Day],
    day: date,
    measured: Day,
    prior: Baseline,
    *,
    since: date,
    excluded: Collection[date],
    settings: Settings,
) -> Past:
    """`past` and one more closed day, which is bet on first and then teaches. `closed` has every day taught so far."""
    state, days = past.state, past.days
    if day >= since:
        usual, season, _ = usual_of(closed, past.taught, day, prior, settings, past.learnt)
        state, days = evidence.close(state, measured, usual, season=season, settings=settings), days + 1
    enough = len(past.taught) < _LEARNT and measured.blocks.min(initial=math.inf) >= settings.least_blocks
    taught = (*past.taught, day) if enough and day not in excluded else past.taught
    return Past(state, taught, days, past.learnt)


def settings_for(alpha: float, kind: Kind, *, early: bool = False) -> Settings:
    """Whoever asks for an early answer takes the first days for alike."""
    made = Settings(alpha=alpha * ALPHAS[kind])
    return replace(made, prior_day_sd=_EARLY_DAY_SD) if early else made


def policy_for(drift: Drift, *, rows: int, blocks: int) -> Policy:
    """Of a window of so many rows and customers per day: rows of one customer count as one together."""
    return Policy(psi=drift.psi, alpha=drift.alpha, rows_per_unit=max(1.0, rows / blocks) if blocks else 1.0)


def prediction_profile(profile: Profile) -> Profile | None:
    """The predictions as a profile with one feature, so that the same evidence can be had of them."""
    if profile.prediction is None:
        return None
    return Profile(profile.rows, {"prediction": profile.prediction})


def weigh(
    scores: Scores,
    prior: Baseline,
    course: Course,
    day: date,
    *,
    since: date,
    excluded: Collection[date],
    settings: Settings,
    early: bool,
    past: Past | None = None,
    learnt: dict[int, Baseline] | None = None,
) -> Weighed:
    """The evidence of the closed days from `since` on and of `day` so far.

    `excluded`: days of incidents, which do not teach what is usual. `early`: also look at a day so far while its
    usual course is not known; with features that follow the clock that raises false alarms. For many looks: `past` of
    the closed days, and what `same_hour` has taught, kept per hour.
    """
    if past is None:
        past = begin(scores)
        for one, measured in course.closed.items():
            past = advance(past, course.closed, one, measured, prior, since=since, excluded=excluded, settings=settings)
    state, taught, days = past.state, past.taught, past.days
    known = [one for one in taught if one in course.same_hour]
    usual, season, basis = usual_of(course.same_hour, known, day, prior, settings, learnt)
    looked = course.today is not None and course.today.blocks.max(initial=0) >= settings.least_blocks
    if course.today is not None and looked and (early or usual is not prior):
        found = evidence.look(scores, state, course.today, usual, season=season, settings=settings)
        return Weighed(found, basis, found.why, usual is not prior)
    if days:
        usual, _, basis = usual_of(course.closed, taught, day, prior, settings)
        found = evidence.standing(scores, state, settings)
        return Weighed(found, basis, found.why, usual is not prior)
    why = f"No whole day yet: evidence needs one with {settings.least_blocks} customers or more."
    if early:
        why = f"Fewer than {settings.least_blocks} customers today."
    return Weighed(None, basis, why)


def usual_day(
    course: Course, day: date, prior: Baseline, *, excluded: Collection[date], settings: Settings
) -> tuple[Baseline, int]:
    """What is usual on a whole day, and its season; for `is_calm`."""
    taught = [one for one in course.closed if one < day and one not in excluded][:_LEARNT]
    usual, season, _ = usual_of(course.closed, taught, day, prior, settings)
    return usual, season


def usual_of(
    days: Mapping[date, Day],
    taught: Sequence[date],
    day: date,
    prior: Baseline,
    settings: Settings,
    learnt: dict[int, Baseline] | None = None,
) -> tuple[Baseline, int, str]:
    """`learnt`: baselines by the number of days they were made of, so that each is made once."""
    known = [one for one in taught if one in days]
    weekdays = [one.weekday() for one in known]
    by_weekday = len(known) >= _BY_WEEKDAY and all(weekdays.count(one) >= 2 for one in range(7))
    if not by_weekday and len(known) < _LEAST_DAYS:
        return prior, 0, "the reference"
    made = {} if learnt is None else learnt
    if len(known) not in made:
        seasons = weekdays if by_weekday else [0] * len(known)
        made[len(known)] = evidence.baseline([days[one] for one in known], seasons, settings)
    said = f"{len(known)} usual days" + (" by weekday" if by_weekday else "")
    return made[len(known)], day.weekday() if by_weekday else 0, said


def read_data(report: Report, weighed: Weighed) -> Reading:
    found = weighed.evidence
    score = report.largest_psi
    if found is not None and found.alarm:
        named = leading(found)
        return Reading(Kind.DATA, Verdict.FAIL, True, score, f"{', '.join(named)} drifted. {found.why}", named)
    moved = tuple(f.name for f in report.features if f.verdict is Verdict.FAIL)
    if found is None:
        return Reading(Kind.DATA, Verdict.INCONCLUSIVE, False, score, weighed.why, moved)
    if report.verdict is Verdict.INCONCLUSIVE:
        return Reading(Kind.DATA, Verdict.INCONCLUSIVE, False, score, report.why)
    if report.verdict is Verdict.FAIL and not weighed.learnt:
        return Reading(Kind.DATA, Verdict.INCONCLUSIVE, False, score, f"{report.why} {_SHORT}{found.why}", moved)
    return Reading(Kind.DATA, Verdict.PASS, False, score, found.why, moved)


def read_prediction(drift: FeatureDrift | None, weighed: Weighed | None) -> Reading:
    if drift is None or weighed is None:
        return Reading(Kind.PREDICTION, Verdict.INCONCLUSIVE, False, None, "The reference has no predictions.")
    found = weighed.evidence
    if found is None:
        return Reading(Kind.PREDICTION, Verdict.INCONCLUSIVE, False, drift.psi, weighed.why)
    if found.alarm:
        return Reading(Kind.PREDICTION, Verdict.FAIL, True, drift.psi, f"The predictions drifted. {found.why}")
    if drift.verdict is Verdict.FAIL and not weighed.learnt:
        return Reading(Kind.PREDICTION, Verdict.INCONCLUSIVE, False, drift.psi, f"{drift.why} {_SHORT}{found.why}")
    verdict = Verdict.INCONCLUSIVE if drift.verdict is Verdict.INCONCLUSIVE else Verdict.PASS
    return Reading(Kind.PREDICTION, verdict, False, drift.psi, found.why)


def read_quality(report: Report, reference: Profile, current: Profile, weighed: Weighed, policy: Policy) -> Reading:
    """Bad rows: nulls, missing keys, other types, beyond what the reference had. What is broken outright is an alarm at
    once; a share that rose is one when the evidence says so."""
    findings = {f.name: f.findings for f in report.features if f.findings}
    score = max((_bad_share(reference, current, name) for name in reference.features), default=None)
    if current.rows < policy.least_rows:
        why = f"{current.rows} rows, needs {policy.least_rows}."
        return Reading(Kind.QUALITY, Verdict.INCONCLUSIVE, False, score if current.rows else None, why)
    broken = {n: f for n, found in findings.items() for f in found if f.issue in _BROKEN}
    if broken:
        return Reading(Kind.QUALITY, Verdict.FAIL, True, score, _sentences(broken.values()), tuple(broken))
    found = weighed.evidence
    if found is not None and found.alarm and found.strongest[1] in _OF_QUALITY:
        return Reading(Kind.QUALITY, Verdict.FAIL, True, score, found.why, (found.strongest[0],))
    warned = [f for many in findings.values() for f in many if f.issue is not Issue.TOO_FEW_ROWS]
    constant = [f for f in warned if f.issue is Issue.CONSTANT]
    if constant:
        return Reading(Kind.QUALITY, Verdict.INCONCLUSIVE, False, score, _sentences(constant), tuple(findings))
    why = _sentences(warned) if warned else f"{current.rows} rows, nothing out of the ordinary."
    return Reading(Kind.QUALITY, Verdict.PASS, False, score, why, tuple(findings) if warned else ())


def read_target(drift: FeatureDrift | None, known: int) -> Reading:
    """`drift`: labels against the reference's, judged at an alpha that lasts for every look of the horizon."""
    if drift is None:
        why = "The reference has no labels." if known else "No label has arrived."
        return Reading(Kind.TARGET, Verdict.INCONCLUSIVE, False, None, why)
    return Reading(Kind.TARGET, drift.verdict, drift.verdict is Verdict.FAIL, drift.psi, drift.why)


def read_performance(
    metric: str, found: Estimate, usual: float, near: float | None, drop: float, alpha: float, *, how: str
) -> Reading:
    """FAIL: worse than the reference by more than `drop` plus what the reference's own interval (`near`: its worse end)
    and this value's leave open at `alpha`. `score`: how much worse the value itself is, 0 or less: not at all."""
    sign = -1.0 if metric in _ERRORS else 1.0
    worse = sign * (usual - found.value)
    low, high = found.interval(2 * alpha)
    best = sign * (high if sign > 0 else low)
    said = f"{how} {metric} {found.value:.3f} on {found.rows} answers, {usual:.3f} on the hold-out"
    if not (math.isfinite(worse) and math.isfinite(best)):
        return Reading(Kind.PERFORMANCE, Verdict.INCONCLUSIVE, False, None, f"{said}: no finite number.")
    if best < sign * (usual if near is None else near) - drop:
        return Reading(Kind.PERFORMANCE, Verdict.FAIL, True, worse, f"{said}: worse by more than {drop:g}.")
    if worse > drop:
        why = f"{said}: too few answers to tell whether it is worse by more than {drop:g}."
        return Reading(Kind.PERFORMANCE, Verdict.INCONCLUSIVE, False, worse, why)
    return Reading(Kind.PERFORMANCE, Verdict.PASS, False, worse, f"{said}.")


def one_look(policy: Policy, alpha: float, *, horizon_days: int = 90) -> Policy:
    """A policy whose alpha lasts for hourly looks over the horizon (Bonferroni)."""
    return replace(policy, alpha=alpha / (24 * horizon_days))


def leading(found: Evidence) -> tuple[str, ...]:
    """Features whose own evidence is 100 or more, strongest first; the strongest in any case."""
    (first, _), *others = found.features.items()
    return (first, *(name for name, log_e in others if log_e >= math.log(100)))


def attribute(report: Report, importances: Mapping[str, float], drifted: Collection[str]) -> tuple[Share, ...]:
    """Largest share first. Importance: mean absolute contribution to the margin, as training measured it.

    First order: a feature's shift times how much the model listens to it; interactions are not seen.
    """
    psi = {f.name: f.psi for f in report.features if f.psi is not None and f.name in drifted}
    weights = {name: importances.get(name, 0.0) * math.sqrt(value) for name, value in psi.items()}
    total = sum(weights.values())
    if not total > 0:
        return ()
    found = [
        Share(name, psi[name], importances[name], weight / total) for name, weight in weights.items() if weight > 0
    ]
    return tuple(sorted(found, key=lambda share: -share.share))


def severity(readings: Sequence[Reading], shares: Sequence[Share], importances: Mapping[str, float]) -> Severity:
    alarmed = {reading.kind for reading in readings if reading.alarm}
    if Kind.PERFORMANCE in alarmed or {Kind.DATA, Kind.PREDICTION} <= alarmed:
        return Severity.HIGH
    if alarmed & {Kind.PREDICTION, Kind.TARGET, Kind.QUALITY}:
        return Severity.MEDIUM
    total = sum(importances.values())
    heard = sum(share.importance for share in shares) / total if total else 0.0
    return Severity.MEDIUM if heard >= 0.25 else Severity.LOW


def measured_json(day: Day) -> dict[str, Any]:
    """A day as stored: 9 significant digits, far below what a day's noise is."""
    return {name: [float(f"{x:.9g}") for x in getattr(day, name)] for name in ("blocks", "mean", "variance")}


def measured_from(document: Mapping[str, Any]) -> Day:
    """ValueError or KeyError for what `measured_json` did not write."""
    return Day(*(np.array(document[name], dtype=np.float64) for name in ("blocks", "mean", "variance")))


def _bad_share(reference: Profile, current: Profile, name: str) -> float:
    before, after = reference.features[name], current.features[name]
    return max(0.0, after.absent.total / max(1, after.rows) - before.absent.total / max(1, before.rows))


def _sentences(findings: Collection[Finding]) -> str:
    return " ".join(finding.why for finding in list(findings)[:5])
