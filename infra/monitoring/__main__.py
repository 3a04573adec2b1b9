"""`python -m infra.monitoring [--check]`: SLO rules, dashboards, a cluster's PrometheusRules; --check only looks."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from infra.monitoring import boards_lifecycle, boards_models, boards_platform, cluster, grafana, slo

INFRA: Final = Path(__file__).resolve().parents[1]
BOARDS: Final = (
    boards_models.PERFORMANCE,
    boards_models.ROLLOUTS,
    boards_models.DRIFT,
    boards_lifecycle.TRAINING,
    boards_lifecycle.DEPLOYMENTS,
    boards_platform.DATA_PLANE,
    boards_platform.PLATFORM,
)
_MADE: Final = "# Made by `python -m infra.monitoring`: do not edit.\n"


class _Text(yaml.SafeDumper):
    """Writes expressions of several lines as blocks."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Text.add_representer(str, _string)


def files() -> dict[Path, str]:
    """Path -> content of everything that is made."""
    made = {INFRA / "prometheus" / "rules" / "slo.yaml": _MADE + _yaml(slo.rules())}
    for board in BOARDS:
        name = board.uid.removeprefix("mlcp-")
        text = json.dumps(grafana.document(board), indent=1, ensure_ascii=False)
        made[INFRA / "grafana" / "dashboards" / f"{name}.json"] = text + "\n"
    objects = cluster.objects(INFRA.parent, {path.name: text for path, text in made.items()})
    made[INFRA / "k8s" / "overlays" / "monitoring" / "rules.yaml"] = _MADE + "---\n".join(map(_yaml, objects))
    return made


def _yaml(document: Mapping[str, Any]) -> str:
    return str(yaml.dump(document, Dumper=_Text, sort_keys=False, width=10_000, allow_unicode=True))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when something is not current")
    check: bool = parser.parse_args(argv).check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path], encoding="utf-8")
        sys.stdout.write(f"{'not current: ' if check else 'wrote '}{path.relative_to(INFRA.parent)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
