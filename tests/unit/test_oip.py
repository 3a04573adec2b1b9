"""The Open Inference Protocol's codec, held to a client written apart from it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_servers import oip
from model_servers.oip import Input, Malformed
from tests.support.tensors import body, tensor

INPUTS = (
    Input("tenure", "number", nullable=True),
    Input("visits", "integer", nullable=True),
    Input("senior", "boolean"),
    Input("contract", "text"),
)
NUMERIC = (Input("a", "number"), Input("b", "integer"), Input("c", "boolean"))
ROWS = [
    {"tenure": 3.5, "visits": 2, "senior": True, "contract": "month"},
    {"tenure": -1.0, "visits": -(2**40), "senior": False, "contract": "zwei Jahre €"},
]


def read(content: bytes, headers: dict[str, str], inputs: Any = INPUTS, **more: Any) -> list[dict[str, Any]]:
    length = headers.get("inference-header-content-length")
    return oip.rows(oip.decode(content, length.encode() if length else None).inputs or [], inputs, **more)


def tensors_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "text": "BYTES"}
    return [tensor(i.name, kinds[i.kind], [row[i.name] for row in rows]) for i in INPUTS]


@pytest.mark.parametrize("binary", [False, True])
def test_one_tensor_per_feature_is_read_as_rows_in_the_models_order(binary: bool) -> None:
    found = read(*body(list(reversed(tensors_of(ROWS))), binary=binary))
    assert found == ROWS
    assert list(found[0]) == [i.name for i in INPUTS]


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "tenure": st.floats(allow_nan=False, allow_infinity=False),
                "visits": st.integers(-(2**63), 2**63 - 1),
                "senior": st.booleans(),
                "contract": st.text(st.characters(exclude_categories=["Cs"])),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_json_and_binary_say_the_same(rows: list[dict[str, Any]]) -> None:
    assert read(*body(tensors_of(rows))) == read(*body(tensors_of(rows), binary=True)) == rows


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "INT64"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_matrix_of_any_name_holds_all_features_in_the_models_order(datatype: str, binary: bool) -> None:
    one = tensor("input-0", datatype, [1, 2, 1, 5, -6, 0], shape=(2, 3))
    assert read(*body([one], binary=binary), NUMERIC) == [{"a": 1, "b": 2, "c": True}, {"a": 5, "b": -6, "c": False}]


def test_nested_json_data_is_row_major() -> None:
    one = tensor("predict", "FP64", [[1.5, 2, 1], [5.5, -6, 0]], shape=(2, 3))
    assert read(*body([one]), NUMERIC)[1] == {"a": 5.5, "b": -6, "c": False}


def test_nan_null_and_a_missing_tensor_are_null_where_the_feature_is_nullable() -> None:
    one = tensors_of([ROWS[0] | {"tenure": None}])
    assert read(*body(one))[0]["tenure"] is None
    nan = [tensor("tenure", "FP32", [float("nan")]), tensor("visits", "FP64", [float("nan")]), *one[2:]]
    assert read(*body(nan, binary=True))[0] == ROWS[0] | {"tenure": None, "visits": None}
    assert read(*body(one[2:]))[0] == ROWS[0] | {"tenure": None, "visits": None}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([], "at least one tensor"),
        ([tensor("tenure", "FP64", [1.0])], "inputs.senior: missing"),
        ([*tensors_of(ROWS), tensor("new", "FP64", [1, 2])], "inputs.new: unknown"),
        ([*tensors_of(ROWS), tensors_of(ROWS)[0]], "inputs.tenure: given twice"),
        ([*tensors_of(ROWS)[1:], tensor("tenure", "FP64", [1.0])], "has 1 rows"),
        ([*tensors_of(ROWS)[1:], tensor("tenure", "FP64", [1.0] * 4, (2, 2))], "must be [n] or [n, 1]"),
        ([*tensors_of(ROWS)[:3], tensor("contract", "INT64", [1, 2])], "inputs.contract[0]: expected text, got 1"),
        ([*tensors_of(ROWS)[:2], tensor("senior", "FP64", [1, 0.5]), tensors_of(ROWS)[3]], "inputs.senior[1]"),
        ([tensor("tenure", "FP99", [1.0])], "datatype 'FP99'"),
        ([tensor("tenure", "FP64", [1.0], (2, 1))], "has 1 values, its shape [2, 1] says 2"),
        ([tensor("tenure", "FP64", [1.0], (-1,))], "negative"),
        ([tensor("tenure", "FP64", ["x"])], "not of datatype FP64"),
        ([tensor("tenure", "INT64", [True])], "not of datatype INT64"),
        ([tensor("input-0", "FP64", [1.0, 2.0], (1, 2))], "has 2 columns, the model has 4 features"),
        ([tensor("tenure", "FP64", [])], "1 to 64 rows"),
        ([tensor("tenure", "FP64", [1.0] * 65)], "1 to 64 rows are taken at once, got 65"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tensors: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(*body(tensors))
    assert any(reason in said for said in caught.value.reasons), caught.value.reasons


@pytest.mark.parametrize("length", ["x", "0", "-1", "9999"])
def test_a_header_length_beyond_the_body_is_refused(length: str) -> None:
    content, _ = body(tensors_of(ROWS), binary=True)
    with pytest.raises(Malformed, match="Inference-Header-Content-Length"):
        oip.decode(content, length.encode())


@given(st.integers(0, 200))
def test_binary_data_cut_anywhere_or_followed_by_more_is_refused(cut: int) -> None:
    content, headers = body(tensors_of(ROWS), binary=True)
    length = headers["inference-header-content-length"].encode()
    blocks = len(content) - int(length)
    with pytest.raises(Malformed):
        oip.decode(content[: int(length) + cut % blocks], length)
    with pytest.raises(Malformed, match="belong to no tensor"):
        oip.decode(content + b"\0" * (cut + 1), length)


@pytest.mark.parametrize("binary", [(), (True, True, True)])
def test_an_answer_has_a_tensor_per_member_and_a_client_reads_what_was_written(binary: tuple[bool, ...]) -> None:
    answers = [
        {"output": {"probability": 0.25}, "decision": "keep", "reasons": ["a is 1"]},
        {"output": {"probability": 0.5}, "decision": "call", "reasons": []},
    ]
    made, length = oip.encode({}, oip.answer_tensors(answers), binary=binary)
    message = oip.decode(made, str(length).encode() if length else None, tensors="outputs")
    found = {one.name: (one.datatype, one.shape, one.values) for one in message.outputs or []}
    assert found == {
        "probability": ("FP64", [2, 1], [0.25, 0.5]),
        "decision": ("BYTES", [2, 1], ["keep", "call"]),
        "reasons": ("BYTES", [2, 1], ['["a is 1"]', "[]"]),
    }
    assert (length is None) == (binary == ())


@pytest.mark.parametrize(
    ("asked", "names", "in_binary"),
    [
        ({}, ["probability", "decision"], set()),
        ({"parameters": {"binary_data_output": True}}, ["probability", "decision"], {"probability", "decision"}),
        ({"outputs": [{"name": "decision"}]}, ["decision"], set()),
        (
            {"outputs": [{"name": "decision", "parameters": {"binary_data": True}}, {"name": "probability"}]},
            ["decision", "probability"],
            {"decision"},
        ),
    ],
)
def test_a_client_gets_the_outputs_it_asked_for_in_the_form_it_asked_for(
    asked: dict[str, Any], names: list[str], in_binary: set[str]
) -> None:
    request = oip.decode(json.dumps({"inputs": [], "id": "7", **asked}).encode())
    tensors = oip.answer_tensors([{"output": {"probability": 0.25}, "decision": "keep"}])
    made, length = oip.response("churn", "3", request, tensors, {"prediction_ids": "p"})
    document = json.loads(made[:length])
    assert (document["model_name"], document["model_version"], document["id"]) == ("churn", "3", "7")
    assert document["parameters"] == {"prediction_ids": "p"}
    assert [one["name"] for one in document["outputs"]] == names
    assert {one["name"] for one in document["outputs"] if "data" not in one} == in_binary


def test_an_output_nobody_makes_is_refused_with_those_there_are() -> None:
    request = oip.decode(b'{"inputs":[],"outputs":[{"name":"shap"}]}')
    with pytest.raises(Malformed, match="shap: unknown; there are probability"):
        oip.response("churn", "3", request, oip.answer_tensors([{"output": {"probability": 0.25}}]))


def test_metadata_types_every_feature_and_output() -> None:
    about = json.loads(oip.metadata("churn", ["1", "2"], INPUTS, "binary", reasons=True))
    assert {one["name"]: (one["datatype"], one["shape"]) for one in about["inputs"]} == {
        "tenure": ("FP64", [-1, 1]),
        "visits": ("INT64", [-1, 1]),
        "senior": ("BOOL", [-1, 1]),
        "contract": ("BYTES", [-1, 1]),
    }
    assert [one["name"] for one in about["outputs"]] == ["probability", "decision", "threshold", "reasons"]
    assert about["versions"] == ["1", "2"]


def test_a_large_float_tensor_agrees_with_numpy() -> None:
    values = np.random.default_rng(0).normal(size=60).astype(np.float32)
    content, headers = body([tensor("x", "FP32", values.tolist(), (20, 3))], binary=True)
    (found,) = oip.decode(content, headers["inference-header-content-length"].encode()).inputs or []
    assert found.values == values.astype(float).tolist()
