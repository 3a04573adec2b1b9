"""One training, from rows to a version that is ready to be registered. No MLflow here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from control_plane.domain.model_config import FeatureType, ModelConfig, Problem
from control_plane.errors import InvalidData
from model_servers import native
from model_servers.native.manifest import Calibration, Manifest
from training.common import (
    artifact,
    calibration,
    candidates,
    data,
    encoding,
    evaluation,
    identity,
    labels,
    selection,
    split,
    threshold,
    validation,
)
from training.common.artifact import Fitted
from training.common.candidates import Candidate, Rows
from training.common.evaluation import Interval
from training.common.identity import Holdout
from training.common.models import Source
from training.common.progress import Say
from training.common.split import Parts
from training.common.workers import Workers

_YEAR = 365.25 * 86_400 * 1_000_000
_DAY = 86_400 * 1_000_000  # in the unit of `times`
_PAIRED = 500  # resamples of a difference between two versions
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows that passed validation, divided. `rows.target` is meaningless where a label is not known."""

    frame: pd.DataFrame
    rows: Rows
    parts: Parts
    words: NDArray[Any]  # multiclass: labels as written
    classes: tuple[str, ...]
    amounts: Floats | None  # each row's own cost of a missed positive
    units: NDArray[Any] | None
    times: NDArray[np.int64] | None
    leakage: str  # looked for, or why not
    holdout: Holdout


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate, judged on the validation part."""

    candidate: Candidate
    fitted: Fitted
    value: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The winner fitted on everything it may learn from, and how it does on the hold-out."""

    folder: Path
    manifest: Manifest
    winner: Tried
    tried: tuple[Tried, ...]
    interval: Interval
    metrics: dict[str, float]
    cost: float | None
    trivial_cost: float | None
    label: Floats
    prediction: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Another version on the hold-out of a training. `difference`: the trained one's metric minus its, paired."""

    value: float
    difference: Interval


def prepare(source: Source, raw: pd.DataFrame, *, now: datetime, final: bool = False) -> Prepared:
    """Validate, make features, divide. Raises InvalidData with `findings` naming everything wrong with the rows.

    `final`: the rows have the features as the model was asked with them; features.py has nothing to do.
    """
    config = source.config
    function, declared = (None, {}) if final else source.features()
    raw, found = validation.raw(raw, declared, config)
    _refuse(found, raw, validation.LEAKAGE_LATER)
    frame = raw if function is None else function(raw, label_delay_s=config.label.delay_s)
    if len(frame) != len(raw):
        raise InvalidData(f"features.py made {len(frame)} rows of {len(raw)}.")
    frame = frame.reset_index(drop=True)
    checked = validation.check(frame, config, now=now)
    _refuse(checked.findings, frame, checked.leakage)

    times = data.times(frame, config)
    read = labels.read(frame, config, times)
    units = np.array(identity.words(frame[config.unit])) if config.unit else None
    arrays = data.columns(frame, config.features)
    identities = identity.of_rows(frame, arrays, config)
    plan = config.training
    if times is not None:
        parts = split.by_time(
            times,
            read.known,
            delay_s=config.label.delay_s,
            test_share=plan.test_share,
            test_from=plan.test_from,
            train_from=plan.train_from,
            warm_up_days=plan.warm_up_days,
        )
    else:
        placed = identity.words(frame[config.unit]) if config.unit else identities
        parts = split.by_identity(read.known, placed, test_share=plan.test_share)
    target, classes = _target(config, read, parts)
    weight = _weights(config, times, parts)
    column = config.costs.false_negative_column if config.costs else None
    rows = Rows(
        config.features,
        arrays,
        target,
        weight,
        config.problem,
        len(classes) if config.problem is Problem.MULTICLASS else 1,
    )
    judging = identity.holdout(identities, read.values, parts.holdout, config)
    amounts = data.convert(frame[column], FeatureType.NUMBER)[0] if column else None
    return Prepared(frame, rows, parts, read.values, classes, amounts, units, times, checked.leakage, judging)


