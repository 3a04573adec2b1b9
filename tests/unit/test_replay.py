"""What a replay says of rows it has folded: against the whole sample in memory, and over many worlds."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from control_plane.domain.model_config import Costs, Feature, FeatureType, ModelConfig, Problem
from control_plane.domain.replay import bounds, intervals, read
from control_plane.domain.replay.examples import MASK, Examples, masked
from control_plane.domain.replay.report import Example
from control_plane.domain.replay.sums import Known, Rows, Side, Sums, Words

COSTS = Costs(false_positive=2.0, false_negative=10.0, true_positive=1.0)


def world(seed: int, units: int = 400, each: int = 5, lift: float = 0.0, flat: bool = False) -> dict[str, Any]:
    """Two versions' scores of clustered rows with their truth; `lift`: how much the candidate adds to the log-odds."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(rng.integers(0, 2**63, units, dtype=np.uint64), each)
    habit = np.repeat(rng.normal(-1.5, 1.2, units), each)
    truth = (rng.random(len(unit)) < 1 / (1 + np.exp(-habit))).astype(float)
    noise = np.repeat(rng.normal(0, 0.0 if flat else 0.5, units), each) + rng.normal(0, 0.0 if flat else 0.3, len(unit))
    before, after = habit + rng.normal(0, 0.4, len(unit)), habit + noise + lift
    scores = [1 / (1 + np.exp(-margin)) for margin in (before, after)]
    return {"unit": unit, "truth": truth, "before": scores[0], "after": scores[1]}


def rows(made: dict[str, Any], state: Any = Known.LABELLED, threshold: float = 0.3) -> Rows:
    n = len(made["unit"])
    sides = [Side(made[name], (made[name] >= threshold).astype(np.int64)) for name in ("before", "after")]
    states = np.broadcast_to(np.asarray(state, dtype=np.int64), n).copy()
    return Rows(made["unit"], *sides, states, made["truth"], np.full(n, np.nan))


def folded(made: dict[str, Any], parts: int = 1, **more: Any) -> Sums:
    sums, whole = Sums(Problem.BINARY, COSTS), rows(made, **more)
    for part in np.array_split(np.arange(len(made["unit"])), parts):
        sides = [Side(side.score[part], side.said[part]) for side in (whole.baseline, whole.candidate)]
        sums.fold(Rows(whole.unit[part], *sides, whole.state[part], whole.truth[part], whole.amount[part]))
    return sums


def test_every_figure_is_that_of_the_whole_sample_in_memory() -> None:
    made = world(1, units=1_500)
    sums = folded(made, parts=7)
    found = {change.name: change for change in read.metrics(sums)}
    for name, key in (("before", "baseline"), ("after", "candidate")):
        truth, score = made["truth"], made[name]
        said = (score >= 0.3).astype(float)
        wants = {
            "roc_auc": sklearn.roc_auc_score(truth, score),
            "average_precision": sklearn.average_precision_score(truth, score),
            "log_loss": sklearn.log_loss(truth, score),
            "accuracy": sklearn.accuracy_score(truth, said),
            "precision": sklearn.precision_score(truth, said),
            "recall": sklearn.recall_score(truth, said),
            "cost": np.where(truth == 1, np.where(said == 1, 1.0, 10.0), np.where(said == 1, 2.0, 0.0)).mean(),
        }
        for metric, wanted in wants.items():
            near = 2e-3 if metric in {"roc_auc", "average_precision"} else 1e-9  # the grid of log-odds
            assert getattr(found[metric], key) == pytest.approx(wanted, abs=near), metric
    shift = read.shift(sums)
    assert shift is not None
    assert shift.difference.value == pytest.approx(np.mean(made["after"] - made["before"]), abs=1e-12)
    for at, share in ((shift.baseline.p05, 0.05), (shift.baseline.p50, 0.5), (shift.baseline.p95, 0.95)):
        assert at == pytest.approx(np.quantile(made["before"], share), abs=0.01)
    edges = [cell.low for cell in shift.cells[1:]]
    counts = [np.histogram(made[side], bins=[-1, *edges, 2])[0] + 0.5 for side in ("before", "after")]
    p, q = (side / side.sum() for side in counts)
    assert shift.psi == pytest.approx(float(((q - p) * np.log(q / p)).sum()), abs=0.01)
    assert len(shift.cells) == 10
    assert sum(cell.baseline for cell in shift.cells) == pytest.approx(1)
    flips = read.flips(sums, Words("keep", "call"))
    assert flips is not None
    before, after = made["before"] >= 0.3, made["after"] >= 0.3
    assert flips[1] == int((before != after).sum())
    assert {(d.before, d.after): d.count for d in flips[3]} == {
        ("keep", "call"): int((~before & after).sum()),
        ("call", "keep"): int((before & ~after).sum()),
    }
    assert sums.units() == pytest.approx(1_500, rel=0.01)


