"""From a signal to what is done about it: one pure function, whose every answer says why.

A signal is diagnosed by the first diagnosis of the policy that matches. Of what that proposes, each operation is done
at once, put before persons, left to a person, or held, whatever keeps it: a halt, a freeze, a cool-down, the hour's
budget, or that there is nothing it could do. Telling people is never held by halt, freeze or budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from control_plane.domain.governance import policy as policies
from control_plane.domain.governance.policy import (
    TELLS,
    Diagnosis,
    Operation,
    Policy,
    Severity,
    Source,
    Tier,
    When,
)

_HOUR = timedelta(hours=1)
_UNKNOWN = Diagnosis("unknown", When(), (Operation.LOG,), because="no diagnosis of the policy matches")


class Status(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that was noticed. `model` None: it names none we know."""

    source: Source
    name: str
    model: str | None
    severity: Severity
    status: Status
    at: datetime
    facts: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Acted:
    """An operation that was done, or is about to be, because of an earlier signal. `asked`: put before persons."""

    operation: Operation
    model: str | None
    at: datetime
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """What is true now. `halted`: why the kill switch is on; "": it is off."""

    halted: str = ""
    acted: tuple[Acted, ...] = ()
    rollout_open: bool = False
    paused: bool = False  # the open rollout is paused already
    previous: str | None = None  # the version a rollback of a settled version would bring back
    training: bool = False
    candidate: str | None = None  # the newest version that could be promoted now
    waiting: frozenset[Operation] = frozenset()  # put before persons already, and not decided


class Outcome(StrEnum):
    DO = "do"  # at once
    ASK = "ask"  # an approval is opened
    LEAVE = "leave"  # to a person
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Step:
    operation: Operation
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    diagnosis: str
    severity: Severity
    steps: tuple[Step, ...]
    text: str  # all of it, in sentences


def decide(policy: Policy, signal: Signal, situation: Situation, *, now: datetime) -> Decision:
    """What follows from `signal` under `policy`, `situation` being what is so at `now`. Asking again gives the same."""
    found = next((d for d in policy.diagnoses if matches(d.when, signal)), _UNKNOWN)
    severity = found.severity or signal.severity
    about = f" of {signal.model}" if signal.model else ""
    head = f"{signal.source} {signal.name}{about} is {signal.status}: {found.name}, {severity}"
    head += f" ({found.because})." if found.because else "."
    if signal.status is Status.RESOLVED:
        return Decision(found.name, severity, (), f"{head} It is over; nothing is done.")
    steps: list[Step] = []
    for operation in dict.fromkeys(found.propose):
        done = [Acted(step.operation, signal.model, now) for step in steps if step.outcome is Outcome.DO]
        steps.append(_step(policy, signal, situation, (*situation.acted, *done), operation, now))
    said = " ".join(f"{step.operation}: {step.outcome}, {step.why}" for step in steps)
    return Decision(found.name, severity, tuple(steps), f"{head} {said}".strip())


def matches(when: When, signal: Signal) -> bool:
    return (
        (not when.sources or signal.source in when.sources)
        and (not when.severities or signal.severity in when.severities)
        and (not when.names or any(fnmatchcase(signal.name, pattern) for pattern in when.names))
        and (not when.models or any(fnmatchcase(signal.model or "", pattern) for pattern in when.models))
    )


def _step(
    policy: Policy,
    signal: Signal,
    situation: Situation,
    acted: tuple[Acted, ...],
    operation: Operation,
    now: datetime,
) -> Step:
    if operation in TELLS:
        held = _cooling(policy, signal, acted, operation, now)
        return Step(operation, Outcome.HOLD, held) if held else Step(operation, Outcome.DO, "people are told.")
    held = (
        _nothing_to_do(signal, situation, operation)
        or (f"everything is halted: {situation.halted}" if situation.halted else "")
        or _frozen(policy, now)
        or _cooling(policy, signal, acted, operation, now)
    )
    if held:
        return Step(operation, Outcome.HOLD, held)
    ruling = policies.ruling(policy, operation, automated=True)
    match ruling.tier:
        case Tier.APPROVAL:
            return Step(operation, Outcome.ASK, ruling.why)
        case Tier.HUMAN_ONLY:
            return Step(operation, Outcome.LEAVE, ruling.why)
        case Tier.AUTOMATIC:
            spent = sum(1 for act in acted if act.operation not in TELLS and not act.asked and now - act.at < _HOUR)
            if spent >= policy.limits.per_hour:
                why = f"{spent} automatic operations in the last hour, {policy.limits.per_hour} are allowed."
                return Step(operation, Outcome.HOLD, why)
            return Step(operation, Outcome.DO, ruling.why)


def _nothing_to_do(signal: Signal, situation: Situation, operation: Operation) -> str:
    if signal.model is None:
        return "the signal names no model there is."
    if operation in situation.waiting:
        return "it waits for persons already."
    match operation:
        case Operation.PAUSE_ROLLOUT if not situation.rollout_open or situation.paused:
            return "no rollout is on its way."
        case Operation.ROLL_BACK if not situation.rollout_open:
            return "no rollout is open."
        case Operation.ROLL_BACK_SETTLED if situation.rollout_open:
            return "a rollout is open; taking that back comes first."
        case Operation.ROLL_BACK_SETTLED if situation.previous is None:
            return "there is no version to go back to."
        case Operation.RETRAIN if situation.training:
            return "a training is under way."
        case Operation.PROMOTE if situation.candidate is None:
            return "no newer version could be promoted."
        case _:
            return ""


def _frozen(policy: Policy, now: datetime) -> str:
    return next(
        (f"frozen: {f.name}, until {f.until:%Y-%m-%d %H:%M}." for f in policy.freezes if f.since <= now < f.until), ""
    )


def _cooling(policy: Policy, signal: Signal, acted: tuple[Acted, ...], operation: Operation, now: datetime) -> str:
    span = policy.limits.cool_down_s.get(operation, 0.0)
    last = max((act.at for act in acted if (act.operation, act.model) == (operation, signal.model)), default=None)
    if last is None or (now - last).total_seconds() >= span:
        return ""
    return f"it was done {(now - last).total_seconds():.0f} s ago; the cool-down is {span:.0f} s."
