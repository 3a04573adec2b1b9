"""Serves native artifacts: no DataFrame, no pandas, no scikit-learn in the process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_servers import native
from model_servers.runtime import words
from model_servers.runtime.engine import ModelFailed
from model_servers.runtime.features import Row
from model_servers.runtime.spec import BadSpec, Config, Feature

_FOLDER = "artifacts/native"  # inside the artifact tree our pipeline logs
_encode = msgspec.json.encode


class NativeEngine:
    """Implements Engine."""

    rows_at_once = True

    def __init__(self, folder: Path, config: Config, *, threads: int) -> None:
        """Raises BadSpec when the artifact and model.yaml disagree, native.BadArtifact when it cannot be loaded."""
        inner = folder / _FOLDER
        self._folder = inner if inner.is_dir() else folder
        self._model = native.load(self._folder, threads=threads)
        manifest = self._model.manifest
        self._names = [feature.name for feature in manifest.features]
        self.features = _features(manifest, config)
        self._top = config.serving.explain == "top"
        if self._top:
            self._model.prepare_contributions()
        self._problem = manifest.problem
        self._labels = [_encode(label) for label in manifest.classes]
        threshold = config.decision.threshold if config.decision.threshold is not None else manifest.threshold
        self._threshold = 0.5 if threshold is None else threshold
        tail = b'},"decision":%b,"threshold":%b'
        shown = _encode(self._threshold)
        self._yes = tail % (_encode(config.decision.positive), shown)
        self._no = tail % (_encode(config.decision.negative), shown)

    def load(self) -> None:
        """Everything is loaded."""

    def recorded_example(self) -> Mapping[str, object] | None:
        try:
            recorded = msgspec.json.decode((self._folder / "example.json").read_bytes(), type=_Example)
        except (OSError, msgspec.MsgspecError):
            return None
        return recorded.features

    def answers(self, rows: Sequence[Row], hurried: bool = False) -> list[bytes]:
        heads = self._heads(self._scores(rows))
        if hurried or not self._top:
            return [head + b"}" for head in heads]
        found = self._model.contributions(rows).values.tolist()
        return [
            b'%b,"reasons":%b}' % (head, _encode(words.top(self._names, row, values)))
            for head, row, values in zip(heads, rows, found, strict=True)
        ]

    def explanations(self, rows: Sequence[Row]) -> list[bytes]:
        heads = self._heads(self._scores(rows))
        found = self._model.contributions(rows)
        made: list[bytes] = []
        for i, (head, row) in enumerate(zip(heads, rows, strict=True)):
            values = found.values[i].tolist()
            explanation: dict[str, object] = {
                "space": found.space,
                "of": found.classes[i] if found.classes else None,
                "base": float(found.bias[i]),
                "contributions": dict(zip(self._names, values, strict=True)),
                "reasons": words.top(self._names, row, values),
            }
            made.append(b'%b,"explanation":%b}' % (head, _encode(explanation)))
        return made

    def _scores(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        scores = self._model.predict(rows)
        if not np.isfinite(scores).all():
            raise ModelFailed("the artifact's score is not a finite number")
        return scores

    def _heads(self, scores: NDArray[np.float64]) -> list[bytes]:
        """Each answer without its closing brace."""
        match self._problem:  # binary, multiclass, else regression
            case "binary":
                yes, no, threshold = self._yes, self._no, self._threshold
                return [
                    b'{"output":{"probability":%b%b' % (repr(p).encode(), yes if p >= threshold else no)
                    for p in scores.tolist()
                ]
            case "multiclass":
                best = scores.argmax(axis=1).tolist()
                labels = self._labels
                return [
                    b'{"output":{"label":%b,"probability":%b}' % (labels[k], repr(float(scores[i, k])).encode())
                    for i, k in enumerate(best)
                ]
            case _:
                return [b'{"output":{"value":%b}' % repr(value).encode() for value in scores.tolist()]


class _Example(msgspec.Struct):
    features: dict[str, object]


def _features(manifest: native.Manifest, config: Config) -> dict[str, Feature]:
    """Declared features in the artifact's order."""
    wanted = [feature.name for feature in manifest.features]
    if set(wanted) != set(config.features):
        odd = sorted(set(wanted) ^ set(config.features))
        raise BadSpec(f"config.features: the artifact and model.yaml disagree on {', '.join(odd)}")
    return {name: config.features[name] for name in wanted}
