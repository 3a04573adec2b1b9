"""Bodies become rows, or a refusal that names everything that is wrong with them."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_servers.runtime.features import LARGEST, Decoder
from model_servers.runtime.problems import Refused
from model_servers.runtime.spec import Feature

FEATURES = {
    "amount": Feature(type="number", range=(0, 1_000)),
    "visits": Feature(type="integer", nullable=True, range=(0, 50)),
    "member": Feature(type="boolean"),
    "plan": Feature(type="category", categories=("basic", "gold")),
    "note: text": Feature(type="text", nullable=True),
}
GOOD: dict[str, Any] = {"amount": 12.5, "visits": 3, "member": True, "plan": "gold", "note: text": "a: b"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class Warnings(list[tuple[str, str]]):
    def __call__(self, feature: str, kind: str) -> None:
        self.append((feature, kind))


def decoder() -> tuple[Decoder, Warnings]:
    seen = Warnings()
    return Decoder(FEATURES, seen), seen


def body(**changes: Any) -> bytes:
    return json.dumps({"features": GOOD | changes, "unit_id": "u:1", "request_id": "r"}).encode()


def refusal(raw: bytes, siblings: bytes = b"") -> Refused:
    with pytest.raises(Refused) as caught:
        decoder()[0].row(raw, siblings)
    return caught.value


def fits(feature: Feature, value: object) -> bool:
    """What the contract says, spelled out."""
    if value is None:
        return feature.nullable
    match feature.type:
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
        case "boolean":
            return isinstance(value, bool)
        case "category" | "text":
            return isinstance(value, str)


def test_a_row_has_the_declared_order_whatever_the_order_of_the_body() -> None:
    decode, seen = decoder()
    backwards = json.dumps({"unit_id": "u", "features": dict(reversed(GOOD.items()))}).encode()
    assert decode.row(backwards) == decode.row(body()) == (12.5, 3, True, "gold", "a: b")
    assert seen == []


def test_integers_are_accepted_for_numbers_and_become_floats() -> None:
    row = decoder()[0].row(body(amount=12))
    assert row[0] == 12.0
    assert isinstance(row[0], float)


def test_null_is_taken_only_where_it_is_declared() -> None:
    assert decoder()[0].row(body(visits=None, **{"note: text": None}))[1] is None
    assert refusal(body(amount=None)).reasons == ("features.amount: expected a number, got null",)


def test_values_outside_the_declaration_are_served_and_counted() -> None:
    decode, seen = decoder()
    assert decode.row(body(amount=1_000.5, visits=-1, plan="platinum"))[:4] == (1_000.5, -1, True, "platinum")
    assert seen == [("amount", "out_of_range"), ("visits", "out_of_range"), ("plan", "unseen")]


def test_every_reason_is_named_at_once() -> None:
    wrong = {"amount": "12", "visits": 2.5, "plan": ["gold"], "note: text": None, "extra": 1, "another": {}}
    refused = refusal(json.dumps({"features": wrong}).encode())
    assert refused.status == 422
    assert refused.reasons == (
        'features.amount: expected a number, got "12"',
        "features.visits: expected an integer or null, got 2.5",
        "features.member: missing",
        "features.plan: expected a string, got an array",
        "features.extra: unknown",
        "features.another: unknown",
    )


def test_a_thousand_unknown_features_are_counted_rather_than_listed() -> None:
    refused = refusal(body(**{f"x{i}": 1 for i in range(1_000)}))
    assert len(refused.reasons) == 101
    assert refused.reasons[-1] == "and 900 more"


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (b"", 400, "body: empty"),
        (b"   ", 400, "body: empty"),
        (b"{", 400, "body: Expecting property name"),
        (b'{"features": {}} x', 400, "body: Extra data"),
        (b"\xff\xfe", 400, "body: not UTF-8 (byte 0)"),
        (b'{"features": {"amount": "\xff"}}', 400, "body: not UTF-8"),
        (b'{"features": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "body: nested too deeply"),
        (b"null", 422, "body: expected an object with a member features, got null"),
        (b"[1, 2]", 422, "body: expected an object with a member features, got an array"),
        (b'"text"', 422, 'body: expected an object with a member features, got "text"'),
        (b"{}", 422, "features: missing"),
        (b'{"features": null}', 422, "features: expected an object, got null"),
        (b'{"features": [1]}', 422, "features: expected an object, got an array"),
    ],
)
def test_a_body_that_is_no_feature_object_says_so(raw: bytes, status: int, reason: str) -> None:
    refused = refusal(raw)
    assert refused.status == status
    assert refused.reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("NaN", "got NaN, which JSON has no number for"),
        ("Infinity", "got Infinity, which JSON has no number for"),
        ("-Infinity", "got -Infinity, which JSON has no number for"),
        ("1e999", "got one too large for the model"),
        ("-1e400", "got one too large for the model"),
        ("1e39", "got one too large for the model"),
        ("9" * 400, "got one too large for the model"),
        ("9" * 5_000, "got one too large for the model"),
        ("true", "got true"),
        ('"1"', 'got "1"'),
        ("{}", "got an object"),
    ],
)
def test_what_is_no_finite_number_is_refused_by_name(written: str, reason: str) -> None:
    raw = body().replace(b'"amount": 12.5', f'"amount": {written}'.encode())
    assert refusal(raw).status == 422
    assert refusal(raw).reasons == (f"features.amount: expected a number, {reason}",)


@pytest.mark.parametrize("written", ["9223372036854775808", "-9223372036854775809", "9" * 5_000])
def test_an_integer_beyond_64_bits_is_refused_by_name(written: str) -> None:
    raw = body().replace(b'"visits": 3', f'"visits": {written}'.encode())
    assert refusal(raw).reasons == ("features.visits: expected an integer or null, got one beyond 64 bits",)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (b'"amount": 12.5', b'"amount": 12.5, "amount": 99', "features.amount"),
        (b'"amount": 12.5', b'"amount": 5000, "amount": 9999', "features.amount"),
        (b'"unit_id": "u:1"', b'"unit_id": "u:1", "unit_id": "u:2"', "unit_id"),
        (b'"request_id": "r"', b'"request_id": "r", "other": {"a": [{"b": 1, "b": 2}]}', "other.a[].b"),
    ],
)
def test_a_key_given_twice_is_refused_wherever_it_is(old: bytes, new: bytes, path: str) -> None:
    refused = refusal(body().replace(old, new))
    assert (refused.status, refused.reasons) == (422, (f"{path}: given twice",))


def test_members_beside_features_are_ignored() -> None:
    raw = json.dumps({"features": GOOD, "unit_id": 7, "meta": {"a": ["x:y", {"b": None}]}}).encode()
    assert decoder()[0].row(raw)[0] == 12.5


def test_features_of_routed_siblings_are_ignored_and_no_others() -> None:
    raw = body(colour="red", **{"größe, cm": [1]})
    siblings = b"colour, gr%C3%B6%C3%9Fe%2C%20cm,amount"
    assert decoder()[0].row(raw, siblings) == decoder()[0].row(body())
    assert refusal(raw).reasons == ("features.colour: unknown", "features.größe, cm: unknown")
    assert refusal(body(colour=1, shape=2), b"colour").reasons == ("features.shape: unknown",)


def test_siblings_do_not_make_own_features_optional() -> None:
    raw = json.dumps({"features": {"colour": 1}}).encode()
    assert len(refusal(raw, b"colour,amount").reasons) == len(FEATURES)


def test_ever_new_sibling_headers_do_not_pile_up() -> None:
    decode, _ = decoder()
    for i in range(200):
        assert decode.row(body(), f"s{i}".encode())
    assert len(decode._by_siblings) <= 32


@given(st.fixed_dictionaries(dict.fromkeys(FEATURES, json_values)))
def test_a_body_is_taken_exactly_when_every_value_fits(values: dict[str, Any]) -> None:
    raw = json.dumps({"features": values}).encode()
    wrong = [name for name, feature in FEATURES.items() if not fits(feature, values[name])]
    if wrong:
        named = [reason.rpartition(": expected")[0] for reason in refusal(raw).reasons]
        assert named == [f"features.{name}" for name in wrong]
    else:
        row = decoder()[0].row(raw)
        assert all(mine == given or math.isclose(mine, given) for mine, given in zip(row, values.values(), strict=True))


@given(st.binary() | json_values.map(lambda value: json.dumps({"features": value}).encode()))
def test_no_bytes_raise_anything_but_a_refusal(raw: bytes) -> None:
    refused = refusal(raw)
    assert refused.status in {400, 422}
    assert refused.reasons
    json.loads(refused.body())
