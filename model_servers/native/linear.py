"""Linear models as arrays: tabular columns and any number of text blocks, exact contributions included."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_servers.native.encode import Columns, Encoder, Row
from model_servers.native.manifest import Manifest
from model_servers.native.text import TextScorer

_Floats = NDArray[np.float64]


class LinearScorer:
    """margin = bias + columns @ weights + text shares.

    arrays.npz: `weights` (columns, outputs) and `bias` (outputs,) on unscaled columns, `centre` (features, outputs) =
    each feature's mean share of the margin in training, and per text block b `idf_b` (v,), `weights_b` (v, outputs).
    """

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self._encoder = Encoder(manifest.features, manifest.columns)
        self._features = len(manifest.features)
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            weights: _Floats = arrays["weights"].astype(np.float64).reshape(self._encoder.width, manifest.outputs)
            self._bias: _Floats = arrays["bias"].astype(np.float64).reshape(manifest.outputs)
            self._centre: _Floats = arrays["centre"].astype(np.float64).reshape(self._features, manifest.outputs)
            position = {feature.name: i for i, feature in enumerate(manifest.features)}
            self._text: list[tuple[int, TextScorer]] = []
            for number, block in enumerate(manifest.text):
                grams: list[str] = json.loads((folder / block.vocabulary).read_text(encoding="utf-8"))
                vocabulary = {gram: i for i, gram in enumerate(grams)}
                scorer = TextScorer(block, vocabulary, arrays[f"idf_{number}"], arrays[f"weights_{number}"])
                self._text.append((position[block.feature], scorer))
        self._numeric: _Floats = np.ascontiguousarray(weights[self._encoder.numeric])
        self._coded: _Floats = np.vstack([weights, np.zeros((1, manifest.outputs))])  # the last row: unseen
        self._sources = [self._encoder.sources[column] for column in self._encoder.numeric]

    def rows(self, rows: Sequence[Row]) -> _Floats:
        """(n, outputs) margins."""
        margins = self._dense(self._encoder.numbers(rows), self._encoder.codes(rows))
        for feature, scorer in self._text:
            scorer.add([row[feature] for row in rows], margins)
        return margins

    def columns(self, columns: Columns) -> _Floats:
        margins = self._dense(self._encoder.column_numbers(columns), self._encoder.column_codes(columns))
        for feature, scorer in self._text:
            scorer.add(columns[feature].tolist(), margins)
        return margins

    def prepare_contributions(self) -> None:
        """They cost no more than the score."""

    def contributions(self, rows: Sequence[Row], outputs: NDArray[np.int64]) -> tuple[_Floats, _Floats]:
        """Against the average training row, in margin units: (n, features) and the bias (n,) for each row's output."""
        every = np.arange(len(rows))
        values = np.zeros((self._features, len(rows)))
        shares = self._encoder.numbers(rows) * self._numeric[:, outputs].T
        np.add.at(values, self._sources, shares.T)
        for at, feature in enumerate(self._encoder.coded):
            values[feature] += self._coded[self._encoder.codes(rows)[:, at], outputs]
        for feature, scorer in self._text:
            text = np.zeros((len(rows), len(self._bias)))
            scorer.add([row[feature] for row in rows], text)
            values[feature] += text[every, outputs]
        centre = self._centre[:, outputs]
        return (values - centre).T, self._bias[outputs] + centre.sum(axis=0)

    def _dense(self, numbers: _Floats, codes: NDArray[np.int64]) -> _Floats:
        margins: _Floats = numbers @ self._numeric
        margins += self._bias
        if codes.shape[1]:
            margins += self._coded[codes].sum(axis=1)
        return margins
