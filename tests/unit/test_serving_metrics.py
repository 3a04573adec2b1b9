"""What a model server counts in memory arrives in its files as if the library had counted it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import values

from model_servers.runtime.metrics import FLUSH_S, Metrics

SECONDS = (0.0, 1e-5, 0.0001, 0.00011, 0.003, 0.7, 2.5, 99.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    before = values.ValueClass
    yield tmp_path
    values.ValueClass = before


def figures(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if not line.startswith("#")]
    return {re.sub(r'version="[ab]"', "", series): float(value) for series, _, value in map(_parted, lines)}


def _parted(line: str) -> tuple[str, str, str]:
    return line.rpartition(" ")


def test_rows_counted_together_are_what_the_library_counts_one_by_one(folder: Path) -> None:
    ours, theirs = Metrics("churn", "a", "one"), Metrics("churn", "b", "two")
    for number, seconds in enumerate(SECONDS):
        ours.observe(seconds, number + 1)
        for _ in range(number + 1):
            theirs._inference.observe(seconds)
    found, expected = figures(ours), figures(theirs)
    assert found == pytest.approx(expected)
    assert next(value for series, value in found.items() if "_count" in series) == 36


def test_a_burst_is_brought_to_the_files_once_later_or_at_a_scrape_and_nothing_twice(folder: Path) -> None:
    due = list[tuple[float, Callable[[], None]]]()
    busy = Metrics("churn", "a", "one", later=lambda seconds, call: due.append((seconds, call)))
    other = Metrics("churn", "a", "two")

    def counted(metrics: Metrics) -> tuple[float, float]:
        found = figures(metrics)
        return tuple(sum(v for s, v in found.items() if name in s) for name in ("latency_seconds_count", "_warnings_"))

    for _ in range(1_000):
        busy.observe(0.001, 3)
        busy.warn("tenure", "unseen")
    assert [seconds for seconds, _ in due] == [FLUSH_S]
    assert counted(other) == (0, 0)
    due.pop()[1]()
    assert counted(other) == (3_000, 1_000)
    busy.observe(0.001, 1)
    assert len(due) == 1, "the next burst is brought by another call"
    assert counted(busy) == counted(other) == (3_001, 1_000), "a scrape brings what it is to show"
    due.pop()[1]()
    busy.flush()
    assert counted(other) == (3_001, 1_000)
