"""Whatever a foreign model returns becomes one JSON value per row, or an error that says it cannot."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model_servers.runtime.engine import ModelFailed
from model_servers.runtime.pyfunc_engine import _json, per_row


@pytest.mark.parametrize(
    ("result", "rows", "expected"),
    [
        (np.array([1, 2]), 2, [1, 2]),
        (np.array([[0.25, 0.75], [1, 0]]), 2, [[0.25, 0.75], [1.0, 0.0]]),
        (np.array(["a", "b"]), 2, ["a", "b"]),
        (pd.Series([1.5, np.nan], index=[7, 9]), 2, [1.5, None]),
        (pd.DataFrame({"p": [0.1, 0.2], "label": ["x", "y"]}), 2, [{"p": 0.1, "label": "x"}, {"p": 0.2, "label": "y"}]),
        ({"p": np.array([1, 2]), "q": [3, 4]}, 2, [{"p": 1, "q": 3}, {"p": 2, "q": 4}]),
        ([{"a": np.int64(1)}, {"a": np.float32(0.5)}], 2, [{"a": 1}, {"a": 0.5}]),
        ([np.True_, None], 2, [True, None]),
        (np.array([np.inf, -np.inf]), 2, [None, None]),
        ({"whole": "answer"}, 1, [{"whole": "answer"}]),
        ([1, 2, 3], 1, [[1, 2, 3]]),
        (0.5, 1, [0.5]),
        (pd.Timestamp("2026-01-02T03:04:05Z"), 1, ["2026-01-02T03:04:05+00:00"]),
        ([datetime(2026, 1, 2, tzinfo=UTC)], 1, ["2026-01-02T00:00:00+00:00"]),
    ],
)
def test_what_a_model_returns_becomes_one_value_per_row(result: Any, rows: int, expected: list[Any]) -> None:
    assert [json.loads(_json(value)) for value in per_row(result, rows)] == expected


@pytest.mark.parametrize("result", [0.5, [1, 2], {"a": 1}, {"a": [1]}, np.zeros((3, 1))])
def test_several_rows_without_one_value_each_are_an_error(result: Any) -> None:
    with pytest.raises(ModelFailed):
        per_row(result, 4)


def test_what_has_no_json_form_is_an_error_that_names_its_type_and_not_its_value() -> None:
    with pytest.raises(ModelFailed, match="complex") as caught:
        _json(complex(12345, 1))
    assert "12345" not in str(caught.value)
