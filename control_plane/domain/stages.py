"""The life of a version, and whether it may be promoted. Pure.

    Development ──> Staging ──> Production ──> Archived
         │  ▲          ▲ │          │ ▲            │
         │  └──────────┼─┴──────────┘ └────────────┤  rollback
         └──> Archived └───────────────────────────┘

Production is entered and left only by a rollout: by its cut-over, its abort, or a rollback. Going back to Staging is
what marks a version that was taken out of Production by a rollback or an abort; one that was replaced is Archived.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    DEVELOPMENT = "Development"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


BY_HAND: Mapping[Stage, frozenset[Stage]] = {  # what a request may do without a rollout
    Stage.DEVELOPMENT: frozenset({Stage.STAGING, Stage.ARCHIVED}),
    Stage.STAGING: frozenset({Stage.DEVELOPMENT, Stage.ARCHIVED}),
    Stage.PRODUCTION: frozenset(),
    Stage.ARCHIVED: frozenset({Stage.STAGING, Stage.DEVELOPMENT}),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One stage event."""

    version: str
    from_stage: Stage
    to_stage: Stage


def standing(changes: Iterable[Change]) -> dict[str, Stage]:
    """Each version's stage after `changes`, in the order they happened; versions never moved are not in it."""
    return {change.version: change.to_stage for change in changes}


def succession(changes: Iterable[Change]) -> tuple[str, ...]:
    """The versions a rollback would walk back through, the newest Production last.

    A version that replaces another is pushed. One taken back (Production -> Staging) is popped, so what answers next
    is what answered before it, and rolling back twice never brings the bad version back.
    """
    line: list[str] = []
    for change in changes:
        if change.from_stage is Stage.PRODUCTION and change.to_stage is Stage.STAGING:
            line = line[:-1] if line and line[-1] == change.version else line
        elif change.to_stage is Stage.PRODUCTION and (not line or line[-1] != change.version):
            line.append(change.version)
    return tuple(line)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known about the version somebody wants to promote. Numbers are None where nothing was measured."""

    version: str
    stage: Stage
    digest: str | None
    deleted: bool = False
    config_problems: tuple[str, ...] = ()
    needs: Mapping[str, str] | None = None  # feature -> type, of those that may not be null; None: not known
    metric: str | None = None
    value: float | None = None  # on its hold-out
    low: float | None = None  # confidence interval of `value`, for the report only
    high: float | None = None
    cost: float | None = None
    trivial_cost: float | None = None  # of always giving the same answer, on the same rows
    trivial_value: float | None = None  # the metric of that answer
    validated: bool | None = None  # the training data passed its checks


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The Production version, and the comparison with the candidate if one was made on the same hold-out."""

    version: str
    sends: Mapping[str, str] | None = None  # feature -> type its clients are sure to send; None: not known
    candidate_value: float | None = None  # both on the same hold-out rows, or both None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Gates:
    """`minimum` and `max_degradation` in the metric's own unit. `minimum` None: nobody declared one."""

    minimum: float | None
    max_degradation: float
    higher_is_better: bool = True
    better_than_trivial: bool = True
    costs_declared: bool = False
    validated_data: bool = True


@dataclass(frozen=True, slots=True)
class OpenRollout:
    id: str
    candidate: str
    phase: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`reasons`: every gate that is not met, a sentence each, with its numbers; empty exactly when `allowed`."""

    reasons: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


def decide_promotion(
    candidate: Candidate, gates: Gates, *, incumbent: Incumbent | None, rollout: OpenRollout | None
) -> Decision:
    """Whether `candidate` may take customers' traffic. What was not measured is INCONCLUSIVE and refuses."""
    reasons = [*_usable(candidate)]
    if candidate.stage is Stage.PRODUCTION:
        reasons.append(f"stage: version {candidate.version} is Production already.")
    if candidate.stage is Stage.ARCHIVED:
        reasons.append(f"stage: version {candidate.version} is Archived; promote it to staging first.")
    if rollout is not None:
        reasons.append(_in_the_way(rollout))
    reasons += _threshold(candidate, gates)
    reasons += _trivial(candidate, gates)
    if gates.validated_data and candidate.validated is not True:
        found = "was refused" if candidate.validated is False else "was never validated (INCONCLUSIVE)"
        reasons.append(f"validated_data: the training data of version {candidate.version} {found}.")
    if incumbent is not None and incumbent.version != candidate.version:
        reasons += _degradation(candidate, gates, incumbent)
        reasons += _features(candidate, incumbent)
    return Decision(tuple(reasons))


def decide_shadow(candidate: Candidate, *, incumbent: Incumbent | None, rollout: OpenRollout | None) -> Decision:
    """Whether `candidate` may answer copies, which no customer sees: what its servers need, and features that clients
    send. Evidence is what a shadow is there to gather."""
    reasons = [*_usable(candidate)]
    if candidate.stage is Stage.PRODUCTION:
        reasons.append(f"stage: version {candidate.version} is Production already.")
    if candidate.stage is Stage.ARCHIVED:
        reasons.append(f"stage: version {candidate.version} is Archived; promote it to staging first.")
    if rollout is not None:
        reasons.append(_in_the_way(rollout))
    if incumbent is not None and incumbent.version != candidate.version:
        reasons += _features(candidate, incumbent)
    return Decision(tuple(reasons))


