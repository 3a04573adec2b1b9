"""Which candidates a model gets, and fitting them side by side within a CPU budget."""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Feature, FeatureType, ModelConfig, Problem
from model_servers.native.manifest import Kind
from training.common import linear, trees
from training.common.artifact import Fitted
from training.common.workers import Workers

_STRENGTHS: Mapping[str, tuple[float, ...]] = {"logistic": (1.0, 0.05), "tfidf_linear": (25.0, 6.0)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """`strength`: inverse regularisation, of linear kinds only."""

    name: str
    kind: Kind
    strength: float = 0.0


def listed(config: ModelConfig) -> list[Candidate]:
    """What model.yaml asks for; else all kinds that can read its features, LightGBM where it is installed."""
    text = any(feature.type is FeatureType.TEXT for feature in config.features.values())
    wanted: Sequence[str] = config.training.candidates or (
        ("tfidf_linear",) if text else ("xgboost", *_lightgbm(), "forest", "logistic")
    )
    kinds: Mapping[str, Kind] = {"logistic": "linear", "tfidf_linear": "tfidf_linear", "xgboost": "xgboost",
                                 "lightgbm": "lightgbm", "forest": "forest"}  # fmt: skip
    return [
        Candidate(f"{name}-{strength:g}" if strength else name, kinds[name], strength)
        for name in wanted
        for strength in _STRENGTHS.get(name, (0.0,))
    ]


def by_workers(config: ModelConfig) -> bool:
    """Whether there is a candidate that workers can fit."""
    return any(one.kind == "xgboost" for one in listed(config))


def _lightgbm() -> tuple[str, ...]:
    return ("lightgbm",) if importlib.util.find_spec("lightgbm") else ()


@dataclass(frozen=True)
class Rows:
    """Rows to learn from. `target`: 0/1, class numbers or values; `weight`: None where all weigh the same."""

    features: Mapping[str, Feature]
    arrays: list[NDArray[Any]]
    target: NDArray[np.float64]
    weight: NDArray[np.float64] | None
    problem: Problem
    outputs: int

    @cached_property
    def table(self) -> trees.Table:
        """Encoded once for all tree candidates."""
        return trees.Table(self.features, self.arrays, self.target, self.outputs)

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        weight = None if self.weight is None else self.weight[rows]
        arrays = [values[rows] for values in self.arrays]
        return Rows(self.features, arrays, self.target[rows], weight, self.problem, self.outputs)


def fit(
    candidate: Candidate,
    rows: Rows,
    check: Rows | None,
    *,
    seed: int,
    threads: int,
    again: Fitted | None,
    by: Workers | None = None,
) -> Fitted:
    """`check`: rows that early stopping may look at. `again`: an earlier fit whose settings are taken over instead.

    `by`: workers that fit XGBoost; the other kinds, and without workers all, are fitted in this process.
    """
    shared: dict[str, Any] = {"problem": rows.problem, "outputs": rows.outputs, "seed": seed}
    tabular = (rows.features, rows.arrays, rows.target, rows.weight)
    looked_at = (check.arrays, check.target) if check else None
    rounds = again.rounds if again else None
    match candidate.kind:
        case "linear":
            return linear.fit_tabular(*tabular, **shared, strength=candidate.strength)
        case "tfidf_linear":
            return linear.fit_text(*tabular, **shared, strength=candidate.strength, threads=threads)
        case "xgboost":
            return trees.fit_xgboost(
                rows.table, looked_at, rows.weight, **shared, threads=threads, rounds=rounds, by=by
            )
        case "lightgbm":
            return trees.fit_lightgbm(rows.table, looked_at, rows.weight, **shared, threads=threads, rounds=rounds)
        case "forest":
            return trees.fit_forest(rows.table, rows.weight, **shared, threads=threads)


def fit_all(
    wanted: Sequence[Candidate],
    rows: Rows,
    check: Rows,
    *,
    seed: int,
    cpus: int,
    done: Callable[[Candidate], None],
    by: Workers | None = None,
) -> list[tuple[Fitted, float]]:
    """Every candidate and the seconds it took, in the order given.

    In threads, not processes: the fitting happens in native code outside the interpreter's lock, the rows are shared
    instead of copied, and nothing is imported twice. No more than `cpus` threads compute at any time.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    at_once = max(1, min(cpus, len(wanted)))
    threads = max(1, cpus // at_once)
    if any(candidate.kind in {"xgboost", "lightgbm", "forest"} for candidate in wanted):
        _ = rows.table  # before the threads race for it

    def run(candidate: Candidate) -> tuple[Fitted, float]:
        start = time.perf_counter()
        fitted = fit(candidate, rows, check, seed=seed, threads=threads, again=None, by=by)
        done(candidate)
        return fitted, time.perf_counter() - start

    with threadpool_limits(limits=threads), ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(run, wanted))
