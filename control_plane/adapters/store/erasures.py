"""Erasure in Postgres: what was asked for, and a unit's personal data taken out of predictions and outcomes."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.ingest_counts import hashed_unit
from control_plane.adapters.store.tables import ErasureRow, PredictionRow, RolloutRow, SecretRow

REMEMBERED = timedelta(days=90)  # how late a record may come out of a spool and still be erased
_WRITING = 7_305_004  # advisory: held shared by whoever stores predictions or outcomes, until it commits

_STANDING = """
SELECT e.unit_hash, e.requested_at, s.value AS key FROM erasures e CROSS JOIN secrets s
WHERE s.name = 'erasure' AND e.requested_at > now() - $1::interval
"""

# Statistics stay: a label of the unit becomes one of each prediction it speaks of, any other outcome one of the last
# prediction before it, before they lose the name.
_BIND_OUTCOMES = """
INSERT INTO outcomes (outcome_id, model, name, value, currency, observed_at, received_at, prediction_id)
SELECT gen_random_uuid(), o.model, o.name, o.value, o.currency, o.observed_at, o.received_at, p.prediction_id
FROM outcomes o JOIN predictions p ON p.unit_id = o.unit_id AND p.model = o.model
  AND p.received_at BETWEEN o.observed_at - :window AND o.observed_at
WHERE o.unit_id = :unit AND o.model = :model AND (o.name = 'label' OR p.prediction_id = (
  SELECT q.prediction_id FROM predictions q WHERE q.unit_id = o.unit_id AND q.model = o.model
    AND q.received_at BETWEEN o.observed_at - :window AND o.observed_at ORDER BY q.received_at DESC LIMIT 1))
"""

# Whoever knows a rollout and a name could compute the hash again: random ones take their place, joins stay whole.
_UNLINK = """
WITH renamed AS (SELECT * FROM unnest(CAST(:rollouts AS uuid[]), CAST(:before AS bytea[]), CAST(:after AS bytea[]))
  AS r(rollout_id, before, after)
), exposed AS (
  UPDATE exposures e SET unit_hash = r.after FROM renamed r
  WHERE e.rollout_id = r.rollout_id AND e.unit_hash = r.before
)
UPDATE predictions p SET unit_hash = r.after FROM renamed r
WHERE p.rollout_id = r.rollout_id AND p.unit_hash = r.before
"""

_DROP_OUTCOMES = "DELETE FROM outcomes WHERE unit_id = :unit AND model = :model RETURNING 1"
_BLANK = """
UPDATE predictions SET unit_id = NULL, request_id = NULL, features = NULL
WHERE unit_id = :unit AND model = :model RETURNING 1
"""

_MODELS = """
SELECT model FROM predictions WHERE unit_id = :unit UNION SELECT model FROM outcomes WHERE unit_id = :unit
"""


class Connection(Protocol):
    """What is used here of an asyncpg connection."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]: ...


class Standing:
    """The erasures that what still comes out of a spool is held against."""

    def __init__(self, key: bytes, requested_at: Mapping[bytes, datetime]) -> None:
        self._key, self._requested_at = key, requested_at

    def covers(self, unit_id: str, at: datetime) -> bool:
        """Whether a record of this unit and moment was to be erased."""
        asked = self._requested_at.get(hashed(unit_id, self._key))
        return asked is not None and at <= asked


def hashed(unit_id: str, key: bytes) -> bytes:
    """Identifies a unit to whoever has the installation's key, and to nobody else."""
    return blake2b(unit_id.encode(), key=key, digest_size=32).digest()


async def standing(connection: Connection) -> Standing | None:
    """What rows of this transaction must be held against; None: nothing was asked for lately.

    An erasure asked for from now on waits for the transaction's end, see `settle`: no row slips through in between.
    """
    await connection.fetch("SELECT pg_advisory_xact_lock_shared($1)", _WRITING)
    found = await connection.fetch(_STANDING, REMEMBERED)
    if not found:
        return None
    newest = dict[bytes, datetime]()
    for row in found:
        newest[row["unit_hash"]] = max(row["requested_at"], newest.get(row["unit_hash"], row["requested_at"]))
    return Standing(found[0]["key"], newest)


async def settle(session: AsyncSession) -> None:
    """Wait for every transaction that may have begun to store rows without knowing of the erasures there are now."""
    await session.execute(select(func.pg_advisory_xact_lock(_WRITING)))


async def want(session: AsyncSession, job_id: UUID, unit_id: str, *, now: datetime) -> bytes:
    """Ask for it; the hash the audit may name."""
    key = (await session.scalars(select(SecretRow.value).where(SecretRow.name == "erasure"))).one()
    unit_hash = hashed(unit_id, key)
    row = {"job_id": job_id, "unit_id": unit_id, "unit_hash": unit_hash, "requested_at": now}
    await session.execute(insert(ErasureRow).values(row))
    return unit_hash


async def load(session: AsyncSession, job_id: UUID) -> ErasureRow | None:
    return await session.get(ErasureRow, job_id, populate_existing=True)


async def end(session: AsyncSession, job_id: UUID, report: Mapping[str, Any], *, now: datetime) -> None:
    """It is done: the unit's name is not needed any more, nor by earlier ones that failed half-way."""
    row, done = ErasureRow, {"done_at": now, "report": dict(report)}
    mine = select(row.unit_hash).where(row.job_id == job_id).scalar_subquery()
    earlier = select(row.requested_at).where(row.job_id == job_id).scalar_subquery()
    await session.execute(update(row).where(row.unit_hash == mine, row.requested_at <= earlier).values(unit_id=None))
    await session.execute(update(row).where(row.job_id == job_id).values(done))


async def models_of(session: AsyncSession, unit_id: str) -> list[str]:
    return sorted(await session.scalars(text(_MODELS), {"unit": unit_id}))


async def identities(session: AsyncSession, model: str, unit_id: str) -> list[str]:
    """Of the unit's predictions in Postgres."""
    row = PredictionRow
    query = select(row.prediction_id).where(row.model == model, row.unit_id == unit_id)
    return [str(found) for found in await session.scalars(query)]


async def unlink(session: AsyncSession, unit_id: str) -> None:
    """Let nobody find the unit's exposures by its name; what was counted of them stays."""
    rollouts = list(await session.scalars(select(RolloutRow.id)))
    before = [hashed_unit(rollout, unit_id) for rollout in rollouts]
    after = [secrets.token_bytes(len(one)) for one in before]
    await session.execute(text(_UNLINK), {"rollouts": rollouts, "before": before, "after": after})


async def erase(session: AsyncSession, model: str, unit_id: str, window: timedelta) -> tuple[int, int]:
    """How many predictions and outcomes lost what names or describes the unit."""
    bind = text(_BIND_OUTCOMES).bindparams(bindparam("window", type_=INTERVAL))
    what = {"unit": unit_id, "model": model}
    await session.execute(bind, what | {"window": window})
    outcomes = await session.execute(text(_DROP_OUTCOMES), what)
    predictions = await session.execute(text(_BLANK), what)
    return len(predictions.all()), len(outcomes.all())
