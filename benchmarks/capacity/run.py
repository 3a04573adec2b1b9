"""What a replica costs: memory, time to start, CPU a prediction takes in every part; and how many a rate needs.

    python benchmarks/capacity/run.py [--seconds 20] [--rates 300 1000 2000] [--home DIR] [--out DIR]

Starts the whole embedded stack with the fixed model of benchmarks/serving in Production and a canary of 10 %, sends
requests at constant rates and counts CPU seconds by part until every record is in Postgres. Then the smallest set of
pages each part has for itself, and from spawn to the first answer for one more model server and one more router.
Linux and a C compiler.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import measure  # noqa: E402  (found only from here on)
from benchmarks.capacity import sizing  # noqa: E402
from benchmarks.serving import fixed, load  # noqa: E402
from benchmarks.serving.ours import SEQUENCE, OurRunning, Ours  # noqa: E402

RATES = (1_000, 10_000, 100_000)  # a second, that replicas are reckoned for
_STARTS = 5
_WARM_S = 3.0
Start = tuple[float, float]  # seconds and CPU seconds from spawn to the first answer


def measured(running: OurRunning, tool: Path, rate: float, seconds: float) -> dict[str, Any]:
    """CPU microseconds a prediction takes by role, its log included."""
    backlog = running.backlog()
    backlog.drain()
    before = {role: measure.cpu_s(pids) for role, pids in running.roles().items()}
    machine_before, began = measure.machine_s(), time.monotonic()
    connections = max(16, min(load.MAX_OPEN, round(rate / 50)))
    result = load.open_loop(tool, running.target, rate=rate, seconds=seconds, connections=connections)
    owed = backlog.owed()
    backlog.drain()
    after = {role: measure.cpu_s(pids) for role, pids in running.roles().items()}
    used = sum(after.values()) - sum(before.values())
    busy = (measure.machine_s() - machine_before - used) / (time.monotonic() - began)
    others = busy / (os.cpu_count() or 1)  # the generator among them
    cost = {role: round((after[role] - before[role]) * 1e6 / result.answered, 1) for role in SEQUENCE if role in after}
    return {
        "rate": rate,
        "answered_per_s": round(result.rps, 1),
        "errors": result.errors + result.unsent,
        "others_cpu": round(others, 3),  # share of the machine that somebody else used meanwhile
        "p50_ms": round(result.p50_ms, 2),
        "p99_ms": round(result.p99_ms, 2),
        "log_behind": owed,
        "cpu_us": cost,
    }


def alone_mb(pids: set[int]) -> float:
    """Memory of a tree as if nothing else ran: private pages of each process, the most that one of them shares."""
    private, shared = 0, [0]
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kb = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        private += kb["Private_Clean"] + kb["Private_Dirty"]
        shared.append(kb["Shared_Clean"] + kb["Shared_Dirty"])
    return round((private + max(shared)) / 1024, 1)


def memory(home: Path) -> dict[str, float]:
    """By process of the stack; the supervisor's is that of all of them together."""
    processes = json.loads((home / "run" / "status.json").read_bytes())["processes"]
    found = {one["name"]: alone_mb(measure.descendants(one["pid"])) for one in processes if one.get("pid")}
    return {"all together" if name == "supervisor" else name: mb for name, mb in found.items()}


def model_server_start(home: Path) -> Start:
    """To the first 200 of /ready, of a server beside those that run."""
    told = sorted((home / "run" / "deployments").glob("*/server.json"), key=lambda file: file.stat().st_mtime)[-1]
    spec = json.loads(told.read_bytes())
    spec |= {"socket": f"127.0.0.1:{_free()}", "aux_socket": f"127.0.0.1:{_free()}", "metrics_dir": None}
    copy = home / "run" / "capacity.json"
    copy.write_text(json.dumps(spec))
    argv = [sys.executable, "-m", "model_servers.launch", "--spec", str(copy)]
    with _spawned(argv, {}) as child:
        return _first_answer(f"http://{spec['socket']}/ready", *child)


def router_start(home: Path) -> Start:
    """To the first 200 of /v2/health/live, of a router that has a saved snapshot and a new spool."""
    processes = json.loads((home / "run" / "status.json").read_bytes())["processes"]
    pid = next(one["pid"] for one in processes if one["name"] == "router")
    told = dict(entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in entry)
    other, port = home / "capacity", _free()
    shutil.rmtree(other, ignore_errors=True)
    (other / "router").mkdir(parents=True)
    shutil.copy(home / "router" / "snapshot.json", other / "router")
    told |= {"MLCP_HOME": str(other), "MLCP_ROUTER_PORT": str(port), "MLCP_READY_FILE": str(other / "ready")}
    with _spawned([sys.executable, "-m", "control_plane.router"], told) as child:
        return _first_answer(f"http://127.0.0.1:{port}/v2/health/live", *child)


