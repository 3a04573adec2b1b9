"""The admin clients against a real HTTP server: what is sent, when it is sent again, and what comes back."""

import asyncio
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from control_plane import errors, sdk
from control_plane.domain.rollouts import Phase
from control_plane.sdk import (
    AsyncControlPlane,
    ControlPlane,
    Patience,
    admin,
    answers,
    binding,
    governed,
    predictions,
    problems,
)
from control_plane.sdk.answers import Page, RolloutView
from control_plane.sdk.transport import path, retry_after
from tests.support import views
from tests.support.answering import Answer, Answering, answering

API = views.API
EAGER = Patience(attempts=4, budget_s=10.0, first_wait_s=0.01)


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as state:
        yield state


@pytest.fixture
def cp(server: Answering) -> Iterator[ControlPlane]:
    with ControlPlane(server.url, "secret", patience=EAGER) as client:
        yield client


@pytest.mark.parametrize("module", [sdk, answers])
def test_every_name_of_a_module_that_imports_late_is_there(module: ModuleType) -> None:
    assert {name for name in module.__all__ if getattr(module, name).__name__ == name} == set(module.__all__)
    assert set(module.__all__) == {name for names in module._MODULES.values() for name in names}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_answers_are_the_models_of_the_contracts(server: Answering, cp: ControlPlane) -> None:
    server.ok("GET", f"{API}/rollouts", views.page(views.rollout(phase="baking")))
    found = cp.rollouts(model="churn", limit=5)
    assert isinstance(found, Page)
    assert isinstance(found.items[0], RolloutView)
    assert found.items[0].phase is Phase.BAKING
    assert server.asked[0].query == {"model": "churn", "limit": "5"}
    assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_a_dropped_connection_sends_the_same_write_again_under_the_same_key(
    server: Answering, cp: ControlPlane
) -> None:
    server.declare("POST", f"{API}/models/churn/rollback", Answer(drop=True), Answer(200, views.rollout()))
    assert cp.rollback("churn", reason="too many complaints").model == "churn"
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert [asked.body for asked in server.asked] == [{"reason": "too many complaints"}] * 2


def test_two_writes_have_two_keys_and_a_key_of_the_caller_is_kept(server: Answering, cp: ControlPlane) -> None:
    server.ok("POST", f"{API}/models/churn/rollback", views.rollout())
    cp.rollback("churn", reason="a")
    cp.rollback("churn", reason="a")
    cp.rollback("churn", reason="a", key="mine")
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_busy_server_is_asked_again_until_it_answers(server: Answering, cp: ControlPlane, status: int) -> None:
    server.declare("GET", f"{API}/models", Answer(status), Answer(status), Answer(200, views.page(views.model())))
    assert cp.models().items[0].name == "churn"
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 428, 429, 500])
def test_any_other_refusal_is_final(server: Answering, cp: ControlPlane, status: int) -> None:
    server.declare("GET", f"{API}/models", Answer(status, {"title": "no"}))
    with pytest.raises(errors.ControlPlaneError) as caught:
        cp.models()
    assert len(server.asked) == 1
    assert caught.value.extra["status"] == status


def test_out_of_attempts_the_last_answer_is_raised(server: Answering, cp: ControlPlane) -> None:
    server.problem("GET", f"{API}/models", 503, "store-unavailable")
    with pytest.raises(errors.StoreUnavailable, match="What went wrong"):
        cp.models()
    assert len(server.asked) == EAGER.attempts


def test_retry_after_is_honoured(server: Answering, cp: ControlPlane) -> None:
    busy = Answer(503, headers={"retry-after": "1"})
    server.declare("GET", f"{API}/models", busy, Answer(200, views.page()))
    began = datetime.now(UTC)
    cp.models()
    assert datetime.now(UTC) - began >= timedelta(seconds=1)


