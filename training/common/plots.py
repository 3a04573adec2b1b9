"""Pictures of how a version does on its hold-out, as PNG. Drawn without pyplot: no display, no global state."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.model_config import Problem
from training.common import evaluation

Floats = NDArray[np.float64]
_BLUE, _GREY, _RED = "#2b6cb0", "#a0aec0", "#c53030"
_LARGEST = 25  # classes or features shown


def draw(
    problem: Problem,
    label: Floats,
    prediction: Floats,
    *,
    classes: tuple[str, ...],
    threshold: float | None,
    importances: Mapping[str, float],
    title: str,
) -> dict[str, bytes]:
    """{file name: PNG}. `importances`: mean |contribution| per feature, in margin units."""
    made = {"importances.png": _importances(importances, title)}
    match problem:
        case Problem.BINARY:
            at = 0.5 if threshold is None else threshold
            said = (prediction >= at).astype(np.int64)
            made["confusion_matrix.png"] = _confusion(
                label.astype(np.int64), said, classes, f"{title}, threshold {at:.3f}"
            )
            made["roc_pr.png"] = _roc_pr(label, prediction, at, title)
            made["calibration.png"] = _calibration(label, prediction, title)
        case Problem.MULTICLASS:
            guess = prediction.argmax(axis=1)
            made["confusion_matrix.png"] = _confusion(label.astype(np.int64), guess, classes, title)
            right = (guess == label).astype(np.float64)
            made["calibration.png"] = _calibration(right, prediction.max(axis=1), f"{title}, most probable class")
            made["roc_pr.png"] = _one_against_rest(label, prediction, classes, title)
        case Problem.REGRESSION | Problem.OPAQUE:
            made["predicted_actual.png"] = _scatter(label, prediction, title)
            made["residuals.png"] = _residuals(label - prediction, title)
    return made


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _importances(importances: Mapping[str, float], title: str) -> bytes:
    ranked = sorted(importances.items(), key=lambda item: item[1])[-_LARGEST:]
    figure, axes = _figure(7, 1.2 + 0.28 * len(ranked))
    axes.barh([name for name, _ in ranked], [value for _, value in ranked], color=_BLUE)
    axes.set_xlabel("mean |contribution| to the score")
    axes.set_title(title)
    return _png(figure)


def _confusion(label: NDArray[np.int64], guess: NDArray[np.int64], classes: Sequence[str], title: str) -> bytes:
    known = label >= 0
    table = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(table, (label[known], guess[known]), 1)
    shown = np.sort(np.argsort(-table.sum(axis=1), kind="stable")[:_LARGEST])
    table, names = table[np.ix_(shown, shown)], [classes[i][:24] for i in shown]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = 3.6 + 0.42 * len(names)
    figure, axes = _figure(size + 1, size)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            if table[i, j]:
                colour = "white" if share[i, j] > 0.55 else "black"
                axes.text(
                    j,
                    i,
                    f"{table[i, j]:,}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=7 if len(names) > 6 else 10,
                )
    axes.set_xticks(
        range(len(names)), names, rotation=60 if len(names) > 4 else 0, ha="right" if len(names) > 4 else "center"
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="share of the actual class", shrink=0.8)
    return _png(figure)


def _curves(label: Floats, score: Floats) -> tuple[Floats, Floats, Floats]:
    """False positive rate, recall and precision at every distinct score, from the highest down."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(score[order]) != 0, True])
    hits, all_said = np.cumsum(label[order])[last], last + 1.0
    misses = all_said - hits
    return misses / max(misses[-1], 1), hits / max(hits[-1], 1), hits / all_said


