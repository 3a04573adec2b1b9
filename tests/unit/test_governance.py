import pytest

from control_plane.domain.governance import MAY, Action, Grant, Role, Scope, may_pin, refusal

WRITES = frozenset(Action) - {Action.READ, Action.READ_PREDICTION, Action.READ_AUDIT, Action.READ_KEYS}


def test_the_roles_are_exactly_these() -> None:
    """The table once more, the other way round: who may do each thing."""
    expected = {
        Action.READ: "viewer operator approver admin auditor",
        Action.READ_PREDICTION: "operator approver admin auditor",
        Action.PREDICT: "operator approver admin predictor",
        Action.REPORT_OUTCOME: "operator approver admin predictor",
        Action.PROMOTE: "operator approver admin",
        Action.ROLL_BACK: "operator approver admin",
        Action.STEER_ROLLOUT: "operator approver admin",
        Action.SET_TRAFFIC: "operator approver admin",
        Action.RETRAIN: "operator approver admin",
        Action.REPLAY: "operator approver admin",
        Action.CANCEL_JOB: "operator approver admin",
        Action.WAKE: "operator approver admin",
        Action.READ_AUDIT: "approver admin auditor",
        Action.READ_KEYS: "admin auditor",
        Action.MANAGE_KEYS: "admin",
        Action.ERASE: "admin",
        Action.APPROVE: "approver admin",
        Action.WITHDRAW: "operator approver admin",
        Action.SET_POLICY: "admin",
        Action.HALT: "operator approver admin",
        Action.RESUME: "approver admin",
        Action.REPORT_ALERT: "operator approver admin",
        Action.TRY_NOTICE: "operator approver admin",
        Action.MAKE_REPORT: "operator approver admin auditor",
        Action.TRACK: "operator approver admin",
    }
    assert {action: " ".join(role for role in Role if action in MAY[role]) for action in Action} == expected


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AUDITOR])
def test_who_only_looks_changes_nothing(role: Role) -> None:
    assert MAY[role] & WRITES <= {Action.MAKE_REPORT}  # of what there is


def test_a_grant_reaches_as_far_as_its_patterns() -> None:
    grant = Grant(Role.OPERATOR, ("fraud*", "churn"))
    assert refusal(grant, Action.PROMOTE, "fraud-eu") is None
    assert refusal(grant, Action.PROMOTE, "churn") is None
    assert refusal(grant, Action.PROMOTE, "churn2") == "The key covers the models fraud*, churn, not churn2."
    assert refusal(Grant(Role.OPERATOR, ()), Action.PROMOTE, "churn") is not None


def test_a_refusal_says_who_may() -> None:
    why = refusal(Grant(Role.VIEWER, ("*",)), Action.READ_AUDIT)
    assert why == "The role viewer may not audit.read; approver, admin, auditor may."


def test_a_key_with_scopes_can_do_nothing_else_whatever_its_role() -> None:
    grant = Grant(Role.ADMIN, ("*",), (Scope.PREDICT,))
    assert {action for action in Action if refusal(grant, action) is None} == {Action.PREDICT, Action.REPORT_OUTCOME}


def test_choosing_the_version_takes_its_own_scope() -> None:
    assert may_pin(Grant(Role.OPERATOR, ("*",)))
    assert not may_pin(Grant(Role.OPERATOR, ("*",), (Scope.PREDICT,)))
    assert not may_pin(Grant(Role.PREDICTOR, ("*",)))
    assert not may_pin(Grant(Role.PREDICTOR, ("*",), (Scope.PREDICT,)))
    assert may_pin(Grant(Role.PREDICTOR, ("*",), (Scope.PREDICT, Scope.PIN)))
    assert not may_pin(Grant(Role.VIEWER, ("*",), (Scope.PIN,)))
