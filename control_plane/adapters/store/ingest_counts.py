"""New prediction rows reduced to counts: hourly windows and first exposures, in the transaction that stores them.

Reduced here rather than in Postgres: a batch has few windows and no need to be read back.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, Protocol, cast
from uuid import UUID

from control_plane.domain import latency

_WINDOWS = """
INSERT INTO windows
  (model, version, variant, hour, requests, failures, fallbacks, latency_us_sum, answered, missed, latency)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (model, version, variant, hour) DO UPDATE SET
  requests = windows.requests + excluded.requests, failures = windows.failures + excluded.failures,
  fallbacks = windows.fallbacks + excluded.fallbacks,
  latency_us_sum = windows.latency_us_sum + excluded.latency_us_sum,
  answered = windows.answered + excluded.answered, missed = windows.missed + excluded.missed,
  latency = ARRAY(
    SELECT coalesce(was, 0) + coalesce(more, 0)
    FROM unnest(windows.latency, excluded.latency) WITH ORDINALITY AS u(was, more, n) ORDER BY n)
"""

_EXPOSURES = """
INSERT INTO exposures (rollout_id, unit_hash, variant, step, first_at, requests, fallbacks)
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::int[], $5::timestamptz[], $6::int[], $7::int[])
ON CONFLICT (rollout_id, unit_hash) DO UPDATE SET
  requests = exposures.requests + excluded.requests, fallbacks = exposures.fallbacks + excluded.fallbacks,
  variant = CASE WHEN excluded.first_at < exposures.first_at THEN excluded.variant ELSE exposures.variant END,
  step = CASE WHEN excluded.first_at < exposures.first_at THEN excluded.step ELSE exposures.step END,
  first_at = least(exposures.first_at, excluded.first_at)
"""

_UNIT_HASH: Final = 23  # its place in a row
_FAILED: Final = frozenset({"error", "timeout", "shed"})


class Connection(Protocol):
    """What is used here of an asyncpg connection."""

    async def executemany(self, command: str, args: Sequence[tuple[object, ...]]) -> None: ...
    async def execute(self, query: str, *args: object) -> str: ...


class _Window:
    __slots__ = ("answered", "failures", "fallbacks", "latency", "latency_us_sum", "missed", "requests")

    def __init__(self) -> None:
        self.requests = self.failures = self.fallbacks = self.latency_us_sum = self.answered = self.missed = 0
        self.latency = [0] * latency.BUCKETS

    def row(self) -> tuple[object, ...]:
        counts = (self.requests, self.failures, self.fallbacks, self.latency_us_sum, self.answered, self.missed)
        return (*counts, self.latency if self.answered else [])


_Key = tuple[str, str, str, datetime]  # model, version, variant, hour
_Exposure = tuple[datetime, str, int, int, int]  # first_at, variant, step, requests, fallbacks


async def fold(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Add rows, in the order of `ingest.PREDICTION_COLUMNS`, to windows and exposures."""
    windows, exposures = reduced(rows)
    # In the order of their keys, so that two ingesters never wait for each other in a circle.
    await connection.executemany(
        _WINDOWS, [(*key, *window.row()) for key, window in sorted(windows.items(), key=_FIRST)]
    )
    if exposures:
        listed = sorted((rollout.bytes, unit, rollout, seen) for (rollout, unit), seen in exposures.items())
        columns = zip(*((rollout, unit, v, s, at, n, f) for _, unit, rollout, (at, v, s, n, f) in listed), strict=True)
        await connection.execute(_EXPOSURES, *(list(column) for column in columns))


def reduced(
    rows: Sequence[tuple[object, ...]],
) -> tuple[Mapping[_Key, _Window], Mapping[tuple[UUID, bytes], _Exposure]]:
    """The same rows as sums."""
    windows = dict[_Key, _Window]()
    exposures = dict[tuple[UUID, bytes], _Exposure]()
    for row in cast("Sequence[tuple[Any, ...]]", rows):
        (_, _, model, status, at, latency_us, _, _, assigned, assigned_version, _, served_version, fallback) = row[:13]
        pinned, shadow, rollout, step, unit = row[13:18]
        variant = "shadow" if shadow else "pinned" if pinned else assigned or ""
        hour = at.replace(minute=0, second=0, microsecond=0)
        window = _of(windows, (model, served_version or "", variant, hour))
        window.requests += 1
        window.latency_us_sum += latency_us
        if fallback is not None:
            window.fallbacks += 1
        if status == "ok":
            window.answered += 1
            window.latency[latency.bucket(latency_us)] += 1
        elif status in _FAILED:
            window.failures += 1
        if not (pinned or shadow):
            if (
                assigned_version is not None
                and status != "invalid"
                and (status != "ok" or served_version != assigned_version)
            ):
                _of(windows, (model, assigned_version, variant, hour)).missed += 1
            # Without a step everybody gets the candidate: nobody is compared.
            if rollout is not None and unit is not None and assigned is not None and step is not None:
                _expose(exposures, (rollout, row[_UNIT_HASH]), at, assigned, step, fallback is not None)
    return windows, exposures


def hashed_unit(rollout_id: UUID, unit_id: str) -> bytes:
    """Identifies a unit within one rollout; without the rollout's id it cannot be looked up in another."""
    return blake2b(unit_id.encode(), key=rollout_id.bytes, digest_size=16).digest()


_FIRST: Final = itemgetter(0)


def _of(windows: dict[_Key, _Window], key: _Key) -> _Window:
    window = windows.get(key)
    if window is None:
        window = windows[key] = _Window()
    return window


def _expose(
    exposures: dict[tuple[UUID, bytes], _Exposure],
    key: tuple[UUID, bytes],
    at: datetime,
    variant: str,
    step: int,
    fell_back: bool,
) -> None:
    """The first one in time keeps its variant and step, whatever order they come in."""
    seen = exposures.get(key)
    if seen is None:
        exposures[key] = (at, variant, step, 1, int(fell_back))
        return
    first, requests, fallbacks = seen[:3], seen[3] + 1, seen[4] + fell_back
    exposures[key] = ((at, variant, step) if at < first[0] else first) + (requests, fallbacks)