def train(
    source: Source,
    prepared: Prepared,
    work: Path,
    *,
    semver: str,
    seed: int,
    cpus: int,
    say: Say,
    by: Workers | None = None,
) -> Trained:
    """Fit all candidates, choose, calibrate, set the threshold, fit the winner again, judge it once on the hold-out.

    Candidates are written under `work` and judged through the runtime that will serve them. `by`: as of `fit`.
    """
    started = time.perf_counter()
    config, parts, rows = source.config, prepared.parts, prepared.rows
    assert config.metric is not None
    fit, check = rows.take(parts.fit), rows.take(parts.validation)
    names = candidates.listed(config)
    finished: list[str] = []

    def done(candidate: Candidate) -> None:
        finished.append(candidate.name)
        say("fitted", f"{candidate.name} fitted", 0.2 + 0.4 * len(finished) / len(names), candidate=candidate.name)

    say("fitting", f"fitting {len(names)} candidates on {len(parts.fit)} rows", 0.2)
    fitted = candidates.fit_all(names, fit, check, seed=seed, cpus=cpus, done=done, by=by)
    blank = _manifest(config, prepared, fit.arrays, semver)
    tried: list[Tried] = []
    predictions: dict[str, native.Model] = {}
    for candidate, (made, seconds) in zip(names, fitted, strict=True):
        model = _written(work / "candidates" / candidate.name, made, blank, cpus)
        predictions[candidate.name] = model
        metric = evaluation.measure(
            config.problem, config.metric.name, check.target, model.predict_columns(check.arrays)
        )
        tried.append(Tried(candidate, made, metric(np.ones(len(check.target))), seconds))
    best = selection.winner(
        [selection.Score(t.candidate.name, t.candidate.kind, t.value) for t in tried],
        higher_is_better=config.metric.higher_is_better,
        margin=config.training.slower_model_margin,
    )
    winner = next(t for t in tried if t.candidate.name == best.name)
    say("selected", f"{best.name} wins: {config.metric.name} {best.value:.4f} on the validation part", 0.62)

    tuned = _tune(config, prepared, blank, check, predictions[best.name])
    whole = rows.take(parts.train)
    final = candidates.fit(winner.candidate, whole, None, seed=seed, threads=cpus, again=winner.fitted, by=by)
    folder = work / "native"
    model = _written(folder, final, tuned, cpus)
    say("evaluating", f"judging {best.name} on {len(parts.holdout)} hold-out rows", 0.72)
    label, prediction = rows.target[parts.holdout], model.predict_columns([a[parts.holdout] for a in rows.arrays])
    interval = evaluation.bootstrap(
        evaluation.measure(config.problem, config.metric.name, label, prediction),
        len(label),
        rng=np.random.default_rng(seed),
        units=_unit_numbers(prepared),
    )
    metrics = evaluation.everything(config.problem, label, prediction, tuned.threshold)
    constant = _constant(config.problem, rows.target[parts.train], prediction)
    metrics[f"trivial_{config.metric.name}"] = evaluation.measure(config.problem, config.metric.name, label, constant)(
        np.ones(len(label))
    )
    cost = trivial = None
    if config.costs is not None and config.problem is Problem.BINARY and tuned.threshold is not None:
        table = threshold.costs(label, config.costs, _at(prepared.amounts, parts.holdout))
        cost, trivial = table.of(prediction >= tuned.threshold), table.trivial
        metrics |= {"cost": cost, "cost_trivial": trivial, "cost_always_no": float(table.no.sum())}
    seconds = time.perf_counter() - started
    return Trained(
        folder, model.manifest, winner, tuple(tried), interval, metrics, cost, trivial, label, prediction, seconds
    )


def judge_other(prepared: Prepared, config: ModelConfig, folder: Path, trained: Trained, *, seed: int) -> Beside:
    """Another native version on this hold-out, and how much better the trained one is, both on the same redrawn rows.

    A feature it wants and we lack is null to it. Raises native.BadArtifact if it cannot be loaded.
    """
    assert config.metric is not None
    model = native.load(folder)
    rows = prepared.parts.holdout
    have = dict(zip(config.features, prepared.rows.arrays, strict=True))
    nothing = {True: np.full(len(rows), None, dtype=object), False: np.full(len(rows), np.nan)}
    columns = [
        have[feature.name][rows] if feature.name in have else nothing[feature.type in {"category", "text"}]
        for feature in model.manifest.features
    ]
    label = prepared.rows.target[rows]
    if config.problem is Problem.MULTICLASS:
        label = labels.encode(prepared.words[rows], model.manifest.classes, labels.target_of(config).other).astype(
            float
        )
    theirs = evaluation.measure(config.problem, config.metric.name, label, model.predict_columns(columns))
    ours = evaluation.measure(config.problem, config.metric.name, trained.label, trained.prediction)
    difference = evaluation.bootstrap(
        lambda weight: ours(weight) - theirs(weight),
        len(rows),
        rng=np.random.default_rng(seed),
        units=_unit_numbers(prepared),
        resamples=_PAIRED,
    )
    return Beside(theirs(np.ones(len(label))), difference)


