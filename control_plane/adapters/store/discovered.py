"""What was found in MLflow, written by the reconciler: models, versions, and what was told and mirrored back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Update, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import AliasRow, ModelRow, ModelVersionRow


@dataclass(frozen=True, slots=True)
class Known:
    """As much of a version as recognising it takes."""

    model: str
    version: str
    stage: str
    source: str
    digest: str | None
    reported: str | None
    deleted: bool


async def known(session: AsyncSession) -> dict[str, dict[str, Known]]:
    """Every version by model and number, deleted ones included."""
    row = ModelVersionRow
    query = select(row.model, row.version, row.stage, row.source, row.digest, row.reported, row.deleted_at.is_not(None))
    found: dict[str, dict[str, Known]] = {}
    for columns in await session.execute(query):
        version = Known(*columns)
        found.setdefault(version.model, {})[version.version] = version
    return found


async def rows(session: AsyncSession, model: str) -> dict[str, ModelVersionRow]:
    """Whole versions of one model by number; empty for an unknown model."""
    query = select(ModelVersionRow).where(ModelVersionRow.model == model)
    return {row.version: row for row in await session.scalars(query)}


async def add(session: AsyncSession, row: ModelVersionRow, *, salt: str) -> None:
    """A new version, and its model if this is the first one (then with this salt)."""
    model = insert(ModelRow).values(name=row.model, created_at=row.discovered_at, salt=salt, revision=1)
    await session.execute(model.on_conflict_do_nothing())
    session.add(row)
    await session.flush()


async def deleted(session: AsyncSession, model: str, version: str, *, now: datetime) -> None:
    await session.execute(_one(model, version).values(deleted_at=now))


async def without_digest(session: AsyncSession) -> list[ModelVersionRow]:
    """Newest first."""
    query = select(ModelVersionRow).where(ModelVersionRow.digest.is_(None), ModelVersionRow.deleted_at.is_(None))
    return list(await session.scalars(query.order_by(ModelVersionRow.created_at.desc())))


async def set_digest(session: AsyncSession, model: str, version: str, digest: str) -> None:
    """Recorded once: a digest that is there already is never replaced."""
    values = {"digest": digest, "digest_from": "discovery"}
    await session.execute(_one(model, version).where(ModelVersionRow.digest.is_(None)).values(values))


async def reported(session: AsyncSession, model: str, version: str, report: str) -> None:
    """Note the hash of the report that MLflow now shows."""
    await session.execute(_one(model, version).values(reported=report))


async def aliases(session: AsyncSession) -> Mapping[tuple[str, str], AliasRow]:
    """By (model, alias)."""
    return {(row.model, row.alias): row for row in await session.scalars(select(AliasRow))}


async def set_alias(
    session: AsyncSession,
    model: str,
    alias: str,
    *,
    last_applied: str | None,
    observed: str | None,
    writing: str | None,
    now: datetime,
) -> None:
    values = {"last_applied": last_applied, "observed": observed, "writing": writing, "changed_at": now}
    row = insert(AliasRow).values(model=model, alias=alias, **values)
    await session.execute(row.on_conflict_do_update(index_elements=[AliasRow.model, AliasRow.alias], set_=values))


def _one(model: str, version: str) -> Update:
    return update(ModelVersionRow).where(ModelVersionRow.model == model, ModelVersionRow.version == version)
