"""A unit that asked for it is forgotten everywhere; what was counted stays."""

import asyncio
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from control_plane.adapters.archive import Archive, Damaged
from control_plane.adapters.store import ids, ingest
from control_plane.adapters.store.ingest_counts import hashed_unit
from control_plane.adapters.store.tables import ExposureRow, RolloutRow
from control_plane.ingest import eraser, rows
from control_plane.services import archive as archiving
from control_plane.services import quality
from control_plane.settings import ArchiverSettings
from tests.support import logged
from tests.support.api import Api, add_model

pytestmark = pytest.mark.integration
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
UNIT = "customer-17 Ünal"


async def labelled(api: Api) -> int:
    while await quality.fold_due(api.maker, now=datetime.now(UTC)):
        pass
    viewer = await api.as_("viewer")
    return int((await viewer.get("/models/fraud/performance", params={"period": "7d"})).json()["labelled"])


async def add_rollout(api: Api) -> UUID:
    rollout = ids.new()
    facts: dict[str, Any] = {"kind": "promotion", "candidate_version": "1", "plan": {}, "phase": "progressing"}
    facts |= {"since": NOON, "reason": "", "created_at": NOON, "created_by": ""}
    async with api.maker.begin() as session:
        session.add(RolloutRow(id=rollout, model="fraud", **facts))
    return rollout


async def everything(api: Api, home: Path, *, archived: bool = True) -> bytes:
    """All the database and the archive hold, and the dead letters, as bytes to look for a name in."""
    found = list[bytes]()
    async with api.maker() as session:
        for table in ("predictions", "outcomes", "audit", "jobs_wanted", "erasures", "log_hours", "idempotency_keys"):
            rows = await session.execute(text(f"SELECT row_to_json(t)::text FROM {table} t"))
            found += [row[0].encode() for row in rows]
        found += [bytes(row[0]) for row in await session.execute(text("SELECT payload FROM audit"))]
    archive = Archive((home / "archive").as_uri())
    for batch in archive.batches("fraud") if archived else ():
        found.append(json.dumps(batch.to_pylist(), default=str, ensure_ascii=False).encode())
    return b"\n".join([*found, *dead_letters(home)])


def dead_letters(home: Path) -> list[bytes]:
    files = home.glob("spool/dead-letters/*")
    return [base64.b64decode(json.loads(line)["data"]) for path in files for line in path.read_text().splitlines()]


