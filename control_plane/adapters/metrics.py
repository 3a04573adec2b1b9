"""Prometheus, in this one module of the control plane: metrics kept in files that all processes of a host share.

A process writes under a fixed name (`router-8080-0`, `ingester`), not under its pid: a restarted one goes on counting
where the last one stopped, and the number of files stays bounded.
"""

import asyncio
import json
import math
import os
import struct
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar, cast
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server, values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from control_plane import telemetry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Family = Metric  # one metric with all its series
Level = Gauge  # one that is set to what it is now
LATENCY_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
HEARTBEAT_S: Final = 5.0
_RESERVED_BYTES = 128 * 1024  # per file; enough for a thousand time series
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Metrics:
    """The metrics of this process, kept in `folder` under `identity`. One per process, made before any metric."""

    def __init__(self, folder: Path, identity: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        try:
            for kind in ("counter", "histogram", "gauge_mostrecent"):
                _reserve(folder / f"{kind}_{identity}.db")
            values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
        except OSError as exc:  # a full disk: count in memory, where only this process sees it
            _log.error("metrics.not_shared", folder=str(folder), error=str(exc))
            values.ValueClass = values.MutexValue
        self._folder, self._identity = folder, identity
        self._registry = CollectorRegistry()

    def counter(self, name: str, what: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def histogram(self, name: str, what: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, what, labels, buckets=LATENCY_BUCKETS_S, registry=self._registry)

    def gauge(self, name: str, what: str, labels: Sequence[str] = ()) -> Gauge:
        """Of several processes that set the same labels the last one counts."""
        return Gauge(name, what, labels, registry=self._registry, multiprocess_mode="mostrecent")

    def board(self, name: str, what: str, labels: Sequence[str], *, gone: float = math.nan) -> "Board":
        """A gauge whose series come and go; those a predecessor of this process has shown are known to it."""
        before = set[tuple[str, ...]]()
        for key in _series(self._folder / f"gauge_mostrecent_{self._identity}.db"):
            found = cast("tuple[str, str, dict[str, str]]", tuple(json.loads(key)[:3]))
            if found[0] == name and found[2].keys() == set(labels):
                before.add(tuple(found[2][label] for label in labels))
        return Board(self.gauge(name, what, labels), before, gone=gone)

    def render(self) -> bytes:
        """Every metric of every process that writes to the folder, in Prometheus' text format."""
        return generate_latest(self._everything())

    def families(self) -> list[Family]:
        """The same as data."""
        return list(self._everything().collect())

    @asynccontextmanager
    async def alive(self, process: str, host: str = "", port: int | None = None) -> AsyncGenerator[None]:
        """Say every few seconds that `process` lives and its event loop turns; with a port, answer scrapes there.

        A port that is taken is logged: the process has other work.
        """
        mine = self.gauge(telemetry.Metric.HEARTBEAT, "When it last said that it lives, in Unix time.", ("process",))
        beating = asyncio.create_task(_beat(mine.labels(process)))
        listening: tuple[WSGIServer, Thread] | None = None
        if port is not None:
            try:
                listening = start_http_server(port, host, self._everything())
            except OSError as exc:
                _log.error("metrics.no_port", host=host, port=port, error=str(exc), change="MLCP_METRICS_PORT")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            if listening is not None:
                listening[0].shutdown()
                listening[0].server_close()

    def _everything(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        return registry


Labels = TypeVar("Labels", bound=tuple[str, ...])  # the values, in the order of their names


class Board:
    """A gauge whose series come and go. A series cannot be taken back, but it can say that it is over: `gone`."""

    def __init__(self, gauge: Gauge, shown: set[tuple[str, ...]], *, gone: float) -> None:
        self._gauge, self._gone, self._shown = gauge, gone, shown

    def show(self, known: Mapping[Labels, float]) -> None:
        """Set every series of `known`; those shown before and not known any more are `gone`."""
        now = set[tuple[str, ...]](known)
        for labels in self._shown - now:
            self._gauge.labels(*labels).set(self._gone)
        for labels, value in known.items():
            self._gauge.labels(*labels).set(value)
        self._shown = now


class Tally:
    """A counter of the hot path: counts in memory, `flush` brings it to the shared file. A fifth of the cost."""

    __slots__ = ("_counter", "_n")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._n = 0

    def inc(self) -> None:
        self._n += 1

    def flush(self) -> None:
        n, self._n = self._n, 0
        if n:
            self._counter.inc(n)


class Timings:
    """A histogram of the hot path; see Tally."""

    __slots__ = ("_before", "_counts", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self._sum = 0.0
        self._before = (0, 0.0)  # brought to the file

    @property
    def total(self) -> tuple[int, float]:
        """How many observations this process made in all, and their sum."""
        return self._before[0] + sum(self._counts), self._before[1] + self._sum

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def flush(self) -> None:
        # The library has no call for many observations at once; a test holds this equal to its own `observe`.
        self._before = self.total
        if self._sum:
            self._histogram._sum.inc(self._sum)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
            self._sum = 0.0
        buckets = cast("list[Counter]", self._histogram._buckets)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        for index, count in enumerate(self._counts):
            if count:
                buckets[index].inc(count)
                self._counts[index] = 0


async def _beat(gauge: Gauge) -> None:
    while True:
        gauge.set(time.time())
        await asyncio.sleep(HEARTBEAT_S)


def _series(path: Path) -> list[str]:
    """Keys of every series in a file: [metric, sample, labels, help] as JSON. Of a file not to be read: none."""
    try:
        found = cast("Any", MmapedDict).read_all_values_from_file(str(path))
        return [str(key) for key, *_ in found]
    except (OSError, ValueError, struct.error):
        return []


def _reserve(path: Path) -> None:
    """Give the file its blocks now: writing to a hole of a mapped file on a full disk kills the process (SIGBUS)."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _RESERVED_BYTES)
    except OSError:
        if os.fstat(descriptor).st_size == 0:
            path.unlink()  # nobody could read an empty one
        raise
    finally:
        os.close(descriptor)
