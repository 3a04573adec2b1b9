"""Performance estimated without labels, beside NannyML's on the same chunks and beside what turned out.

    python -m benchmarks.drift.cbpe [--chunks 20] [--rows 5000] [--home DIR] [--out results.json]

A reference and chunks of a binary problem whose probabilities are calibrated. First the customers change (covariate
shift), more and more; in the last third the relation of features and label changes too (concept shift), where an
estimate has to fail and the realised metric says so. NannyML runs in an environment of its own under --home.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.drift.run import environment, peer_environ
from control_plane.domain.drift import estimate

ROOT = Path(__file__).parents[2]

NANNYML = """
import json, sys, warnings
warnings.simplefilter("ignore")
import nannyml as nml, pandas as pd
reference, analysis, rows = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2]), int(sys.argv[3])
names = {"y_true": "y", "y_pred_proba": "p", "y_pred": "said", "problem_type": "classification_binary"}
found = nml.CBPE(metrics=["roc_auc", "accuracy"], chunk_size=rows, **names).fit(reference).estimate(analysis)
frame = found.filter(period="analysis").to_df()
print(json.dumps({m: frame[(m, "value")].tolist() for m in ("roc_auc", "accuracy")}))
"""


def chunk(rng: np.random.Generator, rows: int, shift: float, concept: float) -> pd.DataFrame:
    x = rng.normal(-1.0 + shift, 1.2 + 0.2 * shift, rows)
    p = 1 / (1 + np.exp(-x))
    truth = 1 / (1 + np.exp(-(x * (1 - concept) - concept)))
    return pd.DataFrame({"p": p, "said": (p >= 0.5).astype(int), "y": (rng.random(rows) < truth).astype(int)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=21)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--home", type=Path, default=ROOT / "benchmarks" / "drift" / "results")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    reference = chunk(rng, 50_000, 0.0, 0.0)
    third = given.chunks // 3
    shifts = [at / given.chunks * 1.5 for at in range(given.chunks)]
    concepts = [0.0 if at < given.chunks - third else 0.7 for at in range(given.chunks)]
    chunks = [chunk(rng, given.rows, s, c) for s, c in zip(shifts, concepts, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "reference.parquet", Path(folder) / "analysis.parquet"]
        for frame, file in zip((reference, pd.concat(chunks, ignore_index=True)), files, strict=True):
            frame.to_parquet(file)
        argv = [str(environment(given.home, "nannyml")), "-c", NANNYML, *map(str, files), str(given.rows)]
        done = subprocess.run(argv, capture_output=True, text=True, env=peer_environ())
    if done.returncode:
        raise SystemExit(f"NannyML failed: {done.stderr.strip().splitlines()[-1:]}")
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    results: list[dict[str, Any]] = []
    for at, frame in enumerate(chunks):
        promised = estimate.binary(frame["p"], threshold=0.5)
        realised = estimate.realised_auc(frame["p"], frame["y"])
        assert promised.auc is not None
        assert realised is not None
        low, high = promised.auc.interval(0.05)
        row = {"positives": int(frame["y"].sum()), "concept": concepts[at] > 0, "realised": realised.value}
        row |= {"realised_sd": realised.sd, "ours": promised.auc.value, "inside": low <= realised.value <= high}
        row |= {"theirs": theirs["roc_auc"][at], "accuracy": promised.accuracy.value - theirs["accuracy"][at]}
        results.append(row)
    calm = [r for r in results if not r["concept"]]
    broken = [r for r in results if r["concept"]]
    summary = {
        "covariate shift: mean |estimated - realised|": float(np.mean([abs(r["ours"] - r["realised"]) for r in calm])),
        "sampling error of the realised AUC": float(np.mean([r["realised_sd"] for r in calm])),
        "realised within our 95 % interval": float(np.mean([r["inside"] for r in calm])),
        "largest difference from NannyML, AUC": max(abs(r["ours"] - r["theirs"]) for r in results),
        "largest difference from NannyML, accuracy": max(abs(r["accuracy"]) for r in results),
        "concept shift: mean estimated - realised": float(np.mean([r["ours"] - r["realised"] for r in broken])),
        "fewest positives in a chunk": min(r["positives"] for r in results),
    }
    for name, value in summary.items():
        print(f"{name:48} {value:.4f}" if isinstance(value, float) else f"{name:48} {value}")
    if given.out:
        given.out.write_text(json.dumps({"summary": summary, "chunks": results}, indent=1))


if __name__ == "__main__":
    main()
