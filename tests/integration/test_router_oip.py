"""The router's Open Inference Protocol: rows of tensors are predictions like any other."""

import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from control_plane.contracts.snapshot import Target
from control_plane.domain import assignment
from tests.support import model_server, native_artifacts
from tests.support.data_plane import ADMIN, client, document, records, save, target, worker
from tests.support.fake_model_server import FakeModelServer, serving
from tests.support.model_server import CHURN, FRAUD, TEXT
from tests.support.tensors import body, outputs, tensor
from tests.support.tensors import document as document_of

pytestmark = pytest.mark.integration
NOWHERE = "unix:///nowhere/redis.sock"
FEATURES = {"a": {"type": "number"}, "b": {"type": ["string", "null"]}}
SCHEMA = msgspec.Raw(
    msgspec.json.encode(
        {
            "request_schema": {"properties": {"features": {"properties": FEATURES}}},
            "answer_schema": {"properties": {"output": {}, "reasons": {}}},
            "problem": "binary",
        }
    )
)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[FakeModelServer, FakeModelServer]]:
    old, new = FakeModelServer(tmp_path / "1.sock", "1"), FakeModelServer(tmp_path / "2.sock", "2")
    async with serving(old, new):
        yield old, new


def shown(server: FakeModelServer) -> Target:
    return target(server.version, server.address, features=("a", "b"), schema=SCHEMA)


def rows(count: int) -> list[dict[str, Any]]:
    return [tensor("a", "FP64", [float(i) for i in range(count)]), tensor("b", "BYTES", ["é"] * count)]


Servers = tuple[FakeModelServer, FakeModelServer]


@pytest.mark.parametrize("base", ["", "/ml/churn"])
@pytest.mark.parametrize("binary", [False, True])
async def test_every_row_is_assigned_by_its_unit_recorded_and_answered_with_its_id(
    home: Path, servers: Servers, base: str, binary: bool
) -> None:
    old, new = shown(servers[0]), shown(servers[1])
    save(home, document(3, old, new, arms={"stable": (5_000, old), "candidate": (5_000, new)}))
    units = [f"customer-{i}" for i in range(24)]
    content, headers = body([*rows(24), tensor("unit_id", "BYTES", units)], binary=binary, id="order-7")
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post(f"{base}/v2/models/churn/infer", content=content, headers=headers)
    about = document_of(answer)
    found = outputs(answer)
    assert found["probability"] == [0.25] * 24
    assert found["decision"] == ["keep"] * 24
    assert found["reasons"] == ['["age"]'] * 24
    expected = ["stable" if assignment.bucket("salt-1", unit) < 5_000 else "candidate" for unit in units]
    assert about["id"] == "order-7"
    assert about["parameters"]["variants"].split(",") == expected
    assert "model_version" not in about, "two versions answered"
    written = {record.prediction_id: record for record in records(home)}
    kept = [written[identity] for identity in about["parameters"]["prediction_ids"].split(",")]
    assert len(written) == 24
    assert [record.unit_id for record in kept] == units
    assert [record.assigned_variant for record in kept] == [record.served_variant for record in kept] == expected
    assert {record.request_id for record in kept} == {"order-7"}
    assert [msgspec.json.decode(record.features) for record in kept] == [{"a": float(i), "b": "é"} for i in range(24)]
    assert about["parameters"]["model_versions"].split(",") == [record.served_version for record in kept]


async def test_one_unit_for_all_rows_comes_from_the_parameters_or_the_header(home: Path, servers: Servers) -> None:
    save(home, document(1, shown(servers[0])))
    async with worker(home, NOWHERE) as url, client(url) as product:
        for more, headers in (
            ({"parameters": {"unit_id": "u-1", "request_id": "r-1"}}, {}),
            ({}, {"x-unit-id": "u-1"}),
        ):
            content, _ = body(rows(2), **more)
            answer = await product.post("/v2/models/churn/infer", content=content, headers=headers)
            assert document_of(answer)["model_version"] == "1"
    assert [record.unit_id for record in records(home)] == ["u-1"] * 4
    assert [record.request_id for record in records(home)] == ["r-1", "r-1", None, None]


