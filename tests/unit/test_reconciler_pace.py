"""How often the reconciler looks: at once when woken, often while something is under way, else now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from control_plane.reconciler import loop
from control_plane.reconciler.loop import Resource


@dataclass
class Looks:
    """`woken`: of each look. `settled`: what they find. `fail`: so many of them fail first."""

    settled: bool = True
    fail: int = 0
    woken: list[bool] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, woken: bool) -> bool:
        self.woken.append(woken)
        self.came.set()
        if len(self.woken) <= self.fail:
            raise OSError("away")
        return self.settled

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.woken) < count:
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def looking(looks: Looks) -> AsyncIterator[asyncio.Event]:
    """Its bell. While nothing is under way there is an hour between two looks."""
    bell = asyncio.Event()
    resource = Resource(looks, calm_s=3_600.0, yield_s=0.0, busy_s=0.05)
    task = asyncio.create_task(loop._repeat("x", resource, bell))  # pyright: ignore[reportPrivateUsage]
    try:
        yield bell
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_settled_is_looked_at_again_only_when_somebody_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_BUSY_S", 0.0)
    looks = Looks()
    async with looking(looks) as bell:
        for count in (1, 2, 3):
            await looks.reach(count)
            with pytest.raises(TimeoutError):  # six times the time between two looks at what is under way
                await asyncio.wait_for(looks.reach(count + 1), 0.3)
            bell.set()
        await looks.reach(4)
    assert looks.woken == [True] * 4


async def test_what_is_under_way_is_followed_and_so_is_what_comes_after_a_wake_up() -> None:
    for looks in (Looks(settled=False), Looks()):
        async with looking(looks):
            await looks.reach(4)
        assert looks.woken == [True, False, False, False]


async def test_who_was_woken_and_failed_is_still_told_so_when_it_looks_again() -> None:
    looks = Looks(fail=2)
    async with looking(looks):
        await looks.reach(4)
    assert looks.woken[:4] == [True, True, True, False]
