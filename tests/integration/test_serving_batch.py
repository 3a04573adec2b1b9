"""Batches: every format in and out, what is wrong with a row said in its place, constant memory."""

import csv
import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from control_plane.errors import InvalidInput
from control_plane.sdk import AsyncPredictionClient, PredictionClient
from tests.support import native_artifacts
from tests.support.data_plane import KEY, document, router, save, target
from tests.support.model_server import CHURN, ModelServer, serving
from tests.support.processes import niceness_of_session

pytestmark = pytest.mark.integration
TYPES = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
ROWS: list[dict[str, Any]] = [
    {
        "tenure": None if i % 7 == 0 else i / 2,
        "contract": ("month", "year", 'ünseen, "so"\nto say')[i % 3],
        "senior": i % 2 == 0,
    }
    for i in range(1_100)  # more than two slices
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    artifact = native_artifacts.linear_binary(tmp_path_factory.mktemp("artifact"))
    config = CHURN | {"serving": {"explain": "none", "batch": True}}
    with serving(artifact, config, workers=1) as running:
        yield running


@pytest.fixture
def aux(server: ModelServer) -> Iterator[httpx.Client]:
    with server.client(aux=True) as http:
        yield http


def content(rows: list[dict[str, Any]], kind: str) -> bytes:
    """The rows as a file, in columns of another order, with one that is no feature."""
    sink = io.BytesIO()
    if kind == "ndjson":
        return "\n".join(json.dumps(row) for row in rows).encode()
    if kind == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["id", "senior", "contract", "tenure"])
        writer.writeheader()
        writer.writerows({"id": i, **row} for i, row in enumerate(rows))
        return text.getvalue().encode()
    table = pa.Table.from_pylist([{"id": i, **row} for i, row in enumerate(rows)])
    table = table.select(["id", "senior", "contract", "tenure"])
    if kind == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table, max_chunksize=700)
    else:
        pq.write_table(table, sink, row_group_size=400)
    return sink.getvalue()


def read(answer: bytes, kind: str) -> list[dict[str, Any]]:
    """Probability, decision, threshold and error of every row."""
    if kind == "ndjson":
        lines = [json.loads(line) for line in answer.splitlines()]
        return [
            {**line.pop("output", {"probability": None}), "decision": None, "threshold": None, "error": None, **line}
            for line in lines
        ]
    if kind == "csv":
        table = [{k: v or None for k, v in row.items()} for row in csv.DictReader(io.StringIO(answer.decode()))]
        numbers = {"probability", "threshold"}
        return [{k: float(v) if v and k in numbers else v for k, v in row.items()} for row in table]
    source = pa.BufferReader(answer)
    found = pa.ipc.open_stream(source).read_all() if kind == "arrow" else pq.read_table(source)
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def ask(aux: httpx.Client, body: bytes, kind: str, wanted: str = "ndjson") -> httpx.Response:
    return aux.post("/batch_predict", content=body, headers={"content-type": TYPES[kind], "accept": TYPES[wanted]})


@pytest.fixture(scope="module")
def expected(server: ModelServer) -> list[dict[str, Any]]:
    with server.client(aux=True) as http:
        found = http.post("/batch_predict", json={"rows": ROWS}).json()["predictions"]
    return [
        {**row["output"], "decision": row["decision"], "threshold": row["threshold"], "error": None} for row in found
    ]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [(kind, "ndjson") for kind in TYPES] + [("ndjson", wanted) for wanted in TYPES] + [("parquet", "parquet")],
)
def test_every_format_says_what_json_rows_say(
    aux: httpx.Client, expected: list[dict[str, Any]], kind: str, wanted: str
) -> None:
    answer = ask(aux, content(ROWS, kind), kind, wanted)
    assert (answer.status_code, answer.headers["content-type"]) == (200, TYPES[wanted])
    assert read(answer.content, wanted) == expected


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("wanted", ["ndjson", "csv", "arrow"])
def test_a_row_that_does_not_fit_is_answered_in_its_place_and_those_after_it_too(
    aux: httpx.Client, expected: list[dict[str, Any]], kind: str, wanted: str
) -> None:
    rows = ROWS[:700]
    rows[600] = rows[600] | {"senior": None}
    found = read(ask(aux, content(rows, kind), kind, wanted).content, wanted)
    assert found[600]["probability"] is None
    assert found[600]["error"] == "rows[600].senior: expected true or false, got null"
    assert found[:600] + found[601:] == expected[:600] + expected[601:700]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "rows[1]: Expecting property name"),
        (b"3", "rows[1]: expected an object, got 3"),
        (b'{"tenure": 1, "contract": "x"}', "rows[1].senior: missing"),
        (b'{"tenure": 1, "contract": "x", "senior": true, "new": 1}', "rows[1].new: unknown"),
        (b"\xff", "rows[1]: not UTF-8"),
    ],
)
def test_a_line_that_is_no_row_is_named(aux: httpx.Client, line: bytes, reason: str) -> None:
    good = json.dumps(ROWS[0]).encode()
    answers = [json.loads(one) for one in ask(aux, b"\n".join([good, line, b"", good]), "ndjson").content.splitlines()]
    assert ["error" in one for one in answers] == [False, True, False]
    assert answers[1]["error"].startswith(reason)


