"""The rollout state machine. The functions here are the only way a rollout moves; all are pure.

    PENDING ──ready──> PROGRESSING ──last step passed──> BAKING ──bake over──> SUCCEEDED
       │                 │   ▲                             │
       │            pause│   │resume                       │
       │                 ▼   │                             │
       │               PAUSED                              │
       └───────────┬─────┴─────────────────────────────────┘
                   └──abort, deploy failure, failure limit──> ABORTED

`blue_green` has no steps: PENDING goes straight to BAKING, and back while it bakes costs one snapshot. With a preview
it has one of weight 0, in which the candidate is ready and nobody's until a hand cuts over. `immediate` has no bake
either. The candidate becomes Production when it takes all traffic (`is_cut_over`), not when the bake ends.

Holds, bakes and the time to deploy count from when routers were told of the phase and step (`Observation.told`), not
from the decision: a reconciler that was dead in between has shown customers nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.domain.analysis.plan import AnalysisPlan
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.targeting import Targeting
from control_plane.errors import Conflict


class Strategy(StrEnum):
    IMMEDIATE = "immediate"
    BLUE_GREEN = "blue_green"
    CANARY = "canary"
    AB_TEST = "ab_test"
    SHADOW = "shadow"


class Phase(StrEnum):
    PENDING = "pending"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    BAKING = "baking"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105  (not a password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Conclusion(StrEnum):
    """What a comparison ended with; it says more than the phase the rollout ended in."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    NO_DIFFERENCE = "no_difference"  # stable stays, unless the plan says otherwise
    WORSE = "worse"


TERMINAL = frozenset({Phase.SUCCEEDED, Phase.ABORTED})
OPEN = frozenset(Phase) - TERMINAL


@dataclass(frozen=True, slots=True)
class Step:
    weight: int  # candidate traffic, buckets
    hold: timedelta  # shortest time at this weight, from when routers were told of it


@dataclass(frozen=True, slots=True)
class Plan:
    strategy: Strategy
    steps: tuple[Step, ...] = ()
    bake: timedelta = timedelta(0)
    failure_limit: int = 0  # FAIL verdicts tolerated; one more aborts
    deploy_deadline: timedelta = timedelta(minutes=10)  # PENDING longer than this aborts
    shadow_weight: int = 0  # shadow only: share of requests copied, buckets
    analysis: AnalysisPlan | None = None  # None: its steps wait for a hand
    targeting: Targeting | None = None  # who gets the candidate first, never, or in another test


@dataclass(frozen=True, slots=True)
class Rollout:
    plan: Plan
    since: datetime  # when the current phase or step began
    phase: Phase = Phase.PENDING
    step: int = 0
    failures: int = 0
    paused_from: Phase | None = None
    reason: str = ""  # why it is where it is, in a sentence
    conclusion: Conclusion | None = None
    crossed: datetime | None = None  # when the candidate first got more than half: baseline has lost units since


@dataclass(frozen=True, slots=True)
class Observation:
    """What the reconciler saw in one look. `verdict` None: nothing was measured in this phase.

    `told`: when routers were handed the snapshot that carries the current phase and step; None: they were not yet, so
    its time has not begun. `pause`: why a person has to look, "" if nobody has to. `conclusion`: what the comparison
    says, if it is over.
    """

    candidate_ready: bool
    told: datetime | None = None
    deploy_error: str | None = None
    verdict: Verdict | None = None
    why: str = ""
    pause: str = ""
    conclusion: Conclusion | None = None


def advance(rollout: Rollout, seen: Observation, *, now: datetime) -> Rollout:
    """Next state after one look. A terminal or paused rollout is returned unchanged: calling twice is harmless.

    A candidate that loses readiness before the cut-over holds the rollout where it is; routers fall back by
    themselves. INCONCLUSIVE never moves a rollout forward.
    """
    match rollout.phase:
        case Phase.PENDING:
            return _advance_pending(rollout, seen, now)
        case Phase.PROGRESSING:
            return _advance_progressing(rollout, seen, now)
        case Phase.BAKING:
            if seen.verdict is Verdict.FAIL:
                return _fail(rollout, seen, now)
            if is_held(rollout, told=seen.told, now=now):
                return _enter(rollout, Phase.SUCCEEDED, "The bake period ended without a failure.", now)
            return rollout
        case Phase.PAUSED | Phase.SUCCEEDED | Phase.ABORTED:
            return rollout


