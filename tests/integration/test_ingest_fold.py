"""Batches into a real Postgres: once, with windows and exposures, whatever they contain."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters import bus
from control_plane.adapters.bus import Batch
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store import ids, ingest
from control_plane.contracts import frames
from control_plane.errors import StoreUnavailable
from control_plane.ingest.ingester import Ingester, Meters
from control_plane.ingest.source import Source
from control_plane.settings import IngesterSettings

pytestmark = pytest.mark.integration
ROLLOUT = "01a1fb75-f52d-7ec6-82d7-0868cf4263c1"
Rows = Callable[[str], Any]


class Bench:
    """One spool's worth of records, handed straight to the bus and folded step by step."""

    def __init__(self, redis: Redis, ingester: Ingester, engine: AsyncEngine, home: Path, metrics: Metrics) -> None:
        self.redis, self.ingester, self.engine, self.home, self.metrics = redis, ingester, engine, home, metrics
        self.at = 0

    def batch(self, *payloads: bytes, spool: str = "predictions-0-x", first: bool = False) -> Batch:
        data = frames.joined(payloads)
        start, self.at = self.at, self.at + len(data)
        return Batch(spool, (1, start), (1, self.at), "g", first or start == 0, data)

    async def fold(self, *batches: Batch) -> None:
        await bus.send(self.redis, batches)
        while (await bus.progress(self.redis)).waiting:
            await self.ingester.step()

    async def all(self, sql: str) -> list[dict[str, Any]]:
        async with self.engine.connect() as connection:
            return [dict(row) for row in (await connection.execute(text(sql))).mappings()]


@asynccontextmanager
async def started(
    engine: AsyncEngine, redis: Redis, url: str, home: Path, folds: Sequence[ingest.Fold] = ()
) -> AsyncIterator[Bench]:
    settings = IngesterSettings.model_validate({"home": home, "redis_url": url, "postgres_dsn": "unused"})
    metrics = Metrics(home / "run" / "metrics", "ingester")
    async with ingest.connection(engine) as connection:
        ingester = Ingester(connection, redis, settings, Meters(metrics), folds)
        await ingester.start()
        yield Bench(redis, ingester, engine, home, metrics)


@pytest.fixture
async def bench(engine: AsyncEngine, redis: str, home: Path) -> AsyncIterator[Bench]:
    client = bus.connect(redis, timeout_s=5)
    async with started(engine, client, redis, home) as made:
        yield made
    await client.aclose()


def record(unit: str | None = "u", *, variant: str | None = "stable", **more: Any) -> bytes:
    made = ids.new()
    base: dict[str, Any] = {
        "v": 1,
        "prediction_id": str(made),
        "model": "churn",
        "status": "ok",
        "received_at_us": (made.int >> 80) * 1000,
        "latency_us": 100,
        "epoch": 1,
        "revision": 2,
        "served_variant": "stable",
        "served_version": "1",
        "features": {"a": 1},
        "output": {"probability": 0.5},
    }
    if unit is not None:
        base |= {"unit_id": unit, "assigned_variant": variant, "assigned_version": "1"}
    return json.dumps(base | more).encode()


async def test_rows_windows_exposures_and_the_watermark_move_together(bench: Bench) -> None:
    await bench.fold(
        bench.batch(
            record("u1", rollout_id=ROLLOUT, step=1),
            record("u1", rollout_id=ROLLOUT, step=2, fallback_reason="dead"),
            record("u2", variant="candidate", rollout_id=ROLLOUT, step=1, status="error", served_version=None),
            record(None),
            record(None, pinned=True),
            record(None, shadow=True, served_version="2", rollout_id=ROLLOUT),
        )
    )
    assert len(await bench.all("SELECT * FROM predictions")) == 6
    windows = await bench.all("SELECT version, variant, requests, failures, fallbacks, latency_us_sum FROM windows")
    assert sorted(tuple(row.values()) for row in windows) == [
        ("", "candidate", 1, 1, 0, 100),
        ("1", "", 1, 0, 0, 100),
        ("1", "candidate", 0, 0, 0, 0),  # which missed one
        ("1", "pinned", 1, 0, 0, 100),
        ("1", "stable", 2, 0, 1, 200),
        ("2", "shadow", 1, 0, 0, 100),
    ]
    exposures = await bench.all("SELECT variant, step, requests, fallbacks FROM exposures ORDER BY variant")
    assert [tuple(row.values()) for row in exposures] == [("candidate", 1, 1, 0), ("stable", 1, 2, 1)]
    (mark,) = await bench.all('SELECT segment, "offset" FROM ingest_watermark')
    assert tuple(mark.values()) == (1, bench.at)
    assert (await bus.progress(bench.redis)).watermarks == {"predictions-0-x": (1, bench.at)}