def test_the_order_and_size_of_the_parts_change_nothing() -> None:
    made = world(2)
    one, many = folded(made), folded(made, parts=9)
    for left, right in ((read.shift(one), read.shift(many)), (read.metrics(one), read.metrics(many))):
        assert _numbers(left) == pytest.approx(_numbers(right), abs=1e-9)


def _numbers(value: Any) -> list[float]:
    if isinstance(value, bool | str) or value is None:
        return []
    if isinstance(value, int | float):
        return [float(value)]
    parts = value if isinstance(value, tuple) else [getattr(value, name) for name in value.__dataclass_fields__]
    return [number for part in parts for number in _numbers(part)]


def covered(worlds: int, seed: int, *, labelled: bool) -> dict[str, float]:
    """How often the intervals hold the truth, which is the mean over many worlds. `labelled`: metrics, too."""
    lifts: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(worlds):
        sums = folded(world(seed + number, units=300, lift=0.1))
        shift, flips = read.shift(sums), read.flips(sums, Words("no", "yes"))
        assert shift is not None
        assert flips is not None
        found = {"shift": shift.difference, "flips": flips[2]}
        if labelled:
            found |= {change.name: change.difference for change in read.metrics(sums) if change.difference}
        for name, interval in found.items():
            assert interval.low is not None
            assert interval.high is not None
            lifts.setdefault(name, []).append((interval.value, interval.low, interval.high))
    shares: dict[str, float] = {}
    for name, list_of in lifts.items():
        values, lows, highs = np.array(list_of).T
        shares[name] = float(((lows <= values.mean()) & (values.mean() <= highs)).mean())
    return shares


def test_intervals_of_clustered_rows_hold_the_truth_as_often_as_they_say() -> None:
    for name, share in covered(60, seed=100, labelled=False).items():
        assert share >= 0.85, (name, share)  # 95 % of 60: fewer than 51 once in 10,000


@pytest.mark.slow
def test_intervals_of_clustered_rows_hold_the_truth_in_95_of_100_worlds() -> None:
    for name, share in covered(400, seed=5_000, labelled=True).items():
        assert 0.92 <= share <= 0.985, (name, share)


def test_taking_rows_for_independent_would_have_been_too_sure() -> None:
    made = world(3, units=200, each=40, flat=False)
    shift = read.shift(folded(made))
    assert shift is not None
    assert shift.difference.high is not None
    difference = made["after"] - made["before"]
    naive = 1.96 * difference.std() / math.sqrt(len(difference))
    assert shift.difference.high - shift.difference.value > 2 * naive