def pause(rollout: Rollout, reason: str, *, now: datetime) -> Rollout:
    """Hold the weights as they are. Raises Conflict unless PENDING, PROGRESSING or BAKING."""
    if rollout.phase not in OPEN - {Phase.PAUSED}:
        raise Conflict(f"A rollout that is {rollout.phase} cannot be paused.", phase=rollout.phase)
    return replace(_enter(rollout, Phase.PAUSED, reason, now), paused_from=rollout.phase)


def resume(rollout: Rollout, reason: str, *, now: datetime) -> Rollout:
    """Go on where it was paused; hold and bake begin anew. Raises Conflict unless PAUSED."""
    if rollout.phase is not Phase.PAUSED or rollout.paused_from is None:
        raise Conflict(f"A rollout that is {rollout.phase} cannot be resumed.", phase=rollout.phase)
    return replace(_enter(rollout, rollout.paused_from, reason, now), paused_from=None)


def abort(rollout: Rollout, reason: str, *, now: datetime) -> Rollout:
    """Give all traffic back to stable. Raises Conflict on a terminal rollout."""
    if rollout.phase in TERMINAL:
        raise Conflict(f"A rollout that is {rollout.phase} cannot be aborted.", phase=rollout.phase)
    return replace(_enter(rollout, Phase.ABORTED, reason, now), paused_from=None)


def promote(rollout: Rollout, reason: str, *, now: datetime) -> Rollout:
    """Skip the remaining steps by hand. Raises Conflict for a shadow, and unless the candidate has been ready."""
    _must_have_steps(rollout, "promoted by hand")
    return replace(_cut_over(rollout, reason, now), paused_from=None)


def skip(rollout: Rollout, reason: str, *, now: datetime) -> Rollout:
    """Go on to the next step by hand, paused or not, whatever was measured; from the last one as `promote`.

    Raises Conflict as `promote` does.
    """
    _must_have_steps(rollout, "moved on by hand")
    if rollout.step + 1 == len(rollout.plan.steps):
        return promote(rollout, reason, now=now)
    moved = replace(_enter(rollout, Phase.PROGRESSING, reason, now), step=rollout.step + 1, paused_from=None)
    return _crossing(moved, now)


def candidate_weight(rollout: Rollout) -> int:
    """Buckets the candidate should receive now. The reconciler makes it so."""
    if rollout.plan.strategy is Strategy.SHADOW:
        return 0
    match _position(rollout):
        case Phase.PROGRESSING:
            return rollout.plan.steps[rollout.step].weight
        case Phase.BAKING | Phase.SUCCEEDED:
            return BUCKETS
        case Phase.PENDING | Phase.PAUSED | Phase.ABORTED:
            return 0


def overdue(rollout: Rollout, *, now: datetime) -> timedelta:
    """How long the rollout is in its phase beyond what the plan gives it; 0 while it is within.

    A pause waits for a person from its first second; so do steps without an analysis once they are held. Steps with
    one have as long as its plan may take.
    """
    plan = rollout.plan
    match rollout.phase:
        case Phase.PENDING:
            given = plan.deploy_deadline
        case Phase.PROGRESSING:
            hold = plan.steps[rollout.step].hold
            given = max(hold, timedelta(seconds=plan.analysis.decide_within_s)) if plan.analysis else hold
        case Phase.BAKING:
            given = plan.bake
        case Phase.PAUSED:
            given = timedelta(0)
        case Phase.SUCCEEDED | Phase.ABORTED:
            return timedelta(0)
    return max(timedelta(0), now - rollout.since - given)


def is_held(rollout: Rollout, *, told: datetime | None, now: datetime) -> bool:
    """Whether the current step's hold, or the bake, is over; `told` as in Observation. True in other phases."""
    match rollout.phase:
        case Phase.PROGRESSING:
            return _lasted(told, now, rollout.plan.steps[rollout.step].hold)
        case Phase.BAKING:
            return _lasted(told, now, rollout.plan.bake)
        case Phase.PENDING | Phase.PAUSED | Phase.SUCCEEDED | Phase.ABORTED:
            return True


