"""A loaded native artifact: rows in, calibrated probabilities, class probabilities or values out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model_servers.native.encode import Columns, Row
from model_servers.native.linear import LinearScorer
from model_servers.native.manifest import BadArtifact, Manifest, read
from model_servers.native.trees import TreeScorer

_Floats = NDArray[np.float64]
_BATCH = 8_192  # rows encoded at once: bounds memory, not speed


class Scorer(Protocol):
    def rows(self, rows: Sequence[Row]) -> _Floats: ...

    def columns(self, columns: Columns) -> _Floats: ...

    def prepare_contributions(self) -> None: ...

    def contributions(self, rows: Sequence[Row], outputs: NDArray[np.int64]) -> tuple[_Floats, _Floats]: ...


@dataclass(frozen=True, slots=True)
class Contributions:
    """Exact additive attributions: `bias[i] + values[i].sum()` is row i's score in `space`.

    space "margin": log-odds before calibration (binary), the score of `classes[i]` before softmax (multiclass), or
    the value itself (regression). `values` is (n, features) in manifest order. Linear kinds: against the average
    training row; trees: TreeSHAP (Lundberg et al. 2018, arXiv:1802.03888).
    """

    values: _Floats
    bias: _Floats
    space: Literal["margin", "probability"]
    classes: list[str] | None = None


class Model:
    """Safe to share between threads: nothing is written after loading."""

    def __init__(self, manifest: Manifest, scorer: Scorer) -> None:
        self.manifest = manifest
        self._scorer = scorer
        self._nothing = np.empty((0, manifest.outputs))
        calibration = manifest.calibration
        self._x = np.array(calibration.x if calibration else (), dtype=np.float64)
        self._y = np.array(calibration.y if calibration else (), dtype=np.float64)

    def predict(self, rows: Sequence[Row]) -> _Floats:
        """Rows in manifest feature order, None for null.

        Returns (n,) calibrated probability of the positive class (binary), (n, k) (multiclass), (n,) value
        (regression). Never NaN for finite input; unseen categories and unknown words count as nothing.
        """
        return self._finish(self._scorer.rows(rows) if rows else self._nothing)

    def predict_columns(self, columns: Columns) -> _Floats:
        """The same from whole columns, in slices of bounded memory."""
        size = len(columns[0]) if columns else 0
        parts = [
            self._finish(self._scorer.columns([column[at : at + _BATCH] for column in columns]))
            for at in range(0, size, _BATCH)
        ]
        return np.concatenate(parts) if parts else self._finish(self._nothing)

    def prepare_contributions(self) -> None:
        """Before the model is shared: makes many calls of `contributions` cheaper, for memory and some tenths of a
        second."""
        self._scorer.prepare_contributions()

    def contributions(self, rows: Sequence[Row]) -> Contributions:
        """Why the rows score what they score; for a multiclass problem, why each row's most probable class."""
        if self.manifest.problem == "multiclass":
            outputs = self._scorer.rows(rows).argmax(axis=1)
        else:
            outputs = np.zeros(len(rows), dtype=np.int64)
        values, bias = self._scorer.contributions(rows, outputs)
        named = [self.manifest.classes[i] for i in outputs] if self.manifest.problem == "multiclass" else None
        return Contributions(values, bias, "margin", named)

    def _finish(self, margins: _Floats) -> _Floats:
        match self.manifest.problem:
            case "binary":
                raw: _Floats = 1.0 / (1.0 + np.exp(-np.clip(margins[:, 0], -700.0, 700.0)))
                return np.interp(raw, self._x, self._y) if self._x.size else raw
            case "multiclass":
                scaled = margins / self.manifest.temperature
                scaled -= scaled.max(axis=1, keepdims=True) if len(scaled) else 0.0
                odds: _Floats = np.exp(scaled)
                odds /= odds.sum(axis=1, keepdims=True)
                return odds
            case "regression":
                return margins[:, 0]


def load(folder: Path, *, threads: int = 1) -> Model:
    """Load the artifact in `folder`; `threads` for one call of a tree ensemble.

    Raises BadArtifact, never a library's own error, when it cannot be served.
    """
    manifest = read(folder)
    try:
        scorer: Scorer
        match manifest.kind:
            case "linear" | "tfidf_linear":
                scorer = LinearScorer(manifest, folder)
            case "xgboost" | "lightgbm" | "forest":
                scorer = TreeScorer(manifest, folder, threads)
    except (OSError, KeyError, ValueError) as exc:
        raise exc if isinstance(exc, BadArtifact) else BadArtifact(f"{folder}: {type(exc).__name__}: {exc}") from exc
    return Model(manifest, scorer)


def columns_of(rows: Sequence[Row], width: int) -> list[NDArray[Any]]:
    """Rows turned on their side, as `predict_columns` takes them."""
    return [np.array([row[i] for row in rows], dtype=object) for i in range(width)]
