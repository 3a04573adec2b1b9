"""Hourly windows summed up: what performance is read from, whatever the traffic was."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import WindowRow
from control_plane.domain import latency


@dataclass(slots=True)
class Requests:
    """Requests of one version and variant. `missed`: it was to answer and did not; `answered`: it did."""

    answered: int = 0
    missed: int = 0
    latency_us: int = 0
    latencies: Sequence[int] = ()

    def merge(self, other: "Requests") -> None:
        """Add the other's."""
        self.answered += other.answered
        self.missed += other.missed
        self.latency_us += other.latency_us
        if other.latencies:
            mine = self.latencies or [0] * latency.BUCKETS
            self.latencies = [a + b for a, b in zip(mine, other.latencies, strict=True)]


async def requests(
    session: AsyncSession, model: str, since: datetime, until: datetime | None = None
) -> dict[tuple[str, str], Requests]:
    """By version and variant, from the hour `since` on, to before the hour `until`."""
    row, found = WindowRow, dict[tuple[str, str], Requests]()
    query = select(row).where(row.model == model, row.hour >= since)
    for window in await session.scalars(query if until is None else query.where(row.hour < until)):
        one = Requests(window.answered, window.missed, _answered_us(window), window.latency)
        found.setdefault((window.version, window.variant), Requests()).merge(one)
    return found


def _answered_us(row: WindowRow) -> int:
    """Where some requests failed, their time is in the sum too: the share of those answered is the best guess."""
    return round(row.latency_us_sum * row.answered / row.requests) if row.requests else 0
