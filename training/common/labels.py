"""What the target column means: class codes or numbers, and which rows have a label that can be trusted."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import ModelConfig, Problem, Target

_SECOND = 1_000_000  # in the unit of `times`


@dataclass(frozen=True, slots=True)
class Labels:
    """`values`: 0/1 (binary), class words (multiclass) or numbers (regression); meaningless where `known` is False."""

    values: NDArray[Any]
    known: NDArray[np.bool_]
    negative: str = ""  # binary: the other value, as written in the data


def target_of(config: ModelConfig) -> Target:
    assert config.target is not None, "model.yaml without a target is refused when it is read"
    return config.target


def read(frame: pd.DataFrame, config: ModelConfig, times: NDArray[np.int64] | None) -> Labels:
    """A null label is "unknown", or a "no" once `label.delay_s` has passed, if model.yaml says so."""
    target = target_of(config)
    column = frame[target.column]
    known = column.notna().to_numpy().copy()
    match config.problem:
        case Problem.BINARY:
            values = is_positive(column, target.positive).astype(np.float64)
            if config.label.absence_means == "negative":
                old = (
                    times <= times.max() - config.label.delay_s * _SECOND if times is not None and len(times) else True
                )
                known |= old
            words = [word(value) for value in column.dropna().unique() if not _same(value, target.positive)]
            return Labels(values, known, sorted(words)[0] if words else "")
        case Problem.MULTICLASS:
            words_of = column.map(word, na_action="ignore").astype(object).to_numpy(dtype=object, copy=True)
            words_of[~known] = None
            return Labels(words_of, known)
        case Problem.REGRESSION | Problem.OPAQUE:
            return Labels(column.to_numpy(dtype=np.float64, na_value=np.nan), known)


def is_positive(column: "pd.Series[Any]", positive: object) -> NDArray[np.bool_]:
    matching = [value for value in column.dropna().unique() if _same(value, positive)]
    return column.isin(matching).to_numpy()


def classes(words: NDArray[Any], target: Target) -> tuple[str, ...]:
    """The classes of a multiclass problem, made of the rows a model may learn from: sorted, `other` among them."""
    counts = Counter(words.tolist())
    if target.top is None or len(counts) <= target.top:
        return tuple(sorted(counts))
    kept = sorted(counts, key=lambda word: (-counts[word], word))[: target.top]
    return tuple(sorted({*kept, target.other}))


def encode(words: NDArray[Any], known: tuple[str, ...], other: str) -> NDArray[np.int64]:
    """Class numbers; a word that is no class is `other`, or -1 where there is no such class: never predicted right."""
    number = {word: i for i, word in enumerate(known)}
    rest = number.get(other, -1)
    return np.array([number.get(word, rest) for word in words.tolist()], dtype=np.int64)


def _same(value: object, positive: object) -> bool:
    return bool(value == positive) or word(value) == word(positive)


def word(value: object) -> str:
    """How a label is written: True and "true" are one, 1 and 1.0 are one."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
