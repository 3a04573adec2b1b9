"""One whole training: rows in, a registered version out, or a refusal with a report."""

import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from control_plane.domain.model_config import ModelConfig
from model_servers.native import BadArtifact
from training.common import card, data, evidence, pipeline, plots, semver, telemetry
from training.common.data import Fingerprint
from training.common.evidence import Production
from training.common.models import Source
from training.common.pipeline import Prepared
from training.common.progress import Say
from training.common.register import Registered, Registry


def rows_of(source: Source, file: Path | None, *, seed: int) -> tuple[pd.DataFrame, Fingerprint]:
    """Raw rows from `file`, or simulated ones, and what they are known by."""
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
) -> Registered:
    """Raises InvalidData (with `findings`) before anything is written, RegistryUnavailable when MLflow is away."""
    config = source.config
    assert config.metric is not None
    say("validating", f"validating {len(raw)} rows", 0.02)
    prepared = pipeline.prepare(source, raw, now=now)
    known_as = data.fingerprint(prepared.frame, config, sha256=known_as.sha256, source=known_as.source)
    judging = len(prepared.parts.holdout)
    say("validated", f"{len(raw)} rows passed; {judging} judge; leakage: {prepared.leakage}", 0.1)
    registry = Registry(url)
    code = source.features_file.read_text(encoding="utf-8") if source.features_file else ""
    shape = semver.shape(config, code)
    version = semver.following(*registry.newest(config.name), shape)
    with tempfile.TemporaryDirectory(prefix="mlcp-train-") as temporary:
        work = Path(temporary)
        trained = pipeline.train(source, prepared, work, semver=version, seed=seed, cpus=cpus, say=say)
        production = _production(config, prepared, registry, work / "production")
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
        )
    telemetry.trained(
        config, home, experiment_id=registered.experiment_id, kind=trained.manifest.kind, seconds=trained.seconds
    )
    say(
        "registered",
        f"{config.name} version {registered.version} ({version}): {config.metric.name} {trained.interval.value:.4f}",
        1.0,
        model=config.name,
        version=registered.version,
        semver=version,
        digest=registered.digest,
        run_id=registered.run_id,
        metric=found["metric"],
        metrics=found["metrics"],
        cost=found["cost"],
    )
    return registered


def _production(config: ModelConfig, prepared: Prepared, registry: Registry, into: Path) -> Production | None:
    """None without a Production version of ours, or one that cannot be judged on these rows, or learnt from them."""
    into.mkdir()
    found = registry.production(config.name, into)
    if found is None:
        return None
    version, folder = found
    if config.time is None and not evidence.spared(folder, prepared.holdout):
        return None
    try:
        return Production(version, pipeline.judge_other(prepared, config, folder))
    except BadArtifact:
        return None
