"""Requests that wait together are answered together, each with its own answer."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from model_servers.runtime.batching import MOST_ROWS, Batcher
from model_servers.runtime.features import Row
from model_servers.runtime.problems import Refused, model_failed


class Asked:
    """Stands where a Request does and keeps its answer."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    def respond(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body

    def refuse(self, refused: Refused) -> None:
        self.status = refused.status


class Model:
    def __init__(self, *, cost_s: float = 0.0, bad: object = None) -> None:
        self.sizes: list[int] = []
        self.hurried: list[bool] = []
        self.now = 0.0
        self.interrupted = 0.0  # seconds that others had the processor in the middle of a call
        self.cost_s, self.bad = cost_s, bad

    def __call__(self, rows: Sequence[Row], hurried: bool) -> list[bytes]:
        self.sizes.append(len(rows))
        self.hurried.append(hurried)
        self.now += self.cost_s * len(rows)
        if any(row[0] == self.bad for row in rows):
            raise ValueError("one bad row")
        return [str(row[0]).encode() for row in rows]


def batcher(model: Model, observed: list[int] | None = None, **options: Any) -> Batcher:
    heard = observed if observed is not None else []
    return Batcher(
        model,
        failed=lambda _r, _e: model_failed("t"),
        observe=lambda _s, n: heard.append(n),
        clock=lambda: model.now + model.interrupted,
        spent=lambda: model.now,
        **options,
    )


async def answered(asked: list[Asked]) -> None:
    async with asyncio.timeout(10):
        while not all(one.status for one in asked):  # noqa: ASYNC110  (a tick of the loop is what is tested)
            await asyncio.sleep(0)


async def test_rows_of_one_tick_share_a_call_and_each_gets_its_own_answer() -> None:
    model, observed = Model(), list[int]()
    batch, asked = batcher(model, observed), [Asked() for _ in range(100)]
    for i, one in enumerate(asked):
        batch.add((i,), one)  # type: ignore[arg-type]
    await answered(asked)
    assert [int(one.body) for one in asked] == list(range(100))
    assert model.sizes == observed == [64, 36]
    assert model.hurried == [True, False]


async def test_calls_that_others_interrupt_do_not_become_smaller() -> None:
    model = Model(cost_s=0.000_01)

    def interrupted(rows: Sequence[Row], hurried: bool) -> list[bytes]:
        model.interrupted += 0.05
        return model(rows, hurried)

    batch = Batcher(
        interrupted,
        failed=lambda _r, _e: model_failed("t"),
        observe=lambda _s, _n: None,
        clock=lambda: model.now + model.interrupted,
        spent=lambda: model.now,
    )
    for _ in range(5):
        asked = [Asked() for _ in range(40)]
        for i, one in enumerate(asked):
            batch.add((i,), one)  # type: ignore[arg-type]
        await answered(asked)
    assert model.sizes == [40] * 5


async def test_a_row_that_fails_takes_none_of_its_neighbours_with_it() -> None:
    model = Model(bad=3)
    batch, asked = batcher(model), [Asked() for _ in range(6)]
    for i, one in enumerate(asked):
        batch.add((i,), one)  # type: ignore[arg-type]
    await answered(asked)
    assert [one.status for one in asked] == [200, 200, 200, 500, 200, 200]


async def test_a_slow_model_gets_smaller_batches_and_a_quick_one_grows_them_again() -> None:
    model = Model(cost_s=0.0005)  # 2 ms hold four rows
    batch = batcher(model)

    async def burst() -> None:
        asked = [Asked() for _ in range(MOST_ROWS)]
        for i, one in enumerate(asked):
            batch.add((i,), one)  # type: ignore[arg-type]
        await answered(asked)

    await burst()
    await burst()
    assert model.sizes[0] == MOST_ROWS
    assert max(model.sizes[2:]) <= 8
    model.cost_s, model.sizes = 0.0, []
    for _ in range(6):
        await burst()
    assert model.sizes[-1] == MOST_ROWS


async def test_what_would_wait_too_long_is_refused_with_503() -> None:
    batch = batcher(Model())
    for i in range(1_024):
        batch.add((i,), Asked())  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        batch.add((0,), Asked())  # type: ignore[arg-type]
    assert caught.value.status == 503
