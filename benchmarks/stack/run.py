"""How long `make up` takes from a fresh clone, how long the second start, and what the stack weighs.

    python benchmarks/stack/run.py [--keep DIR] [--out results.json]

Clones this checkout's HEAD into a folder of its own with nothing installed, runs the README's commands there, and
measures the proportional set size (PSS, shared pages counted once) over every process below the supervisor: at rest,
and the peak while a second version of churn is cut over blue/green. Linux only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import Peak, descendants, pss_mb  # noqa: E402  (found only from here on)

MODELS = ("churn", "fraud", "categorization")


def predicts(home: Path, model: str) -> bool:
    key = (home / "keys" / "predictor.key").read_text().strip()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def call(path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:8080/ml/{model}/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    return "output" in json.loads(call("predict", call("example")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "stack" / "results" / "stack.json")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="mlcp-fresh-"))
    clone, results = folder / "clone", dict[str, Any]()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLCP_", "MLFLOW_", "VIRTUAL_ENV", "UV_"))}
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)

    def timed(*argv: str) -> float:
        began = time.monotonic()
        subprocess.run(argv, cwd=clone, env=kept, check=True, stdin=subprocess.DEVNULL)
        return round(time.monotonic() - began, 1)

    home = clone / "var"
    try:
        results["first_up_s"] = timed("make", "up", "ARGS=--detach")
        results["models_answer"] = {model: predicts(home, model) for model in MODELS}
        supervisor = json.loads((home / "run" / "status.json").read_text())["supervisor_pid"]
        time.sleep(20)
        results["pss_at_rest_mb"] = round(pss_mb(descendants(supervisor)))
        mlcp = str(clone / ".venv" / "bin" / "mlcp")
        timed(mlcp, "train", "churn", "--seed", "7")
        with Peak(supervisor) as peak:
            results["promote_s"] = timed(mlcp, "promote", "churn", "2", "--reason", "benchmark", "--wait")
            time.sleep(5)
        results["pss_peak_of_a_switch_mb"] = round(peak.mb)
        results["rollback_s"] = timed(mlcp, "rollback", "churn", "--reason", "benchmark", "--wait")
        results["down_s"] = timed("make", "down")
        results["second_up_s"] = timed("make", "up", "ARGS=--detach")
        results["models_answer_again"] = {model: predicts(home, model) for model in MODELS}
    finally:
        subprocess.run(["make", "down"], cwd=clone, env=kept, check=False)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
