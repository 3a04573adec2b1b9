"""Which answers are the first of their customer and day: what counts as evidence.

One row per customer and day is evidence, however often the customer asks. Postgres keeps the hashes claimed so far, as
many bytes as a batch had new ones; an ingester remembers what it has read of them. A claim is made under the lock of
its (model, version, day), after everything others have committed was read: each customer is claimed once, and what
is rolled back was never remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from control_plane.adapters.store import windows
from control_plane.adapters.store.ingest import Connection
from control_plane.adapters.store.windows import BlockDay

Hashes = NDArray[np.int64]
_REMEMBERED: Final = 8_000_000  # hashes in memory, over all models and days: 64 MB
_RECENT: Final = 65_536  # hashes that are sorted anew with every batch


@dataclass(slots=True)
class _Seen:
    """Claimed hashes of one (model, version, day), up to the row `last`: two sorted runs, the large one rarely made."""

    last: int = 0
    settled: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    recent: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.settled) + len(self.recent)

    def add(self, hashes: Hashes) -> None:
        self.recent = np.sort(np.concatenate([self.recent, hashes]), kind="stable")
        if len(self.recent) > max(_RECENT, len(self.settled) // 8):
            self.settled = np.sort(np.concatenate([self.settled, self.recent]), kind="stable")
            self.recent = self.recent[:0]

    def has(self, hashes: Hashes) -> NDArray[np.bool_]:
        return _among(hashes, self.settled) | _among(hashes, self.recent)


@dataclass(slots=True)
class FirstAnswers:
    """Of one ingester. Forgets the days it has not met for longest when it remembers too much, and reads them again."""

    seen: dict[BlockDay, _Seen] = field(default_factory=dict[BlockDay, _Seen])

    async def claim(self, connection: Connection, key: BlockDay, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these rows are the first of their hash, here and in Postgres. In the transaction that counts them.

        Keys in ascending order, so that two ingesters never wait for each other in a circle.
        """
        seen = self.seen.pop(key, None) or _Seen()
        self.seen[key] = seen  # the newest last
        for number, claimed in await windows.claims(connection, key, after=seen.last):
            seen.last = number
            seen.add(np.frombuffer(claimed, dtype=">i8").astype(np.int64))
        values, first = np.unique(hashes, return_index=True)
        new = ~seen.has(values)
        if new.any():
            await windows.add_claim(connection, key, values[new].astype(">i8").tobytes())
        mine = np.zeros(len(hashes), dtype=np.bool_)
        mine[first[new]] = True
        while len(self.seen) > 1 and sum(map(len, self.seen.values())) > _REMEMBERED:
            del self.seen[next(iter(self.seen))]
        return mine


def hashed(units: Sequence[str], day: date) -> Hashes:
    """One number per customer. The hash is of that day alone: it leads from no day to another."""
    begun = _keyed(day)
    digests: list[bytes] = []
    for unit in units:
        one = begun.copy()
        one.update(unit.encode(errors="surrogatepass"))
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), dtype=">i8").astype(np.int64)


@lru_cache(maxsize=16)
def _keyed(day: date) -> Any:
    return blake2b(digest_size=8, key=day.isoformat().encode())


def _among(hashes: Hashes, ordered: Hashes) -> NDArray[np.bool_]:
    at = np.searchsorted(ordered, hashes)
    at[at == len(ordered)] = 0
    return ordered[at] == hashes if len(ordered) else np.zeros(len(hashes), dtype=np.bool_)
