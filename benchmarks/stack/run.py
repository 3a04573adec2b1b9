"""How long `make up` takes from a fresh clone, how long the second start, and what the stack weighs.

    python benchmarks/stack/run.py [--keep DIR] [--out results.json]

Clones this checkout's HEAD into a folder of its own with nothing installed, runs the README's commands there, and
measures the proportional set size (PSS, shared pages counted once) over every process below the supervisor: at rest,
and the peak while a second version of churn is cut over blue/green. Then that version is promoted and rolled back ten
times under 300 requests a second. Exits with 1, naming each, when a limit is missed. Linux only.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import Peak, descendants, pss_mb  # noqa: E402  (found only from here on)
from tests.support.flips import flip  # noqa: E402
from tests.support.traffic import Traffic  # noqa: E402

MODELS = ("churn", "fraud", "categorization")
ROUTER = "http://127.0.0.1:8080"
RATE = 300  # requests a second
AT_MOST = {
    "first_up_s": 240,
    "second_up_s": 40,
    "pss_at_rest_mb": 2_500,
    "pss_peak_of_a_switch_mb": 3_000,
    "slowest_rollback_to_first_answer_s": 1.0,
    "failed_requests": 0,
}
AT_LEAST = {"requests_per_s": 0.98 * RATE, "models_that_answer": 3, "models_that_answer_again": 3}


def key_of(home: Path) -> str:
    return (home / "keys" / "predictor.key").read_text().strip()


def ask(home: Path, model: str, path: str, body: bytes | None = None) -> bytes:
    headers = {"authorization": f"Bearer {key_of(home)}", "content-type": "application/json"}
    request = urllib.request.Request(f"{ROUTER}/ml/{model}/{path}", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def that_answer(home: Path) -> int:
    """How many of the models predict their own example."""
    return sum("output" in json.loads(ask(home, model, "predict", ask(home, model, "example"))) for model in MODELS)


def flips(home: Path, mlcp: Callable[..., object]) -> dict[str, Any]:
    body = json.loads(ask(home, "churn", "example"))
    with Traffic(ROUTER, key_of(home), "churn", body, rate=RATE) as traffic:
        done = flip(traffic, mlcp, "1", "2")
    return {
        "rollback_to_first_answer_s": done.back_s,
        "slowest_rollback_to_first_answer_s": max(done.back_s),
        "requests_per_s": done.requests_per_s,
        "answered_requests": len(traffic.answers),
        "failed_requests": len(traffic.failed),
    }


def missed(results: dict[str, Any]) -> list[str]:
    over = [f"{name}: {results[name]} > {most}" for name, most in AT_MOST.items() if results[name] > most]
    return over + [f"{name}: {results[name]} < {least}" for name, least in AT_LEAST.items() if results[name] < least]


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
        results["models_that_answer"] = that_answer(home)
        supervisor = json.loads((home / "run" / "status.json").read_text())["supervisor_pid"]
        time.sleep(20)
        results["pss_at_rest_mb"] = round(pss_mb(descendants(supervisor)))
        mlcp = str(clone / ".venv" / "bin" / "mlcp")
        timed(mlcp, "train", "churn", "--seed", "7", "--wait")
        with Peak(supervisor) as peak:
            results["promote_s"] = timed(mlcp, "promote", "churn", "2", "--reason", "benchmark", "--wait")
            time.sleep(5)
        results["pss_peak_of_a_switch_mb"] = round(peak.mb)
        results["rollback_s"] = timed(mlcp, "rollback", "churn", "--reason", "benchmark", "--wait")
        results |= flips(home, partial(timed, mlcp))
        results["down_s"] = timed("make", "down")
        results["second_up_s"] = timed("make", "up", "ARGS=--detach")
        results["models_that_answer_again"] = that_answer(home)
    finally:
        subprocess.run(["make", "down"], cwd=clone, env=kept, check=False)
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    if failed := missed(results):
        sys.exit("\n".join(("limits missed:", *failed)))


if __name__ == "__main__":
    main()
