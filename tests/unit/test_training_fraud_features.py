"""Fraud's feature rows equal rows rebuilt event by event, with labels seen only after their delay."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.common import models
from training.fraud.features import SPANS, features

DAY = 86_400
FINAL = list(models.find("fraud", models.folders({})).config.features)


def payments(seed: int, count: int, *, days: int = 60, customers: int = 4, terminals: int = 3) -> pd.DataFrame:
    """Few keys and coarse times, so that windows are full of ties and of rows exactly at their edges."""
    rng = np.random.default_rng(seed)
    second = rng.integers(0, days * 24, count) * 3_600
    return pd.DataFrame(
        {
            "transaction_id": rng.permutation(count),
            "event_time": np.datetime64("2026-01-01", "s") + second.astype("timedelta64[s]"),
            "customer_id": rng.integers(0, customers, count),
            "terminal_id": rng.integers(0, terminals, count),
            "amount": rng.integers(0, 50_000, count) / 100,
            "fraud": rng.choice([0.0, 1.0, np.nan], count, p=[0.6, 0.3, 0.1]),
        }
    )


def rebuilt(raw: pd.DataFrame, delay: int) -> pd.DataFrame:
    """As a stream would see it: one payment after the other, a list of what happened so far."""
    ordered = raw.sort_values(["event_time", "transaction_id"])
    by_customer: dict[int, list[tuple[int, float, float]]] = defaultdict(list)
    by_terminal: dict[int, list[tuple[int, float]]] = defaultdict(list)
    made: dict[int, dict[str, float]] = {}
    for index, row in ordered.iterrows():
        now = int(row.event_time.timestamp())
        customer, terminal = by_customer[row.customer_id], by_terminal[row.terminal_id]
        customer.append((now, row.amount, row.fraud))
        out: dict[str, float] = {"amount": row.amount}
        for name, span in SPANS.items():
            spent = [amount for at, amount, _ in customer if now - span < at <= now]
            out[f"customer_payments_{name}"] = len(spent)
            out[f"customer_amount_mean_{name}"] = sum(spent) / len(spent)
            known = [fraud for at, fraud in terminal if now - delay - span < at <= now - delay]
            out[f"terminal_payments_{name}"] = len(known)
            out[f"terminal_risk_{name}"] = sum(f == 1 for f in known) / max(len(known), 1)
        old = [fraud for at, _, fraud in customer[:-1] if now - delay - SPANS["30d"] < at <= now - delay]
        out["customer_fraud_30d"] = sum(f == 1 for f in old) / max(len(old), 1)
        mean = out["customer_amount_mean_30d"]
        out["amount_to_mean_30d"] = row.amount / mean if mean else 1.0
        out["hour"] = row.event_time.hour
        out["night"] = row.event_time.hour < 7
        out["weekend"] = row.event_time.weekday() >= 5
        terminal.append((now, row.fraud))
        made[index] = out
    return pd.DataFrame.from_dict(made, orient="index").loc[raw.index]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 120), st.sampled_from([0, 3_600, DAY, 7 * DAY]))
def test_rows_equal_rows_rebuilt_event_by_event(seed: int, count: int, delay: int) -> None:
    raw = payments(seed, count)
    made, expected = features(raw, label_delay_s=delay), rebuilt(raw, delay)
    for name in FINAL:
        got, wanted = made[name].to_numpy(dtype=float), expected[name].to_numpy(dtype=float)
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_label_changes_nothing_before_its_delay_has_passed() -> None:
    raw = payments(1, 200)
    raw["fraud"] = 0.0
    victim = raw.sort_values("event_time").index[50]
    turned = raw.assign(fraud=np.where(raw.index == victim, 1.0, 0.0))
    before, after = (features(frame, label_delay_s=7 * DAY)[FINAL] for frame in (raw, turned))
    changed = (before.astype(float) != after.astype(float)).any(axis=1)
    assert changed.any()
    assert raw.event_time[changed].min() >= raw.event_time[victim] + pd.Timedelta(days=7)


def test_the_order_of_the_file_does_not_matter() -> None:
    raw = payments(2, 150)
    shuffled = raw.sample(frac=1, random_state=0)
    one, two = features(raw, label_delay_s=DAY), features(shuffled, label_delay_s=DAY)
    pd.testing.assert_frame_equal(one[FINAL], two.loc[raw.index, FINAL])


def test_no_payments_make_no_features() -> None:
    assert len(features(payments(0, 0), label_delay_s=DAY)) == 0


@pytest.mark.parametrize("model", ["churn", "fraud", "categorization"])
def test_features_are_pure(model: str) -> None:
    source = models.find(model, models.folders({}))
    raw = source.simulate()(300, np.random.default_rng(3))
    kept = raw.copy(deep=True)
    function, _ = source.features()
    assert function is not None
    one, two = (function(raw, label_delay_s=source.config.label.delay_s) for _ in range(2))
    pd.testing.assert_frame_equal(raw, kept)
    pd.testing.assert_frame_equal(one, two)
