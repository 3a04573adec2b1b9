"""The simulation that false alarms are counted with: is it the traffic of rows, and is it the monitor that looks?"""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift import alarms
from control_plane.domain.drift import decide, evidence, fold, monitor
from control_plane.domain.drift.evidence import Baseline, Day
from control_plane.domain.drift.monitor import Course
from control_plane.domain.drift.profiles import Categorical, Numeric, Profile
from tests.support import drift_hours as hours
from tests.support import drift_streams as streams
from tests.support.drift_hours import HOURS, Traffic

Counts = NDArray[Any]
KEPT = ("x0", "x1", "c0")  # normal, skewed, ten thousand levels


def grid() -> Profile:
    """The simulated reference as rows are folded on it: edges of skewed numbers, and every level known."""
    features = dict(streams.reference().features)
    for name, feature in features.items():
        if isinstance(feature, Numeric) and int(name[1:]) % 2:
            features[name] = Numeric(feature.type, hours.skewed_edges(), feature.counts, feature.absent)
        elif isinstance(feature, Categorical):
            features[name] = Categorical(feature.type, feature.categories, feature.tail, known=None)
    return Profile(1_000_000, {name: features[name] for name in KEPT})


@pytest.mark.parametrize("days", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_simulated_counts_are_distributed_as_those_of_rows_folded_one_by_one(days: int) -> None:
    """Of each hour's cells the mean and the variance over many days, and of each score its distribution."""
    traffic, reference = Traffic(600, kind=0.5, season=0.0), grid()
    scores = evidence.scores_of(Profile(reference.rows, {n: streams.reference().features[n] for n in KEPT}))
    rng = np.random.default_rng(11)
    folded: list[list[Counts]] = []
    drawn: list[list[Counts]] = []
    for _ in range(days):
        parts = [fold.fold(reference, part).features for part in hours.rows_of(traffic, rng, 0, KEPT)]
        folded.append([np.stack([decide.cell_counts(part[name]) for part in parts]) for name in KEPT])
        numbers, categories = hours.counts(traffic, rng, 0)
        drawn.append([numbers[:, 0], numbers[:, 1], categories[:, 0]])
    for at, name in enumerate(KEPT):
        a, b = (np.stack([day[at] for day in side]).astype(float) for side in (folded, drawn))
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / days) + 1e-9
        seen = (a + b).sum(axis=0) >= 40
        z = ((a.mean(axis=0) - b.mean(axis=0)) / error)[seen]
        assert np.abs(z).max() < stats.norm.isf(1e-4 / seen.sum()), name
        assert z.std() == pytest.approx(1, abs=0.15)
        assert a.sum(axis=2).var(axis=0).sum() == pytest.approx(
            b.sum(axis=2).var(axis=0).sum(), rel=0.15 if days < 1_000 else 0.1
        )
        for upto in (12, HOURS):
            rows, counts = (_measured(side[:, :upto].sum(axis=1), scores.matrices[name]) for side in (a, b))
            for one in range(rows.shape[1]):
                assert stats.ks_2samp(rows[:, one], counts[:, one]).pvalue > 1e-4, (name, upto, one)


def _measured(cells: Counts, matrix: Counts) -> Counts:
    return (cells / cells.sum(axis=1, keepdims=True)) @ matrix.T


