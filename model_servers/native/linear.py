"""Linear models as arrays: tabular columns and any number of text blocks, exact contributions included."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_servers.native.encode import Columns, Encoder, Row
from model_servers.native.manifest import Manifest
from model_servers.native.text import TextScorer


class LinearScorer:
    """margin = bias + columns @ weights + text shares.

    arrays.npz: `weights` (columns, outputs) and `bias` (outputs,) on unscaled columns, `centre` (features, outputs) =
    each feature's mean share of the margin in training, and per text block b `idf_b` (v,), `weights_b` (v, outputs).
    """

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            self._weights: NDArray[np.float64] = arrays["weights"].astype(np.float64)
            self._bias: NDArray[np.float64] = arrays["bias"].astype(np.float64)
            self._centre: NDArray[np.float64] = arrays["centre"].astype(np.float64)
            position = {feature.name: i for i, feature in enumerate(manifest.features)}
            self._text: list[tuple[int, TextScorer]] = []
            for number, block in enumerate(manifest.text):
                grams: list[str] = json.loads((folder / block.vocabulary).read_text(encoding="utf-8"))
                vocabulary = {gram: i for i, gram in enumerate(grams)}
                scorer = TextScorer(block, vocabulary, arrays[f"idf_{number}"], arrays[f"weights_{number}"])
                self._text.append((position[block.feature], scorer))
        self._encoder = Encoder(manifest.features, manifest.columns, np.float64)
        self._sources = np.array(self._encoder.sources, dtype=np.int64)

    def rows(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """(n, outputs) margins."""
        margins: NDArray[np.float64] = self._encoder.rows(rows) @ self._weights
        margins += self._bias
        for feature, scorer in self._text:
            scorer.add([row[feature] for row in rows], margins)
        return margins

    def columns(self, columns: Columns) -> NDArray[np.float64]:
        margins: NDArray[np.float64] = self._encoder.columns(columns) @ self._weights
        margins += self._bias
        for feature, scorer in self._text:
            scorer.add(columns[feature].tolist(), margins)
        return margins

    def contributions(self, rows: Sequence[Row], outputs: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Against the average training row, in margin units: (n, features) and the bias (n,) for each row's output."""
        matrix = self._encoder.rows(rows)
        values = np.zeros((len(rows), len(self._centre)))
        np.add.at(values.T, self._sources, (matrix * self._weights[:, outputs].T).T)
        for feature, scorer in self._text:
            shares = np.zeros((len(rows), len(self._bias)))
            scorer.add([row[feature] for row in rows], shares)
            values[:, feature] += shares[np.arange(len(rows)), outputs]
        centre = self._centre[:, outputs].T
        return values - centre, self._bias[outputs] + centre.sum(axis=1)
