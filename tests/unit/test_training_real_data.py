"""The whole pipeline on public data sets: at least as good as the plain model everybody would try first.

Columns are mapped by the loaders in training/<model>/; the model.yaml is the shipped one but for the dates named here.
The table in docs/explanation/real-data.md is held to what these tests find.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.categorization import birmingham
from training.churn import telco
from training.common import evaluation, models, pipeline
from training.common.pipeline import Prepared, Trained
from training.common.progress import silent
from training.fraud import handbook

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1_800)]
Record = Callable[[str, object], None]  # what pytest keeps in its report
PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "real-data.md"


def trained(model: str, raw: pd.DataFrame, work: Path, *, seed: int = 1, **plan: Any) -> tuple[Prepared, Trained]:
    source = models.find(model, models.folders({}))
    source = replace(source, config=replace(source.config, training=replace(source.config.training, **plan)))
    prepared = pipeline.prepare(source, raw, now=datetime.now(UTC))
    return prepared, pipeline.train(source, prepared, work, semver="1.0.0", seed=seed, cpus=2, say=silent)


def documented(row: str) -> float:
    """The figure in bold in the page's table row that starts with `row`."""
    line = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {row}"))
    found = re.search(r"\*\*([0-9.]+)\*\*", line)
    assert found is not None
    return float(found[1])


def test_churn_on_telco_customers_beats_a_plain_logistic_regression(
    real_data: Path, tmp_path: Path, record_property: Record
) -> None:
    raw = telco.load(real_data / "churn_telco_ibm.parquet")
    wide = pd.get_dummies(raw.drop(columns=["customer_id", "churned"])).fillna(0).to_numpy(dtype=float)
    label = raw["churned"].to_numpy(dtype=float)
    ours: list[float] = []
    plain: list[float] = []
    for seed in range(10):
        renamed = raw.assign(customer_id=[f"{seed} {one}" for one in raw["customer_id"]])  # another division
        prepared, found = trained("churn", renamed, tmp_path / str(seed), seed=seed)
        train, holdout = prepared.parts.train, prepared.parts.holdout
        assert len(holdout) / len(raw) == pytest.approx(0.3, abs=0.025)  # 4.5 standard deviations of independent draws
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)).fit(wide[train], label[train])
        plain.append(evaluation.roc_auc(label[holdout], model.predict_proba(wide[holdout])[:, 1]))
        ours.append(found.interval.value)
        assert found.cost is not None
        assert found.trivial_cost is not None
        assert found.cost < found.trivial_cost
    gain = np.array(ours) - plain
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    record_property("roc_auc", f"{np.mean(ours):.4f} ({min(ours):.3f} - {max(ours):.3f}), plain {np.mean(plain):.4f}")
    record_property("gain", f"{gain.mean():.4f}, standard error {error:.4f}")
    assert np.mean(ours) >= 0.837
    assert gain.mean() > 2 * error  # on the same divisions
    assert np.mean(ours) == pytest.approx(documented("churn"), abs=0.002)


def test_fraud_in_july_with_labels_a_week_late(real_data: Path, tmp_path: Path, record_property: Record) -> None:
    """Features start on 1 April, learning on 8 May; what happened after 23 June was not yet known on 1 July."""
    raw = handbook.load(real_data / "fraud_handbook_apr_jul.parquet")
    prepared, found = trained("fraud", raw, tmp_path, test_from="2018-07-01")
    assert prepared.times is not None
    day = prepared.times // 86_400_000_000
    assert str(np.datetime64(int(day[prepared.parts.train].min()), "D")) == "2018-05-08"
    assert str(np.datetime64(int(day[prepared.parts.train].max()), "D")) <= "2018-06-24"
    assert str(np.datetime64(int(day[prepared.parts.holdout].min()), "D")) == "2018-07-01"
    record_property("average_precision", f"{found.interval} cost {found.cost} metrics {found.metrics}")
    assert found.interval.value >= 0.715
    assert found.cost is not None
    assert found.cost < 0.25 * found.metrics["cost_always_no"]
    assert found.interval.value == pytest.approx(documented("fraud"), abs=0.01)


def test_categories_of_purchase_cards_after_october_2016(
    real_data: Path, tmp_path: Path, record_property: Record
) -> None:
    raw = birmingham.load(real_data / "cat_birmingham_pcards.parquet")
    prepared, found = trained("categorization", raw, tmp_path, test_from="2016-10-01")
    assert len(prepared.classes) == 21
    assert "OTHER" in prepared.classes
    record_property("accuracy", f"{found.interval} metrics {found.metrics}")
    assert found.metrics["accuracy"] >= 0.715
    assert found.metrics["accuracy"] == pytest.approx(documented("categorization"), abs=0.005)
