"""What the policy in force says about one operation: done at once, after an approval, or by a person alone. Pure.

Two kinds of askers: a person, and a program (a key made for one, the policy engine itself, an alias moved in MLflow).
Whatever a policy says, a person may always pause and roll back at once, and no program ever erases anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar

from control_plane.domain import cron


class Declared:
    """What policies are made of: an unknown member is refused by name where one is read."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "allow_inf_nan": False}


class Tier(StrEnum):
    AUTOMATIC = "automatic"
    APPROVAL = "approval"  # of persons other than the one who asks
    HUMAN_ONLY = "human_only"  # a person may, a program may not


class Operation(StrEnum):
    LOG = "log"
    NOTIFY = "notify"
    PAUSE_ROLLOUT = "pause_rollout"
    ROLL_BACK = "roll_back"  # of a rollout that is open, its bake included
    ROLL_BACK_SETTLED = "roll_back_settled"  # nothing is open: the previous Production version comes back
    DEPLOY = "deploy"  # to Staging: servers run, customers see nothing of it
    PROMOTE = "promote"
    SKIP_STEPS = "skip_steps"  # promote an open rollout, or skip a step of it, by hand
    SET_TRAFFIC = "set_traffic"
    RETRAIN = "retrain"
    CONFIGURE = "configure"  # another policy
    ERASE = "erase"


_AT_ONCE = frozenset({Operation.PAUSE_ROLLOUT, Operation.ROLL_BACK, Operation.ROLL_BACK_SETTLED})
TELLS = frozenset({Operation.LOG, Operation.NOTIFY})  # change nothing
PROPOSABLE = TELLS | _AT_ONCE | {Operation.RETRAIN, Operation.PROMOTE}
_HARMLESS = frozenset({Operation.LOG, Operation.NOTIFY, Operation.PAUSE_ROLLOUT, Operation.ROLL_BACK})


@dataclass(frozen=True, slots=True)
class Rule(Declared):
    """`persons`: the tier for persons where it differs. `quorum`: persons who have to agree, the asker not counted."""

    tier: Tier
    persons: Tier | None = None
    quorum: int = 1
    expires_s: float = 86_400.0


class Source(StrEnum):
    """Where a signal comes from."""

    ALERT = "alert"
    DRIFT = "drift"
    PERFORMANCE = "performance"  # the model is less often right
    SLO = "slo"
    ROLLOUT = "rollout"  # one that failed
    RETRAINING = "retraining"  # one that ended: better, not_better or failed
    SCHEDULE = "schedule"
    HUMAN = "human"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class When(Declared):
    """What a signal has to look like. Patterns are fnmatch; an empty list means any."""

    sources: tuple[Source, ...] = ()
    names: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis(Declared):
    """What a signal means and what follows from it, in this order. `severity` None: the signal's own."""

    name: str
    when: When
    propose: tuple[Operation, ...]
    severity: Severity | None = None
    because: str = ""


@dataclass(frozen=True, slots=True)
class Freeze(Declared):
    """From `since` until `until` (aware) nothing is done or proposed by itself; people are told, and may act."""

    name: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Limits(Declared):
    """`per_hour`: automatic operations on all models together that change something. `cool_down_s`: the shortest time
    between two of one operation on one model. `check_after_s`: when it is looked whether it helped."""

    per_hour: int = 6
    cool_down_s: Mapping[Operation, float] = field(default_factory=dict[Operation, float])
    check_after_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Schedule(Declared):
    """A signal of the source `schedule` for every model that matches: every `every_s` seconds since 1970, or whenever
    `cron` (five fields, UTC) says."""

    name: str
    every_s: float | None = None
    models: tuple[str, ...] = ("*",)
    cron: str | None = None


