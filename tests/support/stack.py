"""The whole embedded stack in a folder of its own, for the end-to-end tests."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.support.processes import PATIENCE_S, free_port

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


@dataclass
class Stack:
    home: Path
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in ("API", "ROUTER", "MLFLOW")})
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        ports = {f"MLCP_{name}_PORT": str(port) for name, port in self.ports.items()}
        urls = {f"MLCP_{name}_URL": f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLCP_", "MLFLOW_", "COVERAGE", "PYTEST"))}
        bin_ = str(Path(sys.executable).parent)
        return kept | {"MLCP_HOME": str(self.home), "PATH": f"{bin_}:{kept['PATH']}", **ports, **urls, **self.extra}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def mlcp(self, *argv: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the command as a user would, at 80 columns."""
        done = subprocess.run(
            ["mlcp", *argv],
            env=self.env | {"COLUMNS": "80"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            executable=shutil.which("mlcp", path=self.env["PATH"]),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"mlcp {' '.join(argv)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *argv: str) -> Any:
        return json.loads(self.mlcp(*argv, "--json").stdout)

    def up(self) -> None:
        self.mlcp("up", "--detach", timeout=600)

    def down(self) -> None:
        self.mlcp("down", timeout=120)

    def key(self, name: str) -> str:
        return (self.home / "keys" / f"{name}.key").read_text().strip()

    def admin(self, key: str = "admin") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key(key)}"}
        return httpx.Client(base_url=self.url("API") + "/api/v1", headers=headers, timeout=240)

    def data_plane(self, key: str = "predictor") -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key(key)}"}
        return httpx.Client(base_url=self.url("ROUTER"), headers=headers, timeout=240)

    def example(self, model: str) -> dict[str, Any]:
        with self.data_plane() as client:
            answer = client.get(f"/ml/{model}/example")
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

    def process(self, name: str) -> dict[str, Any]:
        """One line of the supervisor's status by exact name, or by prefix for a model server."""
        status = json.loads((self.home / "run" / "status.json").read_text())
        found = [p for p in status["processes"] if p["name"] == name] or [
            p for p in status["processes"] if p["name"].startswith(name)
        ]
        assert found, f"no process {name} in {[p['name'] for p in status['processes']]}"
        return dict(found[-1])


def eventually(look: Callable[[], T], what: str, *, within: float = PATIENCE_S, every: float = 0.1) -> T:
    """`look` until it returns something truthy; AssertionError with the last answer or error after `within`."""
    end, last = time.monotonic() + within, None
    while True:
        try:
            last = look()
        except (httpx.HTTPError, OSError, AssertionError, KeyError, ValueError) as exc:
            last = exc
        else:
            if last:
                return last
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}; last: {last!r}")
        time.sleep(every)


def run(argv: Sequence[str], stack: Stack, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=stack.env, cwd=ROOT, capture_output=True, text=True, **kwargs)


def environment_of(pid: int) -> dict[str, str]:
    """What a running process was told."""
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
