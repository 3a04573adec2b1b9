"""One process beside two Dask workers on the same machine: fitting XGBoost, and drift between two Parquet files.

    python benchmarks/workers/run.py [--rows 500000] [--columns 30] [--drift-rows 4000000] [--workers 2]
                                     [--home DIR] [--out results.json]

One process may use as many threads as there are workers. `start` is what workers cost before they do anything, `first`
the first time they do it, imports included, `again` the second time. Both answers are compared, not only timed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from control_plane.domain.drift import decide
from control_plane.domain.model_config import Feature, FeatureType, Problem
from control_plane.embedded import drift
from training.common import trees, workers
from training.common.workers import Place, Workers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.drift import run as drift_run  # noqa: E402  (found only from here on)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def files(home: Path, rows: int, columns: int) -> tuple[Path, Path]:
    """Those of benchmarks/drift, written the first time."""
    return drift_run.table(home, "reference", rows, columns), drift_run.table(home, "current", rows, columns)


def fits(by: Workers, rows: int, columns: int, threads: int) -> dict[str, Any]:
    import xgboost

    rng = np.random.default_rng(1)
    made = [rng.normal(size=rows + 50_000) if at % 3 else rng.lognormal(size=rows + 50_000) for at in range(columns)]
    odds = made[0] - made[1] + made[2] * made[4] / 2 - 1
    label = (rng.random(len(odds)) < 1 / (1 + np.exp(-odds))).astype(float)
    features = {f"c{at}": Feature(FeatureType.NUMBER) for at in range(columns)}
    table = trees.Table(features, [values[:rows] for values in made], label[:rows], 1)
    check = ([values[rows:] for values in made], label[rows:])

    def fit(one: Workers | None) -> Any:
        given: dict[str, Any] = {"problem": Problem.BINARY, "outputs": 1, "seed": 1, "threads": threads}
        return trees.fit_xgboost(table, check, None, **given, by=one)

    alone, one = timed(lambda: fit(None))
    first, two = timed(lambda: fit(by))
    again, _ = timed(lambda: fit(by))
    scores: list[Any] = []
    for fitted in (one, two):
        booster = xgboost.Booster()
        booster.load_model(bytearray(fitted.booster))
        scores.append(booster.predict(xgboost.DMatrix(table.encoder.column_matrix(check[0]))))
    apart = float(np.abs(scores[0] - scores[1]).max())
    return {"one_s": alone, "first_s": first, "again_s": again, "rounds": [one.rounds, two.rounds], "apart": apart}


def drifts(by: Workers, pair: tuple[Path, Path]) -> dict[str, Any]:
    def report(one: Workers | None) -> Any:
        return drift.report(*pair, policy=decide.Policy(), types={}, bins=16, by=one)

    report(None)  # from now on both files are in the page cache
    alone, one = timed(lambda: report(None))
    first, two = timed(lambda: report(by))
    again, _ = timed(lambda: report(by))
    return {"one_s": alone, "first_s": first, "again_s": again, "same": one == two}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--drift-rows", type=int, default=4_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--home", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    pair = files(given.home, given.drift_rows, given.columns)
    begun = time.perf_counter()
    with workers.opened(Place(local=given.workers), threads=given.workers) as by:
        found: dict[str, Any] = {"start_s": time.perf_counter() - begun}
        found["drift"] = drifts(by, pair)
        print(json.dumps(found), file=sys.stderr)
        found["xgboost"] = fits(by, given.rows, given.columns, given.workers)
    print(f"{given.workers} workers, started in {found['start_s']:.1f} s; {given.columns} columns\n")
    print("| | one process, s | workers, first, s | again, s | |\n|---|---|---|---|---|")
    for name, rows, same in (
        ("drift", 2 * given.drift_rows, f"the same report: {found['drift']['same']}"),
        ("xgboost", given.rows, f"predictions apart by at most {found['xgboost']['apart']:.1g}"),
    ):
        figures = " | ".join(f"{found[name][key]:.1f}" for key in ("one_s", "first_s", "again_s"))
        print(f"| {name}, {rows:,} rows | {figures} | {same} |")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
