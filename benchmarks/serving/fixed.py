"""The one model everybody serves, and the requests everybody gets: made from fixed seeds, so always the same."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FEATURES = tuple(f"f{i:02d}" for i in range(20))
TREES, DEPTH, ROWS, BODIES = 100, 6, 20_000, 500
TOLERANCE = 1e-6  # probabilities are float32 everywhere; only the text they are written as differs


@dataclass(frozen=True, slots=True)
class Fixed:
    """`booster`: xgboost's UBJSON file; `json`: the same as JSON. `rows`: (BODIES, 20), four decimals each."""

    booster: Path
    json: Path
    rows: NDArray[np.float64]
    probabilities: NDArray[np.float64]  # the booster's own answers to `rows`


def make(folder: Path) -> Fixed:
    """Train it, or read what was trained before."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Fixed(folder / "model.ubj", folder / "model.json", requests(), np.empty(0))
    import xgboost

    booster = xgboost.Booster()
    if not (made.booster.exists() and made.json.exists()):
        x, y = _customers(20, ROWS)
        parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.1, "nthread": 2, "seed": 20}
        booster = xgboost.train(parameters, xgboost.DMatrix(x, label=y), TREES)
        booster.save_model(made.booster)
        booster.save_model(made.json)
    booster.load_model(made.booster)
    answers = booster.inplace_predict(made.rows.astype(np.float32)).astype(np.float64)
    return Fixed(made.booster, made.json, made.rows, answers)


def hold_out() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows and labels the model has not seen."""
    return _customers(21, 5_000)


def _customers(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, len(FEATURES)))
    margin = x[:, 0] + x[:, 1] * x[:, 2] + np.sin(2 * x[:, 3]) - 0.5 * np.abs(x[:, 4]) + x[:, 5:] @ np.full(15, 0.1)
    return x.astype(np.float32), random.random(count) < 1 / (1 + np.exp(-margin))


def requests() -> NDArray[np.float64]:
    return np.round(np.random.default_rng(500).normal(size=(BODIES, len(FEATURES))), 4)


def unit(number: int) -> str:
    return f"customer-{number:05d}"


def write_bodies(path: Path, rows: NDArray[np.float64], encode: Callable[[list[float], str], object]) -> None:
    """One body per line. `encode`: a row and its unit -> the JSON a system wants."""
    lines = (json.dumps(encode(row, unit(i)), separators=(",", ":")) for i, row in enumerate(rows.tolist()))
    path.write_text("\n".join(lines) + "\n")


def differs(expected: NDArray[np.float64], got: list[float]) -> str | None:
    """What is wrong with a system's answers; None when they are the model's own."""
    if len(got) != len(expected):
        return f"{len(got)} answers to {len(expected)} rows"
    wrong = [i for i, (e, g) in enumerate(zip(expected, got, strict=True)) if not math.isclose(e, g, abs_tol=TOLERANCE)]
    if not wrong:
        return None
    first = wrong[0]
    return f"{len(wrong)} of {len(got)} answers differ; the first: {got[first]!r} instead of {expected[first]!r}"