async def test_a_version_in_the_path_or_the_parameters_is_pinned_and_needs_the_scope(
    home: Path, servers: Servers
) -> None:
    old, new = shown(servers[0]), shown(servers[1])
    save(home, document(1, old, new, aliases={"staging": "2"}))
    content, _ = body(rows(1), parameters={"unit_id": "u"})
    named, _ = body(rows(1), parameters={"model_version": "2"})
    async with worker(home, NOWHERE) as url, client(url) as product, client(url, ADMIN) as admin:
        for path, sent in (("versions/2/", content), ("versions/staging/", content), ("", named)):
            answer = await admin.post(f"/v2/models/churn/{path}infer", content=sent)
            assert (document_of(answer)["model_version"], answer.json()["parameters"]["variants"]) == ("2", "pinned")
        refused = await product.post("/v2/models/churn/versions/2/infer", content=content)
        assert (refused.status_code, list(refused.json())) == (403, ["error"])
        assert (await admin.post("/v2/models/churn/versions/9/infer", content=content)).status_code == 404
    assert [record.pinned for record in records(home)] == [True] * 3


async def test_what_cannot_be_used_is_an_error_object_and_leaves_no_record(home: Path, servers: Servers) -> None:
    save(home, document(1, shown(servers[0]), max_body_bytes=20_000))
    content, _ = body(rows(1))
    async with worker(home, NOWHERE) as url, client(url) as product, client(url, "unknown") as stranger:
        post = product.post
        told = [
            (400, "body", await post("/v2/models/churn/infer", content=b"{")),
            (400, "inputs.a: missing", await post("/v2/models/churn/infer", content=body([rows(1)[1]])[0])),
            (
                400,
                "inputs.c: unknown",
                await post("/v2/models/churn/infer", json={"inputs": [*rows(1), tensor("c", "FP64", [1])]}),
            ),
            (400, "1 to 64 rows", await post("/v2/models/churn/infer", content=body(rows(65))[0])),
            (400, "X-Unit-Id", await post("/v2/models/churn/infer", content=content, headers={"x-unit-id": "x" * 200})),
            (401, "key", await stranger.post("/v2/models/churn/infer", content=content)),
            (404, "no", await post("/v2/models/nothing/infer", content=content)),
            (404, "no", await post("/ml/churn/v2/models/nothing/infer", content=content)),
            (405, "GET", await post("/v2/models/churn", content=content)),
            (413, "20000", await post("/v2/models/churn/infer", content=content + b" " * 30_000)),
            (413, "20000", await _gzipped(product, b" " * 30_000)),
            (415, "gzip", await post("/v2/models/churn/infer", content=content, headers={"content-encoding": "br"})),
        ]
    for status, words, answer in told:
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
        assert words in answer.json()["error"]
    assert records(home) == []


async def _gzipped(product: httpx.AsyncClient, content: bytes) -> httpx.Response:
    packed = gzip.compress(content)
    return await product.post("/v2/models/churn/infer", content=packed, headers={"content-encoding": "gzip"})


async def test_a_compressed_body_is_read(home: Path, servers: Servers) -> None:
    save(home, document(1, shown(servers[0])))
    async with worker(home, NOWHERE) as url, client(url) as product:
        assert outputs(await _gzipped(product, body(rows(3))[0]))["probability"] == [0.25] * 3


@pytest.mark.parametrize(("mode", "status"), [("refuse", 400), ("fail", 503), ("hang", 504)])
async def test_a_row_the_server_cannot_answer_refuses_the_request_and_is_named(
    home: Path, servers: Servers, mode: str, status: int
) -> None:
    servers[0].mode = mode
    save(home, document(1, shown(servers[0]), deadline_ms=300))
    async with worker(home, NOWHERE) as url, client(url) as product:
        answer = await product.post("/v2/models/churn/infer", content=body(rows(2))[0])
    assert answer.status_code == status
    assert answer.json()["error"].startswith("row 0: ")
    assert len(records(home)) == 2, "every assigned row leaves a record"


