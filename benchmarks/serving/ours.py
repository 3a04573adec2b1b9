"""Our own side: the whole embedded stack with the fixed model in Production and a second version as a canary of 10 %.

Everything runs as `make up` starts it: router, model servers, shipper, ingester, Postgres, Redis, MLflow, API,
reconciler and worker, each at its own priority. Nothing is switched off for the measurement.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measure import descendants
from benchmarks.serving import fixed, systems
from benchmarks.serving.backlog import Backlog
from benchmarks.serving.fixed import Fixed
from benchmarks.serving.load import Target
from benchmarks.serving.register import MODEL
from benchmarks.serving.systems import Running, Variant

ROOT = Path(__file__).parents[2]
PORTS = {"ROUTER": 8420, "API": 8421, "MLFLOW": 8422}
CANARY_PERCENT = 10
_MONTH_S = 30 * 86_400
_HOT = ("router", "shipper", "ingester", "postgres", "redis")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OurRunning(Running):
    """`batch`: where batches go, with the same headers. `backlog`: looks at what is not in Postgres yet."""

    batch: str
    backlog: Callable[[], Backlog]


@dataclass(slots=True)
class Ours:
    """`home`: MLCP_HOME, kept between runs; its path must be short enough for unix sockets."""

    home: Path
    name: str = "mlcp"
    variants: tuple[Variant, ...] = (Variant(2, batching=True),)
    model: Fixed | None = field(default=None, init=False)

    def prepare(self, cache: Path, model: Fixed) -> Mapping[str, str]:
        """Register and promote both versions unless an earlier run has."""
        self.model = model
        if not (self.home / "benchmark.ready").exists():
            with self._up():
                if not any(one["name"] == MODEL for one in self._api("GET", "/models")):
                    argv = [sys.executable, "-m", "benchmarks.serving.register", str(model.booster), "2"]
                    subprocess.run(argv, cwd=ROOT, env=self._env(), check=True)
                self._promote()
            (self.home / "benchmark.ready").touch()
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        return {"commit": commit.stdout.strip() or "unknown"}

    @contextmanager
    def running(self, variant: Variant, work: Path) -> Iterator[OurRunning]:
        assert self.model is not None
        work.mkdir(parents=True, exist_ok=True)
        bodies = work / "bodies.jsonl"
        fixed.write_bodies(bodies, self.model.rows, systems.named)
        with self._up():
            headers = {"Authorization": f"Bearer {self._key('predictor')}"}
            target = Target(PORTS["ROUTER"], f"/ml/{MODEL}/predict", bodies, headers)
            _eventually(lambda: systems.ask(target, bodies.read_bytes().split(b"\n", 1)[0]), 120, "an answer")
            self._canary()
            _eventually(
                self._split, 120, f"both versions in the traffic: {self._api('GET', f'/models/{MODEL}/traffic')}"
            )
            with Backlog.of(self.home, PORTS["ROUTER"], MODEL) as backlog:
                backlog.forget()
                yield OurRunning(target, systems.our_answer, self.roles, f"/ml/{MODEL}/batch_predict", lambda: backlog)
                backlog.drain()

    def roles(self) -> Mapping[str, set[int]]:
        """Pids by part: the hot path, model servers, and everything else of the stack."""
        status = json.loads((self.home / "run" / "status.json").read_bytes())
        found: dict[str, set[int]] = {}
        for process in status["processes"]:
            name, pid = process["name"], process.get("pid")
            role = name if name in _HOT else "model servers" if name.startswith(f"{MODEL}-") else None
            if pid and role:
                found.setdefault(role, set()).update(descendants(pid))
        hot = {pid for pids in found.values() for pid in pids}
        return found | {"control": descendants(status["supervisor_pid"]) - hot}

    @contextmanager
    def _up(self) -> Iterator[None]:
        for port in PORTS.values():
            systems.refuse_taken(port)
        self._mlcp("up", "--detach", timeout=600)
        try:
            yield
        finally:
            self._mlcp("down", timeout=180)

    def _promote(self) -> None:
        versions = _eventually(lambda: len(self._api("GET", f"/models/{MODEL}/versions")) == 2, 60, "two versions")
        assert versions
        reason = {"reason": "benchmark"}
        self._api("POST", f"/models/{MODEL}/promote/production", {"version": "1", "strategy": "immediate", **reason})
        _eventually(
            lambda: self._api("GET", f"/models/{MODEL}")["open_rollout"] is None, 120, "version 1 in Production"
        )
        self._canary()

    def _canary(self) -> None:
        """Open the rollout that splits the traffic, for a month; one that has ended meanwhile is opened anew."""
        if self._api("GET", f"/models/{MODEL}")["open_rollout"] is not None:
            return
        steps = [{"weight": CANARY_PERCENT, "hold_s": _MONTH_S}]
        spec = {"version": "2", "strategy": "canary", "steps": steps, "bake_s": 0}
        self._api("POST", f"/models/{MODEL}/promote/production", {**spec, "reason": "benchmark"})
        _eventually(self._split, 120, "the canary in the traffic")

    def _split(self) -> bool:
        rollouts = self._api("GET", f"/rollouts?model={MODEL}")
        newest = next((one for one in rollouts if one["candidate_version"] == "2"), None)
        return newest is not None and newest["applied"] and newest["weight"] == CANARY_PERCENT

    def _api(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._key('admin')}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{PORTS['API']}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.loads(answer.read())
        return said["items"] if isinstance(said, dict) and "items" in said else said

    def _mlcp(self, *words: str, timeout: float) -> None:
        argv = [str(Path(sys.executable).parent / "mlcp"), *words]
        done = subprocess.run(argv, cwd=ROOT, env=self._env(), capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(f"mlcp {' '.join(words)}: {done.stdout}{done.stderr}")

    def _env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLCP_", "MLFLOW_"))}
        ports = {f"MLCP_{name}_PORT": str(port) for name, port in PORTS.items()}
        urls = {f"MLCP_{name}_URL": f"http://127.0.0.1:{port}" for name, port in PORTS.items()}
        tracking = {"MLFLOW_TRACKING_URI": urls["MLCP_MLFLOW_URL"]}
        none = {"MLCP_MODELS_AT_START": ",", "MLCP_HOME": str(self.home)}
        return kept | ports | urls | tracking | none | {"PYTHONPATH": str(ROOT)}

    def _key(self, name: str) -> str:
        return (self.home / "keys" / f"{name}.key").read_text().strip()


def _eventually(look: Callable[[], T], within_s: float, what: str) -> T:
    """`look` until it returns something true. RuntimeError after `within_s`."""
    end, last = time.monotonic() + within_s, ""
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (OSError, KeyError, ValueError) as exc:
            last = f"; last: {exc}"
        time.sleep(0.25)
    raise RuntimeError(f"not within {within_s:.0f} s: {what}{last}")


def hot_path(roles: Mapping[str, float]) -> float:
    """Of a figure by role: the part that answers and logs, without the database and the bus."""
    return sum(roles.get(role, 0.0) for role in ("router", "model servers", "shipper", "ingester"))


SEQUENCE: Sequence[str] = ("router", "model servers", "shipper", "ingester", "postgres", "redis", "control")