@pytest.mark.parametrize("kind", ["csv", "arrow", "parquet"])
def test_a_table_without_a_features_column_is_refused_before_any_answer(aux: httpx.Client, kind: str) -> None:
    body = content(ROWS[:3], kind).replace(b"senior", b"SENIOR") if kind == "csv" else _renamed(kind)
    answer = ask(aux, body, kind)
    assert (answer.status_code, answer.json()["reasons"]) == (400, ["body: senior: the column is missing"])


def _renamed(kind: str) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist([{"tenure": 1.0, "contract": "x"}])
    if kind == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    else:
        pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "body"), [("arrow", b"no arrow"), ("parquet", b"PAR1no parquetPAR1"), ("csv", b"\xff\xfe")]
)
def test_what_is_no_such_file_is_refused(aux: httpx.Client, kind: str, body: bytes) -> None:
    answer = ask(aux, body, kind)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_a_file_that_breaks_off_breaks_the_answer_off(aux: httpx.Client) -> None:
    whole = content(ROWS, "arrow")
    with pytest.raises(httpx.RemoteProtocolError):
        ask(aux, whole[: len(whole) * 3 // 4], "arrow")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content-type": "image/png"}, 415), ({"content-type": "text/csv", "accept": "image/png"}, 406)],
)
def test_other_formats_are_refused_with_those_there_are(
    aux: httpx.Client, headers: dict[str, str], status: int
) -> None:
    answer = aux.post("/batch_predict", content=b"x", headers=headers)
    assert answer.status_code == status
    assert "application/vnd.apache.parquet" in answer.json()["detail"]


def test_batches_give_way_to_predictions_in_a_session_of_their_own(server: ModelServer) -> None:
    found = {os.getpriority(os.PRIO_PROCESS, pid): pid for pid in server.workers()}
    usual = os.getpriority(os.PRIO_PROCESS, server.process.pid)
    assert sorted(found) == [usual, 5]
    assert os.getsid(found[5]) == found[5] != os.getsid(found[usual])
    assert niceness_of_session(found[5]) in {5, None}


def test_no_rows_are_no_answers(aux: httpx.Client) -> None:
    assert ask(aux, b"", "ndjson").content == b""
    assert read(ask(aux, content(ROWS[:1], "parquet"), "parquet", "csv").content, "csv")
    assert ask(aux, b"tenure,contract,senior\n", "csv", "csv").content == b"probability,decision,threshold,error\n"


def test_a_client_that_sends_everything_before_it_reads_is_answered_in_constant_memory(server: ModelServer) -> None:
    line = json.dumps(ROWS[1]).encode() + b"\n"
    rows = 20_000
    head = (
        b"POST /batch_predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: %d\r\n\r\n"
    )
    aux = psutil.Process(server.workers()[-1])
    before = aux.memory_info().rss
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(server.spec["aux_socket"])
        connection.sendall(head % (len(line) * rows) + line * rows)
        grown = aux.memory_info().rss - before
        seen = b""
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += connection.recv(1 << 20)
    assert seen.count(b'"probability"') == rows
    assert grown < 30 * 2**20


async def test_files_go_through_the_router_by_sdk_and_an_unusable_one_leaves_nothing(
    home: Path, tmp_path: Path, server: ModelServer, expected: list[dict[str, Any]]
) -> None:
    shown = target("1", f"unix:{server.socket}", aux_address=f"unix:{server.spec['aux_socket']}")
    save(home, document(1, shown))
    rows = (ROWS * 19)[:20_000]
    (tmp_path / "in.parquet").write_bytes(content(rows, "parquet"))
    (tmp_path / "bad.csv").write_bytes(b"tenure\n1\n")
    (tmp_path / "in.ndjson").write_bytes(content(rows, "ndjson"))
    with router(home, "unix:///nowhere/redis.sock") as url, PredictionClient(url, KEY) as ml:
        ml.batch_predict("churn", tmp_path / "in.parquet", tmp_path / "out.parquet")
        ml.batch_predict("churn", tmp_path / "in.ndjson", tmp_path / "out.csv")
        with pytest.raises(InvalidInput) as caught:
            ml.batch_predict("churn", tmp_path / "bad.csv", tmp_path / "never.csv")
        async with AsyncPredictionClient(url, KEY) as other:
            await other.batch_predict("churn", tmp_path / "in.parquet", tmp_path / "out.arrow")
    wanted = (expected * 19)[:20_000]
    for name in ("out.parquet", "out.csv", "out.arrow"):
        assert read((tmp_path / name).read_bytes(), name.partition(".")[2]) == wanted
    assert caught.value.extra["reasons"] == [f"body: {name}: the column is missing" for name in ("contract", "senior")]
    assert [name for name in os.listdir(tmp_path) if "never" in name] == []


@pytest.mark.slow
def test_a_million_rows_pass_in_constant_memory(server: ModelServer) -> None:
    """Half of them while nobody reads; the worker's memory is looked at all along."""
    line = json.dumps(ROWS[1]).encode() + b"\n"
    aux = psutil.Process(server.workers()[-1])
    before, most, seen = aux.memory_info().rss, 0, 0

    def rows() -> Iterator[bytes]:
        nonlocal most
        for _ in range(1_000):
            yield line * 1_000
            most = max(most, aux.memory_info().rss)

    headers = {"content-type": TYPES["ndjson"]}
    with (
        server.client(aux=True) as http,
        http.stream("POST", "/batch_predict", content=rows(), headers=headers) as answer,
    ):
        for piece in answer.iter_bytes():
            seen += piece.count(b"\n")
            most = max(most, aux.memory_info().rss)
    assert seen == 1_000_000
    assert most - before < 40 * 2**20
