"""Models whose versions' effect on customers is known, registered in a real MLflow, and their customers on a router.

A version only says which truth a customer meets: whoever was answered by it buys with its probability. What the control
plane sees is what it would see in production: requests, answers, fallbacks, and outcomes that are reported later.
"""

import io
import json
import random
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import numpy as np
import yaml

from control_plane.domain.registry import tree_digest
from control_plane.sdk import PredictionClient
from model_servers.native import manifest as native
from model_servers.native.manifest import Column, Feature, Manifest
from tests.support.registering import register
from tests.support.stack import Stack, eventually
from tests.support.traffic import Traffic

_REPORT_S = 0.25
_DISTINCT = 7  # connections of one Traffic whose units never meet


def register_version(
    url: str, model: str, *, semver: str, broken: bool = False, more: Mapping[str, Any] | None = None
) -> str:
    """A tiny native version that passes every gate; its number. `broken`: fails on customers whose `y` is null.

    `more`: of its model.yaml. Its features are x and y, numbers.
    """
    features = (Feature("x", "number"), Feature("y", "number", nullable=True))
    filled = {"x": 0.0, "y": None if broken else 0.0}
    described = Manifest(
        model=model,
        semver=semver,
        problem="binary",
        kind="linear",
        features=features,
        columns=tuple(Column(feature.name, "number", fill=filled[feature.name]) for feature in features),
        classes=("no", "yes"),
        threshold=0.5,
        decision=("no", "yes"),
    )
    arrays = io.BytesIO()
    np.savez(arrays, weights=np.array([[1.0], [0.5]]), bias=np.zeros(1), centre=np.zeros((2, 1)))
    config: dict[str, Any] = {
        "name": model,
        "problem": "binary",
        "features": {f.name: {"type": "number", "nullable": f.nullable} for f in features},
        "metric": {"name": "roc_auc", "minimum": 0.5},
        "outcomes": {"bought": {"kind": "yes_no"}},
        "decision": {"positive": "yes", "negative": "no"},
        "slo": {"deadline_ms": 2_000},  # of a machine that does other work
        **(more or {}),
    }
    evidence = {
        "metric": {"name": "roc_auc", "value": 0.9, "holdout_rows": 10},
        "cost": {"model": 1.0, "trivial": 2.0, "currency": "EUR"},
        "data": {"validated": True, "sha256": "same", "holdout": {"sha256": "same"}},
    }
    files = {
        "manifest.json": json.dumps(native.dump(described)).encode(),
        "arrays.npz": arrays.getvalue(),
        "model.yaml": yaml.safe_dump(config).encode(),
        "evidence.json": json.dumps(evidence).encode(),
        "example.json": json.dumps({"features": {"x": 0.5, "y": 0.5}, "unit_id": "example"}).encode(),
    }
    digest = tree_digest([(name, sha256(content).hexdigest()) for name, content in files.items()])
    tree = {f"artifacts/native/{name}": content for name, content in files.items()}
    tree["MLmodel"] = b"flavors: {python_function: {}}"
    tags = {"mlcp.runtime": "native", "mlcp.digest": digest, "mlcp.semver": semver}
    return register(url, model, tree, tags)


def install(stack: Stack, *models: str, broken: bool = False, more: Mapping[str, Any] | None = None) -> None:
    """Version 1 of each model in Production and answering, version 2 registered beside it.

    `broken`: version 2 fails on some of the customers that version 1 serves.
    """
    for model in models:
        register_version(stack.url("MLFLOW"), model, semver="1.0.0", more=more)
        register_version(stack.url("MLFLOW"), model, semver="2.0.0", broken=broken, more=more)
    for model in models:
        eventually(lambda m=model: len(stack.json("versions", m)) == 2, f"{model} is seen", every=1)
        stack.mlcp("promote", model, "1", "--strategy", "immediate", "--reason", "first")
    with stack.data_plane() as client:
        for model in models:
            path = f"/ml/{model}/predict"
            body = {"features": {"x": 0.5, "y": 0.5}}
            eventually(lambda p=path, b=body: client.post(p, json=b).status_code == 200, f"{model} answers")


def apply(stack: Stack, model: str, plan: Mapping[str, Any]) -> str:
    """Begin the rollout of version 2 as its user does, from a file; the rollout's id."""
    file = stack.home.parent / f"{model}.yaml"
    document = {"kind": "rollout", "model": model, "reason": "it may be better", "version": "2", **plan}
    file.write_text(yaml.safe_dump(document))
    return str(stack.json("apply", "-f", str(file))["id"])


@dataclass
class Market:
    """New customers of every model all the time, each asking once; who buys says so a moment later.

    `buys`: model -> version -> probability. `rate`: customers a second of each model. `nulls`: share of customers whose
    `y` is null.
    """

    stack: Stack
    buys: Mapping[str, Mapping[str, float]]
    rate: float
    nulls: float = 0.0
    seed: int = 1
    bought: dict[str, int] = field(default_factory=dict[str, int])

    def __enter__(self) -> Self:
        self._random = random.Random(self.seed)
        self._stop = threading.Event()
        self._running = ExitStack()
        key = self.stack.key("predictor")
        self.traffic = {
            model: self._running.enter_context(
                Traffic(
                    self.stack.url("ROUTER"), key, model, {}, self.rate,
                    units=10**9, connections=_DISTINCT, bodies=self._asks,
                )
            )
            for model in self.buys
        }  # fmt: skip
        self._reporter = threading.Thread(target=self._report, daemon=True)
        self._reporter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()
        self._stop.set()
        self._reporter.join(timeout=240)
        assert not self._reporter.is_alive()

    @property
    def asked(self) -> int:
        return sum(len(one.answers) for one in self.traffic.values())

    @property
    def failed(self) -> list[str]:
        return [answer.detail or str(answer.status) for one in self.traffic.values() for answer in one.failed]

    def _asks(self, unit: int) -> dict[str, Any]:
        share = (unit * 2654435761 % 2**32) / 2**32  # of this customer, whenever it asks
        return {"features": {"x": share, "y": None if share < self.nulls else 1.0}}

    def _report(self) -> None:
        seen = dict.fromkeys(self.buys, 0)
        with PredictionClient(self.stack.url("ROUTER"), self.stack.key("predictor"), timeout_s=30) as client:
            while not self._stop.wait(_REPORT_S):
                for model, truths in self.buys.items():
                    fresh = self.traffic[model].answers[seen[model] :]
                    seen[model] += len(fresh)
                    buyers = [
                        {"name": "bought", "value": True, "unit_id": f"unit-{answer.unit}"}
                        for answer in fresh
                        if answer.status == 200 and self._random.random() < truths[answer.version or ""]
                    ]
                    self.bought[model] = self.bought.get(model, 0) + len(buyers)
                    if buyers:
                        client.outcomes(model, buyers)
