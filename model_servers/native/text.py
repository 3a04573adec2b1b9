"""TF-IDF of short texts by one tokenizer, used to fit and to serve: what was counted is what is looked up.

The same numbers as scikit-learn's TfidfVectorizer (lowercase, `char_wb` and `word` n-grams, smooth idf, L2 norm),
which the tests hold it to; written for one text at a time, where a sparse matrix costs more than the answer.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_servers.native.manifest import TextBlock

_WORD = re.compile(r"\b\w\w+\b")
_MAX_CHARS = 2_000  # of one text; a body of megabytes must not hold the worker


def ngrams(text: str, block: TextBlock) -> list[str]:
    """All n-grams of `text`, repeated as often as they occur. Text beyond 2,000 characters is not read."""
    lowered = text[:_MAX_CHARS].lower()
    sizes = range(block.low, block.high + 1)
    if block.analyzer == "word":
        words = _WORD.findall(lowered)
        return [" ".join(words[i : i + n]) for n in sizes for i in range(len(words) - n + 1)]
    found: list[str] = []
    for token in lowered.split():
        padded = f" {token} "
        size = len(padded)
        for n in sizes:
            if size <= n:  # a word shorter than n counts once, whole
                found.append(padded)
                break
            found += [padded[i : i + n] for i in range(size - n + 1)]
    return found


class TextScorer:
    """Adds one text feature's share to the margins: sum of tf-idf x weight over the text's known n-grams, length 1."""

    def __init__(
        self, block: TextBlock, vocabulary: Mapping[str, int], idf: NDArray[Any], weights: NDArray[Any]
    ) -> None:
        """`idf`: (v,). `weights`: (v, outputs). Rows are numbered by `vocabulary`."""
        self._block = block
        self._vocabulary = vocabulary
        self._squares: NDArray[np.float64] = idf.astype(np.float64) ** 2
        self._weights: NDArray[np.float32] = np.ascontiguousarray(weights * idf[:, None], dtype=np.float32)

    def add(self, texts: Sequence[object], margins: NDArray[np.float64]) -> None:
        """Null and texts without a known n-gram add nothing."""
        get, block = self._vocabulary.get, self._block
        found: list[int] = []  # numbers of known n-grams, text after text
        rows: list[int] = []
        starts: list[int] = []
        repeated: list[tuple[int, Counter[int]]] = []  # texts that have an n-gram twice
        for row, text in enumerate(texts):
            if text is None:
                continue
            known = [index for gram in ngrams(str(text), block) if (index := get(gram)) is not None]
            if not known:
                continue
            if len(set(known)) < len(known):
                repeated.append((len(rows), Counter(known)))
            rows.append(row)
            starts.append(len(found))
            found += known
        if not rows:
            return
        which = np.array(found, dtype=np.int64)
        shares = np.add.reduceat(self._weights[which], starts, axis=0, dtype=np.float64)
        lengths = np.add.reduceat(self._squares[which], starts)
        for at, counts in repeated:  # (2 x idf) squared is not twice idf squared
            lengths[at] = math.fsum(count * count * self._squares[index] for index, count in counts.items())
        margins[rows] += shares / np.sqrt(lengths)[:, None]
