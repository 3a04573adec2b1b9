from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from control_plane.domain.model_config import ModelConfig
from training.common import validation
from training.common.validation import Finding

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DECLARED: dict[str, Any] = {
    "name": "risk",
    "problem": "binary",
    "id": "id",
    "unit": "customer",
    "time": "at",
    "features": {
        "amount": {"type": "number", "range": [0, 1000]},
        "count": {"type": "integer"},
        "kind": {"type": "category", "categories": ["a", "b"]},
        "night": {"type": "boolean", "nullable": True},
        "note": {"type": "text", "nullable": True, "pii": True},
    },
    "target": {"column": "bad", "positive": 1},
    "metric": {"name": "roc_auc"},
}


def config(**changes: Any) -> ModelConfig:
    return TypeAdapter(ModelConfig).validate_python(DECLARED | changes)


def rows(count: int = 400, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "customer": rng.integers(0, 50, count),
            "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(count), unit="h"),
            "amount": rng.uniform(0, 1000, count),
            "count": rng.integers(0, 9, count),
            "kind": rng.choice(["a", "b"], count),
            "night": rng.choice([True, False], count),
            "note": [f"note {i}" for i in range(count)],
            "bad": rng.integers(0, 2, count),
        }
    )


def check(frame: pd.DataFrame, **changes: Any) -> dict[tuple[str, str], Finding]:
    found = validation.check(frame, config(**changes), now=NOW).findings
    assert len({(f.column, f.check) for f in found}) == len(found)
    return {(f.column, f.check): f for f in found}


def test_good_rows_are_accepted() -> None:
    assert check(rows()) == {}


def test_everything_wrong_is_named_at_once_with_rows_and_examples() -> None:
    frame = rows()
    frame.loc[[3, 5], "amount"] = [-1.0, 5_000.0]
    frame["count"] = frame["count"].astype(object)
    frame.loc[7, "count"] = 1.5
    frame.loc[8, "count"] = "many"
    frame.loc[[9, 10, 11], "kind"] = [None, "c", "d"]
    frame["night"] = frame["night"].astype(object)
    frame.loc[12, "night"] = "perhaps"
    frame["note"] = frame["note"].astype(object)
    frame.loc[14, "note"] = 3
    frame.loc[20, "id"] = 19
    frame.loc[30, "at"] = pd.Timestamp("2030-01-01")
    found = check(frame)
    assert set(found) == {
        ("amount", "range"), ("count", "type"), ("kind", "null"), ("kind", "category"), ("night", "type"),
        ("note", "type"), ("id", "duplicate"), ("at", "range"),
    }  # fmt: skip
    assert found["amount", "range"].rows == 2
    assert found["amount", "range"].examples == ("row 3: -1.0", "row 5: 5000.0")
    assert found["count", "type"].rows == 2
    assert "many" in found["count", "type"].examples[1]
    assert found["kind", "category"].rows == 2
    assert found["id", "duplicate"].examples == ("row 20",)
    assert found["note", "type"].examples == ("row 14",)  # personal data stays out of reports


def test_without_a_key_a_row_that_comes_again_as_a_whole_is_refused() -> None:
    frame = rows()
    twice = pd.concat([frame, frame.iloc[[7, 9]]], ignore_index=True)
    assert check(twice, id=None)["", "duplicate"].examples == ("row 400", "row 401")
    twice.loc[[400, 401], "at"] += pd.Timedelta(1, "s")  # the same customer again, a second later
    assert check(twice, id=None) == {}


@pytest.mark.parametrize("key", ["id", "customer"])
def test_a_row_says_which_it_is_and_whose(key: str) -> None:
    frame = rows().astype({key: object})
    frame.loc[[4, 9], key] = None
    found = check(frame, unit="customer", time=None)
    assert found[key, "null"].examples == ("row 4", "row 9")


def test_a_unit_that_is_a_nullable_feature_may_be_missing_and_an_id_may_not() -> None:
    frame = rows().assign(customer="c").astype({"customer": object})
    frame.loc[[4, 9], "customer"] = None
    features = DECLARED["features"] | {"customer": {"type": "text", "nullable": True}}
    assert check(frame, features=features) == {}
    assert set(check(frame, features=features, id="customer")) >= {("customer", "null")}


def test_the_cost_of_a_missed_positive_is_a_number_that_is_neither_null_nor_negative() -> None:
    frame = rows().assign(loss="12.5")
    own = {"costs": {"false_negative_column": "loss"}}
    assert check(frame, **own) == {}
    frame.loc[[1, 2, 3], "loss"] = ["a lot", None, "-3"]
    found = check(frame, **own)
    assert {key: one.rows for key, one in found.items()} == {("loss", c): 1 for c in ("type", "null", "range")}
    assert found["loss", "type"].examples == ("row 1: 'a lot'",)


def test_a_feature_that_is_also_a_cost_is_not_complained_of_twice() -> None:
    frame = rows()
    frame.loc[[1, 2], "amount"] = [np.nan, -3.0]
    found = check(frame, costs={"false_negative_column": "amount"})  # check() refuses a finding said twice
    assert set(found) == {("amount", "null"), ("amount", "range")}


@pytest.mark.parametrize("wrong", [np.inf, -np.inf])
def test_infinity_is_no_number(wrong: float) -> None:
    frame = rows()
    frame.loc[0, "amount"] = wrong
    assert ("amount", "type") in check(frame)


