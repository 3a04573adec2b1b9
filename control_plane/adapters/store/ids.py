"""UUIDv7: identities that carry their time of birth, so that indexes and partitions follow the clock."""

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID


def new(at_ms: int | None = None) -> UUID:
    """A fresh id of now, or of `at_ms` (Unix milliseconds). Ids of one millisecond are in no order."""
    ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    bits = (ms & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return UUID(int=bits & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62)


def born(identity: UUID) -> datetime:
    """When a UUIDv7 was made, to the millisecond, in UTC. ValueError for any other UUID."""
    if identity.version != 7:
        raise ValueError(f"{identity} is not a UUIDv7")
    return datetime.fromtimestamp((identity.int >> 80) / 1000, UTC)
