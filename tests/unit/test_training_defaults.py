"""The data every installation starts with: simulated, trained on at the first start, gated like any other version."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from training.common import models, pipeline
from training.common.progress import silent


@pytest.mark.parametrize("model", ["churn", "fraud", "categorization"])
def test_the_first_version_passes_its_own_gates(tmp_path: Path, model: str) -> None:
    source = models.find(model, models.folders({}))
    raw = source.simulate()(source.config.training.rows, np.random.default_rng(1))
    prepared = pipeline.prepare(source, raw, now=datetime.now(UTC))
    found = pipeline.train(source, prepared, tmp_path, semver="1.0.0", seed=1, cpus=2, say=silent)
    assert source.config.metric is not None
    assert source.config.metric.minimum is not None
    assert found.interval.value > source.config.metric.minimum
    if model == "categorization":
        assert found.metrics["accuracy"] > 0.85
        return
    assert found.cost is not None
    assert found.trivial_cost is not None
    assert found.cost < (0.5 if model == "fraud" else 1.0) * found.trivial_cost
    assert {"accuracy", "average_precision", "recall", "cost", "cost_always_no"} <= set(found.metrics)