async def test_health_and_metadata_need_no_key_and_say_what_is_there(home: Path, servers: Servers) -> None:
    save(home, document(1, shown(servers[0]), shown(servers[1])))
    async with worker(home, NOWHERE) as url, httpx.AsyncClient(base_url=url) as http:
        for base in ("", "/ml/churn"):
            assert (await http.get(f"{base}/v2")).json()["extensions"] == ["binary_tensor_data"]
            assert (await http.get(f"{base}/v2/health/live")).json() == {"live": True}
            assert (await http.get(f"{base}/v2/health/ready")).json() == {"ready": True}
            about = (await http.get(f"{base}/v2/models/churn")).json()
            assert about["versions"] == ["1", "2"]
            assert [(one["name"], one["datatype"]) for one in about["inputs"]] == [("a", "FP64"), ("b", "BYTES")]
            assert [one["name"] for one in about["outputs"]] == ["probability", "decision", "threshold", "reasons"]
            assert (await http.get(f"{base}/v2/models/churn/versions/2")).json()["versions"] == ["2"]
            assert (await http.get(f"{base}/v2/models/churn/ready")).json() == {"name": "churn", "ready": True}
            await servers[1].die()
            gone = await http.get(f"{base}/v2/models/churn/versions/2/ready")
            assert (gone.status_code, gone.json()) == (503, {"name": "churn", "ready": False})
            await servers[1].start()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, model_server.ModelServer]]:
    """One real server of each kind of our models: linear, trees, text."""
    folder = tmp_path_factory.mktemp("kinds")
    with (
        model_server.serving(native_artifacts.linear_binary(folder / "churn"), CHURN, workers=1) as churn,
        model_server.serving(native_artifacts.xgboost_binary(folder / "fraud"), FRAUD, workers=1) as trees,
        model_server.serving(native_artifacts.tfidf_multiclass(folder / "text"), TEXT, workers=1) as words,
    ):
        yield {"churn": churn, "fraud": trees, "categorization": words}


GIVEN: dict[str, list[dict[str, Any]]] = {
    "churn": [{"tenure": 3.5, "contract": "month", "senior": False}, {"tenure": None, "contract": "?", "senior": True}],
    "fraud": [{"amount": 250.0, "night": True, "risk": 0.75}, {"amount": 1.0, "night": False, "risk": None}],
    "categorization": [{"description": "COFFEE bread", "amount": 3.5}, {"description": "Tankstelle", "amount": 70.0}],
}
DATATYPES = {float: "FP64", bool: "BOOL", str: "BYTES"}


@pytest.mark.parametrize("model", list(GIVEN))
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("through", ["router", "server"])
async def test_every_kind_of_model_answers_tensors_as_it_answers_its_own_protocol(
    home: Path, kinds: dict[str, model_server.ModelServer], model: str, binary: bool, through: str
) -> None:
    served, given = kinds[model], GIVEN[model]
    columns = {name: [row[name] for row in given] for name in given[0]}
    if binary:  # no null but NaN has bytes
        columns = {name: [float("nan") if v is None else v for v in values] for name, values in columns.items()}
    sent, headers = body(
        [tensor(name, DATATYPES[type(values[0])], values) for name, values in columns.items()],
        binary=binary,
        parameters={"binary_data_output": binary},
    )
    async with served.async_client() as direct:
        own = [(await direct.post("/predict", json={"features": row})).json() for row in given]
        if through == "server":
            answer = await direct.post(f"/v2/models/{model}/infer", content=sent, headers=headers)
            about = (await direct.get(f"/v2/models/{model}/versions/1")).json()
            assert (await direct.get("/v2/health/ready")).json() == {"ready": True}
            assert (await direct.get(f"/v2/models/{model}/ready")).status_code == 200
            refused = await direct.post(f"/v2/models/{model}/infer", json={"inputs": [tensor("x", "FP64", [1])]})
            assert (refused.status_code, list(refused.json())) == (400, ["error"])
        schema = (await direct.get("/schema")).content
    if through == "router":
        features = tuple(msgspec.json.decode(schema)["features"])
        routed = target("1", f"unix:{served.socket}", features=features, schema=msgspec.Raw(schema))
        save(home, document(1, routed, model=model, deadline_ms=5_000))
        async with worker(home, NOWHERE) as url, client(url) as product:
            answer = await product.post(f"/v2/models/{model}/infer", content=sent, headers=headers)
            about = (await product.get(f"/v2/models/{model}")).json()
        assert [msgspec.json.decode(record.features) for record in records(home)] == given
    found = outputs(answer)
    assert ("inference-header-content-length" in answer.headers) == binary
    for name in own[0]["output"]:
        assert found[name] == [row["output"][name] for row in own]
    for name in {"decision", "threshold"} & set(own[0]):
        assert found[name] == [row[name] for row in own]
    assert [one["name"] for one in about["inputs"]] == list(given[0])
    assert {one["name"] for one in about["outputs"]} == set(found)
