"""Drift that is known to be in public data: found, when, and by its name. The figures in the docs are held to it."""

from pathlib import Path

import pytest

from benchmarks.drift import real

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1_800)]
PAGE = real.ROOT / "docs" / "explanation" / "drift-benchmark.md"


def test_the_features_of_victoria_are_named_within_days_of_going_live_and_nothing_before(real_data: Path) -> None:
    found = real.elec2(real_data)
    named = found["days after Victoria went live"]
    assert set(named) == set(real.VICTORIAN)
    assert all(0 < days <= 7 for days in named.values())
    assert min(found["first half-hour beyond the first window with it named"].values()) > real.VICTORIA
    assert 2 in found["accuracy"]["alarms"]
    assert f"{named['transfer']:.1f} days (transfer) and {named['vicprice']:.1f} days" in PAGE.read_text()


def test_a_fraud_model_is_worse_where_its_labels_are_stale_and_not_where_they_are_a_week_late(real_data: Path) -> None:
    found = real.fraud(real_data)
    fresh, stale = (found[f"{name} labels, weeks of July"] for name in ("fresh", "stale"))
    assert fresh["alarms"] == []
    assert stale["alarms"] == [2, 3, 4]
    assert max(stale["values"][1:]) < min(fresh["values"]) - 0.1
    assert ", ".join(f"{value:.3f}" for value in stale["values"]) in PAGE.read_text()


def test_text_alone_decays_over_six_quarters(real_data: Path) -> None:
    found = real.categorization(real_data)
    course = found["accuracy, six quarters"]
    assert all(later <= earlier for earlier, later in zip(course["values"], course["values"][1:], strict=False))
    assert course["alarms"] == [3, 4, 5, 6]
    assert all(quarter["verdict"] == "fail" for quarter in found["merchant text"][1:])
    assert ", ".join(f"{value:.3f}" for value in course["values"]) in PAGE.read_text()
