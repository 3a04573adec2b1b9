"""Prediction ids: UUIDv7 as text, fast enough for every request."""

import os
import time
from collections.abc import Callable

_BATCH = 512  # ids per read of the system's randomness


def generator() -> Callable[[], bytes]:
    """A function that returns a fresh UUIDv7 (36 ASCII bytes). Make one per process: after a fork two share a pool."""
    pool: list[bytes] = []

    def refill() -> bytes:
        random = os.urandom(10 * _BATCH)
        for at in range(0, len(random), 10):
            bits = int.from_bytes(random[at : at + 10], "big")
            variant = 0x8000 | bits >> 64 & 0x3FFF
            pool.append(b"-7%03x-%04x-%012x" % (bits & 0xFFF, variant, bits >> 12 & 0xFFFF_FFFF_FFFF))
        return pool.pop()

    def fresh() -> bytes:
        milliseconds = time.time_ns() // 1_000_000
        return b"%08x-%04x%b" % (milliseconds >> 16, milliseconds & 0xFFFF, pool.pop() if pool else refill())

    return fresh