def _roc_pr(label: Floats, score: Floats, threshold: float, title: str) -> bytes:
    false_rate, recall, precision = _curves(label, score)
    said = score >= threshold
    figure, (roc, pr) = _figure(10, 4.6, 2)
    roc.plot(np.r_[0, false_rate], np.r_[0, recall], color=_BLUE)
    roc.plot([0, 1], [0, 1], color=_GREY, linestyle="--")
    roc.plot(
        (said & (label == 0)).sum() / max((label == 0).sum(), 1),
        (said & (label == 1)).sum() / label.sum(),
        "o",
        color=_RED,
    )
    roc.set_xlabel("false positive rate")
    roc.set_ylabel("recall")
    roc.set_title(f"ROC, area {evaluation.roc_auc(label, score):.3f}")
    pr.plot(recall, precision, color=_BLUE)
    pr.axhline(label.mean(), color=_GREY, linestyle="--")
    if said.any():
        pr.plot(
            (said & (label == 1)).sum() / label.sum(), label[said].mean(), "o", color=_RED, label="at the threshold"
        )
        pr.legend(loc="best")
    pr.set_xlabel("recall")
    pr.set_ylabel("precision")
    pr.set_ylim(0, 1.02)
    pr.set_title(f"precision and recall, average precision {evaluation.average_precision(label, score):.3f}")
    figure.suptitle(title)
    return _png(figure)


def _one_against_rest(label: Floats, prediction: Floats, classes: Sequence[str], title: str) -> bytes:
    figure, (roc, pr) = _figure(10, 4.6, 2)
    frequent = np.argsort(-np.bincount(label[label >= 0].astype(np.int64), minlength=len(classes)), kind="stable")[:8]
    for k in frequent:
        mine = (label == k).astype(np.float64)
        if 0 < mine.sum() < len(mine):
            false_rate, recall, precision = _curves(mine, prediction[:, k])
            roc.plot(np.r_[0, false_rate], np.r_[0, recall], label=classes[k][:24], linewidth=1)
            pr.plot(recall, precision, linewidth=1)
    roc.set_xlabel("false positive rate")
    roc.set_ylabel("recall")
    roc.legend(fontsize=8, loc="lower right")
    roc.set_title("ROC, one class against the rest")
    pr.set_xlabel("recall")
    pr.set_ylabel("precision")
    pr.set_ylim(0, 1.02)
    pr.set_title("precision and recall")
    figure.suptitle(f"{title}, the most frequent classes")
    return _png(figure)


def _calibration(label: Floats, probability: Floats, title: str, bins: int = 12) -> bytes:
    order = np.argsort(probability, kind="stable")
    expected = np.cumsum(probability[order])  # bins of equally many expected events: rare ones are not all in the last
    places = np.searchsorted(expected, expected[-1] * np.arange(1, bins) / bins) if len(order) else []
    parts = [part for part in np.split(order, places) if len(part)]
    said = np.array([probability[part].mean() for part in parts])
    happened = np.array([label[part].mean() for part in parts])
    spread = np.array([np.sqrt(max(label[part].mean() * (1 - label[part].mean()), 1e-9) / len(part)) for part in parts])
    figure, (curve, histogram) = _figure(10, 4.6, 2)
    top = max(said.max(), happened.max()) * 1.05
    curve.plot([0, top], [0, top], color=_GREY, linestyle="--")
    curve.errorbar(said, happened, yerr=1.96 * spread, fmt="o-", color=_BLUE, capsize=2)
    curve.set_xlabel("mean probability given")
    curve.set_ylabel("share that came true")
    curve.set_title(f"calibration, mean gap {evaluation.calibration_error(label, probability):.4f}")
    histogram.hist(probability, bins=40, color=_BLUE)
    histogram.set_yscale("log")
    histogram.set_xlabel("probability given")
    histogram.set_ylabel("rows")
    figure.suptitle(title)
    return _png(figure)


def _scatter(label: Floats, prediction: Floats, title: str) -> bytes:
    figure, axes = _figure(6, 5.5)
    some = np.linspace(0, len(label) - 1, min(len(label), 4_000)).astype(np.int64)
    axes.scatter(prediction[some], label[some], s=6, alpha=0.4, color=_BLUE)
    ends = [min(prediction.min(), label.min()), max(prediction.max(), label.max())]
    axes.plot(ends, ends, color=_GREY, linestyle="--")
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title)
    return _png(figure)


def _residuals(residual: Floats, title: str) -> bytes:
    figure, axes = _figure(6, 4)
    axes.hist(residual, bins=60, color=_BLUE)
    axes.axvline(0, color=_GREY, linestyle="--")
    axes.set_xlabel("actual - predicted")
    axes.set_ylabel("rows")
    axes.set_title(title)
    return _png(figure)
