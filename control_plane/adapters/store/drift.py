"""What drift is computed from and what was found: references, profiles, measured days, looks, incidents."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import ids, windows
from control_plane.adapters.store.tables import (
    DriftBlockRow,
    DriftDayRow,
    DriftIncidentRow,
    DriftLookRow,
    DriftProfileRow,
    DriftReferenceRow,
)
from control_plane.domain.drift import compact, profiles
from control_plane.domain.drift.profiles import Profile

_FINER = {"hour": ("part", "hour"), "day": ("part", "hour", "day"), "month": ("part", "hour", "day", "month")}
_SHADOWS = ("shadow", "pinned")


@dataclass(frozen=True, slots=True)
class Reference:
    """`source`: training | first_traffic."""

    version: str
    source: str
    created_at: datetime
    profile: Profile


async def reference(session: AsyncSession, model: str, version: str) -> Reference | None:
    row = await session.get(DriftReferenceRow, (model, version))
    if row is None:
        return None
    return Reference(version, row.source, row.created_at, windows.read_document(row.document))


async def without_reference(session: AsyncSession, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of these (model, version) pairs, those that have none yet."""
    rows = await session.execute(select(DriftReferenceRow.model, DriftReferenceRow.version))
    known = {(model, version) for model, version in rows}
    return [key for key in keys if key not in known]


async def add_reference(
    session: AsyncSession, model: str, version: str, source: str, document: dict[str, Any], *, now: datetime
) -> None:
    """The first one counts, for ever."""
    packed = windows.write_document(document)
    values = {"model": model, "version": version, "source": source, "document": packed, "created_at": now}
    await session.execute(upsert(DriftReferenceRow).values(values).on_conflict_do_nothing())


async def window(
    session: AsyncSession, reference: Reference, model: str, kind: str, since: datetime, until: datetime
) -> Profile:
    """What the version answered customers in windows that start in [since, until), all variants together."""
    row = DriftProfileRow
    mine = (row.model == model, row.version == reference.version, row.kind == kind)
    counted = (row.starts >= since, row.starts < until, row.variant.not_in(_SHADOWS))
    found = await session.scalars(select(row.data).where(*mine, *counted))
    return merged(reference.profile, found.all())


def merged(grid: Profile, packed: Sequence[bytes]) -> Profile:
    return reduce(profiles.merge, (compact.unpack(grid, data) for data in packed), profiles.empty_like(grid))


async def roll_up(session: AsyncSession, grain: str, *, before: datetime, limit: int = 20_000) -> int:
    """Add finer windows that start before `before` up to `grain` (hour, day, month). How many rows went into others.

    Rows are taken out and their sum put in, so two workers at it never count one twice.
    """
    row = DriftProfileRow
    truncated = func.date_trunc(grain, row.starts, "UTC")
    key = (row.model, row.version, row.variant, row.kind, truncated)
    many = select(*key).where(row.grain.in_(_FINER[grain]), row.starts < before).group_by(*key)
    many = many.having((func.count() > 1) | func.bool_or(row.grain != grain)).limit(limit)
    taken, references = 0, dict[tuple[str, str], Reference | None]()
    for model, version, variant, kind, starts in (await session.execute(many)).all():
        if (model, version) not in references:
            references[model, version] = await reference(session, model, version)
        known = references[model, version]
        if known is None:
            continue
        mine = (row.model == model, row.version == version, row.variant == variant, row.kind == kind)
        within = (truncated == starts, row.grain.in_(_FINER[grain]), row.starts < before)
        took = await session.execute(delete(row).where(*mine, *within).returning(row.data, row.rows))
        gone = took.all()
        if not gone:
            continue
        data = compact.pack(merged(known.profile, [packed for packed, _ in gone]))
        facts = {"model": model, "version": version, "variant": variant, "kind": kind, "grain": grain}
        rows = sum(count for _, count in gone)
        await session.execute(insert(row).values(**facts, starts=starts, rows=rows, data=data))
        taken += len(gone)
    return taken