def test_no_attempt_is_begun_beyond_the_budget(server: Answering) -> None:
    server.declare("GET", f"{API}/models", Answer(503, headers={"retry-after": "20"}))
    with ControlPlane(server.url, "k", patience=Patience(attempts=5, budget_s=1.0)) as cp:
        began = datetime.now(UTC)
        with pytest.raises(errors.Unavailable):
            cp.models()
    assert datetime.now(UTC) - began < timedelta(seconds=5)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-3", None), (None, None), ("", None)]
)
def test_retry_after_reads_seconds_and_nothing_it_does_not_understand(
    header: str | None, seconds: float | None
) -> None:
    response = httpx.Response(503, headers={} if header is None else {"retry-after": header})
    assert retry_after(response, now=datetime.now(UTC)) == seconds


def test_retry_after_reads_dates_and_never_waits_for_the_past() -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for ahead, seconds in ((timedelta(seconds=30), 30.0), (timedelta(seconds=-30), 0.0)):
        response = httpx.Response(503, headers={"retry-after": format_datetime(now + ahead, usegmt=True)})
        assert retry_after(response, now=now) == seconds


def every_error() -> list[type[errors.ControlPlaneError]]:
    found, queue = [], [errors.ControlPlaneError]
    while queue:
        error = queue.pop()
        found.append(error)
        queue += error.__subclasses__()
    return sorted(found, key=lambda error: error.type)


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.type)
def test_every_slug_is_raised_as_its_class_with_all_that_was_said(
    server: Answering, error: type[errors.ControlPlaneError]
) -> None:
    server.problem("GET", f"{API}/models", error.status, error.type, reasons=["a", "b"], trace_id="t1", model="churn")
    with (
        ControlPlane(server.url, "k", patience=Patience(attempts=1)) as cp,
        pytest.raises(errors.ControlPlaneError) as caught,
    ):
        cp.models()
    assert type(caught.value) is error
    assert caught.value.detail == "What went wrong."
    assert problems.reasons(caught.value) == ["a", "b"]
    assert caught.value.extra == {"reasons": ["a", "b"], "trace_id": "t1", "model": "churn", "status": error.status}


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, errors.NotFound), (409, errors.Conflict), (500, errors.ControlPlaneError), (418, errors.ControlPlaneError)],
)
def test_an_error_that_is_no_problem_document_is_known_by_its_status(
    server: Answering, cp: ControlPlane, status: int, error: type[errors.ControlPlaneError]
) -> None:
    server.declare("GET", f"{API}/models", Answer(status, raw=b"<html>proxy</html>"))
    with pytest.raises(errors.ControlPlaneError, match=f"GET {API}/models was answered with status {status}") as caught:
        cp.models()
    assert type(caught.value) is error


def test_an_answer_nobody_understands_is_no_silent_success(server: Answering, cp: ControlPlane) -> None:
    server.ok("GET", f"{API}/rollouts/{views.ROLLOUT_ID}", views.rollout(phase="levitating"))
    with pytest.raises(errors.ControlPlaneError, match="phase"):
        cp.rollout(views.ROLLOUT_ID)


def test_members_of_a_later_release_are_ignored(server: Answering, cp: ControlPlane) -> None:
    server.ok("GET", f"{API}/models/churn", views.model(colour="blue"))
    assert cp.model("churn").name == "churn"


def test_nobody_there_is_unavailable_and_no_answer_in_time_is_a_deadline(server: Answering) -> None:
    with (
        ControlPlane("http://127.0.0.1:9", "k", patience=Patience(attempts=2, first_wait_s=0.01)) as cp,
        pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:9/api/v1 does not answer"),
    ):
        cp.models()

    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with (
        ControlPlane(server.url, "k", transport=httpx.MockTransport(slow)) as cp,
        pytest.raises(errors.DeadlineExceeded),
    ):
        cp.models()


