"""Profiles of live traffic: every answer counted once, on the reference of the version that gave it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.adapters import bus
from control_plane.adapters.store import ids, ingest, windows
from control_plane.domain.drift import compact, document, fold, profiles
from control_plane.domain.model_config import FeatureType
from control_plane.errors import StoreUnavailable
from control_plane.ingest.blocks import FirstAnswers, Hashes, hashed
from tests.integration.test_ingest_fold import Bench, record, started

pytestmark = pytest.mark.integration
RNG = np.random.default_rng(1)
AMOUNTS = RNG.normal(50, 10, 1_000)
GRID = fold.reference(
    {"amount": AMOUNTS, "country": ["fr", "de"] * 500},
    {"amount": FeatureType.NUMBER, "country": FeatureType.CATEGORY},
    cells=fold.Cells(bins=8),
    prediction=(FeatureType.NUMBER, RNG.random(1_000)),
)


@pytest.fixture
async def bench(engine: AsyncEngine, redis: str, home: Path) -> AsyncIterator[Bench]:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO drift_references VALUES ('churn', '1', 'training', :document, now(), NULL)"),
            {"document": windows.write_document(document.to_json(GRID))},
        )
    client = bus.connect(redis, timeout_s=5)
    async with started(engine, client, redis, home) as made:
        yield made
    await client.aclose()


def answer(unit: str | None, amount: object, *, at_ms: int | None = None, **more: Any) -> bytes:
    made = ids.new(at_ms=at_ms)
    facts = {"served_version": "1", "features": {"amount": amount, "country": "fr"}, "output": {"probability": 0.25}}
    facts |= {"prediction_id": str(made), "received_at_us": (made.int >> 80) * 1000}
    return record(unit, **(facts | more))


async def stored(bench: Bench, kind: str, variant: str = "stable") -> profiles.Profile:
    rows = await bench.all(f"SELECT data FROM drift_profiles WHERE kind = '{kind}' AND variant = '{variant}'")
    whole = profiles.empty_like(GRID)
    for row in rows:
        whole = profiles.merge(whole, compact.unpack(GRID, row["data"]))
    return whole


async def test_what_is_stored_is_the_profile_of_all_answers(bench: Bench) -> None:
    amounts = RNG.normal(55, 10, 60)
    answers = [answer(f"u{i}", float(a)) for i, a in enumerate(amounts)]
    await bench.fold(bench.batch(*answers[:1]), bench.batch(*answers[1:25]))
    await bench.fold(bench.batch(*answers[25:]))
    found = await stored(bench, "rows")
    expected = fold.fold(GRID, {"amount": amounts, "country": ["fr"] * 60}, prediction=[0.25] * 60)
    assert found.rows == 60
    assert found.features["country"] == expected.features["country"]
    assert found.prediction is not None
    assert expected.prediction is not None
    assert found.prediction.counts == expected.prediction.counts  # type: ignore[union-attr]
    assert found.features["amount"].counts == expected.features["amount"].counts  # type: ignore[union-attr]


async def test_an_answer_that_arrives_twice_is_counted_once(bench: Bench) -> None:
    first, second = answer("u", 50.0), answer("v", 51.0)
    await bench.fold(bench.batch(first, spool="predictions-0-a", first=True))
    bench.at = 0
    await bench.fold(bench.batch(first, second, spool="predictions-1-b", first=True))
    assert (await stored(bench, "rows")).rows == 2
    assert (await stored(bench, "blocks")).rows == 2


async def test_a_customer_is_one_block_a_day_however_often_it_comes(bench: Bench) -> None:
    await bench.fold(bench.batch(*[answer("one", 50.0) for _ in range(5)], answer("two", 40.0)))
    await bench.fold(bench.batch(*[answer("one", 50.0) for _ in range(5)]))
    day_ago = int(datetime.now(UTC).timestamp() * 1000) - 86_400_000
    await bench.fold(bench.batch(answer("one", 50.0, at_ms=day_ago)))
    assert (await stored(bench, "rows")).rows == 12
    assert (await stored(bench, "blocks")).rows == 3
    claimed = b"".join([row["units"] for row in await bench.all("SELECT units FROM drift_blocks")])
    assert len({claimed[at : at + 8] for at in range(0, len(claimed), 8)}) == 3  # the hash is of its day


async def test_answers_without_a_customer_are_blocks_of_their_own(bench: Bench) -> None:
    await bench.fold(bench.batch(*[answer(None, 50.0, assigned_variant=None) for _ in range(4)]))
    assert (await stored(bench, "blocks", variant="")).rows == 4


async def test_copies_and_pinned_answers_are_windows_of_their_own_and_no_evidence(bench: Bench) -> None:
    await bench.fold(bench.batch(answer("u", 50.0, shadow=True), answer("v", 50.0, pinned=True), answer("w", 50.0)))
    counts = await bench.all("SELECT variant, kind, rows FROM drift_profiles ORDER BY 1, 2")
    assert [tuple(row.values()) for row in counts] == [
        ("pinned", "rows", 1),
        ("shadow", "rows", 1),
        ("stable", "blocks", 1),
        ("stable", "rows", 1),
    ]


@pytest.mark.parametrize(
    ("features", "absent"),
    [
        ({"country": "fr"}, (0, 1, 0)),
        ({"amount": None, "country": "fr"}, (1, 0, 0)),
        ({"amount": "12", "country": "fr"}, (0, 0, 1)),
        ([1, 2], (0, 1, 0)),
        (None, (0, 1, 0)),
        ({"amount": 1, "country": "\x00"}, (0, 1, 0)),  # kept as text: nothing in it is read as a feature
    ],
)
async def test_odd_input_is_counted_for_what_it_is(
    bench: Bench, features: object, absent: tuple[int, int, int]
) -> None:
    await bench.fold(bench.batch(answer("u", 50.0), answer("v", 0.0, features=features, output=[1, "x"])))
    found = (await stored(bench, "rows")).features["amount"].absent
    assert (found.nulls, found.missing, found.mistyped) == absent


async def test_a_version_without_a_reference_is_left_alone(bench: Bench) -> None:
    await bench.fold(bench.batch(answer("u", 50.0, served_version="2")))
    assert await bench.all("SELECT * FROM drift_profiles") == []
    assert len(await bench.all("SELECT * FROM predictions")) == 1


async def test_what_was_answered_before_the_reference_was_known_is_counted_once_it_is(bench: Bench) -> None:
    await bench.fold(bench.batch(*[answer(f"u{i % 5}", 50.0, served_version="2") for i in range(12)]))
    async with bench.engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO drift_references SELECT model, '2', source, document, now(), NULL FROM drift_references")
        )
    bench.ingester._profiler.looked_at = -1e9  # pyright: ignore[reportPrivateUsage]
    await bench.fold(bench.batch(answer("u0", 50.0, served_version="2"), answer("v", 50.0, served_version="2")))
    assert (await stored(bench, "rows")).rows == 14
    assert (await stored(bench, "blocks")).rows == 6
    bench.ingester._profiler.references.clear()  # pyright: ignore[reportPrivateUsage]  (as after a restart)
    bench.ingester._profiler.looked_at = -1e9  # pyright: ignore[reportPrivateUsage]
    await bench.fold(bench.batch(answer("u0", 50.0, served_version="2")))
    assert (await stored(bench, "rows")).rows == 15


async def test_what_was_answered_before_is_counted_though_postgres_went_away_over_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.fold(bench.batch(*[answer(f"u{i}", 50.0, served_version="2") for i in range(12)]))
    async with bench.engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO drift_references SELECT model, '2', source, document, now(), NULL FROM drift_references")
        )

    async def gone(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    profiler = bench.ingester._profiler  # pyright: ignore[reportPrivateUsage]
    async with ingest.connection(bench.engine) as connection:
        with monkeypatch.context() as patched:
            patched.setattr(windows, "recall", gone)
            profiler.looked_at = -1e9
            with pytest.raises(StoreUnavailable):
                await profiler.refresh(connection)
        profiler.looked_at = -1e9
        await profiler.refresh(connection)
    assert (await stored(bench, "rows")).rows == 12
    await bench.fold(bench.batch(answer("v", 50.0, served_version="2")))
    assert (await stored(bench, "rows")).rows == 13


async def test_each_customer_is_claimed_once_by_whichever_ingester_commits_first(engine: AsyncEngine) -> None:
    day, key = datetime.now(UTC).date(), ("churn", "1", datetime.now(UTC).date())
    units = [f"u{i}" for i in range(300)]
    left, right = FirstAnswers(), FirstAnswers()
    async with ingest.connection(engine) as one, ingest.connection(engine) as other:
        async with one.transaction():
            mine = await left.claim(one, key, hashed([*units[:200], *units[:50]], day))
            late = asyncio.ensure_future(_claimed(right, other, key, hashed(units[100:], day)))
            while not await one.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                assert not late.done()  # it waits for what is not committed yet
                await asyncio.sleep(0.01)
        assert mine.tolist() == [True] * 200 + [False] * 50
        assert (await late).tolist() == [False] * 100 + [True] * 100
        assert not (await _claimed(left, one, key, hashed(units, day))).any()
        assert not (await _claimed(FirstAnswers(), one, key, hashed(units, day))).any()  # of a restarted one


async def test_a_claim_that_is_rolled_back_was_never_made(engine: AsyncEngine) -> None:
    day, first = datetime.now(UTC).date(), FirstAnswers()
    async with ingest.connection(engine) as connection:
        undone = connection.transaction()
        await undone.__aenter__()
        assert (await first.claim(connection, ("churn", "1", day), hashed(["u"], day))).all()
        await undone.__aexit__(RuntimeError, RuntimeError(), None)
        assert (await _claimed(first, connection, ("churn", "1", day), hashed(["u"], day))).all()


async def _claimed(
    first: FirstAnswers, connection: ingest.Connection, key: windows.BlockDay, hashes: Hashes
) -> NDArray[np.bool_]:
    async with connection.transaction():
        return await first.claim(connection, key, hashes)
