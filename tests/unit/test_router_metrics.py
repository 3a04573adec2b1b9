import re
import time
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.metrics import LATENCY_BUCKETS_S, Metrics, Tally, Timings
from tests.support.processes import free_port


def samples(metrics: Metrics, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"^{name}\S* (\S+)$", metrics.render().decode(), re.MULTILINE)]


def test_what_is_counted_in_memory_equals_what_the_library_counts(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "one")
    ours, theirs = metrics.histogram("ours", "x"), metrics.histogram("theirs", "x")
    timings = Timings(ours)
    for seconds in (0.0, 1e-5, *LATENCY_BUCKETS_S, 0.003, 0.7, 99.0):
        timings.observe(seconds)
        theirs.observe(seconds)
    timings.flush()
    timings.flush()
    assert samples(metrics, "ours") == pytest.approx(samples(metrics, "theirs"))
    tally = Tally(metrics.counter("things", "x"))
    tally.inc()
    tally.inc()
    tally.flush()
    tally.flush()
    assert samples(metrics, "things_total") == [2.0]


def test_a_restarted_process_goes_on_counting_and_all_processes_are_rendered(tmp_path: Path) -> None:
    for _ in range(2):
        Metrics(tmp_path, "router-0").counter("things", "x").inc()
    other = Metrics(tmp_path, "router-1")
    other.counter("things", "x").inc()
    assert samples(other, "things_total") == [3.0]


def test_without_room_for_shared_files_a_process_counts_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    metrics = Metrics(tmp_path, "one")
    metrics.counter("things", "x").inc()
    metrics.render()


def test_what_is_no_longer_so_says_so_even_after_a_restart(tmp_path: Path) -> None:
    labels = ("model_name", "version")
    first = Metrics(tmp_path, "worker").board("production_info", "x", labels, gone=0)
    first.show({("churn", "1"): 1.0, ("fraud", "1"): 1.0})
    first.show({("churn", "1"): 1.0})
    metrics = Metrics(tmp_path, "worker")
    metrics.board("production_info", "x", labels, gone=0).show({("churn", "2"): 1.0})
    found = metrics.render().decode()
    for model, version, value in (("churn", "1", 0.0), ("churn", "2", 1.0), ("fraud", "1", 0.0)):
        assert f'production_info{{model_name="{model}",version="{version}"}} {value}' in found


async def test_a_process_says_that_it_lives_and_answers_scrapes_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    metrics = Metrics(tmp_path, "worker")
    async with metrics.alive("worker", "127.0.0.1", port), httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        other = Metrics(tmp_path, "other")
        async with other.alive("other", "127.0.0.1", port):
            """A port that is taken costs nobody its work."""
    said = re.search(r'mlcp_process_heartbeat_timestamp_seconds{process="worker"} (\S+)', text)
    assert said is not None
    assert abs(float(said[1]) - time.time()) < 60
