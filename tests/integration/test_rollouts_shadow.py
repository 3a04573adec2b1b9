"""Shadow rollouts end by evidence: pairs of answers to the same requests, read from the log."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import analysis, shadow_pairs
from control_plane.adapters.store.rollouts import Entry
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain.audit import Actor
from control_plane.domain.rollouts import TERMINAL, Conclusion, Phase
from control_plane.services import promotion
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy
from tests.support import logged
from tests.support.processes import eventually
from tests.support.reconciler import add_versions, answering, environment, reconciler, rollout_of, router, supervisor

pytestmark = pytest.mark.integration
CAUSE = Cause(Actor("admin"), "test")
Sessions = async_sessionmaker[AsyncSession]


def pair(
    at: datetime, unit: str, was: float, now: float | None, *, model: str = "m", candidate: str = "2"
) -> list[Any]:
    """An answer of version 1 and a copy's; `now` None: the copy failed."""
    original = logged.record(at, model=model, unit_id=unit, **_answer(was))
    said = {"status": "error", "output": None, "threshold": None, "decision": None} if now is None else _answer(now)
    other = {"prediction_id": str(UUID(int=UUID(original["prediction_id"]).int ^ 1)), "shadow": True}
    other |= {"served_version": candidate, "served_variant": "shadow", "assigned_version": None}
    other |= {"assigned_variant": None, "latency_us": 80_000}
    return [original, logged.record(at, model=model, unit_id=unit, **said, **other)]


def _answer(score: float) -> dict[str, Any]:
    return {"output": {"probability": score}, "decision": "yes" if score >= 0.5 else "no"}


async def test_pairs_are_those_of_one_request_and_a_customer_counts_once(maker: Sessions, engine: AsyncEngine) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=5)
    records: list[Any] = []
    for number in range(40):
        at, unit = begin + timedelta(seconds=number), f"u{number % 20}"
        first = number < 20
        records += pair(at, unit, 0.4, None if number == 3 else 0.6 if number < 5 else 0.45 if first else 0.99)
    records += pair(begin - timedelta(hours=1), "earlier", 0.1, 0.9)
    lonely = pair(begin, "lonely", 0.1, 0.9)
    await logged.store(engine, [*records, lonely[1]])
    async with maker() as session:
        found = await shadow_pairs.pairs(
            session, "m", "2", "1", since=begin - timedelta(minutes=1), until=datetime.now(UTC), limit_us=50_000
        )
    seen = found.metrics
    assert (found.exhausted, {name: pairs.differences.count for name, pairs in seen.items()}) == (
        False,
        {"error_rate": 20, "latency": 19, "score": 19, "disagreement": 19},
    )
    assert seen["error_rate"].differences.mean == pytest.approx(1 / 20)
    assert (seen["latency"].candidate.mean, seen["latency"].baseline.mean) == (1.0, 0.0)
    assert seen["disagreement"].differences.mean == pytest.approx(4 / 19)
    differences = [0.2] * 4 + [0.05] * 15
    mean = sum(differences) / 19
    assert seen["score"].differences.mean == pytest.approx(mean)
    assert seen["score"].differences.m2 == pytest.approx(sum((d - mean) ** 2 for d in differences))


async def test_a_shadow_ends_by_itself_fit_or_not_without_the_gates_of_production(
    maker: Sessions, engine: AsyncEngine, dsn: str, redis: str, home: Path, tmp_path: Path
) -> None:
    plan: dict[str, Any] = {"strategy": "shadow", "steps": [{"weight": 100, "hold_s": 0.2}]}
    margins = {"error_rate": 0.1, "score": 0.9, "disagreement": 0.2, "latency": 1.0}
    plan["analysis"] = {"metrics": [{"name": n, "margin": m} for n, m in margins.items()], "interval_s": 0.2}
    log = tmp_path / "reconciler.log"
    async with supervisor(home), router(redis):
        with reconciler(environment(dsn, redis, home), log):
            await add_versions(maker, "m", "1", "2", "3", home=home)
            await _promote(maker, {"version": "1", "strategy": "immediate"})

            async def answers() -> bool:
                return await answering(maker, "m") == {"1": 10_000}

            await eventually(answers, what=f"version 1 answers: {log}")
            async with maker.begin() as session:  # nothing was measured in training
                await session.execute(text("UPDATE model_versions SET evidence = '{}' WHERE version <> '1'"))
            for candidate, phase, conclusion in (
                ("2", Phase.SUCCEEDED, Conclusion.NOT_WORSE),
                ("3", Phase.ABORTED, Conclusion.WORSE),
            ):
                entry = await _promote(maker, {"version": candidate, **plan})
                ended = await _until_over(maker, engine, entry, candidate, log)
                assert (ended.rollout.phase, ended.rollout.conclusion) == (phase, conclusion), ended.rollout.reason
                assert await answering(maker, "m") == {"1": 10_000}, "no customer moved"
            async with maker() as session:
                (last, *_) = await analysis.runs(session, ended.id, limit=5)
            assert "Not fit: disagreement" in last.why
            measured = {one["metric"]: one for one in last.evidence["measurements"]}
            assert measured["disagreement"]["low"] > 0.2
            assert measured["disagreement"]["candidate"]["units"] > 0


async def _promote(maker: Sessions, spec: dict[str, Any]) -> Entry:
    async with maker.begin() as session:
        given = PromoteSpec.model_validate(spec | {"reason": "test"})
        now = datetime.now(UTC)
        return await promotion.to_production(session, "m", given, policy=Policy(), cause=CAUSE, now=now)


async def _until_over(maker: Sessions, engine: AsyncEngine, entry: Entry, candidate: str, log: Path) -> Entry:
    """Customers come, each request is copied; version 3 decides every second one otherwise."""
    rng = random.Random(5)
    customers = iter(range(1_000_000))

    async def over() -> Entry | None:
        at = datetime.now(UTC) - timedelta(seconds=0.5)
        records: list[Any] = []
        for _ in range(100):
            now = 0.8 if candidate == "3" and rng.random() < 0.5 else 0.31
            records += pair(at, f"c{candidate}-{next(customers)}", 0.3, now, candidate=candidate)
        await logged.store(engine, records)
        seen = await rollout_of(maker, entry)
        return seen if seen.rollout.phase in TERMINAL else None

    ended = await eventually(over, what=f"the shadow ends: {log}", every=0.1)
    assert ended is not None
    return ended
