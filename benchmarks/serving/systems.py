"""The peers: how each is installed, started, asked and understood. Tuned as their own documentation says."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.measure import descendants
from benchmarks.serving import fixed, tools
from benchmarks.serving.fixed import Fixed
from benchmarks.serving.load import Target

PEERS = Path(__file__).parent / "peers"
_START_S = 90.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a system. The best one at 16 connections is the one that is measured."""

    workers: int
    batching: bool | None = None  # None: the system has none
    more: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        parts = [f"{self.workers} worker{'s' if self.workers != 1 else ''}"]
        if self.batching is not None:
            parts.append("batching" if self.batching else "no batching")
        return ", ".join([*parts, *(f"{key}={value}" for key, value in self.more)])


@dataclass(frozen=True, slots=True)
class Running:
    """A system that answers. `roles`: the pids of each of its parts, asked anew every time."""

    target: Target
    read: Callable[[bytes], float]
    roles: Callable[[], Mapping[str, set[int]]]


class System(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def variants(self) -> Sequence[Variant]: ...

    def prepare(self, cache: Path, model: Fixed) -> Mapping[str, str]:
        """Install and build what is needed; versions of what was installed."""
        ...

    def running(self, variant: Variant, work: Path) -> Any:
        """A context manager that gives a `Running` and stops it, drained, at the end."""
        ...


@dataclass(slots=True)
class Peer:
    """`command`: (python, variant, work folder, model, port) -> argv and what is added to the environment."""

    name: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]  # whose versions are reported
    variants: tuple[Variant, ...]
    command: "Callable[[Peer, Variant, Path, int], tuple[list[str], dict[str, str]]]"
    path: str
    encode: Callable[[list[float], str], object]
    read: Callable[[bytes], float]
    port: int = 8430
    first: "Callable[[Peer, Path], None] | None" = None  # once, after installation
    python: Path = field(default=Path(), init=False)
    cache: Path = field(default=Path(), init=False)
    model: Fixed | None = field(default=None, init=False)

    def prepare(self, cache: Path, model: Fixed) -> Mapping[str, str]:
        self.python = tools.environment(cache, self.name.replace(" ", "-"), self.requirements)
        self.cache, self.model = cache, model
        if self.first is not None:
            self.first(self, cache)
        return tools.versions(self.python, self.packages)

    @contextmanager
    def running(self, variant: Variant, work: Path) -> Iterator[Running]:
        assert self.model is not None
        work.mkdir(parents=True, exist_ok=True)
        bodies = work / "bodies.jsonl"
        fixed.write_bodies(bodies, self.model.rows, self.encode)
        argv, environ = self.command(self, variant, work, self.port)
        target = Target(self.port, self.path, bodies, {})
        with started(argv, environ, work, target) as process:
            yield Running(target, self.read, lambda: {"server": descendants(process.pid)})


