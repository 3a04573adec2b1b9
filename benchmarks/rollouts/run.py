"""Ten rollouts on ten models at once, decided by evidence while customers ask: requests, failures, memory, decisions.

    python benchmarks/rollouts/run.py [--models 10] [--rate 20] [--out results.json]

Starts an embedded stack of its own, registers two versions of each model (tiny native ones: what is measured is the
platform), and lets new customers of every model ask and buy with the probability of the version that answered. A third
of the candidates is better, a third worse, a third equal. The proportional set size (PSS, shared pages counted once) is
summed over every process below the supervisor four times a second. Exits with 1, naming each, when a limit is missed or
a rollout does not end as its truth says. Linux only.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import Peak, cpu_s, descendants, pss_mb  # noqa: E402  (found only from here on)
from control_plane.sdk import ControlPlane  # noqa: E402
from tests.support.market import Market, install  # noqa: E402
from tests.support.stack import Stack  # noqa: E402

TRUTHS = {
    "better": ({"1": 0.2, "2": 0.6}, ("succeeded", "better")),
    "worse": ({"1": 0.6, "2": 0.2}, ("aborted", "worse")),
    "equal": ({"1": 0.2, "2": 0.2}, ("aborted", "no_difference")),
}
PLAN: dict[str, Any] = {
    "strategy": "canary",
    "steps": [{"weight": 20, "hold_s": 5}, {"weight": 50, "hold_s": 5}],
    "bake_s": 10,
    "analysis": {
        "observation_s": 3,
        "interval_s": 2,
        "metrics": [
            {"name": "error_rate", "margin": 0.1},
            {"name": "outcome:bought", "role": "goal", "margin": 0.2},
        ],
    },
}
PSS_MB = 6_144
WITHIN_S = 240.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--rate", type=float, default=20.0, help="customers a second of each model")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "rollouts" / "results" / "rollouts.json")
    options = parser.parse_args()
    kinds = {f"m{number}-{kind}": kind for number, kind in zip(range(options.models), _cycle(), strict=False)}
    with tempfile.TemporaryDirectory(prefix="mlcp-rollouts-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder) / "var", extra={"MLCP_MODELS_AT_START": ""})
        try:
            stack.up()
            results = measured(stack, kinds, options.rate)
        finally:
            stack.mlcp("down", check=False, timeout=120)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    if failed := missed(results):
        sys.exit("\n".join(("limits missed:", *failed)))


def measured(stack: Stack, kinds: dict[str, str], rate: float) -> dict[str, Any]:
    install(stack, *kinds)
    root = json.loads((stack.home / "run" / "status.json").read_text())["supervisor_pid"]
    at_rest = pss_mb(descendants(root))
    with Market(stack, {name: TRUTHS[kind][0] for name, kind in kinds.items()}, rate) as market, Peak(root) as peak:
        began, used = time.monotonic(), cpu_of(stack)
        with ControlPlane(stack.url("API"), stack.key("admin"), timeout_s=60) as cp:
            rollouts = {name: begun(cp, name) for name in kinds}
        all_begun_s = time.monotonic() - began
        open_at_once = most_open(stack, rollouts, began + WITHIN_S)
        took = time.monotonic() - began
        now_used = cpu_of(stack)
        servers = {name: round(pss_mb(descendants(stack.process(f"{name}-1")["pid"])), 1) for name in kinds}
    ended = {name: stack.json("rollouts", "show", rollout) for name, rollout in rollouts.items()}
    statuses = Counter(answer.status for one in market.traffic.values() for answer in one.answers)
    return {
        "rollouts": len(rollouts),
        "open_at_once": open_at_once,
        "all_begun_s": round(all_begun_s, 1),
        "all_decided_s": round(took, 1),
        "requests": market.asked,
        "requests_per_s": round(market.asked / took, 1),
        "failed_requests": len(market.failed),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "pss_before_mb": round(at_rest),
        "pss_peak_mb": round(peak.mb),
        "pss_of_a_model_server_mb": round(sum(servers.values()) / len(servers), 1),
        "processors": {name: round((now_used[name] - used.get(name, 0.0)) / took, 2) for name in sorted(now_used)},
        "decisions": {
            name: {
                "truth": kinds[name],
                "phase": found["phase"],
                "conclusion": found["conclusion"],
                "reached": found["reach"],
                "looks_kept": len(found["analyses"]),
            }
            for name, found in ended.items()
        },
    }


def cpu_of(stack: Stack) -> dict[str, float]:
    """CPU seconds so far, by process; those of all model servers together. The supervisor's are everybody's."""
    found: dict[str, float] = {}
    for process in json.loads((stack.home / "run" / "status.json").read_text())["processes"]:
        name = "model servers" if process["name"].startswith("m") and "-" in process["name"] else process["name"]
        name = "all together" if name == "supervisor" else name
        if process.get("pid"):
            found[name] = found.get(name, 0.0) + cpu_s(descendants(process["pid"]))
    return found


def begun(cp: ControlPlane, model: str) -> str:
    steps = [(step["weight"], step["hold_s"]) for step in PLAN["steps"]]
    more = {name: PLAN[name] for name in ("strategy", "bake_s", "analysis")}
    return str(cp.promote(model, "2", reason="it may be better", steps=steps, **more).id)


def most_open(stack: Stack, rollouts: dict[str, str], until: float) -> int:
    """The largest number of them seen open at one moment; returns when all have ended, or the time is over."""
    most = 0
    while time.monotonic() < until:
        now = {found["id"] for found in stack.json("rollouts", "list", "--open", "--limit", "200")}
        now &= set(rollouts.values())
        most = max(most, len(now))
        if not now:
            return most
        time.sleep(2)
    return most


def missed(results: dict[str, Any]) -> list[str]:
    found = [
        f"{name}: {one['phase']}, {one['conclusion']}, though {one['truth']}"
        for name, one in results["decisions"].items()
        if (one["phase"], one["conclusion"]) != TRUTHS[one["truth"]][1]
    ]
    if results["open_at_once"] < results["rollouts"]:
        found.append(f"open_at_once: {results['open_at_once']} < {results['rollouts']}")
    if results["failed_requests"]:
        found.append(f"failed_requests: {results['failed_requests']} > 0")
    if results["pss_peak_mb"] > PSS_MB:
        found.append(f"pss_peak_mb: {results['pss_peak_mb']} > {PSS_MB}")
    return found


def _cycle() -> list[str]:
    return list(TRUTHS) * 100


if __name__ == "__main__":
    main()
