"""Profiles of windows as the ingest writes them, in the transaction of the predictions they count."""

import json
import zlib
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from control_plane.adapters.store.ingest import PREDICTION_COLUMNS, Connection, Row
from control_plane.domain.drift import document
from control_plane.domain.drift.profiles import Profile

Key = tuple[str, str]  # model, version
BlockDay = tuple[str, str, date]  # model, version, day
Part = tuple[str, str, str, str, datetime, int, bytes]  # model, version, variant, kind, hour, rows, data

_CLAIMS = """
SELECT id, units FROM drift_blocks WHERE model = $1 AND version = $2 AND day = $3 AND id > $4 ORDER BY id
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


async def claims(connection: Connection, key: BlockDay, *, after: int) -> list[tuple[int, bytes]]:
    """Rows of hashes claimed since the row `after`, oldest first; nobody else claims any until the transaction ends."""
    model, version, day = key
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{model} {version} {day} blocks")
    return [(row["id"], row["units"]) for row in await connection.fetch(_CLAIMS, *key, after)]


async def add_claim(connection: Connection, key: BlockDay, units: bytes) -> None:
    """Hashes of 8 bytes each, the highest first."""
    await connection.execute(
        "INSERT INTO drift_blocks (model, version, day, units) VALUES ($1, $2, $3, $4)", *key, units
    )


async def add(connection: Connection, parts: Sequence[Part]) -> None:
    await connection.executemany(_ADD, parts)


def read_document(data: bytes) -> Profile:
    """A stored reference. InvalidInput if it is none."""
    found: dict[str, Any] = json.loads(zlib.decompress(data))
    return document.from_json(found)


def write_document(profile: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(profile, separators=(",", ":")).encode())
