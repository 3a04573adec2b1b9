"""A real model server on its sockets: what it answers, and how it refuses what it cannot."""

import asyncio
import json
import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from model_servers import native
from tests.support import native_artifacts
from tests.support.model_server import CHURN, ROW, ModelServer, serving
from tests.support.processes import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    native_artifacts.linear_binary(folder / "artifacts" / "native")
    (folder / "artifacts" / "native" / "example.json").write_text(json.dumps({"features": ROW}))
    return folder


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[ModelServer]:
    with serving(artifact, CHURN) as running:
        yield running


@pytest.fixture
def client(server: ModelServer) -> Iterator[httpx.Client]:
    with server.client() as http:
        yield http


@pytest.fixture
def aux(server: ModelServer) -> Iterator[httpx.Client]:
    with server.client(aux=True) as http:
        yield http


def body(**changes: Any) -> bytes:
    return json.dumps({"features": ROW | changes, "unit_id": "u-1"}).encode()


def raw_exchange(server: ModelServer, data: bytes, *, answers: int = 1) -> bytes:
    """Bytes in, bytes out, until so many answers or the end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(server.socket)
        connection.sendall(data)
        seen = b""
        while seen.count(b"HTTP/1.1 ") < answers or not seen.endswith((b"}", b"]")):
            if not (piece := connection.recv(65_536)):
                break
            seen += piece
        return seen


def test_an_answer_has_probability_decision_threshold_and_reasons(client: httpx.Client, artifact: Path) -> None:
    answer = client.post("/predict", content=body()).json()
    model = native.load(artifact / "artifacts" / "native")
    (expected,) = model.predict([(3.5, "month", False)]).tolist()
    assert answer["output"] == {"probability": expected}
    assert (answer["decision"], answer["threshold"]) == ("call" if expected >= 0.4 else "keep", 0.4)
    assert answer["reasons"][0] in {"tenure is 3.5 (raises the score)", "contract is month (raises the score)"}


def test_the_threshold_of_model_yaml_wins_over_the_artifacts(artifact: Path) -> None:
    strict = CHURN | {
        "decision": {"threshold": 0.999, "positive": "call", "negative": "keep"},
        "serving": {"explain": "none"},
    }
    with serving(artifact, strict, workers=1, aux_socket=None) as running, running.client() as http:
        answer = http.post("/predict", content=body()).json()
    assert (answer["decision"], answer["threshold"]) == ("keep", 0.999)
    assert "reasons" not in answer


@pytest.mark.parametrize(
    ("content", "status", "reasons"),
    [
        (b"", 400, 1),
        (b"{", 400, 1),
        (b"\xff\xff", 400, 1),
        (b'{"features": {"tenure": 1,}}', 400, 1),
        (b'{"features":' + b"[" * 60_000 + b"]" * 60_000 + b"}", 400, 1),
        (b"[]", 422, 1),
        (b"{}", 422, 1),
        (b'{"features": {}}', 422, 3),
        (b'{"features": {"tenure": NaN, "contract": Infinity, "senior": -Infinity}}', 422, 3),
        (body(tenure="x", contract=1, senior="no", extra=1), 422, 4),
        (body(senior=None), 422, 1),
        (body(tenure=[1]), 422, 1),
        (body(tenure={"a": 1}), 422, 1),
        (body().replace(b"3.5", b"1e999"), 422, 1),
        (body().replace(b'"senior"', b'"tenure": 9, "senior"'), 422, 1),
    ],
)
def test_bad_input_is_a_problem_document_with_every_reason(
    client: httpx.Client, content: bytes, status: int, reasons: int
) -> None:
    answer = client.post("/predict", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["status"] == status
    assert len(problem["reasons"]) == reasons
    assert problem["type"].startswith("https://")


def test_twenty_megabytes_are_refused_and_the_answer_arrives(client: httpx.Client) -> None:
    answer = client.post("/predict", content=b'{"features": {"tenure": "' + b"x" * 20_000_000 + b'"}}')
    assert answer.status_code == 413
    assert client.post("/predict", content=body()).status_code == 200


def test_a_chunked_body_is_read_and_its_size_is_limited_too(client: httpx.Client) -> None:
    def pieces(data: bytes, size: int) -> Iterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    assert client.post("/predict", content=pieces(body(), 7)).status_code == 200
    assert client.post("/predict", content=pieces(b" " * 3_000_000, 65_536)).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("DELETE", "/ready", 405),
        ("POST", "/nothing", 404),
        ("GET", "/", 404),
        ("PUT", "/predict", 405),
    ],
)
def test_a_wrong_method_or_path_is_a_problem_document(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, content=b"{}")
    assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_features_of_siblings_are_ignored_only_when_the_router_says_so(client: httpx.Client) -> None:
    assert (
        client.post("/predict", content=body(colour=1), headers={"x-mlcp-siblings": "colour,size"}).status_code == 200
    )
    assert client.post("/predict", content=body(colour=1)).json()["reasons"] == ["features.colour: unknown"]


def test_ready_live_and_schema_say_what_is_served(client: httpx.Client, aux: httpx.Client, server: ModelServer) -> None:
    for http in (client, aux):
        assert http.get("/ready").json() == {key: server.spec[key] for key in ("model", "version", "digest")}
        assert http.get("/live").status_code == 200
    told = client.get("/schema").json()
    assert told["features"] == list(CHURN["features"])
    assert told["example"] == {"features": ROW}
    assert told["problem_words"] == {"positive": "call", "negative": "keep"}
    assert told["request_schema"]["properties"]["features"]["required"] == list(ROW)
    assert client.post("/predict", json=told["example"]).status_code == 200


def test_unseen_and_out_of_range_values_are_served_and_counted_over_all_workers(server: ModelServer) -> None:
    for _ in range(6):
        with server.client() as http:  # another connection, perhaps another worker
            assert http.post("/predict", content=body(tenure=1_000, contract="decade")).status_code == 200
    labels = 'model_name="churn",version="1"'

    def counted() -> bool:
        with server.client() as http:
            metrics = http.get("/metrics").text
        (count,) = (line for line in metrics.splitlines() if line.startswith("model_inference_latency_seconds_count"))
        return float(count.split()[-1]) >= 6 and all(
            f"model_input_warnings_total{{{warning},{labels}}} 6.0" in metrics
            for warning in ('feature="tenure",kind="out_of_range"', 'feature="contract",kind="unseen"')
        )

    wait_until(counted, what="the warnings of every worker")


def test_explanations_add_up_to_the_score_in_the_stated_space(aux: httpx.Client) -> None:
    answer = aux.post("/explain", content=body()).json()
    told = answer["explanation"]
    assert told["space"] == "margin"
    raw = 1 / (1 + math.exp(-(told["base"] + sum(told["contributions"].values()))))
    assert answer["output"]["probability"] == pytest.approx(float(np.interp(raw, [0, 0.5, 1], [0, 0.4, 1])))
    assert list(told["contributions"]) == list(ROW)
    assert aux.post("/explain", content=b"{}").status_code == 422


def test_a_batch_gets_the_answers_its_rows_get_one_by_one(client: httpx.Client, aux: httpx.Client) -> None:
    rows = [ROW | {"tenure": i / 10, "senior": i % 3 == 0} for i in range(1_500)]
    batch = aux.post("/batch_predict", json={"rows": rows}).json()
    assert (batch["model"], batch["version"], len(batch["predictions"])) == ("churn", "1", 1_500)
    for i in (0, 511, 512, 1_024, 1_499):
        assert batch["predictions"][i] == client.post("/predict", json={"features": rows[i]}).json()
    assert aux.post("/batch_predict", json={"rows": []}).json()["predictions"] == []


def test_one_bad_row_refuses_the_batch_and_every_bad_row_is_named(aux: httpx.Client) -> None:
    rows = [ROW, ROW | {"tenure": "x"}, ROW, {"tenure": 1}]
    answer = aux.post("/batch_predict", json={"rows": rows})
    assert answer.status_code == 422
    assert answer.json()["reasons"] == [
        'rows[1].tenure: expected a number or null, got "x"',
        "rows[3].contract: missing",
        "rows[3].senior: missing",
    ]
    assert aux.post("/batch_predict", content=b"{").status_code == 400
    assert aux.post("/batch_predict", json=[ROW]).status_code == 422


async def test_every_caller_gets_the_answer_to_its_own_row(server: ModelServer, artifact: Path) -> None:
    rows = [(i / 7, "month" if i % 2 else "year", i % 3 == 0) for i in range(600)]
    expected = native.load(artifact / "artifacts" / "native").predict(rows).tolist()
    async with server.async_client() as http:
        limit = asyncio.Semaphore(64)

        async def ask(row: tuple[float, str, bool]) -> float:
            async with limit:
                answer = await http.post("/predict", json={"features": dict(zip(ROW, row, strict=True))})
                return float(answer.json()["output"]["probability"])

        got = await asyncio.gather(*(ask(row) for row in rows))
    assert got == pytest.approx(expected, abs=1e-12)
    assert len(set(got)) > 300


def test_pipelined_requests_are_answered_in_order(server: ModelServer) -> None:
    one = body(tenure=1)
    other = body(tenure=99)
    head = b"POST /predict HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n"
    seen = raw_exchange(server, (head % len(one) + one + head % len(other) + other) * 3, answers=6)
    scores = [json.loads(part.split(b"\r\n\r\n")[1])["output"]["probability"] for part in seen.split(b"HTTP/1.1 ")[1:]]
    assert len(scores) == 6
    assert scores[0] > scores[1]
    assert scores == scores[:2] * 3


def test_a_request_in_single_bytes_is_a_request(server: ModelServer) -> None:
    data = b"POST /predict HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n%b" % (len(body()), body())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(server.socket)
        for i in range(len(data)):
            connection.sendall(data[i : i + 1])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"POST /predict\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        (b"GET /ready HTTP/1.1\r\nx: " + b"y" * 100_000, 431),
        (b"GET /ready HTTP/1.0\r\n\r\n", 200),
        (b"GET /ready HTTP/1.1\r\nconnection: close\r\n\r\n", 200),
        (b"GET /ready HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 200),
        (b"POST /predict HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}", 100),
    ],
)
def test_what_is_hardly_http_gets_an_answer_and_harms_nobody(
    server: ModelServer, client: httpx.Client, data: bytes, status: int
) -> None:
    assert raw_exchange(server, data).startswith(b"HTTP/1.1 %d " % status)
    assert client.get("/live").status_code == 200


def test_no_feature_value_reaches_the_log(server: ModelServer, client: httpx.Client) -> None:
    client.post("/predict", content=body(contract="SECRET-VALUE"))
    client.post("/predict", content=body(tenure="SECRET-VALUE"))
    assert "SECRET-VALUE" not in server.log.read_text()


def test_a_native_server_imports_no_frames_and_its_workers_stay_small(server: ModelServer) -> None:
    for pid in server.workers():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert not any(f"/{library}/" in maps for library in ("pandas", "sklearn", "mlflow", "pyarrow"))
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        (pss,) = (int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        assert pss < 60_000  # kB
