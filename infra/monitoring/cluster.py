"""The rules of infra/prometheus and of every model as PrometheusRules, for clusters with the Prometheus operator."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

NAMESPACE: Final = "ml-platform"


def objects(root: Path, fresh: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One for each file of rules. `fresh`: those that are being made anew, by name; `root`: of the checkout."""
    for path in sorted((root / "infra" / "prometheus" / "rules").glob("*.yaml")):
        yield _rule(path.stem, yaml.safe_load(fresh.get(path.name) or path.read_text(encoding="utf-8")))
    for path in sorted((root / "model_servers").glob("*/prometheus.yaml")):
        yield _rule(path.parent.name.replace("_", "-"), yaml.safe_load(path.read_text(encoding="utf-8")))


def _rule(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """The label `namespace` is what an AlertmanagerConfig of that namespace gets alerts by; sums have lost it."""
    groups = deepcopy(document["groups"])
    for group in groups:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["labels"] = {**rule.get("labels", {}), "namespace": NAMESPACE}
    metadata = {"name": f"mlcp-{name}", "labels": {"component": "ml-platform"}}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata,
        "spec": {"groups": groups},
    }