@contextmanager
def _spawned(argv: list[str], env: Mapping[str, str]) -> Iterator[tuple[float, int]]:
    """When it began, and its pid; it and what it started are gone afterwards."""
    began = time.monotonic()
    child = subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield began, child.pid
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(30)


def _first_answer(url: str, began: float, pid: int) -> Start:
    while time.monotonic() - began < 60:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return time.monotonic() - began, measure.cpu_s(measure.descendants(pid))
        except OSError:
            time.sleep(0.01)
    raise RuntimeError(f"{url} does not answer")


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def several(start: Callable[[Path], Start], home: Path) -> dict[str, float]:
    """Medians. On a machine with nothing else to do the two are nearly the same, but for what runs side by side."""
    found = [start(home) for _ in range(_STARTS)]
    seconds, cpu = (statistics.median(one[part] for one in found) for part in (0, 1))
    return {"seconds": round(seconds, 2), "cpu_s": round(cpu, 2)}


def machine() -> dict[str, Any]:
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ", 1)[1] for line in told if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cpus": os.cpu_count(), "python": platform.python_version()}


def replica_mb(found: Mapping[str, float]) -> dict[str, float]:
    """By the roles that are replicated: the largest of the processes that are one."""
    servers = [mb for name, mb in found.items() if name.startswith("fixed-")]
    return {name: found[name] for name in ("router", "shipper", "ingester")} | {"model servers": max(servers)}


def written(results: Mapping[str, Any]) -> str:
    """The tables of the docs page."""
    runs, start = results["runs"], results["start"]
    roles = [role for role in SEQUENCE if role in runs[0]["cpu_us"]]
    shown = [
        [f"{run['rate']:,.0f}", run["p50_ms"], run["p99_ms"], *[run["cpu_us"][role] for role in roles]] for run in runs
    ]
    needs = [results["needed"][str(rate)] for rate in RATES]
    sized = [
        [
            f"{need['rate']:,.0f}/s",
            *[f"{need['replicas'][role]} ({need['cores'][role]:.1f})" for role in sizing.PER_REPLICA],
            f"{need['cores']['postgres']:.1f}",
            f"{need['cores']['redis']:.1f}",
            f"{need['memory_mb'] / 1024:.1f} GB",
        ]
        for need in needs
    ]
    starts = [[name, one["seconds"], one["cpu_s"]] for name, one in start.items()]
    return "\n\n".join(
        (
            sizing.table(["process", "MB"], sorted(results["memory_mb"].items())),
            sizing.table(["from spawn to the first answer", "s", "CPU s"], starts),
            sizing.table(["requests/s", "p50, ms", "p99, ms", *[f"{role}, us" for role in roles]], shown),
            sizing.table(["rate", *[f"{r} (cores)" for r in sizing.PER_REPLICA], "postgres", "redis", "memory"], sized),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of each rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[300, 1_000, 2_000])
    parser.add_argument("--cache", type=Path, default=ROOT / "var" / "benchmarks" / "serving", help="kept between runs")
    parser.add_argument("--home", type=Path, help="MLCP_HOME of the stack (default: in the cache)")
    parser.add_argument("--prepare", action="store_true", help="train and register the model, measure nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "capacity" / "results")
    given = parser.parse_args()
    model, tool = fixed.make(given.cache / "model"), load.build_open_loop(given.cache)
    ours = Ours((given.home or given.cache / "mlcp").absolute())
    ours.prepare(given.cache, model)
    if given.prepare:
        return
    with ours.running(ours.variants[0], given.cache / "capacity") as running:
        load.open_loop(tool, running.target, rate=min(given.rates), seconds=_WARM_S, connections=16)
        runs = [measured(running, tool, rate, given.seconds) for rate in given.rates]
        in_memory = memory(ours.home)
        start = {
            "one more model server, two workers": several(model_server_start, ours.home),
            "one more router, two workers": several(router_start, ours.home),
        }
    cost = {role: us for role, us in runs[-1]["cpu_us"].items() if role != "control"}
    each = replica_mb(in_memory)
    needs = {str(rate): sizing.needed(rate, cost, each) for rate in RATES}
    results = {
        "machine": machine(),
        "runs": runs,
        "memory_mb": in_memory,
        "start": start,
        "core_hours_per_million": round(sizing.core_hours_per_million(cost), 3),
        "needed": {
            rate: {"rate": n.rate, "cores": n.cores, "replicas": n.replicas, "memory_mb": n.memory_mb}
            for rate, n in needs.items()
        },
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "capacity.json").write_text(json.dumps(results, indent=2) + "\n")
    (given.out / "capacity.md").write_text(written(results) + "\n")
    sys.stdout.write(written(results) + "\n")


if __name__ == "__main__":
    main()
