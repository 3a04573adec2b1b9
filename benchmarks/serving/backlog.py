"""How far the log is behind the answers: answered by the router, waiting in spool and stream, counted in Postgres."""

import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DRAIN_S = 900.0
_ANSWERED = re.compile(r"^model_predictions_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Look:
    at: float  # time.monotonic()
    ingested: int
    spool_mb: float
    stream: int  # batches


@dataclass(slots=True)
class Backlog:
    """One stack's. `postgres`: a psycopg connection; `redis`: a client of its bus."""

    home: Path
    port: int
    model: str
    postgres: Any
    redis: Any
    _before: tuple[int, int] = field(default=(0, 0), init=False)  # (answered, in Postgres) before the first request

    @classmethod
    @contextmanager
    def of(cls, home: Path, port: int, model: str) -> "Iterator[Backlog]":
        import psycopg
        import redis

        from control_plane.embedded import layout, stack

        places = layout.of(home)
        dsn = f"host={places.postgres_sockets} user=postgres dbname=mlcp"
        bus = redis.Redis(unix_socket_path=str(stack.redis_socket(places)))
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield cls(home, port, model, connection, bus)
        bus.close()

    def forget(self) -> None:
        """Empty the log of earlier runs, so that every round starts alike, and count from here."""
        before = -1
        while (now := self.look().stream + self.ingested()) != before:  # what came before is on its way
            before = now
            time.sleep(1.0)
        self.postgres.execute("TRUNCATE predictions, windows")
        self._before = (self.answered(), self.rows())

    def answered(self) -> int:
        """Predictions the router has answered and recorded so far, all of its workers together."""
        time.sleep(0.5)  # workers bring their counts to the shared files four times a second
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            return counted(answer.read().decode(), self.model)

    def ingested(self) -> int:
        """Records in Postgres, by the hourly windows that are folded in the same transaction. Cheap."""
        return int(self.postgres.execute("SELECT coalesce(sum(requests), 0) FROM windows").fetchone()[0])

    def rows(self) -> int:
        """Records in Postgres, counted one by one. Slow."""
        return int(self.postgres.execute("SELECT count(*) FROM predictions").fetchone()[0])

    def look(self) -> Look:
        return Look(time.monotonic(), self.ingested(), self._spool_mb(), int(self.redis.xlen("mlcp:records")))

    def owed(self) -> int:
        """Answered and not yet in Postgres."""
        return self.answered() - self._before[0] - self.ingested()

    def drain(self) -> float:
        """Seconds until everything answered is in Postgres. RuntimeError if it never is."""
        began = time.monotonic()
        answered = self.answered() - self._before[0]
        while (missing := answered - self.ingested()) > 0:
            if time.monotonic() - began > _DRAIN_S:
                raise RuntimeError(f"{missing} of {answered} predictions are not in Postgres after {_DRAIN_S:.0f} s")
            time.sleep(0.25)
        return time.monotonic() - began

    def complete(self) -> tuple[int, int]:
        """(answered, rows in Postgres) since `forget`; equal when nothing was lost or doubled."""
        return self.answered() - self._before[0], self.rows() - self._before[1]

    def _spool_mb(self) -> float:
        total = 0
        for path in (self.home / "spool").glob("*/*.seg"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total / 1e6


class Watch:
    """Looks once a second while the block runs."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self.looks: list[Look] = []

    def __enter__(self) -> "Watch":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self.looks.append(self._backlog.look())

    @property
    def spool_mb(self) -> float:
        """The most there was."""
        return max((look.spool_mb for look in self.looks), default=0.0)


def counted(metrics: str, model: str) -> int:
    """Predictions of `model` in a Prometheus exposition, whatever became of them."""
    total = 0.0
    for labels, value in _ANSWERED.findall(metrics):
        if f'model_name="{model}"' in labels:
            total += float(value)
    return round(total)


def lag_s(answered: Sequence[tuple[float, int]], ingested: int, at: float) -> float:
    """Age of the oldest answer that is not in Postgres at the moment `at`.

    `answered`: (moment, answers so far), rising; between two of them the count is taken to rise evenly. Zero when
    everything is there.
    """
    if not answered or ingested >= answered[-1][1]:
        return 0.0
    before = (answered[0][0], 0)
    for moment, count in answered:
        if count > ingested:
            span = count - before[1]
            share = (ingested - before[1]) / span if span else 1.0
            return max(0.0, at - (before[0] + share * (moment - before[0])))
        before = (moment, count)
    return 0.0