async def test_a_forgotten_unit_is_found_nowhere_and_the_statistics_stay(api: Api, dsn: str, home: Path) -> None:
    await add_model(api.maker, versions=1)
    engine, times = api.maker.kw["bind"], [NOON, NOON + timedelta(hours=1), datetime.now(UTC) - timedelta(minutes=3)]
    rollout = await add_rollout(api)
    part = {"rollout_id": str(rollout), "step": 1, "assigned_variant": "candidate"}
    mine: dict[str, Any] = {"unit_id": UNIT, "features": {"name": UNIT}, "request_id": "r"}
    records = [logged.record(times[0], **mine), *(logged.record(at, **mine, **part) for at in times[1:])]
    others = [logged.record(NOON + timedelta(seconds=n), unit_id=f"other-{n}") for n in range(5)]
    told = [logged.outcome(at + timedelta(seconds=1), True, unit_id=UNIT) for at in times]
    identities = await logged.store(engine, [*records, *others], told)
    archive = Archive((home / "archive").as_uri())
    await archiving.run(api.maker, archive, now=datetime.now(UTC), keep=timedelta(days=35))
    letters = home / "spool" / "dead-letters"
    letters.mkdir(parents=True)
    lines = [{"data": base64.b64encode(data.encode()).decode()} for data in (f"{{{UNIT}", "{somebody else")]
    (letters / "ingester.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = await labelled(api)
    assert before == 3
    assert UNIT.encode() in await everything(api, home)

    operator, admin = await api.as_("operator"), await api.as_("admin")
    body = {"unit_id": UNIT, "reason": "asked for it"}
    assert (await operator.post("/erasures", json=body)).status_code == 403
    asked = await admin.post("/erasures", json=body)
    assert asked.status_code == 202
    assert UNIT not in asked.text
    settings = ArchiverSettings.model_validate({"postgres_dsn": dsn, "home": home})
    job = UUID(asked.json()["id"])
    report = await eraser.run(settings, job)
    assert report == {
        "event": "erased",
        "predictions": 3,
        "outcomes": 3,
        "archived_predictions": 2,
        "archive_files": 2,
        "dead_letters": 1,
    }
    assert UNIT.encode() not in await everything(api, home)
    async with api.maker() as session:
        joined = "SELECT count(*), sum(e.requests) FROM predictions JOIN exposures e USING (rollout_id, unit_hash)"
        assert tuple((await session.execute(text(joined))).one()) == (2, 4), "still one customer of two requests"
        known = select(ExposureRow).where(ExposureRow.unit_hash == hashed_unit(rollout, UNIT))
        assert (await session.scalars(known)).all() == []
    assert await labelled(api) == before
    async with api.maker.begin() as session:
        await session.execute(text("UPDATE log_hours SET quality_due_at = now()"))
    assert await labelled(api) == before, "folded anew it is the same"
    shown = (await operator.get(f"/predictions/{identities[0]}")).json()
    assert (shown["features"], shown["unit_id"], shown["output"]) == (None, None, {"probability": 0.9})
    assert [outcome["value"] for outcome in shown["outcomes"]] == [True, True], "both were observed within a day"

    late = [logged.record(times[2], unit_id=UNIT, features={"name": UNIT})]
    await logged.store(engine, late, [logged.outcome(times[2], True, unit_id=UNIT)])
    assert UNIT.encode() not in await everything(api, home), "out of a spool, after it was forgotten"
    again = await eraser.run(settings, UUID((await admin.post("/erasures", json=body)).json()["id"]))
    assert set(again.values()) == {"erased", 0}, "a second run finds nothing"
    product = await api.as_("predictor")
    past = {"model": "fraud", "unit_id": UNIT, "value": True, "observed_at": NOON.isoformat()}
    assert (await product.post("/outcomes", json=past)).json() == {"accepted": 0, "known": 1}
    assert UNIT.encode() not in await everything(api, home), "reported late by a service"
    assert (await (await api.as_("auditor")).get("/audit/verify")).json()["ok"] is True
    later = [logged.record(datetime.now(UTC) + timedelta(seconds=1), unit_id=UNIT)]
    await logged.store(engine, later)
    assert UNIT.encode() in await everything(api, home), "who comes back is a customer again"


async def test_rows_that_are_being_stored_while_a_unit_is_forgotten_do_not_slip_through(
    api: Api, dsn: str, home: Path
) -> None:
    """The transaction has looked for erasures before there was one, and commits after the erasure began."""
    await add_model(api.maker, versions=1)
    looked, commit = asyncio.Event(), asyncio.Event()

    async def hold(connection: ingest.Connection, fresh: Sequence[ingest.Row]) -> None:
        looked.set()
        await commit.wait()

    engine = api.maker.kw["bind"]
    row, day = rows.prediction(json.dumps(logged.record(NOON, unit_id=UNIT)).encode())
    async with ingest.connection(engine) as connection:
        await ingest.make_partitions(connection, {day})
        storing = asyncio.create_task(ingest.fold(connection, predictions=[row], outcomes=[], moves=[], folds=(hold,)))
        await looked.wait()
        admin = await api.as_("admin")
        asked = await admin.post("/erasures", json={"unit_id": UNIT, "reason": "asked for it"})
        settings = ArchiverSettings.model_validate({"postgres_dsn": dsn, "home": home})
        erasing = asyncio.create_task(eraser.run(settings, UUID(asked.json()["id"])))
        async with api.maker() as session:
            waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            while not await session.scalar(waiting):
                assert not erasing.done(), "it waits for the rows under way"
                await asyncio.sleep(0.01)
        commit.set()
        await storing
    assert (await erasing)["predictions"] == 1
    assert UNIT.encode() not in await everything(api, home)


async def test_an_erasure_that_failed_half_way_leaves_no_name_once_another_is_done(
    api: Api, dsn: str, home: Path
) -> None:
    await add_model(api.maker, versions=1)
    await logged.store(api.maker.kw["bind"], [logged.record(NOON, unit_id=UNIT)])
    archive = Archive((home / "archive").as_uri())
    await archiving.run(api.maker, archive, now=datetime.now(UTC), keep=timedelta(days=35))
    (manifest,) = archive.hours("fraud")
    file = home / "archive" / "predictions" / "fraud" / f"{NOON:%Y-%m-%d}" / manifest.file
    whole = file.read_bytes()
    file.write_bytes(b"PAR1" + bytes(500) + b"PAR1")
    admin, settings = await api.as_("admin"), ArchiverSettings.model_validate({"postgres_dsn": dsn, "home": home})
    body = {"unit_id": UNIT, "reason": "asked for it"}
    with pytest.raises(Damaged):
        await eraser.run(settings, UUID((await admin.post("/erasures", json=body)).json()["id"]))
    assert UNIT.encode() in await everything(api, home, archived=False), "a later run needs the name"
    file.write_bytes(whole)
    await eraser.run(settings, UUID((await admin.post("/erasures", json=body)).json()["id"]))
    assert UNIT.encode() not in await everything(api, home)
