"""A fitted candidate on disk, in the format the native runtime serves. Candidates are judged through that runtime."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_servers.native import manifest as native
from model_servers.native.manifest import Column, Kind, Manifest, TextBlock


@dataclass(frozen=True, slots=True)
class Fitted:
    """`params`: for the record. `rounds`: what early stopping settled on, to fit again without a validation part."""

    kind: Kind
    columns: tuple[Column, ...]
    params: dict[str, Any]
    text: tuple[TextBlock, ...] = ()
    vocabularies: tuple[tuple[str, ...], ...] = ()
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    booster: bytes | None = None
    rounds: int | None = None


def write(folder: Path, fitted: Fitted, manifest: Manifest) -> None:
    """manifest.json and the files it speaks of; `folder` is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(native.dump(manifest), indent=1), encoding="utf-8")
    for block, grams in zip(fitted.text, fitted.vocabularies, strict=True):
        (folder / block.vocabulary).write_text(json.dumps(grams, ensure_ascii=False), encoding="utf-8")
    if fitted.arrays:
        np.savez(folder / "arrays.npz", allow_pickle=False, **fitted.arrays)
    if fitted.booster is not None:
        name = "booster.txt" if fitted.kind == "lightgbm" else "booster.ubj"
        (folder / name).write_bytes(fitted.booster)
