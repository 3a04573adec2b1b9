"""The native runtime answers what the libraries that made the model answer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from control_plane.domain import registry
from model_servers import native
from model_servers.native import BadArtifact, digest
from model_servers.native.encode import Encoder
from model_servers.native.manifest import Calibration, Column, Feature, Manifest, TextBlock
from model_servers.native.text import TextScorer
from tests.support import native_artifacts

RNG = np.random.default_rng(7)
FEATURES = (
    Feature("amount", "number"),
    Feature("age", "number", nullable=True),
    Feature("kind", "category", nullable=True, categories=("a", "b", "c")),
)
COLUMNS = (Column("amount", "number"), Column("age", "number"), Column("kind", "onehot", values=("a", "b"), null=True))


def rows(count: int) -> list[list[object]]:
    kinds: list[object] = ["a", "b", "c", None]
    return [
        [float(RNG.normal()), None if RNG.random() < 0.2 else float(RNG.normal()), kinds[RNG.integers(4)]]
        for _ in range(count)
    ]


def matrix(given_rows: list[list[object]]) -> NDArray[np.float32]:
    """Encoded by hand: amount, age, is a, is b, is null."""
    return np.array(
        [[r[0], np.nan if r[1] is None else r[1], r[2] == "a", r[2] == "b", r[2] is None] for r in given_rows],
        dtype=np.float32,
    )


def trees(folder: Path, kind: Any, problem: Any, booster: Any, classes: tuple[str, ...] = ()) -> native.Model:
    folder.mkdir(parents=True, exist_ok=True)
    booster.save_model(str(folder / ("booster.txt" if kind == "lightgbm" else "booster.ubj")))
    manifest = Manifest("m", "1.0.0", problem, kind, FEATURES, COLUMNS, classes=classes)
    return native.load(native_artifacts.write(folder, manifest))


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("kind", ["xgboost", "forest", "lightgbm"])
def test_trees_score_and_explain_as_their_own_library_does(tmp_path: Path, kind: str, problem: str) -> None:
    some, more = rows(400), rows(50)
    x, y = matrix(some), RNG.integers(0, 3 if problem == "multiclass" else 2, 400)
    y = y.astype(float) + (x[:, 0] if problem == "regression" else 0)
    classes = ("x", "y", "z") if problem == "multiclass" else ()
    if kind == "lightgbm":
        objective = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}[problem]
        booster: Any = lightgbm.train(
            {
                "objective": objective,
                "num_class": max(len(classes), 1),
                "verbosity": -1,
                "min_data_in_leaf": 5,
                "num_threads": 1,
            },
            lightgbm.Dataset(x, y),
            8,
        )
        expected = booster.predict(matrix(more))
        shap = booster.predict(matrix(more), pred_contrib=True).reshape(50, max(len(classes), 1), -1)
    else:
        objective = {"binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror"}[
            problem
        ]
        parameters: dict[str, Any] = {"objective": objective, "max_depth": 3, "nthread": 1}
        if classes:
            parameters["num_class"] = 3
        if kind == "forest":
            parameters |= {"num_parallel_tree": 9, "subsample": 0.6, "learning_rate": 1.0}
        data = xgboost.DMatrix(x, y, nthread=1)
        booster = xgboost.train(parameters, data, 1 if kind == "forest" else 8)
        booster.set_param({"nthread": 1})
        expected = booster.predict(xgboost.DMatrix(matrix(more), nthread=1))
        shap = booster.predict(xgboost.DMatrix(matrix(more), nthread=1), pred_contribs=True, strict_shape=True)
    model = trees(tmp_path / "m", kind, problem, booster, classes)
    answered = model.predict(more)
    assert answered == pytest.approx(expected, abs=1e-6)

    explained = model.contributions(more)
    best = answered.argmax(axis=1) if classes else np.zeros(50, dtype=int)
    theirs = shap[np.arange(50), best]
    assert explained.values[:, :2] == pytest.approx(theirs[:, :2], abs=1e-5)
    assert explained.values[:, 2] == pytest.approx(theirs[:, 2:5].sum(axis=1), abs=1e-5)  # its three columns
    assert explained.bias == pytest.approx(theirs[:, 5], abs=1e-5)


def test_rows_and_columns_are_two_ways_to_one_answer(tmp_path: Path) -> None:
    folders = [
        native_artifacts.linear_binary(tmp_path / "l"),
        native_artifacts.xgboost_binary(tmp_path / "x"),
        native_artifacts.tfidf_multiclass(tmp_path / "t"),
    ]
    bodies: list[list[list[object]]] = [
        [[None, "year", True], [12.0, "unseen", False], [80, "month", True]],
        [[120.0, True, None], [3.5, False, 0.9]],
        [["Coffee & BREAD at the fuel station", 12.0], [None, 3.0], ["nothing known", -5.0]],
    ]
    for folder, some in zip(folders, bodies, strict=True):
        model = native.load(folder)
        words = {"category", "text"}
        columns = [
            np.array([row[i] for row in some], dtype=object if feature.type in words else np.float64)
            for i, feature in enumerate(model.manifest.features)
        ]
        assert model.predict_columns(columns) == pytest.approx(model.predict(some), abs=1e-12)
        assert model.predict([]).shape[0] == 0
        assert model.predict_columns([c[:0] for c in columns]).shape == model.predict([]).shape


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(-1e6, 1e6)), st.sampled_from(["a", "b", "z", None])),
        min_size=1,
        max_size=8,
    )
)
def test_every_kind_of_column_is_encoded_alike_from_rows_and_columns(
    values: list[tuple[float | None, str | None]],
) -> None:
    features = (Feature("x", "number", nullable=True), Feature("k", "category", nullable=True))
    columns = (
        Column("x", "number", knots=(0.0, 10.0), fill=1.5, null=True, low=-100.0, high=100.0),
        Column("x", "bins", knots=(-5.0, 0.0, 5.0), null=True),
        Column("k", "onehot", values=("a", "b"), null=True),
        Column("k", "ordinal", values=("b", "a")),
    )
    encoder = Encoder(features, columns)
    some: list[list[object]] = [list(value) for value in values]
    arrays = [
        np.array([np.nan if x is None else x for x, _ in values]),
        np.array([k for _, k in values], dtype=object),
    ]
    np.testing.assert_array_equal(encoder.numbers(some), encoder.column_numbers(arrays))
    np.testing.assert_array_equal(encoder.codes(some), encoder.column_codes(arrays))
    np.testing.assert_array_equal(encoder.matrix(some), encoder.column_matrix(arrays))
    one = encoder.matrix(some)[0]
    x = 1.5 if values[0][0] is None else min(max(values[0][0], -100.0), 100.0)
    assert one[:4] == pytest.approx([x, max(0, x), max(0, x - 10), float(values[0][0] is None)], rel=1e-6)
    assert one[4:9].sum() == 1
    assert one[9:12].sum() == (values[0][1] != "z")


def test_a_linear_margin_is_its_contributions_plus_the_bias(tmp_path: Path) -> None:
    model = native.load(native_artifacts.linear_binary(tmp_path / "l"))
    some: list[list[object]] = [[None, "year", True], [12.0, "unseen", False]]
    explained = model.contributions(some)
    margin = explained.values.sum(axis=1) + explained.bias
    assert margin == pytest.approx([0.5 - 0.05 * 30 - 1.0 + 0.5, 0.5 - 0.05 * 12])
    raw = 1 / (1 + np.exp(-margin))
    assert model.predict(some) == pytest.approx(np.interp(raw, [0, 0.5, 1], [0, 0.4, 1]))
    assert explained.values[1, 1] == pytest.approx(-0.2)  # an unseen contract: nothing, against the average's share


TEXTS = [
    "SHELL FORECOURT 0482 LEEDS", "sq *coffee & cake", "Café MÜNCHEN  Straße", "a", "", "  ", "x yz", "ÀÉÎ õü",
    "tesco stores 3301", "tesco  stores 3301 leeds", "日本 カフェ", "İstanbul", "a_b c-d",
]  # fmt: skip


@pytest.mark.parametrize(("analyzer", "theirs", "low", "high"), [("word", "word", 1, 2), ("char", "char_wb", 2, 4)])
def test_texts_are_counted_as_scikit_learn_counts_them(analyzer: Any, theirs: str, low: int, high: int) -> None:
    vectorizer = TfidfVectorizer(analyzer=theirs, ngram_range=(low, high))
    table = vectorizer.fit_transform(TEXTS)
    weights = RNG.normal(size=(table.shape[1], 3))
    scorer = TextScorer(TextBlock("t", analyzer, low, high, ""), vectorizer.vocabulary_, vectorizer.idf_, weights)
    texts = [*TEXTS, "tesco unheard of", "shell shell shell"]
    margins = np.zeros((len(texts), 3))
    scorer.add(texts, margins)
    assert margins == pytest.approx(vectorizer.transform(texts) @ weights.astype(np.float32), abs=1e-6)


def test_calibration_and_temperature_are_part_of_the_answer(tmp_path: Path) -> None:
    model = native.load(native_artifacts.tfidf_multiclass(tmp_path / "t"))
    margins = np.array([0.0 - 0.02, 0.0 + 0.02, 0.5]) / 1.25
    assert model.predict([[None, 2.0]])[0] == pytest.approx(np.exp(margins) / np.exp(margins).sum())


def test_the_digest_is_what_coreutils_compute(tmp_path: Path) -> None:
    for name, content in {"b": b"1", "a/z.txt": b"", "a-b": b"\x00\xff", "ä/ü": b"x", "a/b/c": b"deep"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = "find . -type f | sed 's,^./,,' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert digest.of_folder(tmp_path) == f"sha256:{printed.split()[0]}"
    import hashlib

    files = [
        (str(p.relative_to(tmp_path)), hashlib.sha256(p.read_bytes()).hexdigest())
        for p in tmp_path.rglob("*")
        if p.is_file()
    ]
    assert registry.tree_digest(files) == digest.of_folder(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert digest.of_folder(tmp_path) != f"sha256:{printed.split()[0]}"


def test_a_folder_without_files_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files"):
        digest.of_folder(tmp_path)


def test_what_cannot_be_served_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"manifest\.json"):
        native.load(tmp_path)
    whole = native_artifacts.xgboost_binary(tmp_path / "whole")
    for spoil in ("booster", "format", "arrays"):
        folder = tmp_path / spoil
        shutil.copytree(whole, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        match spoil:
            case "booster":
                (folder / "booster.ubj").write_bytes(b"not a booster")
            case "format":
                manifest["format"] = 2
            case _:
                manifest["kind"] = "linear"
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BadArtifact):
            native.load(folder)


def test_the_runtime_loads_no_frames_and_no_training_library(tmp_path: Path) -> None:
    folder = native_artifacts.xgboost_binary(tmp_path / "x")
    code = f"""
import sys, pathlib
from model_servers import native
model = native.load(pathlib.Path({str(folder)!r}))
model.predict([[1.0, True, None]])
model.contributions([[1.0, True, None]])
print(sorted({{"pandas", "sklearn", "xgboost", "scipy", "mlflow", "control_plane", "training"}} & set(sys.modules)))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_calibration_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    from model_servers.native import manifest

    table = Calibration("isotonic", (0.0, 0.1, 1.0), (0.0, 0.05, 1.0))
    written = Manifest("m", "1.2.3", "binary", "xgboost", FEATURES, COLUMNS, classes=("n", "y"), calibration=table)
    native_artifacts.write(tmp_path, written)
    assert manifest.read(tmp_path) == written
