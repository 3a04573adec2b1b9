"""Closing units in a real Postgres: every kind of metric against values worked out by hand, once per unit."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec
import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from control_plane.adapters.store import analysis, closing, closing_sql, ids, ingest
from control_plane.adapters.store.closing import Subject
from control_plane.adapters.store.closing_sql import Measure, Truth
from control_plane.contracts.records import PredictionRecord
from control_plane.domain.analysis.comparison import Arm
from control_plane.domain.analysis.judge import Live
from control_plane.domain.analysis.plan import Prices, Source
from control_plane.domain.experiments import ranking
from control_plane.domain.experiments.samples import Pair
from control_plane.ingest import rows

pytestmark = pytest.mark.integration
ROLLOUT = UUID("01a1fb75-f52d-7ec6-82d7-0868cf4263c1")
NOW = datetime.now(UTC)
BEGAN = NOW - timedelta(minutes=10)
OBSERVED, DELAY = timedelta(minutes=1), timedelta(minutes=2)
MEASURES = (
    (Measure("error_rate", Source.ERROR_RATE), timedelta(0)),
    (Measure("latency", Source.LATENCY, limit_us=5_000), timedelta(0)),
    (Measure("score", Source.SCORE), timedelta(0)),
    (Measure("label_error", Source.LABEL_ERROR), DELAY),
    (Measure("outcome:bought", Source.OUTCOME, outcome="bought", yes_no=True), DELAY),
    (Measure("outcome:spent", Source.OUTCOME, outcome="spent"), DELAY),
)
SUBJECT = Subject(ROLLOUT, "m", OBSERVED, (0, 1), None, Truth(True, "block", "fraud"))


class Log:
    """Records and outcomes, stored together."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.predictions: list[rows.Row] = []
        self.outcomes: list[rows.Row] = []

    def ask(self, unit: str, at_s: float = 0, *, variant: str = "candidate", **more: Any) -> str:
        version = "2" if variant == "candidate" else "1"
        at_us = int((BEGAN + timedelta(seconds=at_s)).timestamp() * 1e6)
        made = str(ids.new())
        record = PredictionRecord(
            **(
                {
                    "v": 1, "prediction_id": made, "model": "m", "status": "ok", "received_at_us": at_us,
                    "latency_us": 3_000, "epoch": 1, "revision": 1, "assigned_variant": variant,
                    "assigned_version": version, "served_variant": variant, "served_version": version,
                    "rollout_id": str(ROLLOUT), "step": 0, "unit_id": unit,
                }
                | more
            )
        )  # fmt: skip
        self.predictions.append(rows.prediction(msgspec.json.encode(record))[0])
        return made

    def tell(self, name: str, value: str, at_s: float, *, unit: str | None = None, of: str | None = None) -> None:
        at_us = int((BEGAN + timedelta(seconds=at_s)).timestamp() * 1e6)
        row = (ids.new(), "m", name, value, None, at_us, at_us, UUID(of) if of else None, unit)
        self.outcomes.append(cast(rows.Row, row))

    async def store(self) -> None:
        async with ingest.connection(self.engine) as connection:
            await ingest.make_partitions(connection, [datetime.now(UTC).date()])
            await ingest.fold(connection, predictions=self.predictions, outcomes=self.outcomes, moves=[])


@pytest.fixture
def log(engine: AsyncEngine) -> Log:
    return Log(engine)


async def close(
    maker: async_sessionmaker[AsyncSession], until: datetime = NOW, subject: Subject = SUBJECT, limit: int = 100
) -> list[int]:
    """How many units each group closed."""
    counts: list[int] = []
    for group in closing.groups(MEASURES):
        async with maker.begin() as session:
            counts.append(await closing.close(session, subject, group, until=until, limit=limit))
    return counts


async def means(maker: async_sessionmaker[AsyncSession], variant: str = "candidate") -> dict[str, Any]:
    async with maker() as session:
        found = await closing.statistics(session, ROLLOUT)
    return {
        metric: (arm.values.count, pytest.approx(arm.values.mean))
        for (metric, _, of), arm in found.items()
        if of == variant
    }