def decide_stage(candidate: Candidate, to: Stage, *, rollout: OpenRollout | None) -> Decision:
    """Whether `candidate` may move to `to` without traffic. Staging asks only what is needed to start its servers:
    a digest to verify and a usable configuration; evidence is what Staging is there to gather."""
    reasons: list[str] = []
    if to is Stage.STAGING:
        reasons += _usable(candidate)
    if candidate.stage is to:
        reasons.append(f"stage: version {candidate.version} is {to} already.")
    elif to not in BY_HAND[candidate.stage]:
        way = "it leaves Production by a rollback or by its successor's promotion"
        reasons.append(f"stage: version {candidate.version} is {candidate.stage}; {way}.")
    if rollout is not None and rollout.candidate == candidate.version and to is not Stage.STAGING:
        reasons.append(_in_the_way(rollout))
    return Decision(tuple(reasons))


def _usable(candidate: Candidate) -> list[str]:
    reasons = [f"config: {problem}" for problem in candidate.config_problems]
    if candidate.deleted:
        reasons.append(f"deleted: version {candidate.version} is gone from MLflow.")
    if candidate.digest is None:
        reasons.append(f"digest: version {candidate.version} has no artifact digest to verify its servers against.")
    return reasons


def _in_the_way(rollout: OpenRollout) -> str:
    return f"rollout: rollout {rollout.id} of version {rollout.candidate} is {rollout.phase}; finish or abort it first."


def _threshold(candidate: Candidate, gates: Gates) -> list[str]:
    if candidate.metric is None:
        return [f"metric: version {candidate.version} declares no metric (INCONCLUSIVE)."]
    if candidate.value is None:
        return [f"metric: {candidate.metric} of version {candidate.version} was not measured (INCONCLUSIVE)."]
    if gates.minimum is None:
        return [f"metric: no threshold is declared for {candidate.metric}; set metric.minimum (INCONCLUSIVE)."]
    if not _at_least(candidate.value, gates.minimum, gates):
        side = "below the minimum" if gates.higher_is_better else "above the maximum"
        return [f"metric: {candidate.metric} {candidate.value:.4f} is {side} {gates.minimum:.4f}."]
    return []


def _trivial(candidate: Candidate, gates: Gates) -> list[str]:
    if not gates.better_than_trivial:
        return []
    if candidate.cost is not None and candidate.trivial_cost is not None:
        if candidate.cost < candidate.trivial_cost:
            return []
        return [
            f"cost: {candidate.cost:.2f} is not below {candidate.trivial_cost:.2f}, the cost of the trivial answer."
        ]
    if gates.costs_declared:
        return [f"cost: the cost of version {candidate.version} was not measured (INCONCLUSIVE)."]
    if candidate.value is None or candidate.trivial_value is None:
        return [f"trivial: version {candidate.version} was not compared with the trivial answer (INCONCLUSIVE)."]
    better = candidate.value > candidate.trivial_value
    if better if gates.higher_is_better else candidate.value < candidate.trivial_value:
        return []
    return [
        f"trivial: {candidate.metric} {candidate.value:.4f} is not better than {candidate.trivial_value:.4f}, "
        "that of the trivial answer."
    ]


def _degradation(candidate: Candidate, gates: Gates, incumbent: Incumbent) -> list[str]:
    if incumbent.value is None or incumbent.candidate_value is None:
        return [
            f"degradation: version {candidate.version} and Production version {incumbent.version} were not compared "
            "on the same hold-out (INCONCLUSIVE); train it again."
        ]
    sign = 1 if gates.higher_is_better else -1
    worst = incumbent.value - sign * gates.max_degradation
    if _at_least(incumbent.candidate_value, worst, gates):
        return []
    return [
        f"degradation: {candidate.metric} {incumbent.candidate_value:.4f} is worse than Production version "
        f"{incumbent.version} ({incumbent.value:.4f}) by more than {gates.max_degradation:.4f}."
    ]


def _features(candidate: Candidate, incumbent: Incumbent) -> list[str]:
    if candidate.needs is None or incumbent.sends is None:
        return []
    missing = sorted(candidate.needs.keys() - incumbent.sends.keys())
    reasons = [f"features: clients of Production do not send {', '.join(missing)}."] if missing else []
    for name in sorted(candidate.needs.keys() & incumbent.sends.keys()):
        old, new = incumbent.sends[name], candidate.needs[name]
        if old != new and (old, new) != ("integer", "number"):
            reasons.append(f"features: clients of Production send {name} as {old}, the candidate needs {new}.")
    return reasons


def _at_least(value: float, bound: float, gates: Gates) -> bool:
    """NaN is on neither side: it never passes."""
    return value >= bound if gates.higher_is_better else value <= bound
