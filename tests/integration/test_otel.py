"""Traces and metrics by OTLP: client, router and model server in one trace, read by a collector in this process."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.support import model_server, native_artifacts, tensors
from tests.support.collector import Collector, collecting
from tests.support.data_plane import client, document, router, save, target, worker
from tests.support.fake_model_server import FakeModelServer
from tests.support.fake_model_server import serving as faking
from tests.support.model_server import CHURN, ROW
from tests.support.processes import free_port, running, wait_until

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        yield collector


async def test_a_callers_trace_goes_through_router_and_model_server_and_metrics_follow(
    home: Path, tmp_path: Path, collector: Collector
) -> None:
    artifact = native_artifacts.linear_binary(tmp_path / "artifact")
    with model_server.serving(artifact, CHURN, workers=1) as served:
        save(home, document(1, target("1", f"unix:{served.socket}", features=tuple(ROW)), deadline_ms=5_000))
        with router(home, NOWHERE, workers=2) as url:
            async with client(url) as product:
                body = {"features": ROW, "unit_id": "customer-1", "request_id": "r-1"}
                traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
                answer = await product.post("/ml/churn/predict", json=body, headers=traced)
                refused = await product.post(
                    "/ml/churn/predict", json={"features": ROW | {"tenure": "x"}}, headers=traced
                )
                for silent in ({}, {"traceparent": f"00-{TRACE[::-1]}-{PARENT}-00"}, {"traceparent": "nonsense"}):
                    assert (await product.post("/ml/churn/predict", json=body, headers=silent)).status_code == 200
                assert (answer.status_code, refused.status_code) == (200, 422)
                wait_until(lambda: len(collector.spans) >= 4, what="both spans of both requests")
                labels = {"model_name": "churn", "status": "ok", "variant": "stable", "version": "1"}
                counted = tuple(sorted(labels.items()))
                wait_until(
                    lambda: collector.metrics.get("model_predictions_total", {}).get(counted) == 4,
                    what="the predictions of both workers in the metrics",
                )
    assert {span.trace_id for span in collector.spans} == {TRACE}, "neither unsampled nor untraced requests"
    first, second = collector.of("mlcp-router")
    assert (first.name, first.parent_id, first.error) == ("predict churn", PARENT, False)
    assert first.attributes["mlcp.prediction_id"] == answer.json()["prediction_id"]
    assert (first.attributes["mlcp.served_version"], first.attributes["mlcp.request_id"]) == ("1", "r-1")
    assert second.attributes["http.response.status_code"] == 422
    assert "customer-1" not in str(collector.spans), "no span names a customer"
    inner = collector.of("mlcp-model-server")
    assert [span.parent_id for span in inner] == [first.span_id, second.span_id]
    assert [span.attributes["http.response.status_code"] for span in inner] == [200, 422]
    bounds, counts, total = collector.histograms["model_prediction_latency_seconds"]
    assert (len(counts), sum(counts)) == (len(bounds) + 1, 4)
    assert total > 0


async def test_each_row_of_tensors_is_traced_and_so_are_tensors_a_model_server_gets(
    home: Path, tmp_path: Path, collector: Collector
) -> None:
    artifact = native_artifacts.linear_binary(tmp_path / "artifact")
    content, headers = tensors.body(
        [
            tensors.tensor("tenure", "FP64", [3.5, 60.0]),
            tensors.tensor("contract", "BYTES", ["month", "year"]),
            tensors.tensor("senior", "BOOL", [False, True]),
        ],
        binary=True,
    )
    sent = {**headers, "traceparent": f"00-{TRACE}-{PARENT}-01"}
    with model_server.serving(artifact, CHURN, workers=1) as served:
        with served.client() as own:
            described = own.get("/schema").content
            direct = own.post("/v2/models/churn/infer", content=content, headers=sent)
        shown = target("1", f"unix:{served.socket}", features=tuple(ROW), schema=msgspec.Raw(described))
        save(home, document(1, shown, deadline_ms=5_000))
        async with worker(home, NOWHERE) as url, client(url) as product:
            routed = await product.post("/v2/models/churn/infer", content=content, headers=sent)
        wait_until(lambda: len(collector.spans) >= 5, what="a span of the request, two of its rows twice")
    assert tensors.outputs(direct)["probability"] == tensors.outputs(routed)["probability"]
    rows = collector.of("mlcp-router")
    assert [(span.name, span.parent_id) for span in rows] == [("predict churn", PARENT)] * 2
    inner = {span.parent_id for span in collector.of("mlcp-model-server")}
    assert inner == {PARENT, *(span.span_id for span in rows)}


async def test_every_request_is_traced_where_that_is_asked_for_and_a_fallback_is_said(
    home: Path, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    old, new = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
    one, two = target("1", old.address), target("2", new.address)
    save(home, document(1, one, two, arms={"candidate": (10_000, two), "stable": (0, one)}))
    new.mode = "fail"
    async with faking(old, new), worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/ml/churn/predict", json={"features": {"a": 1}, "unit_id": "u"})
        assert answer.status_code == 200
    (span,) = collector.spans
    assert span.attributes["mlcp.fallback_reason"] == "error"
    assert span.attributes["mlcp.assigned_version"] == "2"
    assert span.attributes["mlcp.served_version"] == "1"
    assert span.parent_id == ""
    sent = [head["traceparent"] for head in (*new.heads, *old.heads)]
    assert sent == [f"00-{span.trace_id}-{span.span_id}-01"] * 2


def test_the_api_traces_too_and_names_the_trace_in_its_log(
    collector: Collector, dsn: str, home: Path, tmp_path: Path
) -> None:
    port, ready, log = free_port(), tmp_path / "ready", tmp_path / "log"
    env = {"MLCP_POSTGRES_DSN": dsn, "MLCP_API_PORT": str(port), "MLCP_READY_FILE": str(ready), "MLCP_HOME": str(home)}
    with running([sys.executable, "-m", "control_plane.api"], log=log, env=env):
        wait_until(ready.exists, what="the API")
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-7"}
        assert httpx.get(f"http://127.0.0.1:{port}/health", headers=headers).status_code == 200
        wait_until(lambda: collector.of("mlcp-api"), what="the span")
    (span,) = collector.of("mlcp-api")
    assert (span.name, span.parent_id, span.trace_id) == ("GET", PARENT, TRACE)
    assert (span.attributes["url.path"], span.attributes["mlcp.request_id"]) == ("/health", "r-7")
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["request_id"], line["trace_id"], line["process"]) == ("r-7", TRACE, "api")


async def test_off_is_off(home: Path, tmp_path: Path) -> None:
    server = FakeModelServer(tmp_path / "1.sock")
    save(home, document(1, target("1", server.address)))
    async with faking(server), worker(home, NOWHERE) as url, client(url) as product:
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert (await product.post("/ml/churn/predict", json={"features": {}}, headers=sent)).status_code == 200
    assert "traceparent" not in server.heads[0]