async def test_what_arrives_twice_counts_once_and_what_is_missing_is_asked_for(bench: Bench) -> None:
    one, two, three = (bench.batch(record(f"u{n}", rollout_id=ROLLOUT, step=0)) for n in range(3))
    await bench.fold(one, one)
    await bench.fold(three)
    assert (await bus.progress(bench.redis)).rewinds == {"predictions-0-x": "g"}
    assert len(await bench.all("SELECT * FROM predictions")) == 1
    await bench.fold(one, two, three, two)
    assert len(await bench.all("SELECT * FROM predictions")) == 3
    (window,) = await bench.all("SELECT requests FROM windows")
    assert window["requests"] == 3
    assert {row["requests"] for row in await bench.all("SELECT requests FROM exposures")} == {1}


@pytest.mark.parametrize("damaged", [0, 1, 2], ids=["the first", "one between", "the last"])
@pytest.mark.parametrize("how", ["other fields", "another byte", "another position", "a field less"])
async def test_a_batch_that_redis_damages_is_sent_again_and_stops_nobody(
    bench: Bench, home: Path, damaged: int, how: str
) -> None:
    """Also while other spools keep the stream from ever being empty."""
    folder = home / "spool" / "predictions-0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("predictions-0-x")
    source = Source(folder, lambda *what: pytest.fail(f"set aside: {what}"))

    async def ship() -> None:
        source.follow(await bus.progress(bench.redis))
        await bus.send(bench.redis, source.batches(8))

    for n in range(3):
        with (folder / f"{1:016d}.seg").open("ab") as segment:
            segment.write(frames.frame(record(f"u{n}")))
        await ship()
    sent: list[dict[bytes, bytes]] = [entry[1] for entry in cast(Any, await bench.redis.xrange(bus.RECORDS))]
    assert len(sent) == 3
    one = sent[damaged]
    sent[damaged] = {
        "other fields": {b"62": b"0", b"\x95\x14\x00": b"104"},
        "another byte": one | {b"frames": one[b"frames"].replace(b'"model"', b'"nodel"')},
        "another position": one | {b"end": one[b"end"] + b"0"},
        "a field less": {name: value for name, value in one.items() if name != b"first"},
    }[how]
    await bench.redis.delete(bus.RECORDS)
    for fields in sent:
        await bench.redis.xadd(bus.RECORDS, {**fields})
    for n in range(3):
        while (await bus.progress(bench.redis)).waiting:
            await bench.ingester.step()
        await bus.send(bench.redis, [bench.batch(record(f"other{n}"), spool="predictions-1-y")])
        await ship()
    await bench.fold()
    stored = await bench.all("SELECT unit_id FROM predictions")
    assert sorted(row["unit_id"] for row in stored) == ["other0", "other1", "other2", "u0", "u1", "u2"]
    assert [row["requests"] for row in await bench.all("SELECT requests FROM windows")] == [6]
    assert not list((home / "spool" / "dead-letters").glob("*"))


async def test_a_batch_of_a_shipper_that_sends_no_checksum_is_taken(bench: Bench) -> None:
    await bus.send(bench.redis, [bench.batch(record("u"))])
    ((_, fields),) = cast(Any, await bench.redis.xrange(bus.RECORDS))
    await bench.redis.delete(bus.RECORDS)
    await bench.redis.xadd(bus.RECORDS, {name: value for name, value in fields.items() if name != b"check"})
    await bench.fold()
    assert [row["unit_id"] for row in await bench.all("SELECT unit_id FROM predictions")] == ["u"]