def test_names_cannot_leave_their_place_in_the_path(server: Answering, cp: ControlPlane) -> None:
    assert path("models", "a/../b?c#d", "versions") == "/models/a%2F..%2Fb%3Fc%23d/versions"
    with pytest.raises(errors.NotFound):
        cp.versions("churn?x=1")
    assert "x" not in server.asked[0].query


def test_put_traffic_shows_the_revision_it_replaces(server: Answering, cp: ControlPlane) -> None:
    view = {"model": "churn", "revision": 8, "fixed": True, "rollout_id": None, "arms": []}
    server.ok("PUT", f"{API}/models/churn/traffic", view)
    cp.set_traffic("churn", {"1": 90.0, "2": 10.0}, revision=7, reason="by hand")
    assert server.asked[0].headers["if-match"] == '"7"'
    assert server.asked[0].body["arms"] == [{"version": "1", "percent": 90.0}, {"version": "2", "percent": 10.0}]


def test_what_a_promotion_leaves_out_is_left_to_the_server(server: Answering, cp: ControlPlane) -> None:
    server.ok("POST", f"{API}/models/churn/promote/production", views.rollout(), 202)
    cp.promote("churn", reason="r")
    cp.promote("churn", "2", reason="r", strategy="canary", steps=[(5, 60), (50, 60.5)], bake_s=0)
    assert server.asked[0].body == {"reason": "r"}
    assert server.asked[1].body["steps"] == [{"weight": 5, "hold_s": 60}, {"weight": 50, "hold_s": 60.5}]
    assert server.asked[1].body["bake_s"] == 0


def test_waiting_ends_when_every_router_answers_so(server: Answering, cp: ControlPlane) -> None:
    asked = f"{API}/rollouts/{views.ROLLOUT_ID}"
    for state in (
        {"phase": "pending"},
        {"phase": "baking", "applied": False},
        {"phase": "baking", "applied": True, "cut_over": True},
    ):
        server.ok("GET", asked, views.rollout(**state))
    seen = cp.wait_rollout(views.ROLLOUT_ID, timeout_s=10, poll_s=0.01)
    assert (seen.phase, seen.applied, len(server.asked)) == (Phase.BAKING, True, 3)


def test_a_rollout_that_is_aborted_meanwhile_is_a_conflict(server: Answering, cp: ControlPlane) -> None:
    aborted = views.rollout(phase="aborted", applied=True, reason="The candidate was not ready within 600 s.")
    server.ok("GET", f"{API}/rollouts/{views.ROLLOUT_ID}", aborted)
    for waited_for in (views.ROLLOUT_ID, RolloutView.model_validate(views.rollout())):
        with pytest.raises(errors.Conflict, match="not ready within 600 s"):
            cp.wait_rollout(waited_for)


def test_the_abort_a_rollback_answers_with_is_waited_for(server: Answering, cp: ControlPlane) -> None:
    aborted = views.rollout(phase="aborted")
    server.ok("POST", f"{API}/models/churn/rollback", aborted, 202)
    server.ok("GET", f"{API}/rollouts/{views.ROLLOUT_ID}", aborted)
    server.ok("GET", f"{API}/rollouts/{views.ROLLOUT_ID}", aborted | {"applied": True})
    assert cp.wait_rollout(cp.rollback("churn", reason="r"), poll_s=0.01).applied
    assert len(server.asked) == 3


def test_waiting_in_vain_says_what_is_still_to_happen(server: Answering, cp: ControlPlane) -> None:
    server.ok("GET", f"{API}/rollouts/{views.ROLLOUT_ID}", views.rollout())
    with pytest.raises(errors.DeadlineExceeded, match=r"pending after 0\.1 s: version 2 to be ready"):
        cp.wait_rollout(views.ROLLOUT_ID, timeout_s=0.1, poll_s=0.01)