def is_cut_over(rollout: Rollout) -> bool:
    """Whether the candidate is, by this rollout, the Production version."""
    return _position(rollout) in {Phase.BAKING, Phase.SUCCEEDED} and rollout.plan.strategy is not Strategy.SHADOW


def _must_have_steps(rollout: Rollout, what: str) -> None:
    if rollout.plan.strategy is Strategy.SHADOW:
        raise Conflict("A shadow rollout takes no traffic; promote the version with another strategy.")
    if _position(rollout) is not Phase.PROGRESSING:
        raise Conflict(f"A rollout that is {rollout.phase} cannot be {what}.", phase=rollout.phase)


def _lasted(told: datetime | None, now: datetime, given: timedelta) -> bool:
    return told is not None and now - told >= given


def _advance_pending(rollout: Rollout, seen: Observation, now: datetime) -> Rollout:
    if seen.deploy_error is not None:
        return _enter(rollout, Phase.ABORTED, f"The candidate could not be deployed: {seen.deploy_error}", now)
    if not seen.candidate_ready:
        if _lasted(seen.told, now, rollout.plan.deploy_deadline):
            limit = rollout.plan.deploy_deadline.total_seconds()
            return _enter(rollout, Phase.ABORTED, f"The candidate was not ready within {limit:.0f} s.", now)
        return rollout
    if rollout.plan.steps:
        return _crossing(_enter(rollout, Phase.PROGRESSING, "The candidate is ready.", now), now)
    return _cut_over(rollout, "The candidate is ready.", now)


def _advance_progressing(rollout: Rollout, seen: Observation, now: datetime) -> Rollout:
    if seen.deploy_error is not None:
        return _enter(rollout, Phase.ABORTED, f"The candidate died and does not come back: {seen.deploy_error}", now)
    held = is_held(rollout, told=seen.told, now=now)
    if seen.pause:
        return pause(rollout, seen.pause, now=now)
    match seen.verdict:
        case Verdict.FAIL:
            return _fail(rollout, seen, now)
        case Verdict.INCONCLUSIVE if held and seen.conclusion is Conclusion.NO_DIFFERENCE:
            return replace(_enter(rollout, Phase.ABORTED, seen.why, now), conclusion=seen.conclusion)
        case Verdict.PASS if held and seen.candidate_ready:
            passed = replace(rollout, conclusion=seen.conclusion)
            if rollout.step + 1 == len(rollout.plan.steps):
                return _cut_over(passed, seen.why or "Every step passed.", now)
            return _crossing(replace(_enter(passed, Phase.PROGRESSING, seen.why, now), step=rollout.step + 1), now)
        case _:  # a hold not yet over, INCONCLUSIVE, or nothing measured: wait
            return rollout


def _fail(rollout: Rollout, seen: Observation, now: datetime) -> Rollout:
    failed = replace(rollout, failures=rollout.failures + 1, reason=seen.why)
    if failed.failures <= rollout.plan.failure_limit:
        return failed
    limit = f"{failed.failures} failed looks > failure limit {rollout.plan.failure_limit}"
    why = f"{seen.why} ({limit})" if seen.why else limit
    return replace(_enter(failed, Phase.ABORTED, why, now), conclusion=seen.conclusion)


def _cut_over(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    bakes = rollout.plan.bake and rollout.plan.strategy is not Strategy.SHADOW
    return _crossing(_enter(rollout, Phase.BAKING if bakes else Phase.SUCCEEDED, reason, now), now)


def _crossing(rollout: Rollout, now: datetime) -> Rollout:
    """Remembers when the candidate's share passed one half."""
    passed = candidate_weight(rollout) > BUCKETS // 2
    return replace(rollout, crossed=now) if passed and rollout.crossed is None else rollout


def _enter(rollout: Rollout, phase: Phase, reason: str, now: datetime) -> Rollout:
    return replace(rollout, phase=phase, since=now, reason=reason)


def _position(rollout: Rollout) -> Phase:
    """The phase that decides the weights: where a paused rollout was paused."""
    return rollout.paused_from if rollout.phase is Phase.PAUSED and rollout.paused_from else rollout.phase
