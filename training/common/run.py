"""One whole training: rows in, a registered version out, or a refusal with a report."""

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from control_plane.domain.model_config import ModelConfig
from control_plane.domain.retraining import LOG_TIME
from model_servers.native import BadArtifact
from training.common import candidates, card, data, evidence, pipeline, plots, semver, telemetry, workers
from training.common.data import Fingerprint
from training.common.evidence import Production
from training.common.models import Source
from training.common.pipeline import Prepared, Trained
from training.common.progress import Say
from training.common.register import Registered, Registry
from training.common.workers import Place


def rows_of(source: Source, file: Path | str | None, *, seed: int) -> tuple[pd.DataFrame, Fingerprint]:
    """Raw rows from `file`, or simulated ones, and what they are known by. Text is the URL of logged rows."""
    if isinstance(file, str):
        frame, sha256 = data.read_logged(file)
        return frame, Fingerprint(sha256, len(frame), "prediction log")
    if file is not None:
        frame = data.read(file, source.config)
        return frame, Fingerprint(data.hash_file(file), len(frame), file.name)
    frame = source.simulate()(source.config.training.rows, np.random.default_rng(seed))
    return frame, Fingerprint(data.hash_frame(frame), len(frame), f"simulated, seed {seed}")


def train(
    source: Source,
    raw: pd.DataFrame,
    known_as: Fingerprint,
    *,
    url: str,
    home: Path,
    seed: int,
    cpus: int,
    now: datetime,
    say: Say,
    logged: bool = False,
    job: str | None = None,
    at: Place | None = None,
) -> Registered:
    """Raises InvalidData (with `findings`) before anything is written, RegistryUnavailable when MLflow is away, and
    Unavailable when workers are; nothing is registered then.

    `at`: the workers that fit XGBoost, where it is a candidate; None: this process does.
    `logged`: the rows are of the prediction log, so their features are final and they have the time they were asked at.
    `job`: who trains; a version this job has registered already is told again, and nothing is trained.
    """
    source = _of_log(source) if logged else source
    config = source.config
    assert config.metric is not None
    registry = Registry(url)
    if job is not None and (known := registry.of_job(config.name, job)) is not None:
        registered, told = known
        say("registered", f"{config.name} version {registered.version} was registered by this job", 1.0, **told)
        return registered
    say("validating", f"validating {len(raw)} rows", 0.02)
    prepared = pipeline.prepare(source, raw, now=now, final=logged)
    known_as = data.fingerprint(prepared.frame, config, sha256=known_as.sha256, source=known_as.source)
    judging = len(prepared.parts.holdout)
    say("validated", f"{len(raw)} rows passed; {judging} judge; leakage: {prepared.leakage}", 0.1)
    code = source.features_file.read_text(encoding="utf-8") if source.features_file else ""
    shape = semver.shape(config, code)
    version = semver.following(*registry.newest(config.name), shape)
    with tempfile.TemporaryDirectory(prefix="mlcp-train-") as temporary:
        work = Path(temporary)
        with workers.opened(at, threads=cpus) if at and candidates.by_workers(config) else nullcontext() as by:
            trained = pipeline.train(source, prepared, work, semver=version, seed=seed, cpus=cpus, say=say, by=by)
        production = _production(config, prepared, trained, registry, work / "production", seed=seed)
        moved_by = evidence.importances(trained, prepared)
        found = evidence.document(config, trained, prepared, known_as, production, seed=seed, importances=moved_by)
        evidence.complete(source, trained, prepared, found, trained.folder)
        say("drawing", "drawing the pictures", 0.78)
        pictures = plots.draw(
            config.problem,
            trained.label,
            trained.prediction,
            classes=prepared.classes,
            threshold=trained.manifest.threshold,
            importances=moved_by,
            title=f"{config.name} {version} ({trained.manifest.kind})",
        )
        say("registering", "logging to MLflow", 0.84)
        registered = registry.register(
            config,
            trained,
            known_as,
            shape,
            evidence=found,
            summary=evidence.summary(found),
            example=evidence.example(config, prepared),
            pictures=pictures,
            card=card.markdown(config, trained, prepared, known_as, found, moved_by),
            seed=seed,
            job=job,
        )
    telemetry.trained(
        config, home, experiment_id=registered.experiment_id, kind=trained.manifest.kind, seconds=trained.seconds
    )
    say(
        "registered",
        f"{config.name} version {registered.version} ({version}): {config.metric.name} {trained.interval.value:.4f}",
        1.0,
        **_told(config.name, registered, version, found),
    )
    return registered


def _told(model: str, registered: Registered, semver: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever started the training goes on with."""
    facts = {"model": model, "version": registered.version, "semver": semver, "digest": registered.digest}
    parts = {name: found[name] for name in ("metric", "metrics", "cost", "production")}
    rows = {"rows": found["data"]["rows"], "data_from": found["data"]["from"], "data_to": found["data"]["to"]}
    return {**facts, "run_id": registered.run_id, **parts, **rows}


def _of_log(source: Source) -> Source:
    """The declaration as it applies to rows of the prediction log: they have a time, no history to warm up, and the
    newest of them judge, whatever dates were written down for a file."""
    of_log = replace(source.config.training, warm_up_days=0, test_from=None, train_from=None)
    return replace(source, config=replace(source.config, time=source.config.time or LOG_TIME, training=of_log))


def _production(
    config: ModelConfig, prepared: Prepared, trained: Trained, registry: Registry, into: Path, *, seed: int
) -> Production | None:
    """None without a Production version of ours, or one that cannot be judged on these rows, or learnt from them."""
    into.mkdir()
    found = registry.production(config.name, into)
    if found is None:
        return None
    version, folder = found
    if config.time is None and not evidence.spared(folder, prepared.holdout):
        return None
    try:
        return Production(version, pipeline.judge_other(prepared, config, folder, trained, seed=seed))
    except BadArtifact:
        return None
