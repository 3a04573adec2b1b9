"""One system, running: what is measured on it, and what it used meanwhile."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.serving import fixed, load, sustained, systems
from benchmarks.serving.backlog import Watch
from benchmarks.serving.fixed import Fixed
from benchmarks.serving.load import Measured
from benchmarks.serving.ours import OurRunning
from benchmarks.serving.systems import Running

WARM_S = 3.0
OPEN_CONNECTIONS = 64
OPEN_TRIES = 3
_BATCH_ROWS = 20_000
Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """The generators, and how long a run is."""

    wrk: Path
    open_loop: Path
    seconds: float
    connections: Sequence[int]
    hold_s: float  # of the sustained rate; 0: not searched for
    probe_s: float  # of each probe for it
    rate: float | None = None  # held without a search


def check(running: Running, model: Fixed) -> None:
    """Every body once. RuntimeError unless the answers are the model's own."""
    bodies = running.target.bodies.read_bytes().splitlines()
    got = [running.read(systems.ask(running.target, body)) for body in bodies]
    if wrong := fixed.differs(model.probabilities, got):
        raise RuntimeError(wrong)


def wait_for_quiet(limit: float, patience_s: float = 60.0) -> float:
    """Until the machine is idle but for `limit` of its CPU time; returns the last share seen, idle enough or not."""
    end = time.monotonic() + patience_s
    while (share := measure.busy_share(2.0)) > limit and time.monotonic() < end:
        continue
    return round(share, 3)


def quick(bench: Bench, running: Running, seconds: float) -> float:
    """Requests per second at 16 connections, to choose between variants."""
    load.closed(bench.wrk, running.target, connections=16, seconds=WARM_S)
    return load.closed(bench.wrk, running.target, connections=16, seconds=seconds).rps


def measured(bench: Bench, running: Running) -> list[Run]:
    """Closed loops at every number of connections, then an open loop at half of the best of them."""
    load.closed(bench.wrk, running.target, connections=16, seconds=WARM_S)
    runs = [_closed(bench, running, count) for count in bench.connections]
    half = max(run["rps"] for run in runs) / 2
    runs.append(_open(bench, running, half))
    if isinstance(running, OurRunning):
        with _batches(running):
            runs.append(_open(bench, running, half, kind="open, batch job"))
        answered, rows = running.backlog().complete()
        runs.append({"kind": "log", "answered": answered, "in_postgres": rows})
    return runs


def hold(bench: Bench, running: OurRunning, peak: float) -> Run:
    """The highest rate that was held with the log at most 5 s behind, or whether a given one was."""
    search = sustained.Search(lambda rate, seconds: _probe(bench, running, rate, seconds))
    found = (
        search.run(peak, bench.hold_s, bench.probe_s) if bench.rate is None else search.tried(bench.rate, bench.hold_s)
    )
    return {"kind": "sustained", **asdict(found), "probes": [asdict(probe) for probe in search.probes]}


def _closed(bench: Bench, running: Running, connections: int) -> Run:
    def work() -> Measured:
        return load.closed(bench.wrk, running.target, connections=connections, seconds=bench.seconds)

    return {"kind": "closed", "connections": connections, **_with_costs(running, work)}


def _open(bench: Bench, running: Running, rate: float, kind: str = "open") -> Run:
    return punctual(lambda: _open_once(bench, running, rate, kind))


def punctual(once: Callable[[], Run]) -> Run:
    """A run in which the generator was on time, or the one of three in which it was late by least.

    Where it may, it goes before everything else: it is late where the machine stood still, as virtual ones do, or the
    kernel finished something first. What the others gave stays in `repeated`.
    """
    runs: list[Run] = []
    for _ in range(OPEN_TRIES):
        runs.append(once())
        if runs[-1]["send_delay_p99_ms"] <= load.PUNCTUAL_MS:
            break
    chosen = min(runs, key=lambda run: run["send_delay_p99_ms"])
    return {**chosen, "repeated": [run for run in runs if run is not chosen]}


def _open_once(bench: Bench, running: Running, rate: float, kind: str) -> Run:
    def work() -> Measured:
        connections = max(OPEN_CONNECTIONS, min(load.MAX_OPEN, round(rate / 50)))
        return load.open_loop(
            bench.open_loop, running.target, rate=rate, seconds=bench.seconds, connections=connections
        )

    return {"kind": kind, "connections": None, **_with_costs(running, work)}


def _with_costs(running: Running, work: Callable[[], Measured]) -> Run:
    """The run's figures, the CPU seconds of every part, its memory, and for ours how far the log was behind.

    Our CPU is counted until everything answered is in Postgres. `foreign_cpu`: share of the machine's capacity that
    neither the system nor the generator used: somebody else's work.
    """
    ours = running.backlog() if isinstance(running, OurRunning) else None
    if ours is not None:
        ours.drain()
    before, machine, own = _cpu(running), measure.machine_s(), _own_cpu()
    began = time.monotonic()
    with Watch(ours) if ours is not None else nullcontext() as watch:
        result = work()
    during, machine_after, own_after = _cpu(running), measure.machine_s(), _own_cpu()
    took = time.monotonic() - began
    busy = machine_after - machine
    foreign = busy - (sum(during.values()) - sum(before.values())) - (own_after - own)
    log: Run = {}
    if ours is not None and watch is not None:
        owed = ours.owed()
        log = {"owed_at_end": owed, "spool_mb": round(watch.spool_mb, 1), "drain_s": round(ours.drain(), 1)}
    after = _cpu(running)
    return {
        **asdict(result),
        "rps": result.rps,
        "cpu_s": {role: round(after[role] - before.get(role, 0.0), 3) for role in after},
        "pss_mb": {role: round(measure.pss_mb(pids)) for role, pids in running.roles().items()},
        "foreign_cpu": round(max(0.0, foreign) / (took * (os.cpu_count() or 1)), 3),
        **log,
    }


def _cpu(running: Running) -> Mapping[str, float]:
    return {role: measure.cpu_s(pids) for role, pids in running.roles().items()}


def _own_cpu() -> float:
    """Of this process and the generators it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _probe(bench: Bench, running: OurRunning, rate: float, seconds: float) -> sustained.Probe:
    backlog = running.backlog()
    backlog.drain()
    tracker = sustained.Tracker(backlog.ingested)
    result = load.open_loop(bench.open_loop, running.target, rate=rate, seconds=seconds, each_second=tracker.second)
    backlog.drain()
    return tracker.probe(rate, seconds, result)


class _batches:
    """A batch job beside the predictions: 20,000 rows a request, one request after the other, at a low priority."""

    def __init__(self, running: OurRunning) -> None:
        target = running.target
        argv = [sys.executable, "-m", "benchmarks.serving.batch", str(target.port), running.batch]
        argv += [str(_BATCH_ROWS), *target.header_lines]
        self._argv = argv

    def __enter__(self) -> None:
        root = str(Path(__file__).parents[2])
        environ = os.environ | {"PYTHONPATH": root}
        self._process = subprocess.Popen(self._argv, cwd=root, env=environ, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # the first batch has been answered

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)
