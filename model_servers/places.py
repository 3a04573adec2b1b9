"""Where models are declared: folders that have a folder with a model.yaml for each model."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import yaml

SHIPPED: Final = Path(__file__).resolve().parent  # the checkout's own models


def folders(environ: Mapping[str, str]) -> list[Path]:
    """Those of MLCP_MODELS, separated like PATH, then the checkout's own: who adds models keeps these."""
    given = [Path(part) for part in environ.get("MLCP_MODELS", "").split(os.pathsep) if part]
    return given if SHIPPED in given else [*given, SHIPPED]


def find(model: str, among: Sequence[Path]) -> Path | None:
    """The first `model`/model.yaml, else the first model.yaml with that alias; None if there is neither."""
    for folder in among:
        if (path := folder / model / "model.yaml").is_file():
            return path
    found = (path for folder in among for path in sorted(folder.glob("*/model.yaml")))
    return next((path for path in found if model in _aliases(path)), None)


def _aliases(path: Path) -> list[object]:
    """None of a file that cannot be read: whoever asks for another model is not held up by it."""
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    aliases = cast("dict[str, object]", document).get("aliases") if isinstance(document, dict) else None
    return cast("list[object]", aliases) if isinstance(aliases, list) else []
