from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from control_plane.domain import quality
from control_plane.domain.model_config import Costs, Label, Problem
from control_plane.domain.quality import GRID, Tally

HOUR = datetime(2026, 11, 1, 12, tzinfo=UTC)
binary = st.lists(st.tuples(st.integers(-200, 200), st.booleans()), min_size=2, max_size=80)


def probability(step: int) -> float:
    return float(1 / (1 + np.exp(-step / GRID)))


def tally(rows: list[tuple[int, bool]]) -> Tally:
    made = Tally()
    for step, truth in rows:
        p = probability(step)
        loss = -np.log(p if truth else 1 - p)
        made.decide(p >= 0.5, truth)
        made.score(step, truth, 1, float(loss), float(loss**2))
    return made


@given(binary)
@example([(0, True)] * 4 + [(1, True), (-1, True), (-2, False)])  # an average precision of 1 - 1e-16
def test_binary_metrics_of_scores_on_the_grid_are_those_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    found = quality.metrics(tally(rows), Problem.BINARY, None)
    truth, score = [t for _, t in rows], [probability(step) for step, _ in rows]
    said = [p >= 0.5 for p in score]
    assert found["accuracy"].value == pytest.approx(oracle.accuracy_score(truth, said))
    assert found["log_loss"].value == pytest.approx(oracle.log_loss(truth, score, labels=[False, True]))
    assert ("precision" in found) == any(said)
    assert ("recall" in found) == any(truth)
    if any(said):
        assert found["precision"].value == pytest.approx(oracle.precision_score(truth, said))
    if any(truth):
        assert found["recall"].value == pytest.approx(oracle.recall_score(truth, said))
    assert ("roc_auc" in found) == (len(set(truth)) == 2)
    if len(set(truth)) == 2:
        assert found["roc_auc"].value == pytest.approx(oracle.roc_auc_score(truth, score))
        assert found["average_precision"].value == pytest.approx(oracle.average_precision_score(truth, score))


@given(binary, st.integers(0, 80))
def test_hours_add_up_to_the_day_and_survive_json(rows: list[tuple[int, bool]], cut: int) -> None:
    halves = [quality.read(tally(part).document()) for part in (rows[:cut], rows[cut:])]
    whole, added = tally(rows), quality.merged(halves)
    assert (added.bins, added.decided, added.pairs) == (whole.bins, whole.decided, whole.pairs)
    assert added.losses == pytest.approx(whole.losses)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=60))
def test_multiclass_metrics_are_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    made = Tally()
    for said, truth in rows:
        made.name(said, truth)
    found = quality.metrics(made, Problem.MULTICLASS, None)
    said_all, truth_all = zip(*rows, strict=True)
    assert found["accuracy"].value == pytest.approx(oracle.accuracy_score(truth_all, said_all))
    assert found["macro_f1"].value == pytest.approx(oracle.f1_score(truth_all, said_all, average="macro"))


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=60))
def test_regression_metrics_are_those_of_scikit_learn(rows: list[tuple[float, float]]) -> None:
    value, truth = np.array(rows).T
    e = value - truth
    sums = [len(e), e.sum(), np.abs(e).sum(), (e**2).sum(), (e**4).sum(), truth.sum(), (truth**2).sum()]
    found = quality.metrics(Tally(errors=[float(x) for x in sums]), Problem.REGRESSION, None)
    assert found["mae"].value == pytest.approx(oracle.mean_absolute_error(truth, value))
    assert found["rmse"].value == pytest.approx(oracle.root_mean_squared_error(truth, value))
    if np.var(truth) > 1e-3:
        assert found["r2"].value == pytest.approx(oracle.r2_score(truth, value), rel=1e-6, abs=1e-6)


def test_a_false_no_costs_its_own_amount_where_one_is_declared() -> None:
    made = Tally()
    made.decide(False, True, 2, amount=300.0, amount_squares=50_000.0)
    made.decide(True, False, 1)
    own = quality.metrics(made, Problem.BINARY, Costs(false_positive=5.0, false_negative_column="amount"))["cost"]
    assert own.n == 3
    assert own.value == pytest.approx(305 / 3)
    flat = quality.metrics(made, Problem.BINARY, Costs(false_positive=5.0, false_negative=10.0))["cost"]
    assert flat.value == pytest.approx(25 / 3)


def test_intervals_of_the_auc_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        positives, negatives = rng.normal(1, 1, 60), rng.normal(0, 1, 120)
        made = Tally()
        for scores, truth in ((positives, True), (negatives, False)):
            for score in scores:
                made.score(round(float(score) * GRID), truth, 1, 0.0, 0.0)
        found = quality.metrics(made, Problem.BINARY, None)["roc_auc"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.76025 <= found.high  # Phi(1 / sqrt(2))
    assert covered >= 176, "95 % of 200, less four standard deviations"


def test_an_hour_is_folded_again_while_its_labels_ripen_and_never_after() -> None:
    delay = timedelta(days=30)
    early = HOUR + timedelta(minutes=10)
    assert quality.due_again(HOUR, delay, now=early, took_s=0.1) == HOUR + delay
    ripening = HOUR + delay + timedelta(minutes=10)
    assert quality.due_again(HOUR, delay, now=ripening, took_s=3.0) == ripening + timedelta(seconds=60)
    assert quality.due_again(HOUR, delay, now=HOUR + delay + timedelta(hours=1), took_s=3.0) is None
    assert quality.window(Label(delay_s=0)) == timedelta(days=1)
    assert quality.window(Label(delay_s=7 * 86_400)) == timedelta(days=7)


def test_rare_pairs_of_words_are_counted_without_being_kept_apart() -> None:
    made = Tally()
    for number in range(2_500):
        made.name(f"word {number}", f"word {number if number % 2 else -1}")
    assert len(made.pairs) <= 2_002
    assert made.labelled == 2_500
    assert quality.metrics(made, Problem.MULTICLASS, None)["accuracy"].value == pytest.approx(0.5)


def test_nothing_labelled_measures_nothing() -> None:
    for problem in Problem:
        assert quality.metrics(Tally(), problem, Costs()) == {}
