"""Profiles of windows as the ingest writes them, in the transaction of the predictions they count."""

import json
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any

from control_plane.adapters.store.ingest import PREDICTION_COLUMNS, Connection, Row
from control_plane.domain.drift import document
from control_plane.domain.drift.profiles import Profile

Key = tuple[str, str]  # model, version
Block = tuple[str, str, date, int]  # model, version, day, hash of the customer
Part = tuple[str, str, str, str, datetime, int, bytes]  # model, version, variant, kind, hour, rows, data

_CLAIM = """
INSERT INTO drift_blocks (model, version, day, unit) SELECT $1::text, $2::text, $3::date, unnest($4::bigint[])
ON CONFLICT DO NOTHING RETURNING unit
"""

_ADD = """
INSERT INTO drift_profiles (model, version, variant, kind, grain, starts, rows, data)
VALUES ($1, $2, $3, $4, 'part', $5, $6, $7)
"""


_AS_TEXT = ", ".join(f"{name}::text" if name in {"features", "output"} else name for name in PREDICTION_COLUMNS)
_EARLIER = f"""
SELECT {_AS_TEXT} FROM predictions WHERE model = $1 AND served_version = $2 AND day >= now() - interval '3 days'
AND received_at >= greatest(now() - interval '2 days', $3) ORDER BY received_at DESC LIMIT $4
"""  # noqa: S608  (constants alone)


async def references(connection: Connection, known: Sequence[Key]) -> dict[Key, Profile]:
    """References that are not among `known`; one never changes."""
    rows = await connection.fetch(
        "SELECT model, version, document FROM drift_references r WHERE NOT EXISTS ("
        "SELECT FROM unnest($1::text[], $2::text[]) AS k(model, version) "
        "WHERE k.model = r.model AND k.version = r.version)",
        [model for model, _ in known],
        [version for _, version in known],
    )
    return {(row["model"], row["version"]): read_document(row["document"]) for row in rows}


async def recall(connection: Connection, key: Key, *, limit: int) -> Sequence[Row]:
    """Take over what the version answered before its reference was known: nothing if somebody else has.

    The newest `limit` of two days, in the order of PREDICTION_COLUMNS; of a reference made of traffic only what came
    after it.
    """
    claimed = await connection.fetch(
        "UPDATE drift_references SET filled_at = clock_timestamp() "
        "WHERE model = $1 AND version = $2 AND filled_at IS NULL "
        "RETURNING CASE source WHEN 'training' THEN timestamptz 'epoch' ELSE created_at END AS since",
        *key,
    )
    if not claimed:
        return ()
    return [tuple(row.values()) for row in await connection.fetch(_EARLIER, *key, claimed[0]["since"], limit)]


async def claim(connection: Connection, blocks: Collection[Block]) -> set[Block]:
    """Of these, the ones nobody has claimed yet; each is claimed only once. In one order, so that nobody deadlocks."""
    units: defaultdict[tuple[str, str, date], list[int]] = defaultdict(list)
    for model, version, day, unit in blocks:
        units[model, version, day].append(unit)
    claimed = set[Block]()
    for key in sorted(units):
        claimed.update((*key, row["unit"]) for row in await connection.fetch(_CLAIM, *key, sorted(units[key])))
    return claimed


async def add(connection: Connection, parts: Sequence[Part]) -> None:
    await connection.executemany(_ADD, parts)


def read_document(data: bytes) -> Profile:
    """A stored reference. InvalidInput if it is none."""
    found: dict[str, Any] = json.loads(zlib.decompress(data))
    return document.from_json(found)


def write_document(profile: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(profile, separators=(",", ":")).encode())
