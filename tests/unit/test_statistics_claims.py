"""The error rate and the power that are promised, on simulated tests. The long runs, which give the tables of the docs
again line by line: `make prove`."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.statistics import run, vector
from control_plane.domain.experiments import srm
from control_plane.domain.experiments.srm import Stage

CONDITIONS = sorted(run.conditions())
DOCS = Path(__file__).parents[2] / "docs"
MEASURED = (DOCS / "math" / "measured.md").read_text()
BESIDE_GBSTATS = (DOCS / "explanation" / "statistics-benchmark.md").read_text()


@pytest.mark.parametrize("condition", CONDITIONS)
def test_decisions_in_arrays_are_the_products(condition: str) -> None:
    found = run.false_alarms(condition, 20, 20, seed=5, sample=10)
    assert (found["otherwise"], found["checked"] >= 10) == (0, True)


def test_a_lift_is_decided_in_arrays_as_the_product_decides_it() -> None:
    drawn = run.events(np.random.default_rng(2), 0.05, 0.3, 10_000, 30, 50)
    arms = [vector.Looks.of_events(drawn[..., at], np.arange(1, 51) * 200.0) for at in (0, 1)]
    metric = vector.goal("outcome:bought", 0.005)
    found = vector.differs(metric, arms[0], arms[1], alpha=0.05)
    assert found.any()
    assert vector.disagreements(metric, arms[0], arms[1], found, alpha=0.05, sample=60, seed=1) == (0, 60)


@pytest.mark.parametrize("condition", ["conversion 5 %", "ramp 1-5-10-25-50, the rate moves"])
def test_peeking_fifty_times_keeps_the_error_rate_of_a_goal(condition: str) -> None:
    found = run.false_alarms(condition, 500, 50, seed=11, sample=0)
    assert found["rate"] <= 0.05 + 3 * (0.05 * 0.95 / 500) ** 0.5


def test_a_fifth_more_conversions_are_found_within_twenty_thousand_customers_per_arm() -> None:
    found = run.cell(0.05, 0.2, 20_000, runs=2_000, looks=50, seed=3)
    assert found["ours"]["power"] >= 0.90
    assert found["ours"]["units"] <= 9_800
    assert found["not behind relative"]
    assert found["not behind absolute"]


def test_sample_ratios_in_arrays_are_the_products() -> None:
    counts, shares = np.array([[50.0, 950.0, 9_000.0], [90.0, 40.0, 870.0]]), np.array([0.05, 0.05, 0.9])
    found = vector.log_mismatch(counts, shares)
    for row, log_e in zip(counts, found, strict=True):
        said = srm.check([Stage(tuple(map(int, row)), tuple(shares))], alpha=0.001)
        assert log_e == pytest.approx(said.log_e, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("looks", run.LOOKS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_upper_bound_of_the_false_alarm_rate_is_within_half_a_point_of_alpha(condition: str, looks: int) -> None:
    found = run.false_alarms(condition, run.TESTS, looks, seed=run.seed_of(condition, looks))
    assert found["upper"] <= 0.055, found
    assert found["otherwise"] == 0
    assert run.alarm_row(found) in MEASURED


@pytest.mark.slow
def test_four_cells_in_five_are_at_least_as_strong_and_no_later_than_gbstats() -> None:
    cells = run.grid(run.RUNS)
    assert sum(found["not behind relative"] for found in cells) >= 0.8 * len(cells)
    assert all(line in BESIDE_GBSTATS for line in run.beside_gbstats(cells).splitlines())


@pytest.mark.slow
def test_a_broken_assignment_is_found_and_a_working_one_or_a_ramp_is_left_alone() -> None:
    found = run.sample_ratio(run.TESTS)
    tests = found["tests"]
    assert found["bug found"] >= 0.9 * tests
    assert run.upper(found["false alarms"], tests) <= 0.001
    assert run.upper(found["ramp alarms"], tests) <= 0.001
    assert "\n".join(run.ratio_rows(found)) in MEASURED
