"""First start against an API and a router that are made up; training is a program that only notes it was called."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.embedded import bootstrap
from control_plane.embedded.bootstrap import Bootstrap

MODELS = ("churn", "fraud")


class World:
    """A registry, an API in front of it and a router that answers what is Production."""

    def __init__(self) -> None:
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.trained: list[str] = []
        self.promoted: list[tuple[str, str, str]] = []
        self.refusal: dict[str, Any] | None = None

    def add(self, name: str, stage: str = "Development") -> None:
        self.versions.setdefault(name, []).insert(
            0, {"version": str(len(self.versions.get(name, [])) + 1), "stage": stage}
        )

    def api(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer admin-key"
        parts = request.url.path.split("/")[3:]
        if parts == ["models"]:
            return httpx.Response(200, json={"items": [self._model(name) for name in self.versions]})
        name = parts[1]
        if parts[2] == "versions":
            found = self.versions.get(name)
            return httpx.Response(200, json={"items": found}) if found else httpx.Response(404, json={"detail": "none"})
        if self.refusal:
            return httpx.Response(409, json=self.refusal)
        body = json.loads(request.content)
        self.promoted.append((name, body["version"], body["reason"]))
        self.versions[name][0]["stage"] = "Production"
        return httpx.Response(202, json={})

    def router(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer predictor-key"
        name = request.url.path.split("/")[2]
        if self._model(name)["production_version"] is None:
            return httpx.Response(404, json={})
        if request.method == "GET":
            return httpx.Response(200, json={"features": {"a": 1}})
        return httpx.Response(200 if json.loads(request.content) == {"features": {"a": 1}} else 422, json={})

    def _model(self, name: str) -> dict[str, Any]:
        live = [v["version"] for v in self.versions.get(name, []) if v["stage"] == "Production"]
        return {"name": name, "production_version": live[0] if live else None}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    world = World()
    (tmp_path / "keys").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "keys" / "admin.key").write_text("admin-key\n")
    (tmp_path / "keys" / "predictor.key").write_text("predictor-key\n")

    async def train(self: Bootstrap, name: str) -> None:
        world.trained.append(name)
        world.add(name)

    monkeypatch.setattr(Bootstrap, "_train", train)
    monkeypatch.setattr(bootstrap, "_ANSWER_WITHIN_S", 0.3)
    monkeypatch.setattr(bootstrap, "_EVERY_S", 0.01)
    return world


def run(world: World, home: Path, *wanted: str) -> int:
    async def main() -> int:
        def client(key: str, handler: Any) -> httpx.AsyncClient:
            headers = {"Authorization": f"Bearer {(home / 'keys' / key).read_text().strip()}"}
            return httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://x", headers=headers)

        async with client("admin.key", world.api) as api, client("predictor.key", world.router) as router:
            return await Bootstrap(home, api, router).run(wanted)

    return asyncio.run(main())


def steps(home: Path) -> dict[str, tuple[str, str]]:
    document = json.loads((home / "run" / "bootstrap.json").read_text())
    return {step["name"]: (step["state"], step["detail"]) for step in document["steps"]}


def test_an_empty_registry_gets_every_model_trained_promoted_and_answering(world: World, tmp_path: Path) -> None:
    assert run(world, tmp_path, *MODELS) == 0
    assert sorted(world.trained) == ["churn", "fraud"]
    assert {(name, version) for name, version, _ in world.promoted} == {("churn", "1"), ("fraud", "1")}
    assert steps(tmp_path) == dict.fromkeys(MODELS, ("done", "answers"))


def test_a_second_start_trains_and_promotes_nothing(world: World, tmp_path: Path) -> None:
    run(world, tmp_path, *MODELS)
    world.trained.clear(), world.promoted.clear()
    assert run(world, tmp_path, *MODELS) == 0
    assert (world.trained, world.promoted) == ([], [])
    assert steps(tmp_path) == dict.fromkeys(MODELS, ("done", "answers"))


def test_a_first_start_that_was_killed_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    (tmp_path / "bootstrap.json").write_text(json.dumps({"models": MODELS, "done": False}))
    world.add("churn")  # trained, then killed
    assert run(world, tmp_path, *MODELS) == 0
    assert world.trained == ["fraud"]
    assert {name for name, _, _ in world.promoted} == {"churn", "fraud"}


def test_a_registry_somebody_else_filled_is_left_alone(world: World, tmp_path: Path) -> None:
    world.add("theirs")
    assert run(world, tmp_path, *MODELS) == 0
    assert (world.trained, world.promoted) == ([], [])


def test_no_models_wanted_means_none_trained(world: World, tmp_path: Path) -> None:
    assert run(world, tmp_path) == 0
    assert world.trained == []


def test_a_refused_promotion_fails_that_model_with_every_reason(world: World, tmp_path: Path) -> None:
    world.refusal = {
        "type": "https://x/gates-not-met",
        "detail": "no",
        "reasons": ["metric: too low", "cost: too high"],
    }
    assert run(world, tmp_path, "churn") == 1
    state, detail = steps(tmp_path)["churn"]
    assert state == "failed"
    assert "metric: too low; cost: too high" in detail
    assert json.loads((tmp_path / "bootstrap.json").read_text())["models"] == ["churn"]  # the next start tries again


def test_a_rollout_an_earlier_run_opened_is_waited_for(world: World, tmp_path: Path) -> None:
    world.refusal = {"type": "https://x/rollout-open", "detail": "open"}
    assert run(world, tmp_path, "churn") == 1
    assert "no answer within" in steps(tmp_path)["churn"][1]


def test_an_old_model_that_does_not_answer_is_shown_and_stops_no_start(world: World, tmp_path: Path) -> None:
    world.add("churn", "Production")
    world.router = lambda request: httpx.Response(503, json={})  # type: ignore[method-assign]
    assert run(world, tmp_path, *MODELS) == 0
    assert steps(tmp_path)["churn"][0] == "failed"
