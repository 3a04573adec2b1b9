"""The Redis of the embedded stack with batches as large as the shipper makes them."""

import random
import tempfile
from pathlib import Path

import pytest

from control_plane.adapters import bus
from control_plane.adapters.bus import Batch
from control_plane.embedded import binaries
from control_plane.ingest.source import BATCH_BYTES
from tests.support.processes import redis_argv, running, wait_until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("seed", range(3))
async def test_what_a_fresh_redis_was_sent_comes_back_as_it_was(tmp_path: Path, seed: int) -> None:
    """With large blocks mapped one by one this ends in damage or a crash, in every trial so far."""
    rng = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="mlcp-redis-") as folder,
        running(redis_argv(Path(folder), server=binaries.bundled_redis()), log=tmp_path / "log"),
    ):
        wait_until(Path(folder, "redis.sock").exists, what="redis-server listens")
        client = bus.connect(f"unix://{folder}/redis.sock", timeout_s=30)
        for round_ in range(60):
            sizes = [rng.randrange(BATCH_BYTES - 2_000, BATCH_BYTES) for _ in range(8)]
            sent = [Batch("s", (round_, n), (round_, n + 1), "g", False, rng.randbytes(sizes[n])) for n in range(8)]
            await bus.send(client, sent)
            received = await bus.receive(client, count=8, wait_s=1)
            assert [batch for _, batch in received] == sent
            await bus.done(client, upto=received[-1][0], watermarks={}, rewinds={})
        await client.aclose()
