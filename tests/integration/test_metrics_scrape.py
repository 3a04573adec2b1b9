"""A scrape is the sum over all workers, whoever answers it, and a restart neither loses nor doubles anything."""

import os
import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.support import model_server, native_artifacts
from tests.support.data_plane import KEY, children, document, router_process, save, target
from tests.support.model_server import CHURN, ROW
from tests.support.processes import wait_until

pytestmark = pytest.mark.integration


def asked(url: str, number: int) -> None:
    """Each on a connection of its own, so that every worker gets some."""
    for n in range(number):
        body = {"features": ROW, "unit_id": f"u{n}"}
        answer = httpx.post(f"{url}/ml/churn/predict", json=body, headers={"authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200, answer.text


def scraped(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {
        series: float(value)
        for series, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


async def test_a_scrape_is_the_sum_over_workers_through_restarts_of_any_of_them(home: Path, tmp_path: Path) -> None:
    artifact = native_artifacts.linear_binary(tmp_path / "artifact")
    folder = home / "run" / "metrics"
    with model_server.serving(artifact, CHURN, workers=2, metrics_dir=str(folder)) as served:
        save(home, document(1, target("1", f"unix:{served.socket}", features=tuple(ROW)), deadline_ms=5_000))
        with router_process(home, "unix:///nowhere/redis.sock", workers=2) as (url, parent):
            total = 0

            def all_counted() -> bool:
                found = scraped(url)
                predictions = sum(v for series, v in found.items() if series.startswith("model_predictions_total"))
                timed = found.get('model_prediction_latency_seconds_count{model_name="churn"}')
                inferred = found.get('model_inference_latency_seconds_count{model_name="churn",version="1"}')
                return predictions == timed == inferred == total

            for _ in range(2):
                asked(url, 30)
                total += 30
                wait_until(all_counted, what=f"{total} predictions, timings and inferences")
                assert all(all_counted() for _ in range(4)), "whichever worker is asked"
                for pid in (children(parent)[0], served.workers()[0]):
                    before = len(children(parent)), len(served.workers())
                    os.kill(pid, signal.SIGKILL)
                    wait_until(
                        lambda pid=pid, before=before: (
                            (len(children(parent)), len(served.workers())) == before
                            and pid not in (*children(parent), *served.workers())
                        ),
                        what="a successor",
                    )
                wait_until(all_counted, what="the same figures after the restarts")
            found = scraped(url)
            inside = sum(v for series, v in found.items() if series.startswith("model_inference_latency_seconds_sum"))
            whole = found['model_prediction_latency_seconds_sum{model_name="churn"}']
            assert 0 < inside < whole, "inference is a part of what the router measures"
            holders = r"(counter|histogram|gauge_\w+)_(router-\d+-[01]|model-server-[0-9a-f]{12}-(0|1|aux))\.db"
            strange = [path.name for path in folder.iterdir() if not re.fullmatch(holders, path.name)]
            assert not strange, "files are named after places, of which there are few, not after processes"