def test_a_share_of_nothing_is_as_sure_as_its_customers_and_never_beyond_0_and_1() -> None:
    totals = [20.0] * 64
    none = intervals.share([0.0] * 64, totals, units=100)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(stats.beta.ppf(0.975, 1, 100))
    even = intervals.share([10.0] * 64, totals, units=1_280)
    exact = stats.binomtest(640, 1_280).proportion_ci(method="exact")
    assert (even.low, even.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert intervals.share([1.0] * 5, [2.0] * 5, units=10).low is None, "five groups say nothing of their spread"
    with pytest.raises(ValueError, match="rows"):
        intervals.share([0.0], [0.0], units=0)


def test_a_figure_that_is_missing_without_one_group_has_no_interval() -> None:
    assert intervals.jackknife(0.5, [0.5] * 20 + [math.nan]).low is None
    assert intervals.jackknife(0.5, [0.5] * 20).low == 0.5


def test_bounds_hold_every_truth_the_hidden_rows_could_have_and_are_reached() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        before, after = rng.integers(0, 2, 12), rng.integers(0, 2, 12)
        truth, hidden = rng.integers(0, 2, 12), np.arange(12) < 6
        known = np.zeros((2, 2, 2))
        np.add.at(known, (truth[~hidden], before[~hidden], after[~hidden]), 1)
        unknown = np.zeros((2, 2))
        np.add.at(unknown, (before[hidden], after[hidden]), 1)
        found = bounds.decisions(known, unknown)
        every: dict[str, list[float]] = {name: [] for name in bounds.BOUNDED}
        for number in range(2**6):
            real = np.where(hidden, [number >> at & 1 for at in range(12)], truth)
            for name, pair in _measured(real, before, after).items():
                every[name].append(pair)
        for name, values in every.items():
            if np.isfinite(values).all():
                assert found[name] == pytest.approx((min(values), max(values))), name


def _measured(truth: Any, before: Any, after: Any) -> dict[str, float]:
    def of(said: Any) -> dict[str, float]:
        hits = float((truth & said).sum())
        flagged, real = float(said.sum()), float(truth.sum())
        made = {"accuracy": float((truth == said).mean())}
        made["precision"] = hits / flagged if flagged else math.nan
        return made | {"recall": hits / real if real else math.nan}

    old, new = of(before), of(after)
    return {name: new[name] - old[name] for name in old}


def test_labels_the_decision_prevented_give_bounds_and_no_estimate() -> None:
    made = world(5, units=1_000)
    blocked = made["before"] >= 0.3
    state = np.where(blocked, Known.HIDDEN, Known.LABELLED)
    everything = {change.name: change for change in read.metrics(folded(made))}
    sums = folded(made | {"truth": np.where(blocked, np.nan, made["truth"])}, state=state)
    found = {change.name: change for change in read.metrics(sums)}
    for name in ("accuracy", "recall", "cost", "log_loss"):
        change, real = found[name], everything[name].difference
        assert change.bounds is not None
        assert real is not None
        assert change.bounds[0] <= real.value <= change.bounds[1], name
        assert change.difference is not None
        assert change.difference.low is not None
        assert change.difference.low < change.bounds[0] < change.bounds[1] < (change.difference.high or 0)
    assert found["roc_auc"].difference is None
    assert "cannot be ranked" in found["roc_auc"].why
    same = read.metrics(folded(made | {"after": made["before"]}, state=state))
    accuracy = next(change for change in same if change.name == "accuracy")
    assert accuracy.bounds == (0.0, 0.0), "versions that decide alike differ in no world"


def test_other_problems_have_their_metrics() -> None:
    rng = np.random.default_rng(6)
    n = 2_000
    unit = rng.integers(0, 2**63, n, dtype=np.uint64)
    truth = rng.normal(0, 3, n)
    sides = [Side(truth + rng.normal(0, spread, n), np.full(n, -1)) for spread in (1.0, 0.5)]
    sums = Sums(Problem.REGRESSION)
    sums.fold(Rows(unit, *sides, np.full(n, Known.LABELLED), truth, np.full(n, np.nan)))
    found = {change.name: change for change in read.metrics(sums)}
    assert found["rmse"].candidate == pytest.approx(math.sqrt(np.mean((sides[1].score - truth) ** 2)))
    assert found["rmse"].difference is not None
    assert (found["rmse"].difference.high or 0) < 0
    assert read.flips(sums, Words()) is None
    words, names = Words(), ["food", "fuel", "other"]
    said = [np.array([words.number(names[i]) for i in rng.integers(0, 3, n)]) for _ in range(2)]
    sums = Sums(Problem.MULTICLASS)
    scores = [rng.random(n) for _ in range(2)]
    real = said[0].astype(float)
    sums.fold(
        Rows(
            unit,
            *(Side(score, one) for score, one in zip(scores, said, strict=True)),
            np.full(n, 3),
            real,
            np.full(n, np.nan),
        )
    )
    found = {change.name: change for change in read.metrics(sums)}
    assert (found["accuracy"].baseline, found["macro_f1"].baseline) == (1.0, 1.0)
    assert found["accuracy"].candidate == pytest.approx(float((said[0] == said[1]).mean()))


def test_examples_are_the_largest_movements_and_hold_nothing_personal() -> None:
    kept = Examples()
    for number in range(50):
        if kept.wants("no", "yes", number / 50):
            kept.offer(Example(str(number), "no", "yes", 0.1, 0.9, {}), number / 50)
    assert [example.prediction_id for example in kept.shown()] == ["49", "48", "47", "46", "45"]
    assert not kept.wants("no", "yes", 0.5)
    config = ModelConfig(
        "m",
        Problem.BINARY,
        {
            "amount": Feature(FeatureType.NUMBER),
            "iban": Feature(FeatureType.CATEGORY, pii=True),
            "note": Feature(FeatureType.TEXT),
            "customer": Feature(FeatureType.CATEGORY),
        },
        unit="customer",
    )
    shown = masked({"amount": 5.0, "iban": "DE1", "note": "for Ann", "customer": "c1", "more": [1]}, config)
    assert shown == {"amount": 5.0, "iban": MASK, "note": MASK, "customer": MASK, "more": MASK}
    assert masked({"amount": 5.0}, None) == {"amount": MASK}