async def test_a_record_of_a_day_whose_partition_was_dropped_meanwhile_is_kept(bench: Bench) -> None:
    days = [datetime.now(UTC) - timedelta(days=age) for age in (40, 0)]
    first, second = ([str(ids.new(int(day.timestamp() * 1_000))) for day in days] for _ in range(2))
    await bench.fold(bench.batch(*(record(prediction_id=one) for one in first)))
    async with bench.engine.begin() as connection:
        for day in days:  # the archiver drops none but the first; today's shows the drop in the midst of a batch
            await connection.execute(text(f"DROP TABLE predictions_{day:%Y%m%d}"))
    batch = bench.batch(*(record(prediction_id=one) for one in second))
    with pytest.raises(StoreUnavailable, match="partition was dropped"):
        await bench.fold(batch)
    await bench.ingester.start()  # as its process does then
    bench.ingester._partitions.clear()
    await bench.fold()
    found = await bench.all("SELECT prediction_id::text AS id FROM predictions ORDER BY 1")
    assert [row["id"] for row in found] == sorted(second)
    assert not (bench.home / "spool" / "dead-letters").exists()


async def test_the_first_exposure_keeps_its_variant_and_step(bench: Bench) -> None:
    late = record("u", rollout_id=ROLLOUT, step=3, variant="candidate")
    early = record("u", rollout_id=ROLLOUT, step=1, received_at_us=1_700_000_000_000_000)
    await bench.fold(bench.batch(late))
    await bench.fold(bench.batch(early))
    (row,) = await bench.all("SELECT variant, step, requests FROM exposures")
    assert tuple(row.values()) == ("stable", 1, 2)


async def test_features_postgres_cannot_hold_are_kept_as_text_and_stop_nobody(bench: Bench) -> None:
    odd = [rb'{"a":"\u0000"}', b'{"a":1e999999}', b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"]
    plain = record()
    await bench.fold(
        bench.batch(plain, *(record().replace(b'{"a": 1}', raw) for raw in odd), record(output={"value": "\0"}))
    )
    stored = await bench.all("SELECT features->>'$raw' AS raw, output FROM predictions ORDER BY prediction_id")
    assert len(stored) == 5
    assert {row["raw"] for row in stored} >= {raw.decode() for raw in odd[:2]}
    assert "mlcp_records_kept_safe_total" in bench.metrics.render().decode()


async def test_a_record_nobody_can_read_is_set_aside_and_stops_nobody(bench: Bench) -> None:
    bad = [b"{", b"\xff\0", record(v=9), record(prediction_id=str(ids.new(at_ms=0)))]
    await bench.fold(bench.batch(record(), *bad, record()))
    assert len(await bench.all("SELECT * FROM predictions")) == 2
    letters = (bench.home / "spool" / "dead-letters" / "ingester.jsonl").read_text().splitlines()
    assert [base64.b64decode(json.loads(letter)["data"]) for letter in letters] == bad


async def test_of_two_ingesters_one_moves_the_watermark_and_nothing_doubles(
    bench: Bench, engine: AsyncEngine, redis: str, home: Path
) -> None:
    other_client = bus.connect(redis, timeout_s=5)
    async with started(engine, other_client, redis, home) as other:
        batch = bench.batch(record("u1"), record("u2"))
        await bench.fold(batch)
        await other.fold(batch)
        await other.fold(bench.batch(record("u3")))
        await bench.fold(bench.batch(record("u4")))
    await other_client.aclose()
    assert len(await bench.all("SELECT * FROM predictions")) == 4
    assert (await bench.all("SELECT sum(requests)::int AS n FROM windows"))[0]["n"] == 4


async def test_outcomes_are_stored_once_whatever_their_value(bench: Bench) -> None:
    subject = ids.new()

    def outcome(value: Any, outcome_id: UUID | None = None) -> bytes:
        made = {"outcome_id": str(outcome_id or ids.new()), "model": "churn", "name": "label", "value": value}
        return json.dumps(made | {"observed_at_us": 5, "received_at_us": 6, "prediction_id": str(subject)}).encode()

    twice = ids.new()
    values = [True, 1.5, "late \0"]
    batches = [outcome(value) for value in values] + [outcome(False, twice), outcome(False, twice)]
    await bench.fold(bench.batch(*batches, spool="outcomes-0-x"))
    stored = [row["value"] for row in await bench.all("SELECT value FROM outcomes ORDER BY outcome_id")]
    assert sorted(map(str, stored)) == sorted(map(str, [True, 1.5, {"$raw": '"late \\u0000"'}, False]))