def test_missing_columns_are_named_before_anything_else() -> None:
    found = check(rows().drop(columns=["amount", "bad", "at"]))
    assert set(found) == {("amount", "schema"), ("bad", "schema"), ("at", "schema")}


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_is_nothing_to_learn(only: int) -> None:
    assert ("bad", "target") in check(rows().assign(bad=only))


def test_a_third_value_in_a_binary_target_is_refused() -> None:
    assert "there are 2" in check(rows().assign(bad=np.arange(400) % 3))["bad", "target"].message


def test_too_few_rows_are_refused() -> None:
    assert ("", "rows") in check(rows(50))


@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("amount", lambda bad: bad * 500.0 + 3),
        ("kind", lambda bad: np.where(bad == 1, "a", "b")),
        ("night", lambda bad: pd.Series(np.where(bad == 1, None, True), dtype=object)),  # known only by its absence
        ("count", lambda bad: 7 - 2 * bad),
        ("note", lambda bad: np.where(bad == 1, "closed by fraud desk", "paid")),
    ],
)
def test_a_column_that_determines_the_target_is_refused(name: str, leak: Any) -> None:
    frame = rows()
    frame[name] = leak(frame["bad"])
    found = check(frame)
    assert set(found) == {(name, "leakage")}


def test_a_strong_but_honest_feature_is_no_leak_and_neither_is_an_identifier() -> None:
    frame = rows(2_000)
    rng = np.random.default_rng(1)
    frame["amount"] = (frame["bad"] * 300 + rng.normal(300, 90, 2_000)).clip(0, 1000)
    frame["note"] = [f"unique {i}" for i in range(2_000)]  # knows every training row, and none of the others
    assert check(frame) == {}


def test_a_number_that_determines_a_rare_class_is_a_leak_in_either_direction() -> None:
    frame = rows(10_000)
    bad = (np.random.default_rng(3).random(10_000) < 0.009).astype(int)
    for sign in (1, -1):
        leak = 500 + sign * (bad * 200 + np.random.default_rng(4).normal(0, 9, 10_000))
        assert set(check(frame.assign(bad=bad, amount=leak), time=None)) == {("amount", "leakage")}


def test_a_code_of_many_values_that_determines_one_of_many_classes_is_a_leak() -> None:
    frame = rows(6_000)
    code = np.random.default_rng(5).integers(0, 200, 6_000)
    named = np.array([f"class {i}" for i in np.random.default_rng(6).integers(0, 21, 200)])[code]
    many = {"problem": "multiclass", "target": {"column": "bad"}, "metric": {"name": "accuracy"}}
    assert set(check(frame.assign(count=code, bad=named), time=None, **many)) == {("count", "leakage")}


def test_too_few_of_the_rarer_answer_to_look_for_leakage_is_said() -> None:
    frame = rows(300).assign(bad=(np.arange(300) < 15).astype(int))
    assert validation.check(frame, config(), now=NOW) == validation.Checked((), validation.LEAKAGE_TOO_FEW)
    assert validation.check(rows(), config(), now=NOW).leakage == "checked"


def test_a_leak_is_named_beside_what_is_wrong_with_other_columns() -> None:
    frame = rows()
    frame["count"] = 7 - 2 * frame["bad"]
    frame.loc[3, "amount"] = -1.0
    frame.loc[30, "at"] = pd.Timestamp("2030-01-01")
    assert set(check(frame)) == {("amount", "range"), ("at", "range"), ("count", "leakage")}


def test_the_target_in_another_unit_is_a_leak_of_a_regression() -> None:
    frame = rows()
    frame["price"] = frame["amount"] * 1.19 + 2
    regression = {"problem": "regression", "target": {"column": "price"}, "metric": {"name": "rmse"}}
    assert set(check(frame, **regression)) == {("amount", "leakage")}


def test_words_for_yes_and_no_are_understood_and_categories_may_be_numbers() -> None:
    frame = rows().assign(night=np.where(np.arange(400) % 2, "Yes", "no"), kind=np.arange(400) % 2)
    changed = {name: dict(feature) for name, feature in DECLARED["features"].items()}
    changed["kind"]["categories"] = ["0", "1"]
    assert check(frame, features=changed) == {}


def test_raw_columns_are_checked_before_features_are_made_of_them() -> None:
    declared = {"at": {"type": "time"}, "amount": {"type": "number"}, "who": {"type": "integer", "nullable": True}}
    frame = pd.DataFrame({"at": ["2026-01-01", "soon"], "amount": ["3.5", None], "who": [1, None]})
    _, found = validation.raw(frame, declared, config())
    assert {(f.column, f.check) for f in found} == {("at", "type"), ("amount", "null")}
    _, found = validation.raw(frame[["at"]], declared, config())
    assert {(f.column, f.check) for f in found} == {("amount", "schema"), ("who", "schema")}


def test_no_report_shows_personal_data_nor_whose_a_row_is() -> None:
    names = ("note", "id", "customer", "email", "amount")  # personal, id, unit, personal in features.py alone, nothing
    declared: dict[str, dict[str, Any]] = {name: {"type": "number"} for name in names}
    declared["email"]["pii"] = True
    _, found = validation.raw(pd.DataFrame({name: ["secret"] for name in names}), declared, config())
    assert {f.column: f.examples for f in found} == dict.fromkeys(names, ("row 0",)) | {"amount": ("row 0: 'secret'",)}

    features = DECLARED["features"] | {"customer": {"type": "integer", "range": [0, 9]}}
    frame = rows().assign(customer=4)
    frame.loc[3, "customer"] = 4711
    assert check(frame, features=features)["customer", "range"].examples == ("row 3",)