async def test_every_metric_of_a_customer_is_one_number(maker: async_sessionmaker[AsyncSession], log: Log) -> None:
    score = msgspec.Raw(b'{"probability":0.8}')
    log.ask("a", 0, output=score, decision="block", latency_us=9_000)
    second = log.ask("a", 30, output=msgspec.Raw(b'{"probability":0.4}'), decision="pass")
    log.ask("a", 40, status="error", served_version=None, served_variant=None)
    log.ask("a", 45, served_variant="stable", served_version="1", fallback_reason="dead", decision="pass")
    log.ask("a", 61, status="timeout")  # the observation is over
    log.ask("a", 20, shadow=True, status="error")
    log.ask("a", 21, pinned=True, status="error")
    log.tell("label", '"fraud"', 50, unit="a")  # holds for both; the second has one of its own
    log.tell("label", '"fraud"', 60, of=second)
    log.tell("label", '"fine"', 70, of=second)  # corrected
    log.tell("bought", "true", 100, unit="a")
    log.tell("spent", "10", 90, unit="a")
    log.tell("spent", "25.5", 95, unit="a")  # corrected
    log.tell("spent", "4", 90, of=second)
    log.tell("spent", "1000", 60 + 120 + 1, unit="a")  # too late to count
    log.ask("b", 0, variant="baseline", output=score)
    await log.store()
    assert await close(maker) == [2, 2]
    assert await means(maker) == {
        "units": (1, 1.0), "error_rate": (1, 0.5), "fallbacks": (1, 0.5), "latency": (1, 1 / 3), "score": (1, 0.6),
        "label_error": (1, 0.0), "outcome:bought": (1, 1.0), "outcome:spent": (1, 29.5),
    }  # fmt: skip
    baseline = await means(maker, "baseline")
    assert (baseline["outcome:bought"], baseline["outcome:spent"]) == ((1, 0.0), (1, 0.0))  # absent: no, and 0
    assert "label_error" not in baseline  # nobody knows
    assert await close(maker) == [0, 0]