@contextmanager
def process(
    argv: Sequence[str], environ: Mapping[str, str], work: Path, log: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of `argv` with none of our own settings; stopped at the end with all its descendants."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLCP_", "MLFLOW_", "VIRTUAL_ENV", "PYTHON"))}
    fresh = {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "true", "PATH": f"{Path(argv[0]).parent}:{kept['PATH']}"}
    with (work / log).open("wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        begun = subprocess.Popen(list(argv), env=kept | fresh | environ, cwd=work, start_new_session=True, **streams)
        try:
            yield begun
        finally:
            stop(begun)


@contextmanager
def started(
    argv: Sequence[str], environ: Mapping[str, str], work: Path, target: Target
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of `argv` once it answers the first body with 200."""
    refuse_taken(target.port)
    with process(argv, environ, work, "server.log") as begun:
        _wait(begun, target, work / "server.log")
        yield begun


def ask(target: Target, body: bytes) -> bytes:
    """One request outside of the measurement. Raises OSError unless the answer is 200."""
    headers = {"content-type": "application/json", **target.headers}
    request = urllib.request.Request(f"http://{target.host}:{target.port}{target.path}", body, headers)
    with urllib.request.urlopen(request, timeout=15) as answer:
        return bytes(answer.read())


def refuse_taken(port: int) -> None:
    """RuntimeError when somebody listens there already: that would be measured instead."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"something listens on port {port} already: stop it, or choose another --port")


def _wait(process: "subprocess.Popen[bytes]", target: Target, log: Path) -> None:
    body = target.bodies.read_bytes().split(b"\n", 1)[0]
    end, last = time.monotonic() + _START_S, ""
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {_tail(log)}")
        try:
            ask(target, body)
            return
        except urllib.error.HTTPError as exc:
            last = f"{exc.code} {exc.read()[:300]!r}"
        except OSError as exc:
            last = str(exc)
        time.sleep(0.25)
    raise RuntimeError(f"no answer within {_START_S:.0f} s ({last}): {_tail(log)}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the process, and SIGKILL to what is left of its group and its descendants after a while."""
    below = descendants(process.pid)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    end = time.monotonic() + 5
    while time.monotonic() < end and any(Path(f"/proc/{pid}").exists() for pid in below):
        time.sleep(0.1)
        process.poll()
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2_000:].strip() or "no log"


def named(row: list[float], unit: str) -> object:
    """Features by name, and the assignment unit."""
    return {"features": dict(zip(fixed.FEATURES, row, strict=True)), "unit_id": unit}


def _fastapi(peer: Peer, variant: Variant, work: Path, port: int) -> tuple[list[str], dict[str, str]]:
    assert peer.model is not None
    argv = [str(peer.python), "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(PEERS), "--port", str(port)]
    argv += ["--workers", str(variant.workers), "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    return argv, {"MODEL": str(peer.model.json)}


def _mlserver(peer: Peer, variant: Variant, work: Path, port: int) -> tuple[list[str], dict[str, str]]:
    assert peer.model is not None
    settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1"}
    settings |= {"parallel_workers": 0 if variant.workers == 1 else variant.workers, "debug": False}
    model: dict[str, Any] = {"name": "fixed", "implementation": "mlserver_xgboost.XGBoostModel"}
    model["parameters"] = {"uri": str(peer.model.json), "version": "1"}
    if variant.batching:
        model |= {"max_batch_size": 64, "max_batch_time": 0.002}
    (work / "settings.json").write_text(json.dumps(settings | {"use_structured_logging": False}))
    (work / "model-settings.json").write_text(json.dumps(model))
    return [str(peer.python.parent / "mlserver"), "start", str(work)], {}


def _oip(row: list[float], unit: str) -> object:
    return {"inputs": [{"name": "predict", "shape": [1, len(row)], "datatype": "FP32", "data": row}]}


def _bentoml(peer: Peer, variant: Variant, work: Path, port: int) -> tuple[list[str], dict[str, str]]:
    assert peer.model is not None
    argv = [str(peer.python.parent / "bentoml"), "serve", "bentoml_service:Fixed", "--working-dir", str(PEERS)]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    environ = {"MODEL": str(peer.model.json), "WORKERS": str(variant.workers), "BENTOML_HOME": str(work / "home")}
    environ |= {"BATCHING": "1" if variant.batching else "0", "BENTOML_DO_NOT_TRACK": "True", **dict(variant.more)}
    return argv, environ


def _ray(peer: Peer, variant: Variant, work: Path, port: int) -> tuple[list[str], dict[str, str]]:
    assert peer.model is not None
    environ = {"MODEL": str(peer.model.json), "WORKERS": str(variant.workers), "RAY_USAGE_STATS_ENABLED": "0"}
    environ |= {"BATCHING": "1" if variant.batching else "0", "RAY_DEDUP_LOGS": "0", **dict(variant.more)}
    return [str(peer.python), str(PEERS / "ray_app.py"), str(port)], environ


def _save_for_mlflow(peer: Peer, cache: Path) -> None:
    assert peer.model is not None
    folder = cache / "mlflow-model"
    if not folder.exists():
        argv = [str(peer.python), str(PEERS / "mlflow_model.py"), str(peer.model.json), str(folder)]
        subprocess.run(argv, check=True, capture_output=True, text=True)


def _mlflow(peer: Peer, variant: Variant, work: Path, port: int) -> tuple[list[str], dict[str, str]]:
    argv = [str(peer.python.parent / "mlflow"), "models", "serve", "-m", str(peer.cache / "mlflow-model")]
    argv += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", str(variant.workers)]
    return argv, {"MLFLOW_DISABLE_TELEMETRY": "true"}


def peers() -> tuple[Peer, ...]:
    """All of them. Worker counts: on two cores, one and two."""
    x = tools.XGBOOST
    batched = tuple(Variant(workers, batching) for workers in (1, 2) for batching in (True, False))
    fast = (("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1"),)
    return (
        Peer(
            "mlserver",
            # Its parallel workers do not start with a newer uvloop.
            ("mlserver==1.7.1", "mlserver-xgboost==1.7.1", "scikit-learn==1.9.1", "uvloop==0.21.0", x),
            ("mlserver", "xgboost-cpu"),
            batched,
            _mlserver,
            "/v2/models/fixed/infer",
            _oip,
            lambda answer: float(json.loads(answer)["outputs"][0]["data"][0]),
        ),
        Peer(
            "bentoml",
            ("bentoml==1.4.39", "numpy==2.4.6", "scipy==1.17.1", x),
            ("bentoml", "xgboost-cpu"),
            batched,
            _bentoml,
            "/predict",
            lambda row, unit: {"rows": [row]},
            lambda answer: float(json.loads(answer)[0]),
        ),
        Peer(
            "ray serve",
            ("ray[serve]==2.60.0", "numpy==2.4.6", "scipy==1.17.1", x),
            ("ray", "xgboost-cpu"),
            (*batched[:2], Variant(1, batching=True, more=fast), Variant(2, batching=True, more=fast)),
            _ray,
            "/predict",
            named,
            lambda answer: float(json.loads(answer)["probability"]),
        ),
        Peer(
            "mlflow",
            ("mlflow==3.17.2", "pandas==3.1.1", "uvicorn[standard]==0.54.0", x),
            ("mlflow", "uvicorn", "xgboost-cpu"),
            (Variant(1), Variant(2)),
            _mlflow,
            "/invocations",
            lambda row, unit: {"inputs": [row]},
            lambda answer: float(json.loads(answer)["predictions"][0]),
            first=_save_for_mlflow,
        ),
        Peer(
            "fastapi",
            ("fastapi==0.165.0", "uvicorn[standard]==0.54.0", "numpy==2.4.6", "scipy==1.17.1", x),
            ("fastapi", "uvicorn", "pydantic", "xgboost-cpu"),
            (Variant(1), Variant(2)),
            _fastapi,
            "/predict",
            named,
            lambda answer: float(json.loads(answer)["probability"]),
        ),
    )


def our_answer(answer: bytes) -> float:
    """The probability in an answer of the router or of one of our model servers."""
    output = json.loads(answer)
    return float(output.get("output", output)["probability"])
