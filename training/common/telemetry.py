"""Two metrics of trainings, in Prometheus multiprocess files that any process of this host can expose."""

import os
from pathlib import Path

from control_plane.domain.model_config import ModelConfig

REFUSED = "model_training_data_refused_total"
DURATION = "mlflow_model_training_duration_seconds"
_BUCKETS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


def refused(config: ModelConfig, home: Path) -> None:
    """Count a training whose data was refused."""
    _use(home)
    from prometheus_client import Counter

    counter = Counter(REFUSED, "Trainings refused because of their data", ["model_name"], registry=None)
    counter.labels(config.name).inc()


def trained(config: ModelConfig, home: Path, *, experiment_id: str, kind: str, seconds: float) -> None:
    """`seconds`: from validated rows to a judged version."""
    _use(home)
    from prometheus_client import Histogram

    labels = ["model_type", "experiment_id"]
    histogram = Histogram(DURATION, "From validated rows to a judged version", labels, buckets=_BUCKETS, registry=None)
    histogram.labels(kind, experiment_id).observe(seconds)


def _use(home: Path) -> None:
    """prometheus_client reads the variable when it is imported, so this comes before it. Nothing is scraped from this
    process: its files are, by whoever exposes the folder."""
    folder = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(home / "run" / "metrics")))
    folder.mkdir(parents=True, exist_ok=True)
