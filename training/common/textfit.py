"""The vocabulary of a text feature and its rows as TF-IDF, counted by the tokenizer that serves."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model_servers.native.manifest import TextBlock
from model_servers.native.text import ngrams

_LARGEST = 40_000  # n-grams per block


@dataclass(frozen=True, slots=True)
class Vocabulary:
    grams: tuple[str, ...]
    idf: NDArray[np.float64]


def blocks(feature: str, first: int) -> tuple[TextBlock, TextBlock]:
    """Words and pairs of words; characters for what is cut off or misspelt. `first`: number of the files."""
    return (
        TextBlock(feature, "word", 1, 2, f"vocabulary_{first}.json"),
        TextBlock(feature, "char", 2, 4, f"vocabulary_{first + 1}.json"),
    )


def fit(texts: NDArray[Any], block: TextBlock) -> tuple[Vocabulary, "sparse.csr_matrix"]:
    """Vocabulary of these rows and the rows as a matrix (rows, n-grams), each of length 1.

    Repeated texts are read once. Words must occur in two rows, characters in three. idf = ln((1 + n) / (1 + rows with
    it)) + 1, as scikit-learn's default.
    """
    rows = Counter(text for text in texts.tolist() if text is not None)
    distinct = {text: i for i, text in enumerate(rows)}
    counted = [Counter(ngrams(text, block)) for text in distinct]
    having: Counter[str] = Counter()
    for text, counts in zip(distinct, counted, strict=True):
        for gram in counts:
            having[gram] += rows[text]
    least = 2 if block.analyzer == "word" else 3
    frequent = sorted((g for g, n in having.items() if n >= least), key=lambda g: (-having[g], g))[:_LARGEST]
    idf = np.array([math.log((1 + len(texts)) / (1 + having[gram])) + 1 for gram in frequent])
    number = {gram: i for i, gram in enumerate(frequent)}

    indptr, indices, values = [0], list[int](), list[float]()
    for counts in counted:
        for gram, count in counts.items():
            if (index := number.get(gram)) is not None:
                indices.append(index)
                values.append(count * idf[index])
        indptr.append(len(indices))
    indptr.append(len(indices))  # the row of null
    matrix = sparse.csr_matrix((values, indices, indptr), shape=(len(distinct) + 1, len(frequent)), dtype=np.float32)
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix = sparse.diags(1 / np.where(length > 0, length, 1)).dot(matrix).tocsr().astype(np.float32)
    which = [distinct.get(text, len(distinct)) if text is not None else len(distinct) for text in texts.tolist()]
    return Vocabulary(tuple(frequent), idf), matrix[which]
