"""Who is told what, and in which order they start."""

import asyncio
import os
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from control_plane.embedded import binaries, child, config, layout, models, realtime, stack
from control_plane.embedded.child import Spec
from control_plane.embedded.postgres import Postgres
from control_plane.embedded.stack import Environments
from control_plane.embedded.supervisor import Supervisor
from control_plane.embedded.wanted import Wanted
from tests.support.processes import eventually

SECRETS = {
    "MLCP_POSTGRES_DSN": "theirs",
    "MLCP_API_KEY": "k",
    "MLCP_MLFLOW_WEBHOOK_SECRET": "w",
    "AWS_SECRET_ACCESS_KEY": "a",
    "MINIO_SECRET_KEY": "m",
    "SLACK_WEBHOOK_URL": "https://hooks.example/s",
    "WHATEVER_COMES_NEXT": "n",
}
HARMLESS = {
    "MLCP_LOG_LEVEL": "DEBUG",
    "LC_ALL": "C.UTF-8",
    "HOME": "/home/u",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
}
USERS_OWN = {"PATH": os.environ["PATH"], **SECRETS, **HARMLESS}


@pytest.fixture
def env(tmp_path: Path) -> Environments:
    settings = config.read({"MLCP_HOME": str(tmp_path)})
    return stack.environments(settings, layout.of(tmp_path), _server(tmp_path), "token", USERS_OWN)


@pytest.fixture
def specs(tmp_path: Path, env: Environments) -> dict[str, Spec]:
    settings, places = config.read({"MLCP_HOME": str(tmp_path)}), layout.of(tmp_path)
    layout.create(places)
    return {spec.name: spec for spec in stack.specs(settings, places, _server(tmp_path), env)}


def _server(home: Path) -> Postgres:
    return Postgres(home / "pg", home / "run" / "s" / "pg", binaries.postgres(), None)


def test_what_answers_customers_goes_first_and_the_log_and_all_else_have_the_usual_priority(
    specs: dict[str, Spec], env: Environments
) -> None:
    wish = Wanted("id", "churn-1-abcd", ("python",), (), 15.0, None, "/s")
    assert specs["router"].niceness == models.spec(wish, env.model_servers).niceness == child.GOES_FIRST < 0
    assert {spec.niceness for name, spec in specs.items() if name != "router"} == {0}
    assert {name: spec.realtime for name, spec in specs.items() if spec.realtime} == {"router": realtime.ROUTER}
    assert not models.spec(wish, env.model_servers).realtime, "a stranger's code"
    assert 0 < models.spec(replace(wish, realtime=True), env.model_servers).realtime < realtime.ROUTER


async def test_the_supervisor_keeps_processors_awake_while_customers_ask_and_no_longer_than_it_runs(
    tmp_path: Path, env: Environments, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, places = tmp_path / "latency", layout.of(tmp_path)
    device.write_bytes(b"\xff" * 4)
    layout.create(places)
    held = realtime.Awake(device)
    busy = SimpleNamespace(share=float(os.cpu_count() or 1), look=lambda priorities: None)
    monkeypatch.setattr(realtime, "possible", lambda: True)
    monkeypatch.setattr(realtime, "Realtime", lambda processors: busy)
    monkeypatch.setattr(realtime, "Awake", lambda: held)
    monkeypatch.setattr(realtime, "LOOK_S", 0.01)
    supervisor = Supervisor(config.read({"MLCP_HOME": str(tmp_path)}), places, (), env)
    running = asyncio.create_task(supervisor._schedule())  # pyright: ignore[reportPrivateUsage]

    async def asked() -> bool:
        return device.read_bytes() == bytes(4)

    await eventually(asked, what="processors are kept awake")
    assert held.asks
    busy.share = 0.0

    async def sleeps() -> bool:
        return not held.asks

    await eventually(sleeps, what="processors sleep again")
    busy.share = float(os.cpu_count() or 1)

    async def asks() -> bool:
        return held.asks

    await eventually(asks, what="they are kept awake again")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not held.asks


def test_redis_maps_no_block_by_itself(specs: dict[str, Spec]) -> None:
    assert binaries.REDIS_ENV.items() <= dict(specs["redis"].env).items()
    assert not binaries.REDIS_ENV.items() & dict(specs["router"].env).items()


def test_the_data_plane_has_no_database_and_model_servers_have_no_secret(
    specs: dict[str, Spec], env: Environments
) -> None:
    for name in ("router", "shipper"):
        assert "MLCP_POSTGRES_DSN" not in specs[name].env
        assert specs[name].env["MLCP_REDIS_URL"].startswith("unix:///")
    wish = Wanted("id", "churn-1-abcd", ("python",), (("EXTRA", "1"),), 15.0, None, "/s")
    told = models.spec(wish, env.model_servers).env
    assert told["EXTRA"] == "1"
    assert not {"MLCP_REDIS_URL", "MLCP_ROUTER_TOKEN", *SECRETS} & told.keys()
    assert told.items() >= HARMLESS.items()
    assert told["PATH"].endswith(os.environ["PATH"])


def test_settings_of_the_user_reach_the_processes_but_not_a_foreign_database(specs: dict[str, Spec]) -> None:
    assert specs["api"].env["MLCP_LOG_LEVEL"] == "DEBUG"
    assert specs["reconciler"].env["MLCP_MLFLOW_WEBHOOK_SECRET"] == "w"
    assert specs["api"].env["MLCP_POSTGRES_DSN"].startswith("postgresql+asyncpg://mlcp_app@/mlcp?host=")
    assert "MLCP_API_KEY" not in specs["api"].env


def test_only_what_migrates_connects_as_the_owner_of_the_audit(specs: dict[str, Spec]) -> None:
    assert specs["init"].env["MLCP_POSTGRES_OWNER_DSN"].startswith("postgresql+asyncpg://postgres@/mlcp?host=")
    assert [name for name, spec in specs.items() if "MLCP_POSTGRES_OWNER_DSN" in spec.env] == ["init"]
    assert "postgres@" not in " ".join(specs["mlflow"].argv)


def test_the_router_waits_for_nobody_and_nothing_waits_for_itself(specs: dict[str, Spec]) -> None:
    assert specs["router"].after == ()
    shown = list(specs)
    for name, spec in specs.items():
        assert all(shown.index(earlier) < shown.index(name) for earlier in spec.after), name


def test_the_routers_token_is_made_once_and_kept_closed(tmp_path: Path) -> None:
    places = layout.of(tmp_path)
    layout.create(places)
    token = stack.router_token(places)
    assert stack.router_token(places) == token
    assert len(token) >= 43
    assert stat.S_IMODE((places.keys / "router.token").stat().st_mode) == 0o600


def test_redis_keeps_the_program_that_wrote_its_data(
    tmp_path: Path, env: Environments, monkeypatch: pytest.MonkeyPatch, specs: dict[str, Spec]
) -> None:
    first = specs["redis"].argv[0]
    newer = tmp_path / "bin" / "redis-server"
    newer.parent.mkdir()
    newer.write_text("#!/bin/sh\necho 'Redis server v=7.0.15 sha=0'\n")
    newer.chmod(0o755)
    monkeypatch.setenv("PATH", str(newer.parent))
    again = stack.specs(config.read({"MLCP_HOME": str(tmp_path)}), layout.of(tmp_path), _server(tmp_path), env)
    assert again[1].argv[0] == first
    assert binaries.redis_server() == newer


def test_a_redis_too_old_for_us_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.redis_server() != old