def _constant(problem: Problem, label: Floats, like: Floats) -> Floats:
    """The answer of somebody who has seen the training labels and no feature: how often each class occurs, the mean."""
    if problem is Problem.MULTICLASS:
        known = label[label >= 0].astype(np.int64)
        return np.broadcast_to(np.bincount(known, minlength=like.shape[1]) / max(len(known), 1), like.shape)
    return np.full(like.shape, label.mean())


def _tune(config: ModelConfig, prepared: Prepared, blank: Manifest, check: Rows, model: native.Model) -> Manifest:
    """Calibration and threshold from the validation part, which the judged fit has not seen."""
    raw = model.predict_columns(check.arrays)
    match config.problem:
        case Problem.BINARY:
            table = calibration.fit(check.target, raw)
            chosen = config.decision.threshold
            if chosen is None and config.costs is not None:
                amounts = _at(prepared.amounts, prepared.parts.validation)
                costs = threshold.costs(check.target, config.costs, amounts)
                chosen = threshold.choose(_calibrated(table, raw), costs)
            words = (config.decision.negative, config.decision.positive)
            return replace(blank, calibration=table, threshold=0.5 if chosen is None else chosen, decision=words)
        case Problem.MULTICLASS:
            with np.errstate(divide="ignore"):
                margins = np.log(np.maximum(raw, 1e-300))
            return replace(blank, temperature=calibration.temperature(check.target.astype(np.int64), margins))
        case Problem.REGRESSION | Problem.OPAQUE:
            return blank


def _calibrated(table: Calibration, raw: Floats) -> Floats:
    return np.interp(raw, table.x, table.y)


def _manifest(config: ModelConfig, prepared: Prepared, arrays: list[NDArray[Any]], semver: str) -> Manifest:
    return Manifest(
        model=config.name,
        semver=semver,
        problem=config.problem.value,  # type: ignore[arg-type]  # opaque models are not trained here
        kind="linear",
        features=encoding.native_features(config.features, arrays),
        columns=(),
        classes=prepared.classes,
    )


def _written(folder: Path, fitted: Fitted, blank: Manifest, threads: int) -> native.Model:
    manifest = replace(blank, kind=fitted.kind, columns=fitted.columns, text=fitted.text)
    artifact.write(folder, fitted, manifest)
    return native.load(folder, threads=threads)


def _target(config: ModelConfig, read: labels.Labels, parts: Parts) -> tuple[Floats, tuple[str, ...]]:
    match config.problem:
        case Problem.BINARY:
            positive = labels.target_of(config).positive
            return read.values, (read.negative or "other", str(positive).lower() if positive is True else str(positive))
        case Problem.MULTICLASS:
            target = labels.target_of(config)
            known = labels.classes(read.values[parts.train], target)
            return labels.encode(read.values, known, target.other).astype(np.float64), known
        case Problem.REGRESSION | Problem.OPAQUE:
            return read.values, ()


def _weights(config: ModelConfig, times: NDArray[np.int64] | None, parts: Parts) -> Floats | None:
    if config.training.half_life_days is None or times is None:
        return None
    age = (times[parts.train].max() - times) / _DAY
    return np.asarray(0.5 ** (np.maximum(age, 0) / config.training.half_life_days))


def _unit_numbers(prepared: Prepared) -> NDArray[np.int64] | None:
    """Of the hold-out rows, where a unit has several: its rows hang together."""
    if prepared.units is None:
        return None
    found, numbers = np.unique(prepared.units[prepared.parts.holdout], return_inverse=True)
    return numbers.astype(np.int64) if len(found) < len(numbers) else None


def _at(values: Floats | None, rows: NDArray[np.int64]) -> Floats | None:
    return None if values is None else values[rows]


def _refuse(found: Sequence[validation.Finding], frame: pd.DataFrame, leakage: str) -> None:
    if found:
        what = "; ".join(
            f"{f.column or 'the data'}: {f.message}" + (f" ({f.rows} rows)" if f.rows else "") for f in found
        )
        raise InvalidData(
            f"Training data refused: {what}.",
            rows=len(frame),
            findings=[finding.to_json() for finding in found],
            leakage=leakage,
        )
