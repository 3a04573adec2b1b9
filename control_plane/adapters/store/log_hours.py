"""Which hours of the prediction log have changed: counted up in the transaction of every row that belongs there.

Whoever derives something from an hour (quality, archive) remembers the count it has seen. On asyncpg, because the
ingester and the API both mark.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.domain.quality import LONGEST_WINDOW

_MARK = """
INSERT INTO log_hours (model, hour, changed, quality_due_at)
SELECT model, hour, 1, now() FROM unnest($1::text[], $2::timestamptz[]) AS u(model, hour) ORDER BY 1, 2
ON CONFLICT (model, hour) DO UPDATE SET
  changed = log_hours.changed + 1, quality_due_at = coalesce(log_hours.quality_due_at, now())
"""

# A unit's outcome speaks of its predictions before it. The hour is that of the id, a moment beside `received_at`.
_OF_UNITS = """
SELECT DISTINCT p.model, date_trunc('hour', p.received_at + s, 'UTC') AS hour
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS o(model, unit, at)
JOIN predictions p ON p.unit_id = o.unit AND p.model = o.model AND p.received_at BETWEEN o.at - $4::interval AND o.at
  AND p.day BETWEEN o.at - $4::interval - interval '1 day' AND o.at
CROSS JOIN (VALUES (interval '-1 second'), (interval '1 second')) AS beside(s)
"""

OLDEST: Final = timedelta(days=400)  # ids from outside of this are nobody's: their hours and partitions were a mistake
NEWEST: Final = timedelta(days=2)


class Connection(Protocol):
    """What is used here of an asyncpg connection."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]: ...


Subject = tuple[str, UUID | None, str | None, datetime]  # model, prediction_id, unit_id, observed_at of an outcome


async def mark(connection: Connection, hours: Iterable[tuple[str, datetime]]) -> None:
    """These hours of these models have changed. Once in a transaction, and late in it: the rows stay locked."""
    listed = sorted(set(hours))
    if listed:
        await connection.execute(_MARK, [model for model, _ in listed], [hour for _, hour in listed])


async def of_outcomes(
    connection: Connection, outcomes: Sequence[Subject], *, now: datetime
) -> set[tuple[str, datetime]]:
    """The hours of the predictions these outcomes speak of, known ones included: a correction may have come before."""
    named = [(model, of(identity)) for model, identity, _, _ in outcomes if identity is not None]
    found = {(model, hour) for model, hour in named if hour is not None and now - OLDEST <= hour <= now + NEWEST}
    units = [(model, unit, at) for model, _, unit, at in outcomes if unit is not None]
    if units:
        columns = [list(column) for column in zip(*units, strict=True)]
        rows = await connection.fetch(_OF_UNITS, *columns, LONGEST_WINDOW)
        found |= {(row["model"], row["hour"]) for row in rows}
    return found


async def driver(session: AsyncSession) -> Connection:
    """The session's asyncpg connection, in its transaction, which begins with the session's first statement."""
    connection = await session.connection()
    await connection.exec_driver_sql("SELECT 1")
    return cast(Connection, (await connection.get_raw_connection()).driver_connection)


def of(prediction_id: UUID) -> datetime | None:
    """The hour an id is from; None where it is not a UUIDv7 of any calendar."""
    if prediction_id.version != 7:
        return None
    try:
        return datetime.fromtimestamp((prediction_id.int >> 80) // 3_600_000 * 3_600, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def floor_id(at: datetime) -> UUID:
    """The smallest id of this moment: ids below it are from before it."""
    milliseconds = max(0, (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    return UUID(int=(milliseconds & (1 << 48) - 1) << 80)
