"""Drift between two files, beside Evidently and NannyML: time and peak memory, as ratios; and files wider than memory.

    python benchmarks/drift/run.py [--rows 1000000] [--columns 30] [--peers evidently,nannyml] [--exact]
                                   [--wide 3000000x1000 [--write reference|current]] [--home DIR] [--out results.json]

Every contender is a process of its own that reads the same two Parquet files. `seconds` is from the first byte read to
the last score, imports left out; `whole` is the life of the process; `mb` its peak resident memory. Peers run in
environments of their own, made under --home with uv the first time and kept there. --wide compares files of that size
instead, without peers; it writes them in parts and keeps them for the next run, and --write does only that.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
CATEGORICAL = 6  # every sixth column
DRAWN, STEP = 30, 101
PEERS = {
    "evidently": ["evidently==0.7.23", "pandas<3", "pyarrow"],
    "nannyml": ["nannyml==0.13.1", "pandas<3", "pyarrow", "setuptools<81", "statsmodels"],
}

MEASURE = """
import json, resource, sys, time
{imports}
reference, current, columns = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
print(json.dumps({{"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **found}}))
"""
OURS = MEASURE.format(
    imports="""
from pathlib import Path
import numpy, scipy.special, pyarrow.parquet, pyarrow.compute
from control_plane.domain.drift import decide
from control_plane.embedded import drift
""",
    work="""
report = drift.report(Path(reference), Path(current), policy=decide.Policy(), types={}, bins=int(sys.argv[4]))
found = {"drifted": sum(f["verdict"] == "fail" for f in report["features"]), "columns": len(report["features"])}
""",
)
EVIDENTLY = MEASURE.format(
    imports="import pandas as pd\nfrom evidently import Report\nfrom evidently.presets import DataDriftPreset",
    work="""
a, b = pd.read_parquet(reference), pd.read_parquet(current)
result = Report([DataDriftPreset()]).run(b, a).dict()
counted = [m["value"] for m in result["metrics"] if isinstance(m["value"], dict) and "count" in m["value"]]
found = {"drifted": int(counted[0]["count"]), "columns": a.shape[1]}
""",
)
NANNYML = MEASURE.format(
    imports="import warnings; warnings.simplefilter('ignore')\nimport pandas as pd\nimport nannyml as nml",
    work="""
a, b = pd.read_parquet(reference), pd.read_parquet(current)
calculator = nml.UnivariateDriftCalculator(column_names=columns, chunk_number=1)
result = calculator.fit(a).calculate(b).filter(period="analysis").to_df()
found = {"drifted": int(result.xs("alert", axis=1, level=2).iloc[0].sum()), "columns": len(columns)}
""",
)
SCRIPTS = {"ours": OURS, "evidently": EVIDENTLY, "nannyml": NANNYML}


def write(path: Path, rows: int, columns: int, *, seed: int, shift: float, group: int = 250_000) -> None:
    """A Parquet file in parts. Numbers: normal, log-normal, few integers; categories with a long tail.

    Every DRAWN columns the kinds repeat; columns beyond them are the same draws, each begun at another row, so that a
    file of a thousand columns is written in minutes and no two columns agree in any row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    writer: Any = None
    levels = pa.array([f"v{v}" for v in range(1_000)])
    for begin in range(0, rows, group):
        n = min(group, rows - begin)
        drawn = n + STEP * (columns // DRAWN)
        pool = [_draw(rng, at, drawn, shift if at % 10 == 0 else 0.0) for at in range(min(DRAWN, columns))]
        made: dict[str, Any] = {}
        for at in range(columns):
            values = pool[at % DRAWN][STEP * (at // DRAWN) :][:n]
            made[f"c{at}"] = levels.take(pa.array(values)) if at % CATEGORICAL == 5 else values
        table = pa.table(made)
        if writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            coded = [f"c{at}" for at in range(columns) if at % CATEGORICAL == 5 or at % 3 == 2]  # few distinct values
            writer = pq.ParquetWriter(path.with_suffix(".part"), table.schema, compression="zstd", use_dictionary=coded)
        writer.write_table(table)
    writer.close()
    path.with_suffix(".part").rename(path)


def _draw(rng: np.random.Generator, at: int, n: int, moved: float) -> Any:
    """Of a category the index of its level."""
    if at % CATEGORICAL == 5:
        return np.minimum(rng.zipf(1.6 + moved, n), 1_000) - 1
    if at % 3 == 0:
        return rng.standard_normal(n) + moved
    return rng.lognormal(moved, 1, n) if at % 3 == 1 else rng.poisson(20 + moved, n)


def table(home: Path, name: str, rows: int, columns: int) -> Path:
    """The file of that name, `reference` or `current`, written the first time."""
    seed, shift = {"reference": (1, 0.0), "current": (2, 0.5)}[name]
    path = home / f"{name}-{rows}x{columns}.parquet"
    if not path.exists():
        print(f"writing {path}", file=sys.stderr)
        write(path, rows, columns, seed=seed, shift=shift, group=max(10_000, min(250_000, 60_000_000 // columns)))
    return path


def environment(home: Path, peer: str) -> Path:
    """The peer's interpreter, in an environment of its own that has exactly what PEERS names."""
    folder, wanted = home / f"venv-{peer}", "\n".join(PEERS[peer])
    python, stamp = folder / "bin" / "python", home / f"venv-{peer}" / "made-of.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = [str(Path(sys.executable).with_name("uv"))]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *PEERS[peer]], check=True)
        stamp.write_text(wanted)
    return python


def run(name: str, python: Path, pair: tuple[Path, Path], columns: int, bins: int = 16) -> dict[str, Any]:
    argv = [str(python), "-c", SCRIPTS[name], *map(str, pair), json.dumps([f"c{i}" for i in range(columns)]), str(bins)]
    started = time.perf_counter()
    environ = {"PYTHONPATH": str(ROOT)} if name == "ours" else {}
    done = subprocess.run(argv, capture_output=True, text=True, env={**peer_environ(), **environ})
    if done.returncode:
        return {"contender": name, "error": done.stderr.strip().splitlines()[-1:]}
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return {"contender": name, "whole": time.perf_counter() - started, **said}


def peer_environ() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "2", "DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}


def exact(rows: int) -> dict[str, float]:
    """Our scores against scipy on the exact samples: largest differences over continuous shapes."""
    from scipy import special, stats

    from control_plane.domain.drift import decide, fold, scores
    from control_plane.domain.model_config import FeatureType

    rng = np.random.default_rng(0)
    worst = {"ks_binned": 0.0, "ks_exact": 0.0, "wasserstein_exact": 0.0, "psi": 0.0, "js": 0.0}
    shapes = [rng.standard_normal, lambda n: rng.lognormal(0, 1, n), lambda n: rng.exponential(1, n)]
    shapes += [lambda n: rng.uniform(0, 1, n), lambda n: rng.standard_t(2, n)]
    for shape in shapes:
        for shift in (0.0, 0.05, 0.3):
            a, b = shape(rows), shape(rows) + shift
            grid = fold.reference({"x": a}, {"x": FeatureType.NUMBER}, cells=fold.Cells(bins=64)).features["x"]
            before, after = (decide.cell_counts(side)[:-1] for side in (grid, fold.fold_feature(grid, b)))
            ks = stats.ks_2samp(a, b).statistic
            sa, sb = np.sort(a), np.sort(b)
            found = scores.ks_binned(before, after).value
            worst["ks_binned"] = max(worst["ks_binned"], abs(found - ks))
            worst["ks_exact"] = max(worst["ks_exact"], abs(scores.ks_exact(sa, sb) - ks))
            emd = stats.wasserstein_distance(a, b)
            worst["wasserstein_exact"] = max(worst["wasserstein_exact"], abs(scores.wasserstein_exact(sa, sb) - emd))
            p, q = (side + 0.5 for side in (before, after))
            p, q = p / p.sum(), q / q.sum()
            js = np.sqrt((special.rel_entr(p, (p + q) / 2) + special.rel_entr(q, (p + q) / 2)).sum() / 2 / np.log(2))
            worst["psi"] = max(
                worst["psi"], abs(scores.psi(before, after, smoothing=0.5) - ((q - p) * np.log(q / p)).sum())
            )
            worst["js"] = max(worst["js"], abs(scores.jensen_shannon(before, after, smoothing=0.5) - js))
    return {name: float(value) for name, value in worst.items()}


def markdown(results: list[dict[str, Any]]) -> str:
    lines = [
        "| contender | seconds | whole process | peak MB | times ours | memory of ours | drifted |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = next((r for r in results if r["contender"] == "ours" and "error" not in r), None)
    for r in results:
        if "error" in r:
            lines.append(f"| {r['contender']} | failed: {r['error']} | | | | | |")
            continue
        times = f"{r['seconds'] / ours['seconds']:.1f}" if ours else ""
        memory = f"{r['mb'] / ours['mb']:.1f}" if ours else ""
        lines.append(
            f"| {r['contender']} | {r['seconds']:.2f} | {r['whole']:.2f} | {r['mb']:.0f} | {times} | {memory} "
            f"| {r['drifted']} of {r['columns']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--bins", type=int, default=16)
    parser.add_argument("--peers", default="evidently,nannyml", help="empty: none")
    parser.add_argument("--wide", help="ROWSxCOLUMNS: these alone, without peers")
    parser.add_argument("--write", choices=("reference", "current"), help="write this file of --wide and do no more")
    parser.add_argument("--exact", action="store_true", help="compare the scores with scipy's")
    parser.add_argument("--home", type=Path, default=ROOT / "benchmarks" / "drift" / "results")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    if given.wide:
        rows, columns = map(int, given.wide.split("x"))
        if given.write:
            table(given.home, given.write, rows, columns)
            return
        names = ["ours"]
    else:
        rows, columns, names = given.rows, given.columns, ["ours", *(peer for peer in given.peers.split(",") if peer)]
    found: dict[str, Any] = {"rows": rows, "columns": columns}
    pair = (table(given.home, "reference", rows, columns), table(given.home, "current", rows, columns))
    results: list[dict[str, Any]] = []
    for name in names:
        python = Path(sys.executable) if name == "ours" else environment(given.home, name)
        results.append(run(name, python, pair, columns, given.bins))
        print(json.dumps(results[-1]), file=sys.stderr)
    found["results"] = results
    print(f"{rows:,} rows x {columns} columns\n\n{markdown(results)}\n")
    if given.exact:
        found["exact"] = exact(min(given.rows, 200_000))
        print("largest difference from scipy:", ", ".join(f"{k} {v:.2g}" for k, v in found["exact"].items()))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