async def forget(session: AsyncSession, *, profiles_before: datetime, blocks_before: date) -> None:
    """Retention: windows, measured days and looks from before the one, customers' hashes from before the other."""
    await session.execute(delete(DriftProfileRow).where(DriftProfileRow.starts < profiles_before))
    await session.execute(delete(DriftDayRow).where(DriftDayRow.day < profiles_before.date()))
    await session.execute(delete(DriftLookRow).where(DriftLookRow.hour < profiles_before))
    await session.execute(delete(DriftBlockRow).where(DriftBlockRow.day < blocks_before))


async def save_day(
    session: AsyncSession, model: str, version: str, day: date, hour: int, measured: Mapping[str, Any]
) -> None:
    """What the day's blocks measured up to the end of this hour; the last word counts."""
    values = {"model": model, "version": version, "day": day, "hour": hour, "measured": dict(measured)}
    statement = upsert(DriftDayRow).values(values)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["model", "version", "day", "hour"], set_={"measured": statement.excluded.measured}
        )
    )


async def days(session: AsyncSession, model: str, version: str, hours: Sequence[int]) -> dict[int, dict[date, Any]]:
    """Measured days by hour, oldest first."""
    row = DriftDayRow
    query = select(row.hour, row.day, row.measured).where(
        row.model == model, row.version == version, row.hour.in_(hours)
    )
    found: defaultdict[int, dict[date, Any]] = defaultdict(dict)
    for hour, day, measured in await session.execute(query.order_by(row.day)):
        found[hour][day] = measured
    return found


async def save_look(session: AsyncSession, model: str, version: str, look: Mapping[str, Any], *, at: datetime) -> None:
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    statement = upsert(DriftLookRow).values(model=model, hour=hour, version=version, at=at, look=dict(look))
    changed = {name: statement.excluded[name] for name in ("version", "at", "look")}
    await session.execute(statement.on_conflict_do_update(index_elements=["model", "hour"], set_=changed))


async def looks(session: AsyncSession, model: str, *, since: datetime) -> Sequence[DriftLookRow]:
    """Oldest first."""
    query = select(DriftLookRow).where(DriftLookRow.model == model, DriftLookRow.hour >= since)
    return (await session.scalars(query.order_by(DriftLookRow.hour))).all()


async def newest_look(session: AsyncSession, model: str) -> DriftLookRow | None:
    query = select(DriftLookRow).where(DriftLookRow.model == model).order_by(DriftLookRow.hour.desc()).limit(1)
    return await session.scalar(query, execution_options={"populate_existing": True})


async def open_incident(session: AsyncSession, model: str) -> DriftIncidentRow | None:
    query = select(DriftIncidentRow).where(DriftIncidentRow.model == model, DriftIncidentRow.closed_at.is_(None))
    return await session.scalar(query.with_for_update(), execution_options={"populate_existing": True})


async def incidents(session: AsyncSession, model: str, *, limit: int) -> Sequence[DriftIncidentRow]:
    """Newest first."""
    query = select(DriftIncidentRow).where(DriftIncidentRow.model == model)
    return (await session.scalars(query.order_by(DriftIncidentRow.opened_at.desc()).limit(limit))).all()


async def last_closed(session: AsyncSession, model: str, version: str) -> datetime | None:
    """When the last incident of this version ended."""
    row = DriftIncidentRow
    return await session.scalar(select(func.max(row.closed_at)).where(row.model == model, row.version == version))


async def begin_incident(
    session: AsyncSession,
    model: str,
    version: str,
    *,
    severity: str,
    kinds: Sequence[str],
    features: Sequence[str],
    entry: Mapping[str, Any],
    now: datetime,
) -> None:
    facts = {"id": ids.new(), "model": model, "version": version, "opened_at": now, "severity": severity}
    lists = {"kinds": list(kinds), "features": list(features), "history": [dict(entry)]}
    await session.execute(insert(DriftIncidentRow).values(**facts, **lists))


async def change_incident(session: AsyncSession, row: DriftIncidentRow, **changed: Any) -> None:
    await session.execute(update(DriftIncidentRow).where(DriftIncidentRow.id == row.id).values(**changed))


def hour_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


DAY = timedelta(days=1)