async def test_a_wrong_answer_and_an_absent_label_are_read_as_model_yaml_says(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    log.tell("label", "true", 1, of=log.ask("a", 0, decision="pass"))
    log.ask("b", 0, decision="block")  # no label: certainly no fraud, once it has had time to arrive
    log.tell("label", "1", 1, of=log.ask("c", 0, threshold=0.3, output=msgspec.Raw(b'{"probability":0.5}')))
    await log.store()
    negative = Subject(ROLLOUT, "m", OBSERVED, (0,), None, Truth(True, "block", "fraud", absent_is_negative=True))
    await close(maker, subject=negative)
    assert (await means(maker))["label_error"] == (3, 2 / 3)


async def test_a_customer_costs_the_mean_of_his_labelled_answers(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    def ask(unit: str, said: str, truth: str | None, **more: Any) -> None:
        made = log.ask(unit, 0, decision=said, **more)
        if truth is not None:
            log.tell("label", f'"{truth}"', 1, of=made)

    ask("a", "block", "fraud")
    ask("a", "block", "fine")
    ask("a", "pass", None)  # nobody knows: left out
    ask("b", "pass", "fraud", features=msgspec.Raw(b'{"amount":70}'))  # its own price
    ask("c", "pass", "fraud", features=msgspec.Raw(b'{"amount":"much"}'))
    ask("d", "pass", "fine")
    ask("e", "pass", "fraud", served_version="1")  # another version answered
    await log.store()
    for own, expected in (("amount", (1.5 + 70 + 50 + 0) / 4), (None, (1.5 + 50 + 50 + 0) / 4)):
        rollout = Measure("cost", Source.COST, prices=Prices(2.0, 50.0, 1.0, 0.0, own=own))
        async with maker() as session:  # nothing is kept
            for group in closing.groups([(rollout, timedelta(0))]):
                await closing.close(session, SUBJECT, group, until=NOW, limit=10)
            found = await closing.statistics(session, ROLLOUT)
            assert found["cost", 0, "candidate"].values.count == 4
            assert found["cost", 0, "candidate"].values.mean == pytest.approx(expected)
            await session.rollback()


async def test_answers_of_several_classes_are_compared_by_their_label(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    for unit, said, truth in (("a", "food", "food"), ("b", "food", "rent"), ("c", "rent", "rent")):
        answer = msgspec.Raw(msgspec.json.encode({"label": said}))
        log.tell("label", f'"{truth}"', 1, of=log.ask(unit, 0, output=answer))
    await log.store()
    await close(maker, subject=Subject(ROLLOUT, "m", OBSERVED, (0,), None))
    assert (await means(maker))["label_error"] == (3, 1 / 3)


async def test_a_metric_waits_for_its_delay_and_batches_add_up(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    for number in range(25):
        log.ask(f"u-{number}", number, status="error" if number % 5 == 0 else "ok")
    log.ask("middle", 3, variant="stable")
    await log.store()
    before = BEGAN + OBSERVED - timedelta(seconds=1)
    assert await close(maker, before) == [0, 0]
    for _ in range(6):
        await close(maker, BEGAN + OBSERVED + timedelta(seconds=30), limit=7)
    found = await means(maker)
    assert (found["error_rate"], "outcome:bought" in found) == ((25, 0.2), False)
    assert (await means(maker, "stable")) == {"units": (1, 1.0)}
    assert await close(maker) == [0, 26]
    assert (await means(maker))["outcome:bought"] == (25, 0.0)


async def test_a_failure_in_the_middle_leaves_every_unit_for_the_next_time(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    log.ask("a", 0)
    await log.store()
    [first, _] = closing.groups(MEASURES)
    async with maker() as session:
        assert await closing.close(session, SUBJECT, first, until=NOW, limit=10) == 1
        await session.rollback()
    assert await means(maker) == {}
    assert await close(maker) == [1, 1]
    async with maker() as session:
        assert await session.scalar(text("SELECT folded FROM exposures")) == 2


async def test_numbers_nobody_expects_stop_nothing(maker: async_sessionmaker[AsyncSession], log: Log) -> None:
    for value in ("1e400", "1e-400", '"many"', "[1]", "null"):
        unit = f"u{len(log.outcomes)}"
        log.ask(unit, 0)
        log.tell("spent", value, 1, unit=unit)
    await log.store()
    await close(maker)
    count, mean = (await means(maker))["outcome:spent"]
    assert (count, mean) == (5, 1e15 / 5)


async def test_scores_nobody_expects_stop_nothing(maker: async_sessionmaker[AsyncSession], log: Log) -> None:
    for value in (b"1e400", b"1e-400", b'"likely"', b"0.5"):
        log.ask(f"u{value!r}", 0, output=msgspec.Raw(b'{"probability":%b}' % value))
    await log.store()
    await close(maker)
    assert (await means(maker))["score"] == (3, 0.5)  # 1, 0 and a half; a word is none


async def test_units_that_had_not_closed_when_baseline_lost_customers_count_in_neither_arm(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    for variant in ("candidate", "baseline"):
        log.ask(f"early-{variant}", 0, variant=variant)
        log.ask(f"late-{variant}", 20, variant=variant)
        log.ask(f"after-{variant}", 80, variant=variant, step=2)
    await log.store()
    crossed = BEGAN + timedelta(seconds=70)
    await close(maker, subject=Subject(ROLLOUT, "m", OBSERVED, (0, 1), crossed))
    async with maker() as session:
        found = await closing.statistics(session, ROLLOUT)
    for variant in ("candidate", "baseline"):
        counts = [found["error_rate", step, variant].values.count for step in (0, 2)]
        assert (found[closing_sql.UNITS, 0, variant].values.count, counts) == (2, [1, 1])


async def fold_of(maker: async_sessionmaker[AsyncSession], *measures: Measure, limit: int = 1) -> dict[str, Arm]:
    """The candidate's arm by metric, closed in batches of `limit`."""
    for group in closing.groups([(measure, timedelta(0)) for measure in measures]):
        closed = limit
        while closed == limit:
            async with maker.begin() as session:
                closed = await closing.close(session, SUBJECT, group, until=NOW, limit=limit)
    async with maker() as session:
        found = await closing.statistics(session, ROLLOUT)
    return {metric: arm for (metric, _, variant), arm in found.items() if variant == "candidate"}


async def test_a_ratio_and_what_explains_a_metric_are_pairs_that_add_up_over_batches(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    spent, sessions, before = [3.0, 8.0, 0.0, 5.0], [1, 3, 2, 2], [2.0, 7.0, 1.0, 0.0]
    for at, unit in enumerate("abcd"):
        asked = [log.ask(unit, second) for second in range(sessions[at])]
        log.tell("spent", f"{spent[at] - 1}", 40, unit=unit)
        log.tell("spent", "1", 41, of=asked[0])
        log.tell("spent", f"{before[at]}", -30, unit=unit)
        log.tell("spent", "1000", -90, unit=unit)  # before the time that is to explain it
    earlier = log.ask("d", -20, rollout_id=None, step=None, assigned_variant="stable")
    log.tell("spent", "4", -10, of=earlier)
    log.tell("visits", "2", 5, unit="a")
    await log.store()
    minute = timedelta(minutes=1)
    found = await fold_of(
        maker,
        Measure("ratio:each", Source.RATIO, outcome="spent"),
        Measure("ratio:visit", Source.RATIO, outcome="spent", below="visits"),
        Measure("outcome:spent", Source.OUTCOME, outcome="spent", before=minute),
    )
    each, visit, explained = found["ratio:each"].pair, found["ratio:visit"].pair, found["outcome:spent"].pair
    wanted = [
        (each, Pair.of(spent, np.array(sessions, float))),
        (visit, Pair.of(spent, [2.0, 0, 0, 0])),
        (explained, Pair.of(spent, [2.0, 7.0, 1.0, 4.0])),
    ]
    for seen, right in wanted:
        assert seen.count == 4
        assert (seen.y.mean, seen.y.m2, seen.x.mean, seen.x.m2, seen.c) == pytest.approx(
            (right.y.mean, right.y.m2, right.x.mean, right.x.m2, right.c)
        )


async def test_recall_and_ranking_count_answers_whose_truth_is_known_a_customer_ranks_once(
    maker: async_sessionmaker[AsyncSession], log: Log
) -> None:
    def ask(unit: str, at_s: float, score: float, said: str, truth: str | None, **more: Any) -> None:
        made = log.ask(unit, at_s, output=msgspec.Raw(b'{"probability":%f}' % score), decision=said, **more)
        if truth is not None:
            log.tell("label", f'"{truth}"', at_s + 1, of=made)

    ask("a", 0, 0.9, "block", None)  # nobody knows
    ask("a", 1, 0.8, "block", "fraud")
    ask("a", 2, 0.1, "pass", "fraud")
    ask("b", 0, 0.3, "pass", "fine")
    ask("c", 0, 0.2, "pass", "fraud")
    ask("d", 0, 0.95, "block", "fraud", served_version="1")  # another version answered
    await log.store()
    measures = [Measure(name, source) for name, source in (("recall", Source.RECALL), ("auc", Source.AUC))]
    found = await fold_of(maker, *measures)
    recall, cells = found["recall"], found["auc"].cells
    assert recall.values.count == 3
    assert [side.mean * side.count for side in (recall.values, recall.beside)] == pytest.approx([1.0, 3.0])  # hits, all
    assert cells == tuple(sorted((ranking.cell(s, positive=p), 1) for s, p in ((0.8, True), (0.3, False), (0.2, True))))


async def test_a_look_at_the_last_minute_reads_the_newest_requests_and_no_more_than_it_may(
    maker: async_sessionmaker[AsyncSession], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        log.ask(f"u{number}", 590 + number, variant="candidate" if number % 2 else "stable")
    log.ask("bad", 598, status="error", served_version=None, served_variant=None)
    log.ask("long ago", 100, status="error", served_version=None, served_variant=None)
    log.ask("copied", 599, shadow=True, status="error")
    await log.store()

    async def look() -> tuple[Live, datetime | None]:
        async with maker() as session:
            return await analysis.live(session, ROLLOUT, "m", "2", baking=False, now=NOW)

    newest = BEGAN + timedelta(seconds=598)
    assert await look() == (Live(requests=5, bad=1), newest)
    monkeypatch.setattr(analysis, "_LIVE_SAMPLE", 3)
    assert await look() == (Live(requests=2, bad=1), newest), "bad, u7 and u6, which is stable's"
