"""What a model server says about itself, and the words it explains with."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_servers.runtime import schema, words
from model_servers.runtime.features import Decoder
from model_servers.runtime.spec import BadSpec, Config, Feature, decodable, load

features = st.builds(
    Feature,
    type=st.sampled_from(["number", "integer", "boolean", "category", "text"]),
    nullable=st.booleans(),
    range=st.none() | st.tuples(st.floats(-1e6, 0), st.floats(0, 1e6)),
    categories=st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True).map(tuple),
)


def config(declared: dict[str, Feature], **more: Any) -> Config:
    return Config(name="m", problem="binary", features=declared, **more)


names = st.text(min_size=1, max_size=8).filter(decodable)


@given(st.dictionaries(names, features, min_size=1, max_size=6))
def test_the_example_is_always_a_body_the_server_takes(declared: dict[str, Feature]) -> None:
    body = json.dumps(schema.example(config(declared))).encode()
    assert len(Decoder(declared, lambda _f, _k: None).row(body)) == len(declared)


def test_the_recorded_example_wins_and_what_it_lacks_is_made_up() -> None:
    declared = {"a": Feature(type="number", range=(0, 10)), "b": Feature(type="category", categories=("x",))}
    assert schema.example(config(declared), {"a": 7.5})["features"] == {"a": 7.5, "b": "x"}


def test_a_declared_example_of_an_integer_stays_an_integer() -> None:
    assert json.dumps(schema.example_of(Feature(type="integer", example=3.0))) == "3"


def test_ranges_and_categories_are_told_but_not_enforced() -> None:
    told = schema.of_feature(Feature(type="number", nullable=True, range=(0, 1), description="Share of nights."))
    assert told == {
        "description": "Share of nights. Usually 0 to 1.",
        "type": ["number", "null"],
        "examples": [0.5],
    }


def test_the_strongest_features_are_told_first_and_those_without_effect_not_at_all() -> None:
    told = words.top(
        ("contract", "tenure_months", "senior", "plan"), ("month_to_month", 2.0, True, None), (0.4, -0.9, 0, 0.1)
    )
    assert told == [
        "tenure months is 2 (lowers the score)",
        "contract is month_to_month (raises the score)",
        "plan is not given (raises the score)",
    ]


def test_a_long_text_is_cut_in_a_reason() -> None:
    assert words.top(("note",), ("x" * 500,), (1.0,)) == [f"note is {'x' * 40}... (raises the score)"]


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"socket": "/tmp/" + "x" * 100}, "socket"),
        ({"aux_socket": "/tmp/" + "x" * 100}, "aux_socket"),
        ({"workers": 0}, "workers"),
        ({"threads": 1000}, "threads"),
        ({"artifact": "/nowhere"}, "artifact"),
        ({"runtime": "onnx"}, "runtime"),
        ({"config": {"name": "m"}}, "config"),
        ({"config": {"name": "m", "problem": "binary", "features": {'a"b': {"type": "text"}}}}, "config.features"),
    ],
)
def test_a_spec_that_cannot_be_served_names_the_member(tmp_path: Any, change: dict[str, Any], member: str) -> None:
    good = {
        "model": "m",
        "version": "1",
        "digest": "sha256:0",
        "artifact": str(tmp_path),
        "runtime": "native",
        "socket": "/tmp/s",
        "config": {"name": "m", "problem": "binary", "features": {}},
    }
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(good))
    assert load(path).model == "m"
    path.write_text(json.dumps(good | change))
    with pytest.raises(BadSpec, match=member):
        load(path)


def test_a_spec_that_is_not_there_is_a_bad_spec(tmp_path: Any) -> None:
    with pytest.raises(BadSpec, match="No such file"):
        load(tmp_path / "nothing.json")