def test_a_day_measured_by_the_hour_is_what_measuring_its_profiles_gives() -> None:
    measured = hours.measured(alarms.SCORES, traffic := Traffic(1_000), np.random.default_rng(4), 3)
    numbers, categories = hours.counts(traffic, np.random.default_rng(4), 3)
    for hour in (0, 11, 23):
        features = dict(alarms.REFERENCE.features)
        for name, feature in features.items():
            cells = (numbers if name[0] == "x" else categories)[: hour + 1, int(name[1:])].sum(axis=0).tolist()
            if isinstance(feature, Numeric):
                features[name] = Numeric(feature.type, feature.edges, tuple(cells[:-1]), fold.Absent(cells[-1]))
            elif isinstance(feature, Categorical):
                named = dict(zip(feature.categories, cells, strict=False))
                features[name] = Categorical(feature.type, named, tuple(cells[64:80]))
        whole = evidence.measure(alarms.SCORES, Profile(1, features))
        assert measured.blocks[hour] == pytest.approx(whole.blocks)
        assert measured.mean[hour] == pytest.approx(whole.mean, abs=1e-12)
        assert measured.variance[hour] == pytest.approx(whole.variance, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_a_days_looks_at_once_are_what_the_monitor_says_hour_by_hour(shift: float) -> None:
    rng, traffic = np.random.default_rng(8), Traffic(2_000, shift=shift, shifted=3)
    closed: dict[date, Day] = {}
    stacked: dict[date, Day] = {}
    by_hour: list[dict[date, Day]] = [{} for _ in range(HOURS)]
    learnt: dict[int, Baseline] = {}
    past, looks = monitor.begin(alarms.SCORES), 0
    for number in range(18):
        today = alarms.START + timedelta(days=number)
        measured = hours.measured(alarms.SCORES, traffic, rng, number)
        usual, season, _ = monitor.usual_of(stacked, past.taught, today, alarms.PRIOR, alarms.SETTINGS, learnt)
        if usual is not alarms.PRIOR:
            fast = evidence.heights(alarms.SCORES, past.state, measured, usual, season=season, settings=alarms.SETTINGS)
            for hour in (0, 8, 23):
                part = Day(measured.blocks[hour], measured.mean[hour], measured.variance[hour])
                course = Course(closed, by_hour[hour], part)
                facts = {"since": date.min, "excluded": (), "settings": alarms.SETTINGS}
                seen = monitor.weigh(
                    alarms.SCORES,
                    alarms.PRIOR,
                    course,
                    today,
                    early=False,
                    past=past,
                    **facts,  # type: ignore[arg-type]
                ).evidence
                assert seen is not None
                if part.blocks[0] >= alarms.SETTINGS.least_blocks:
                    assert fast[hour] == pytest.approx(seen.log_e, abs=1e-9)
                    looks += 1
        closed[today] = Day(measured.blocks[-1], measured.mean[-1], measured.variance[-1])
        stacked[today] = measured
        for hour in range(HOURS):
            by_hour[hour][today] = Day(measured.blocks[hour], measured.mean[hour], measured.variance[hour])
        past = monitor.advance(
            past, closed, today, closed[today], alarms.PRIOR, since=date.min, excluded=(), settings=alarms.SETTINGS
        )
    assert looks >= 16


def test_calm_models_raise_no_alarm_and_a_shift_of_three_features_is_found_within_the_day() -> None:
    calm = [alarms.alarm(np.random.default_rng([1, at]), Traffic(1_000), days=21) for at in range(3)]
    assert calm == [None] * 3
    drifting = Traffic(10_000, shift=0.25, shifted=3)
    found = [alarms.alarm(np.random.default_rng([2, at]), drifting, days=29) for at in range(3)]
    assert all(one is not None and one[0] == 28 and set(one[1]) <= {"x0", "x1", "x2"} for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1_000, 1_000_000])
def test_at_most_one_of_a_hundred_models_alarms_in_ninety_days_of_hourly_looks(rows: int) -> None:
    models = 1_000
    raised = sum(
        alarms.alarm(np.random.default_rng([rows, 0, at]), Traffic(rows), days=90) is not None for at in range(models)
    )
    assert stats.beta.ppf(0.95, raised + 1, models - raised) <= 0.01


@pytest.mark.slow
def test_a_quarter_of_a_standard_deviation_in_three_of_thirty_features_is_found_within_the_day() -> None:
    models, drifting = 200, Traffic(10_000, shift=0.25, shifted=3)
    found = [alarms.alarm(np.random.default_rng([10_000, 250, at]), drifting, days=29) for at in range(models)]
    hits = sum(one is not None and one[0] == 28 for one in found)
    assert stats.beta.ppf(0.05, hits, models - hits + 1) >= 0.9
