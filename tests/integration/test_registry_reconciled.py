"""What happens in MLflow is known here, and what is decided here is read in MLflow."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import audit, discovered, versions
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain.audit import Actor
from control_plane.domain.stages import Stage
from control_plane.services import promotion
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from tests.support.processes import eventually
from tests.support.reconciler import answering, environment, reconciler, supervisor
from tests.support.registering import alias, ours, register, register_ours, request, shown

pytestmark = pytest.mark.integration
CAUSE = Cause(Actor("admin"), "test")
LOG = """
import sys, mlflow, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
mlflow.set_tracking_uri(sys.argv[1])
X = pd.DataFrame({"income": [1.0, 2.0, None, 4.0], "age": [20, 30, 40, 50]})
model = LogisticRegression().fit(X.fillna(0), [0, 1, 0, 1])
signature = infer_signature(X, [0, 1])
with mlflow.start_run():
    mlflow.sklearn.log_model(model, name="model", signature=signature, registered_model_name=sys.argv[2])
"""


@dataclass
class World:
    sessions: async_sessionmaker[AsyncSession]
    mlflow: str

    async def row(self, model: str, version: str = "1") -> ModelVersionRow | None:
        async with self.sessions() as session:
            return (await discovered.rows(session, model)).get(version)

    async def until_known(self, model: str, version: str = "1") -> ModelVersionRow:
        async def look() -> ModelVersionRow | None:
            row = await self.row(model, version)
            return row if row and row.digest else None

        row = await eventually(look, what=f"{model} {version} is known")
        assert row is not None
        return row

    async def promote(self, model: str, version: str, to: Stage = Stage.PRODUCTION) -> None:
        spec = PromoteSpec(version=version, reason="test")
        now = datetime.now(UTC)
        async with self.sessions.begin() as session:
            if to is Stage.PRODUCTION:
                await promotion.to_production(session, model, spec, policy=Policy(), cause=CAUSE, now=now)
            else:
                await promotion.to_stage(session, model, to, spec, cause=CAUSE, now=now)

    async def actions(self, model: str) -> list[str]:
        async with self.sessions() as session:
            records = await audit.page(session, before=None, limit=50, object=f"model:{model}")
            return [record["action"] for record, _ in records]

    async def until(self, what: str, look: Callable[[], bool]) -> None:
        async def met() -> bool:
            return look()

        await eventually(met, what=what, every=0.1)

    def move(self, model: str, name: str, version: str) -> None:
        request(self.mlflow, "POST", "registered-models/alias", name=model, alias=name, version=version)


@pytest.fixture
async def world(
    maker: async_sessionmaker[AsyncSession], dsn: str, redis: str, mlflow: str, home: Path, tmp_path: Path
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(supervisor(home))
        stack.enter_context(reconciler(environment(dsn, redis, home, mlflow), tmp_path / "reconciler.log"))
        yield World(maker, mlflow)


def named(what: str) -> str:
    return f"{what}-{uuid4().hex[:8]}"


async def test_a_model_logged_by_plain_mlflow_is_known_typed_and_told_what_its_gates_miss(world: World) -> None:
    name = named("plain")
    warm_up = named("warm-up")
    register_ours(world.mlflow, warm_up)
    await world.until_known(warm_up)  # the reconciler is up
    log = subprocess.run(  # noqa: ASYNC221  (everything waits for it)
        [sys.executable, "-W", "ignore", "-c", LOG, world.mlflow, name], capture_output=True, text=True
    )
    assert log.returncode == 0, log.stderr[-2_000:]
    row = await world.until_known(name)
    assert (row.stage, row.inferred, row.runtime, row.digest_from) == ("Development", True, "pyfunc", "discovery")
    features = {key: (one["type"], one["nullable"]) for key, one in row.config["features"].items()}
    assert features == {"income": ("number", True), "age": ("integer", False)}

    def reported() -> bool:  # one call after the other
        tags, description = shown(world.mlflow, name, "1")
        return {"mlcp.gates", "mlcp.stage"} <= tags.keys() and bool(description)

    await world.until("the report", reported)
    tags, description = shown(world.mlflow, name, "1")
    assert tags["mlcp.stage"] == "Development"
    assert "metric" in tags["mlcp.gates"]
    assert "declares no metric" in description
    assert await world.actions(name) == ["version.digest", "version.discovered"]


async def test_versions_nobody_can_keep_are_known_with_what_is_wrong_and_hold_up_no_other(world: World) -> None:
    plain = {"MLmodel": b"flavors: {python_function: {}}"}
    declared = yaml.safe_dump({"name": "x", "problem": "regression", "features": {"a": {"type": "number"}}}).encode()
    inputs = json.dumps([{"type": "double", "name": "a\0b"}])
    bad = {
        "nan": plain | {"evidence.json": b'{"metric": {"name": "auc", "value": NaN}}'},
        "nul": plain | {"evidence.json": b'{"a": "x\\u0000y"}'},
        "half": plain | {"evidence.json": b'{"a": "\\ud800"}'},
        "deep": plain | {"evidence.json": b"[" * 100_000},
        "inf": plain | {"model.yaml": declared + b"drift: {psi: .inf}\n"},
        "owner": plain | {"model.yaml": declared + b'owner: "a\\0b"\n'},
        "yaml": plain | {"model.yaml": b"[" * 20_000},
        "mlmodel": {"MLmodel": b"[" * 20_000},
        "signature": {"MLmodel": yaml.safe_dump({"signature": {"inputs": inputs}}).encode()},
    }
    names = {what: named(f"a-{what}") for what in bad}
    for what, files in bad.items():
        register(world.mlflow, names[what], files)
    good = named("z-good")
    register_ours(world.mlflow, good)
    assert (await world.until_known(good)).evidence.get("config_problems") is None
    for what, name in names.items():
        assert (await world.until_known(name)).evidence["config_problems"], what


async def test_a_name_no_url_can_have_is_refused_where_its_owner_looks(world: World) -> None:
    name = named("My Model")
    register(world.mlflow, name, ours("x"))
    await world.until("the refusal", lambda: "must match" in shown(world.mlflow, name, "1")[0].get("mlcp.gates", ""))
    assert await world.row(name) is None


async def test_production_is_mirrored_and_a_hand_that_moves_it_is_undone_and_audited(world: World) -> None:
    name = named("mirrored")
    for auc in (0.8, 0.9):
        register_ours(world.mlflow, name, auc=auc)
    first = await world.until_known(name)
    assert (first.inferred, first.runtime, first.digest_from) == (False, "native", "registration")
    await world.until_known(name, "2")
    await world.promote(name, "1")
    await world.until("the alias", lambda: alias(world.mlflow, name, "production") == "1")
    assert await answering(world.sessions, name) == {"1": 10_000}
    await world.until("the stage", lambda: shown(world.mlflow, name, "1")[0].get("mlcp.stage") == "Production")
    assert await world.actions(name) != []
    assert "alias.reverted" not in await world.actions(name)  # our own writes are no hand's
    world.move(name, "production", "2")
    await world.until("the alias is back", lambda: alias(world.mlflow, name, "production") == "1")
    request(world.mlflow, "DELETE", "registered-models/alias", name=name, alias="production")
    await world.until("the alias is back again", lambda: alias(world.mlflow, name, "production") == "1")
    world.move(name, "champion", "2")  # not one of ours

    async def reverted() -> bool:
        return (await world.actions(name)).count("alias.reverted") == 2

    await eventually(reverted, what="two audited moves")
    assert alias(world.mlflow, name, "champion") == "2"


async def test_where_it_is_adopted_a_moved_alias_is_a_request_through_the_gates(world: World) -> None:
    name = named("adopted")
    for auc in (0.8, 0.9, 0.2):
        register_ours(world.mlflow, name, alias_policy="adopt", auc=auc)
    for version in ("1", "2", "3"):
        await world.until_known(name, version)
    world.move(name, "production", "1")  # nothing was Production before

    async def production() -> str | None:
        async with world.sessions() as session:
            return (await versions.model(session, name)).production_version

    async def is_1() -> bool:
        return await production() == "1"

    await eventually(is_1, what="version 1 is Production by its alias")
    world.move(name, "production", "3")  # below its minimum
    await world.until("the alias is back", lambda: alias(world.mlflow, name, "production") == "1")
    assert await production() == "1"
    async with world.sessions() as session:
        page = await audit.page(session, before=None, limit=9, action="alias.reverted", object=f"model:{name}")
        reverted = [record for record, _ in page]
        assert [record["before"]["version"] for record in reverted] == ["3"], reverted
        assert any("below the minimum" in reason for reason in reverted[0]["reasons"])
    world.move(name, "staging", "2")

    async def staged() -> bool:
        row = await world.row(name, "2")
        return row is not None and row.stage == Stage.STAGING

    await eventually(staged, what="version 2 is Staging by its alias")


async def test_an_alias_that_was_there_before_us_is_audited_and_left_alone(
    maker: async_sessionmaker[AsyncSession], dsn: str, redis: str, mlflow: str, home: Path, tmp_path: Path
) -> None:
    name, world = named("older"), World(maker, mlflow)
    register_ours(mlflow, name)
    world.move(name, "production", "1")
    with reconciler(environment(dsn, redis, home, mlflow), tmp_path / "reconciler.log"):
        await world.until_known(name)

        async def found() -> bool:
            return "alias.found" in await world.actions(name)

        await eventually(found, what="the alias is audited")
    assert alias(mlflow, name, "production") == "1"
    assert "alias.reverted" not in await world.actions(name)


async def test_a_deleted_version_is_noticed_and_goes_on_if_it_is_in_use(world: World) -> None:
    name = named("deleted")
    for _ in range(2):
        register_ours(world.mlflow, name)
    await world.until_known(name)
    await world.until_known(name, "2")
    await world.promote(name, "1")

    async def routed() -> bool:
        return await answering(world.sessions, name) == {"1": 10_000}

    await eventually(routed, what="version 1 is routed")
    for version in ("1", "2"):
        request(world.mlflow, "DELETE", "model-versions/delete", name=name, version=version)

    async def noticed() -> bool:
        return (await world.actions(name)).count("version.deleted") == 2

    await eventually(noticed, what="both are noticed")
    row = await world.row(name)
    assert row is not None
    assert (row.stage, row.deleted_at is None) == ("Production", False)
    assert await routed()