@dataclass(frozen=True, slots=True)
class Policy(Declared):
    """An operation that has no rule is automatic if it can only calm things down, else it needs an approval.

    Of `diagnoses` the first that matches a signal counts.
    """

    name: str
    rules: Mapping[Operation, Rule] = field(default_factory=dict[Operation, Rule])
    diagnoses: tuple[Diagnosis, ...] = ()
    limits: Limits = field(default_factory=Limits)
    freezes: tuple[Freeze, ...] = ()
    schedules: tuple[Schedule, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruling:
    """`why`: in a sentence, with whatever decided it."""

    tier: Tier
    quorum: int
    expires_s: float
    why: str


def rule_of(policy: Policy, operation: Operation) -> Rule:
    default = Rule(Tier.AUTOMATIC if operation in _HARMLESS else Tier.APPROVAL)
    return policy.rules.get(operation, default)


def ruling(policy: Policy, operation: Operation, *, automated: bool) -> Ruling:
    """How `operation` is dealt with when a person, or a program, asks for it."""
    rule = rule_of(policy, operation)
    if operation is Operation.ERASE:
        return Ruling(Tier.HUMAN_ONLY, 0, 0.0, "Erasing is for persons alone, whatever the policy.")
    if not automated and operation in _AT_ONCE:
        return Ruling(Tier.AUTOMATIC, 0, 0.0, f"A person's {operation} is always immediate and reviewed afterwards.")
    tier = rule.tier if automated or rule.persons is None else rule.persons
    who = "a program" if automated else "a person"
    if tier is Tier.APPROVAL:
        many = "one other person" if rule.quorum == 1 else f"{rule.quorum} other persons"
        why = f"Policy {policy.name}: {operation} asked for by {who} needs the approval of {many}."
        return Ruling(tier, rule.quorum, rule.expires_s, why)
    return Ruling(tier, 0, 0.0, f"Policy {policy.name}: {operation} asked for by {who} is {tier}.")


def last_due(schedule: Schedule, now: datetime) -> datetime | None:
    """The newest moment not after `now` at which the schedule raises its signal."""
    if schedule.cron is not None:
        return cron.last_due(schedule.cron, now)
    every_s = schedule.every_s or 0.0
    return datetime.fromtimestamp(now.timestamp() // every_s * every_s, UTC) if every_s else None


def problems(policy: Policy) -> list[str]:
    """Everything that is wrong with it, one sentence each, naming the field."""
    found: list[str] = []
    for operation, rule in policy.rules.items():
        where = f"rules.{operation}"
        if not 1 <= rule.quorum <= 10:
            found.append(f"{where}.quorum: from 1 to 10 persons.")
        if not 60 <= rule.expires_s <= 90 * 86_400:
            found.append(f"{where}.expires_s: from a minute to 90 days.")
        if operation is Operation.ERASE and rule.tier is not Tier.HUMAN_ONLY:
            found.append(f"{where}.tier: erasing is human_only.")
        if operation in {Operation.LOG, Operation.NOTIFY} and rule.tier is not Tier.AUTOMATIC:
            found.append(f"{where}.tier: {operation} is automatic; leave it out of `propose` instead.")
    for at, diagnosis in enumerate(policy.diagnoses):
        never = [operation.value for operation in diagnosis.propose if operation not in PROPOSABLE]
        if never:
            found.append(f"diagnoses.{at}.propose: {', '.join(never)} cannot follow from a signal.")
    for at, freeze in enumerate(policy.freezes):
        if freeze.since.tzinfo is None or freeze.until.tzinfo is None or freeze.since >= freeze.until:
            found.append(f"freezes.{at}: since and until have a time zone, and since comes first.")
    for at, schedule in enumerate(policy.schedules):
        if (schedule.every_s is None) == (schedule.cron is None):
            found.append(f"schedules.{at}: exactly one of every_s and cron.")
        elif schedule.every_s is not None and schedule.every_s < 60:
            found.append(f"schedules.{at}.every_s: at least a minute.")
        elif schedule.cron is not None:
            try:
                cron.parse(schedule.cron)
            except ValueError as exc:
                found.append(f"schedules.{at}.cron: {exc}.")
    if not 0 <= policy.limits.per_hour <= 1_000:
        found.append("limits.per_hour: from 0 to 1,000.")
    if not 60 <= policy.limits.check_after_s <= 7 * 86_400:
        found.append("limits.check_after_s: from a minute to a week.")
    if any(seconds < 0 for seconds in policy.limits.cool_down_s.values()):
        found.append("limits.cool_down_s: never below 0.")
    return found
