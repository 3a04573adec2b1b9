"""Commands on models, releases, jobs, keys and the audit: what they send, print and exit with."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane import errors
from control_plane.cli.console import ago, exit_code
from tests.support import views
from tests.support.answering import Answer, Answering
from tests.support.cli import Run

API, ROLLOUT = views.API, views.ROLLOUT_ID


def test_every_kind_of_error_has_its_exit_code() -> None:
    codes = {
        errors.ControlPlaneError: 1,
        errors.NotFound: 3,
        errors.GatesNotMet: 4,
        errors.StaleRevision: 4,
        errors.PreconditionRequired: 4,
        errors.Unauthenticated: 5,
        errors.Forbidden: 5,
        errors.StoreUnavailable: 6,
        errors.Overloaded: 6,
        errors.InvalidSplit: 7,
        errors.TooLarge: 7,
        errors.DeadlineExceeded: 8,
    }
    assert {error: exit_code(error("x")) for error in codes} == codes


def test_a_refusal_shows_title_detail_and_every_reason_on_stderr(server: Answering, mlcp: Run) -> None:
    reasons = ["roc_auc 0.71 is below 0.80", "[bold]worse[/bold] than Production by 0.12"]
    server.problem(
        "POST", f"{API}/models/churn/promote/production", 409, "gates-not-met", reasons=reasons, trace_id="t"
    )
    result = mlcp("promote", "churn", "2", "--reason", "r", exits=4)
    assert result.stdout == ""
    said = result.stderr.splitlines()
    assert said[0] == "The version does not pass its gates. What went wrong."
    assert [line.strip() for line in said[1:]] == [*(f"- {reason}" for reason in reasons), "trace t"]


def test_generate_hands_its_options_to_the_generator(mlcp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("control_plane.sdk.subprocesses.run", lambda *argv: asked.append(argv) or 0)
    mlcp("generate", "loans", "--check", "--signature", "signature.json")
    assert asked == [("serving", "model_servers.generator", "loans", "--check", "--signature", "signature.json")]


def test_a_missing_option_is_a_usage_error(mlcp: Run) -> None:
    assert "--reason" in mlcp("rollback", "churn", exits=2).stderr
    assert "No such command" in mlcp("nosuch", exits=2).stderr


def test_nobody_listening_is_unavailable(mlcp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCP_API_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("control_plane.sdk.transport.wait_random_exponential", lambda **_: lambda _: 0.0)
    assert "http://127.0.0.1:9/api/v1 does not answer" in mlcp("models", exits=6).stderr.replace("\n", " ")


def test_models_and_versions_fit_80_columns_and_json_is_the_contract(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/models", views.page(views.model(), views.model("categorization", problem="multiclass")))
    server.ok("GET", f"{API}/models/churn/versions", views.page(views.version("12", stage="Production")))
    assert "categorization" in mlcp("models").stdout
    assert [model["name"] for model in json.loads(mlcp("models", "--json").stdout)] == ["churn", "categorization"]
    assert "average_precision 0.8543" in mlcp("versions", "churn").stdout
    found = json.loads(mlcp("versions", "churn", "--json").stdout)
    assert (found[0]["version"], found[0]["stage"]) == ("12", "Production")


def test_models_are_read_to_the_last_page(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/models", {"items": [views.model("a")], "next": "a"})
    server.ok("GET", f"{API}/models", {"items": [views.model("b")], "next": None})
    assert len(json.loads(mlcp("models", "--json").stdout)) == 2
    assert server.asked[1].query["cursor"] == "a"


def test_promote_names_the_version_and_where_to_watch_it(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/churn/promote/production", views.rollout(), 202)
    shown = mlcp("promote", "churn", "2", "--strategy", "canary", "--reason", "better").stdout
    assert shown.splitlines() == ["churn: 1 -> 2, pending, 0 % so far.", f"mlcp rollouts show {ROLLOUT}"]
    assert server.asked[0].body == {"version": "2", "strategy": "canary", "reason": "better"}
    assert server.asked[0].headers["idempotency-key"]


def test_promote_waits_until_every_router_answers_so(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/churn/promote/production", views.rollout(), 202)
    for state in ({"phase": "pending"}, {"phase": "baking", "applied": True, "cut_over": True}):
        server.ok("GET", f"{API}/rollouts/{ROLLOUT}", views.rollout(**state))
    said = mlcp("promote", "churn", "2", "--reason", "better", "--wait").stdout
    assert said.startswith("churn: 1 -> 2; every router agrees after ")


def test_promote_that_is_aborted_while_waiting_exits_as_a_conflict(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/churn/promote/production", views.rollout(), 202)
    aborted = views.rollout(phase="aborted", applied=True, reason="The candidate could not be deployed: no memory")
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", aborted)
    assert "no memory" in mlcp("promote", "churn", "2", "--reason", "r", "--wait", exits=4).stderr


def test_waiting_too_long_exits_as_a_timeout_and_says_what_is_missing(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/churn/promote/production", views.rollout(), 202)
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", views.rollout())
    said = mlcp("promote", "churn", "2", "--reason", "r", "--wait", "--timeout", "0.2", exits=8).stderr
    assert "version 2 to be ready" in " ".join(said.split())


@pytest.mark.parametrize(
    ("kind", "phase"), [("rollback", "succeeded"), ("promotion", "aborted")], ids=["of-its-own", "by-aborting"]
)
def test_rollback_waits_for_whichever_way_back_it_is(server: Answering, mlcp: Run, kind: str, phase: str) -> None:
    server.ok("POST", f"{API}/models/churn/rollback", views.rollout(kind=kind, phase=phase), 202)
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", views.rollout(kind=kind, phase=phase, applied=False))
    done = views.rollout(kind=kind, phase=phase, applied=True, cut_over=kind == "rollback")
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", done)
    assert "every router agrees after" in mlcp("rollback", "churn", "--reason", "r", "--wait").stdout


def test_a_stage_that_moves_no_traffic_is_set_at_once(server: Answering, mlcp: Run) -> None:
    moved = {"model": "churn", "version": "2", "from_stage": "Development", "to_stage": "Staging", "at": views.AT}
    server.ok("POST", f"{API}/models/churn/promote/staging", moved | {"reason": "r"}, 202)
    assert (
        "churn 2: Development -> Staging." in mlcp("promote", "churn", "2", "--to", "staging", "--reason", "r").stdout
    )
    mlcp("promote", "churn", "2", "--to", "staging", "--strategy", "canary", "--reason", "r", exits=7)


def test_timeline_takes_a_moment_without_a_zone_as_utc(server: Answering, mlcp: Run) -> None:
    event = {"at": views.AT, "version": "2", "from_stage": "Staging", "to_stage": "Production", "actor": "admin"}
    view = {"model": "churn", "as_of": views.AT, "production_version": "2", "staging_version": None}
    server.ok("GET", f"{API}/models/churn/timeline", view | {"events": [event | {"reason": "r", "rollout_id": None}]})
    assert "2 was Production of churn" in mlcp("timeline", "churn", "--as-of", "2026-11-20T12:00").stdout
    assert server.asked[0].query["as_of"] == "2026-11-20T12:00:00+00:00"
    mlcp("timeline", "churn", "--as-of", "yesterday", exits=7)


def test_rollouts_are_listed_and_steered(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/rollouts", views.page(views.rollout(model="categorization", phase="progressing")))
    server.ok("GET", f"{API}/rollouts/{ROLLOUT}", views.rollout())
    assert ROLLOUT in mlcp("rollouts", "list", "categorization", "--open").stdout
    assert server.asked[0].query == {"model": "categorization", "open": "true", "limit": "20"}
    assert "version 2 to be ready" in mlcp("rollouts", "show", ROLLOUT).stdout
    for verb in ("pause", "resume", "abort", "promote"):
        server.ok("POST", f"{API}/rollouts/{ROLLOUT}/{verb}", views.rollout(phase="paused"))
        mlcp("rollouts", verb, ROLLOUT, "--reason", "r")
        assert server.asked[-1].path.endswith(verb)


def test_traffic_is_set_against_the_revision_just_read(server: Answering, mlcp: Run) -> None:
    arm = {"variant": "stable", "version": "1", "percent": 90.0}
    view = {"model": "churn", "revision": 7, "fixed": False, "rollout_id": None, "arms": [arm]}
    server.ok("GET", f"{API}/models/churn/traffic", view)
    server.ok("PUT", f"{API}/models/churn/traffic", view | {"fixed": True, "revision": 8})
    assert "all to Production" in mlcp("traffic", "show", "churn").stdout
    assert "set by hand" in mlcp("traffic", "set", "churn", "1=90", "2=10", "--reason", "r").stdout
    assert server.asked[-1].headers["if-match"] == '"7"'
    mlcp("traffic", "set", "churn", "1:90", "--reason", "r", exits=7)


def test_the_audit_is_listed_and_a_broken_chain_fails(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/audit", views.page(views.audit()))
    whole = {"ok": True, "links": 12, "first_bad": None, "head_seq": 12, "head_hash": "ab" * 32}
    server.ok("GET", f"{API}/audit/verify", whole)
    server.ok("GET", f"{API}/audit/verify", whole | {"ok": False, "first_bad": 4})
    assert "model.promote model:churn" in mlcp("audit", "list", "--object", "model:churn").stdout
    assert "12 links" in mlcp("audit", "verify").stdout
    assert "link 4" in mlcp("audit", "verify", exits=1).stderr


def test_a_new_key_is_shown_once(server: Answering, mlcp: Run) -> None:
    key: dict[str, Any] = {
        "id": ROLLOUT,
        "person": "bob",
        "role": "viewer",
        "models": ["*"],
        "scopes": [],
        "prefix": "mlcp_abc",
    }
    key |= {"created_at": views.AT, "expires_at": None, "revoked_at": None, "last_used_at": None}
    server.ok("POST", f"{API}/keys", key | {"secret": "mlcp_" + "x" * 43}, 201)
    server.ok("GET", f"{API}/keys", views.page(key, key | {"expires_at": "2020-01-01T00:00:00Z"}))
    server.ok("POST", f"{API}/keys/{ROLLOUT}/revoke", key)
    server.ok("POST", f"{API}/keys/{ROLLOUT}/rotate", key | {"secret": "mlcp_new"}, 201)
    assert (
        "mlcp_" + "x" * 43
        in mlcp("keys", "create", "bob", "--role", "viewer", "--days", "2", "--rate-limit", "5", "--reason", "r").stdout
    )
    assert server.asked[0].body["rate_limit_rps"] == 5
    assert server.asked[0].body["expires_in_s"] == 2 * 86_400
    listed = mlcp("keys", "list").stdout
    assert "valid" in listed
    assert "expired" in listed
    assert "revoked" in mlcp("keys", "revoke", ROLLOUT, "--reason", "r").stdout
    assert "mlcp_new" in mlcp("keys", "rotate", ROLLOUT, "--reason", "r").stdout


def job(**changes: Any) -> dict[str, Any]:
    made = {
        "id": ROLLOUT,
        "kind": "train",
        "model": "churn",
        "args": {},
        "state": "running",
        "progress": {"step": "fit"},
    }
    made |= {"created_at": views.AT, "created_by": "admin"}
    return made | dict.fromkeys(("result", "error", "started_at", "ended_at", "cancel_requested_at")) | changes


def test_retraining_waits_for_the_job_and_fails_with_it(server: Answering, mlcp: Run) -> None:
    server.ok("POST", f"{API}/models/churn/retrain", job(), 202)
    server.ok("GET", f"{API}/jobs/{ROLLOUT}", job(state="failed", error="no memory"))
    assert "running" in mlcp("retrain", "churn", "--reason", "r", "--seed", "3").stdout
    assert server.asked[0].body == {"reason": "r", "seed": 3}
    assert "no memory" in mlcp("retrain", "churn", "--reason", "r", "--wait", exits=1).stderr


def test_the_log_of_a_job_is_followed_to_its_end(server: Answering, mlcp: Run) -> None:
    server.ok("GET", f"{API}/jobs", views.page(job()))
    told = json.dumps({"event": "fitting", "detail": "fitting 3 candidates", "fraction": 0.2})
    server.ok("GET", f"{API}/jobs/{ROLLOUT}/logs", {"text": told[:9], "next": 4, "complete": False})
    server.ok("GET", f"{API}/jobs/{ROLLOUT}/logs", {"text": f"{told[9:]}\ntwo", "next": 8, "complete": True})
    server.ok("GET", f"{API}/jobs/{ROLLOUT}/logs", {"text": "", "next": 8, "complete": True})
    server.ok("POST", f"{API}/jobs/{ROLLOUT}/cancel", job(state="cancelled"))
    assert ROLLOUT in mlcp("jobs", "list").stdout
    assert mlcp("jobs", "logs", ROLLOUT, "-f").stdout == " 20%  fitting 3 candidates\ntwo\n"
    assert [asked.query.get("offset") for asked in server.asked[1:]] == ["0", "4", "8"]
    assert "cancelled" in mlcp("jobs", "cancel", ROLLOUT, "--reason", "r").stdout


@pytest.mark.parametrize(
    ("seconds", "told"), [(-3, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (180_000, "2 d")]
)
def test_ages_are_told_in_the_largest_unit_that_fits(seconds: int, told: str) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    assert ago(now - timedelta(seconds=seconds), now=now) == told


def test_a_dropped_connection_during_a_rollback_is_not_the_users_problem(server: Answering, mlcp: Run) -> None:
    path = f"{API}/models/churn/rollback"
    server.declare("POST", path, Answer(drop=True), Answer(202, views.rollout(kind="rollback", phase="succeeded")))
    mlcp("rollback", "churn", "--reason", "r")
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1
    assert len(server.asked) == 2
