"""Minutes of steady traffic: memory stays flat and the log is complete.

MLCP_SOAK_S sets how long (seconds; ten minutes), MLCP_SOAK_RPS how many requests a second are asked for (2,000).
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import linear_regression

import pytest

from tests.support.data_plane import children
from tests.support.load import Load
from tests.support.stack import Stack
from tests.support.stored import all_there, rows_of

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(3600)]
MODEL = "fraud"
DURATION_S = float(os.environ.get("MLCP_SOAK_S", "600"))
RATE = float(os.environ.get("MLCP_SOAK_RPS", "2000"))
WARM_UP = 0.25  # of the time: pools, caches and allocators fill
PROCESSES = ("router", f"{MODEL}-", "shipper", "ingester")
EVERY_S = 2.0


def pss_mb(pid: int) -> float:
    """Memory of a process, its share of what it shares included, MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss of {pid}")


def members(stack: Stack) -> Iterator[tuple[str, int]]:
    for name in PROCESSES:
        parent = stack.process(name)["pid"]
        yield name, parent
        yield from ((f"{name} worker {number}", pid) for number, pid in enumerate(children(parent)))


def growth_mb(samples: Sequence[tuple[float, float]]) -> float:
    """What the line through the samples after the warm-up gains over the whole time."""
    first, last = samples[0][0], samples[-1][0]
    kept = [sample for sample in samples if sample[0] >= first + WARM_UP * (last - first)]
    slope, _ = linear_regression([at for at, _ in kept], [mb for _, mb in kept])
    return slope * (last - first)


def test_memory_stays_flat_and_the_log_is_complete(
    stack: Stack, dsn: str, record_property: Callable[[str, object], None]
) -> None:
    before = rows_of(dsn, MODEL)[0]
    followed = dict(members(stack))
    memory: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    load = Load(stack.url("ROUTER"), stack.key("predictor"), MODEL, stack.example(MODEL), RATE, connections=64)
    with load as traffic:
        end = time.monotonic() + DURATION_S
        while (now := time.monotonic()) < end:
            for name, pid in followed.items():
                memory[name].append((now, pss_mb(pid)))
            time.sleep(EVERY_S)
    growth = {name: round(growth_mb(samples), 1) for name, samples in memory.items()}
    record_property("answers", dict(traffic.statuses))
    record_property("missed", traffic.missed)
    record_property("pss_mb", {name: round(samples[-1][1], 1) for name, samples in memory.items()})
    record_property("growth_mb", growth)
    assert dict(members(stack)) == followed, "nobody was restarted"
    assert set(traffic.statuses) <= {200, 503}, "answered, or shed where the machine cannot keep up"
    assert traffic.statuses[503] <= traffic.answered / 100
    assert not traffic.unlogged
    all_there(dsn, MODEL, traffic.acknowledged)
    assert rows_of(dsn, MODEL)[0] - before == traffic.answered, "one record per request"
    assert max(growth.values()) < 8, growth
