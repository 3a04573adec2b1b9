"""Who may do what: roles, actions, models and scopes. Pure; the API asks here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Role(StrEnum):
    VIEWER = "viewer"  # reads everything that holds no personal data
    OPERATOR = "operator"  # runs releases: promote, roll back, traffic, retrain
    APPROVER = "approver"  # what an operator may, and gives approvals
    ADMIN = "admin"  # everything, keys and principals included
    AUDITOR = "auditor"  # reads everything, the audit chain included; changes nothing
    PREDICTOR = "predictor"  # a product service: predicts and reports outcomes


class Action(StrEnum):
    READ = "read"  # models, versions, rollouts, traffic, timeline, performance, jobs
    READ_PREDICTION = "prediction.read"  # one record with its features: personal data
    PREDICT = "predict"
    REPORT_OUTCOME = "outcome.report"
    PROMOTE = "promote"
    ROLL_BACK = "rollback"
    STEER_ROLLOUT = "rollout.steer"  # pause, resume, abort, promote, skip by hand
    SET_TRAFFIC = "traffic.set"
    RETRAIN = "retrain"
    REPLAY = "replay"  # a candidate over logged traffic; changes nothing
    CANCEL_JOB = "job.cancel"
    MAKE_REPORT = "report.make"
    TRY_NOTICE = "notice.try"  # have the receivers of notices told that this is a trial
    READ_AUDIT = "audit.read"
    READ_KEYS = "keys.read"
    MANAGE_KEYS = "keys.manage"
    ERASE = "erase"  # a unit's personal data, for ever
    WAKE = "wake"  # ask the reconciler to look now
    APPROVE = "approve"  # agree to what somebody else asked for, or refuse it
    SET_POLICY = "policy.set"
    HALT = "policy.halt"  # the kill switch: easy to pull
    RESUME = "policy.resume"
    REPORT_ALERT = "alert.report"
    WITHDRAW = "approval.withdraw"  # take back what one asked for oneself
    TRACK = "track"  # log runs and register versions in MLflow, through the gate


class Scope(StrEnum):
    """What a key may be narrowed to, or widened by, beyond its role."""

    PREDICT = "predict"
    ALERT = "alert"  # report alerts, and nothing else
    TRACK = "track"  # a data scientist: read, log and register, and release nothing
    PIN = "predict:pin"  # name the version that answers, out of the snapshot's ready targets


_PREDICTS = frozenset({Action.PREDICT, Action.REPORT_OUTCOME})
_SCOPED: dict[Scope, frozenset[Action]] = {
    Scope.PREDICT: _PREDICTS,
    Scope.PIN: _PREDICTS,
    Scope.ALERT: frozenset({Action.REPORT_ALERT}),
    Scope.TRACK: frozenset({Action.READ, Action.TRACK}),
}
_READ = frozenset({Action.READ})
_OPERATE = _READ | {
    Action.READ_PREDICTION,
    Action.REPORT_OUTCOME,
    Action.PROMOTE,
    Action.ROLL_BACK,
    Action.STEER_ROLLOUT,
    Action.SET_TRAFFIC,
    Action.RETRAIN,
    Action.REPLAY,
    Action.CANCEL_JOB,
    Action.MAKE_REPORT,
    Action.TRY_NOTICE,
    Action.PREDICT,
    Action.WAKE,
    Action.WITHDRAW,
    Action.HALT,
    Action.REPORT_ALERT,
    Action.TRACK,
}
MAY: dict[Role, frozenset[Action]] = {
    Role.VIEWER: _READ,
    Role.OPERATOR: _OPERATE,
    Role.APPROVER: _OPERATE | {Action.READ_AUDIT, Action.APPROVE, Action.RESUME},
    Role.ADMIN: frozenset(Action),
    Role.AUDITOR: _READ | {Action.READ_PREDICTION, Action.READ_AUDIT, Action.READ_KEYS, Action.MAKE_REPORT},
    Role.PREDICTOR: frozenset({Action.PREDICT, Action.REPORT_OUTCOME}),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """One principal's right: a role on the models its patterns match (fnmatch, case-sensitive)."""

    role: Role
    models: tuple[str, ...]
    scopes: tuple[str, ...] = ()  # of the key; empty: whatever the role allows


def covers(patterns: Sequence[str], model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def refusal(grant: Grant, action: Action, model: str | None = None) -> str | None:
    """Why `grant` does not carry `action` (on `model`, where there is one), in a sentence; None when it does.

    A key with scopes does nothing but what they name: scope `predict` is all a leaked product key can be used for.
    """
    scoped = {action for scope in grant.scopes for action in _SCOPED.get(Scope(scope), frozenset())}
    if action not in MAY[grant.role]:
        able = ", ".join(role for role in Role if action in MAY[role])
        return f"The role {grant.role} may not {action}; {able} may."
    if grant.scopes and action not in scoped:
        return f"The key is limited to {', '.join(grant.scopes)}."
    if model is not None and not covers(grant.models, model):
        return f"The key covers the models {', '.join(grant.models)}, not {model}."
    return None


def may_pin(grant: Grant) -> bool:
    """Whether the data plane lets this key choose the version that answers: one with the scope, or an operator's."""
    pins = Scope.PIN in grant.scopes if grant.scopes else Action.PROMOTE in MAY[grant.role]
    return pins and refusal(grant, Action.PREDICT) is None