async def test_the_asynchronous_client_sends_again_and_waits_like_the_other(server: Answering) -> None:
    post, get = f"{API}/models/churn/rollback", f"{API}/rollouts/{views.ROLLOUT_ID}"
    server.declare("POST", post, Answer(drop=True), Answer(503), Answer(202, views.rollout()))
    server.ok("GET", get, views.rollout())
    server.ok("GET", get, views.rollout(phase="succeeded", applied=True))
    async with AsyncControlPlane(server.url, "k", patience=EAGER) as cp:
        rollout = await cp.rollback("churn", reason="r")
        seen = await cp.wait_rollout(rollout.id, timeout_s=10, poll_s=0.01)
        server.problem("GET", f"{API}/models", 409, "gates-not-met", reasons=["auc"])
        with pytest.raises(errors.GatesNotMet):
            await cp.models()
        await asyncio.gather(*(cp.rollout(views.ROLLOUT_ID) for _ in range(20)))
    assert seen.phase is Phase.SUCCEEDED
    assert len({asked.headers["idempotency-key"] for asked in server.asked if asked.method == "POST"}) == 1


@pytest.mark.parametrize("module", [admin, governed, predictions], ids=["admin", "governed", "predictions"])
def test_every_call_declares_an_answer_that_can_be_parsed(module: ModuleType) -> None:
    for name, build in inspect.getmembers(module, inspect.isfunction):
        if build.__module__ == module.__name__ and not name.startswith("_"):
            assert binding.adapter(build) is binding.adapter(build)


def test_both_clients_hold_every_call_under_its_own_name_and_signature() -> None:
    calls = {
        name: build
        for module in (admin, governed)
        for name, build in inspect.getmembers(module, inspect.isfunction)
        if build.__module__ == module.__name__ and not name.startswith("_")
    }
    assert len(calls) > 25
    for client in (ControlPlane, AsyncControlPlane):
        for name, build in calls.items():
            method = getattr(client, name)
            signature = inspect.signature(build)
            own = (
                ["self", "into"] if signature.return_annotation == "Call[bytes]" else ["self"]
            )  # a download hands it on
            assert list(inspect.signature(method).parameters) == [*own, *signature.parameters]
            assert method.__doc__ == build.__doc__
            assert "Call[" not in str(inspect.signature(method))


class TestConfiguration:
    def test_arguments_win_over_the_environment_and_that_over_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Answering
    ) -> None:
        monkeypatch.delenv("MLCP_API_KEY", raising=False)
        monkeypatch.delenv("MLCP_API_URL", raising=False)
        monkeypatch.setenv("MLCP_HOME", str(tmp_path))
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / "admin.key").write_text("of-the-folder\n")
        (tmp_path / "mlcp.toml").write_text(f'api_url = "{server.url}/"\n')
        server.ok("GET", f"{API}/models", views.page())

        def shown(url: str | None = None, key: str | None = None) -> str:
            with ControlPlane(url, key) as cp:
                cp.models()
            return server.asked[-1].headers["authorization"]

        assert shown() == "Bearer of-the-folder"
        monkeypatch.setenv("MLCP_API_KEY", "of-the-environment")
        assert shown() == "Bearer of-the-environment"
        assert shown(key="given") == "Bearer given"
        monkeypatch.setenv("MLCP_API_URL", "http://127.0.0.1:9")
        assert shown(url=server.url) == "Bearer of-the-environment"

    def test_no_key_anywhere_says_where_one_was_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLCP_API_KEY", raising=False)
        with pytest.raises(errors.Unauthenticated, match=r"MLCP_API_KEY is not set and there is no .*admin\.key"):
            ControlPlane(home=tmp_path)

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://x"])
    def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        with pytest.raises(errors.InvalidInput, match="api_url"):
            ControlPlane(url, "k")

    def test_a_broken_file_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MLCP_API_URL", raising=False)
        (tmp_path / "mlcp.toml").write_text("api_url = ")
        with pytest.raises(errors.InvalidInput, match=r"mlcp\.toml"):
            ControlPlane(key="k", home=tmp_path)
