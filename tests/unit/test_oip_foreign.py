"""Versions served elsewhere: how their inputs are laid out, and what is made of their answers."""

import json
from typing import Any

import msgspec
import pytest

from control_plane.contracts import oip as wire
from control_plane.router.foreign import Translation
from model_servers.oip import Malformed

CONFIG: dict[str, Any] = {
    "problem": "binary",
    "features": {
        "amount": {"type": "number"},
        "night": {"type": "boolean"},
        "age": {"type": "integer", "nullable": True},
    },
    "decision": {"threshold": 0.3, "positive": "block", "negative": "accept"},
}
ROW = {"amount": 12.5, "night": True, "age": None}


def translation(inputs: list[dict[str, Any]], **changes: Any) -> Translation:
    """Through JSON, as the description reaches a router."""
    described = json.dumps(wire.describe(CONFIG | changes, {"inputs": inputs}), sort_keys=True).encode()
    return Translation(msgspec.json.decode(described, type=wire.Description))


def sent(made: Translation, features: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.request(json.dumps({"features": features, "unit_id": "u"}).encode()))
    return found


def answered(made: Translation, *outputs: tuple[str, str, list[Any]]) -> Any:
    tensors = [{"name": n, "datatype": d, "shape": [1, len(v)], "data": v, "parameters": None} for n, d, v in outputs]
    body = {"model_name": "m", "id": None, "parameters": None, "outputs": tensors}
    found = made.answer(json.dumps(body).encode())
    return None if found is None else json.loads(found)


def test_inputs_named_like_the_features_get_a_tensor_each_in_the_servers_datatypes_and_rank() -> None:
    inputs = [
        {"name": "night", "datatype": "INT32", "shape": [-1]},
        {"name": "amount", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "age", "datatype": "FP64", "shape": [-1, 1]},
    ]
    assert sent(translation(inputs), ROW)["inputs"] == [
        {"name": "night", "shape": [1], "datatype": "INT32", "data": [1]},
        {"name": "amount", "shape": [1, 1], "datatype": "FP32", "data": [12.5]},
        {"name": "age", "shape": [1, 1], "datatype": "FP64", "data": [None]},
    ]


def test_one_input_of_another_name_is_a_matrix_in_model_yamls_order() -> None:
    expected = {"name": "predict", "shape": [1, 3], "datatype": "FP32", "data": [12.5, 1.0, None]}
    made = translation([{"name": "predict", "datatype": "FP32", "shape": [-1, 3]}])
    assert sent(made, ROW)["inputs"] == [expected]


def test_a_server_without_metadata_gets_a_matrix_of_numbers_or_named_columns_where_there_is_text() -> None:
    (matrix,) = sent(translation([]), ROW)["inputs"]
    assert (matrix["name"], matrix["datatype"], matrix["shape"]) == ("input-0", "FP32", [1, 3])
    named = sent(translation([], features={"a": {"type": "number"}, "b": {"type": "text"}}), {"a": 1, "b": "x"})
    assert [one["name"] for one in named["inputs"]] == ["a", "b"]
    assert named["parameters"] == {"content_type": "pd"}


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([{"name": "amount", "datatype": "FP32"}, {"name": "x", "datatype": "FP32"}], "x are no features"),
        ([{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "4 columns, model.yaml has 3"),
        ([{"datatype": "FP32"}], "not the protocol's"),
    ],
)
def test_a_server_whose_inputs_are_not_the_features_is_refused(inputs: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wire.describe(CONFIG, {"inputs": inputs})


def test_features_of_a_version_without_any_are_the_servers_inputs() -> None:
    found = wire.describe({"problem": "opaque"}, {"inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}]})
    assert found["features"] == ("x",)
    with pytest.raises(ValueError, match="Neither"):
        wire.describe({}, {})


def test_a_body_that_does_not_fit_is_refused_with_every_reason_and_siblings_are_left_out() -> None:
    made = translation([])
    with pytest.raises(Malformed) as caught:
        sent(made, {"amount": "x", "age": 1.5, "new": 1})
    assert caught.value.reasons == (
        "features.night: missing",
        "features.new: unknown",
        'features.amount: expected a number, got "x"',
        "features.age: expected an integer or null, got 1.5",
    )
    body = json.dumps({"features": ROW | {"new": 1}}).encode()
    assert made.request(body, frozenset({"new"})) == made.request(json.dumps({"features": ROW}).encode())


@pytest.mark.parametrize(
    ("outputs", "probability"),
    [
        ([("predict", "FP32", [0.75])], 0.75),
        ([("predict_proba", "FP64", [0.25, 0.75]), ("predict", "INT64", [0])], 0.75),
        ([("score", "FP32", [0.1]), ("probability", "FP64", [0.75])], 0.75),
        ([("predict", "INT64", [1])], 1.0),
        ([("label", "BYTES", ["yes"])], None),
        ([("predict", "FP32", [3.5])], None),
        ([("predict", "FP32", [0.2, 0.3, 0.5])], None),
        ([], None),
    ],
)
def test_a_binary_answer_is_a_probability_and_a_decision_by_model_yaml(
    outputs: list[tuple[str, str, list[Any]]], probability: float | None
) -> None:
    expected = {"output": {"probability": probability}, "decision": "block", "threshold": 0.3}
    assert answered(translation([]), *outputs) == (None if probability is None else expected)
    assert answered(translation([]), ("predict", "FP32", [0.2]))["decision"] == "accept"


def test_other_problems_have_their_own_answers() -> None:
    many = translation([], problem="multiclass")
    assert answered(many, ("predict", "FP32", [0.25, 0.5, 0.25])) == {"output": {"label": "1", "probability": 0.5}}
    named = answered(many, ("label", "BYTES", ["food"]), ("probability", "FP64", [0.5]))
    assert named == {"output": {"label": "food", "probability": 0.5}}
    assert answered(many, ("predict", "INT64", [2])) == {"output": {"label": "2"}}
    assert answered(translation([], problem="regression"), ("y", "FP32", [3.5])) == {"output": {"value": 3.5}}
    opaque = translation([], problem="opaque")
    assert answered(opaque, ("y", "FP32", [3.5, 4])) == {"output": {"value": [3.5, 4]}}
    assert answered(opaque, ("y", "FP32", [3.5]), ("z", "BYTES", ["a"])) == {"output": {"value": {"y": 3.5, "z": "a"}}}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"outputs": 3}', b'{"outputs":[{"name":"x"}]}'])
def test_an_answer_that_is_none_is_the_servers_fault(body: bytes) -> None:
    assert translation([]).answer(body) is None
