"""Folds labelled answers into hourly sums: load -> reduce -> save, one hour a transaction."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import quality, versions
from control_plane.adapters.store.quality import Errors, Join, Labels
from control_plane.domain import quality as domain
from control_plane.domain import truth
from control_plane.domain.model_config import Label, ModelConfig, Problem
from control_plane.domain.quality import Tally
from control_plane.errors import NotFound
from control_plane.services import evidence

_AT_ONCE = 20  # hours in one look
log = structlog.get_logger()
_Slice = tuple[str, str]  # version, variant


async def fold_due(sessions: async_sessionmaker[AsyncSession], *, now: datetime) -> int:
    """Fold the hours that are due, `_AT_ONCE` at most. How many were: none means there is nothing to do now.

    An hour that cannot be folded is put off, so that the others have their turn.

    Raises:
        SQLAlchemyError, OSError: the database is away; nothing is put off for that.
    """
    async with sessions() as session:
        waiting = await quality.due(session, now=now, limit=_AT_ONCE)
    folded = 0
    for model, hour in waiting:
        try:
            async with sessions.begin() as session:
                await _fold(session, model, hour, now=now)
            folded += 1
        except Exception as exc:
            if isinstance(exc, OSError) or (isinstance(exc, DBAPIError) and exc.connection_invalidated):
                raise
            until = domain.put_off(now)
            facts = {"model": model, "hour": hour.isoformat(), "until": until.isoformat(), "why": str(exc)}
            log.exception("quality.not_folded", **facts)
            async with sessions.begin() as session:
                await quality.put_off(session, model, hour, until)
    return folded


async def _fold(session: AsyncSession, model: str, hour: datetime, *, now: datetime) -> None:
    seen = await quality.begin(session, model, hour)
    if seen is None:
        return
    started = time.monotonic()
    config = await config_of(session, model)
    label = config.label if config else Label()
    delay, matured = timedelta(seconds=label.delay_s), truth.matured(label, now)
    tallies: dict[_Slice, Tally] = {}
    if hour <= matured:
        costs = config.costs if config else None
        join = Join(
            model=model,
            hour=hour.astimezone(UTC),
            until=matured,
            window=domain.window(label),
            absent=config is not None and truth.absence_tells(config),
            amount=costs.false_negative_column if costs else None,
        )
        if config is not None and config.problem in {Problem.BINARY, Problem.MULTICLASS}:
            tallies = _labels(config, await quality.labels(session, join))
        else:
            tallies = _numbers(await quality.errors(session, join))
    documents = [(version, variant, tally.document()) for (version, variant), tally in tallies.items()]
    due_at = domain.due_again(hour, delay, now=now, took_s=time.monotonic() - started)
    await quality.end(session, model, hour, documents, seen=seen, due_at=due_at, now=now)


async def config_of(session: AsyncSession, name: str) -> ModelConfig | None:
    """What says how answers are read: Production's model.yaml, else the newest version's."""
    try:
        production = (await versions.model(session, name)).production_version
    except NotFound:
        return None
    rows = await versions.versions(session, name)
    row = next((row for row in rows if row.version == production), rows[0] if rows else None)
    return evidence.config(row)[0] if row else None


def _labels(config: ModelConfig, groups: Iterable[Labels]) -> dict[_Slice, Tally]:
    tallies: dict[_Slice, Tally] = {}
    for group in groups:
        tally = tallies.setdefault((group.version, group.variant), Tally())
        said = truth.decided(config, group.said, group.above)
        real = truth.known(config, group.truth, said=said)
        if isinstance(real, str):
            if group.said is not None:
                tally.name(group.said, real, group.count)
        elif isinstance(real, bool):
            if said is not None:
                tally.decide(said, real, group.count, group.amount, group.amount_squares)
            losses = group.loss_yes if real else group.loss_no
            if group.step is not None and losses is not None:
                tally.score(group.step, real, group.count, *losses)
    return tallies


def _numbers(groups: Iterable[Errors]) -> dict[_Slice, Tally]:
    return {(group.version, group.variant): Tally(errors=list(group.sums)) for group in groups}
