"""Realised and estimated performance of one version, against scikit-learn and against what each look may say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from control_plane.domain.drift import fold, performance
from control_plane.domain.drift.decide import Policy
from control_plane.domain.drift.monitor import Kind
from control_plane.domain.drift.performance import LEAST, Answer, Usual
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import Costs, FeatureType, Label, ModelConfig, Problem, Target
from control_plane.domain.rollouts import Verdict

POLICY = Policy()
rng = np.random.default_rng(4)
SCORES = rng.beta(1, 3, 2_000)
TRUTHS = rng.random(2_000) < SCORES


def config(problem: Problem = Problem.BINARY, *, label: Label | None = None, costs: Costs | None = None) -> ModelConfig:
    return ModelConfig("m", problem, {}, target=Target("y", positive=1), label=label or Label(), costs=costs)


def answers(truths: bool = True) -> list[Answer]:
    return [
        Answer(float(score), None, bool(score >= 0.5), 0.5, bool(truth) if truths else None)
        for score, truth in zip(SCORES, TRUTHS, strict=True)
    ]


def judged(model: ModelConfig, told: list[Answer], usual: Usual) -> performance.Performance:
    return performance.judge(model, usual, POLICY, performance.known(model, told), told)


def test_realised_metrics_are_those_of_scikit_learn() -> None:
    found = judged(config(), answers(), Usual(0.7))
    assert found.realised is not None
    assert found.realised.value == pytest.approx(metrics.roc_auc_score(TRUTHS, SCORES))
    words = [Answer(0.9, "ab"[i % 2], None, None, "abc"[i % 3]) for i in range(600)]
    shares = judged(config(Problem.MULTICLASS), words, Usual(0.5)).realised
    assert shares is not None
    assert shares.value == pytest.approx(sum("ab"[i % 2] == "abc"[i % 3] for i in range(600)) / 600)
    far = [Answer(float(i), None, None, None, i + 0.5 * (i % 3)) for i in range(300)]
    mae = judged(config(Problem.REGRESSION), far, Usual(0.5)).realised
    assert mae is not None
    assert mae.value == pytest.approx(0.5)
    garbage = [*far, Answer(1.0, None, None, None, 1e200)]
    assert judged(config(Problem.REGRESSION), garbage, Usual(0.5)).realised == mae


def test_a_hold_out_far_better_than_the_truth_is_an_alarm_and_one_like_it_is_none() -> None:
    assert judged(config(), answers(), Usual(0.99)).reading.alarm
    calm = judged(config(), answers(), Usual(metrics.roc_auc_score(TRUTHS, SCORES))).reading
    assert (calm.alarm, calm.verdict) == (False, Verdict.PASS)
    assert calm.why.startswith("realised"), "truth is told first where both are calm"


@given(st.integers(0, LEAST - 1))
def test_fewer_answers_than_the_least_say_nothing_and_never_alarm(count: int) -> None:
    for problem in (Problem.BINARY, Problem.MULTICLASS, Problem.REGRESSION):
        found = judged(config(problem, costs=Costs()), answers()[:count], Usual(0.99))
        assert (found.realised, found.estimated, found.cost) == (None, None, None)
        assert (found.reading.verdict, found.reading.alarm) == (Verdict.INCONCLUSIVE, False)


def test_without_a_metric_of_the_hold_out_values_are_told_and_nothing_is_concluded() -> None:
    found = judged(config(), answers(), Usual(None))
    assert found.realised is not None
    assert (found.reading.verdict, found.reading.why) == (
        Verdict.INCONCLUSIVE,
        "Training reported no roc_auc to compare with.",
    )


def test_a_decision_that_prevents_its_outcome_leaves_only_answers_that_said_no() -> None:
    silent = answers(truths=False)
    open_ = config(label=Label(absence_means="negative"))
    blocking = config(label=Label(absence_means="negative", depends_on_decision=True))
    assert len(performance.known(open_, silent)) == len(silent)
    assert len(performance.known(blocking, silent)) == sum(SCORES < 0.5)
    assert not performance.known(config(), silent)


@given(st.lists(st.floats(0, 1), min_size=LEAST, max_size=LEAST + 20), st.floats(0, 1))
def test_the_expected_cost_of_one_prediction_is_the_mean_over_all_at_the_common_threshold(
    scores: list[float], threshold: float
) -> None:
    costs = Costs(false_positive=2.0, false_negative=7.0, true_positive=1.0)
    told = [Answer(score, None, None, threshold) for score in scores]
    found = performance.expected_cost(config(costs=costs), [*told, Answer(None, None, None, 0.123)])
    assert found is not None
    p = np.array(scores)
    each = np.where(p >= threshold, p * 1.0 + (1 - p) * 2.0, p * 7.0)
    assert found.value == pytest.approx(float(each.mean()))
    low, high = performance.shown(found, POLICY)
    assert low <= found.value <= high


def test_labels_unlike_the_references_are_an_alarm_that_lasts_for_every_look_and_none_are_inconclusive() -> None:
    types = {"x": FeatureType.NUMBER}
    given_ = {"x": np.zeros(1_000)}
    truths = [i % 10 == 0 for i in range(1_000)]
    profile = fold.reference(given_, types, cells=fold.Cells(), label=(FeatureType.BOOLEAN, truths))
    assert performance.read_target(profile, POLICY, truths).verdict is Verdict.PASS
    assert performance.read_target(profile, POLICY, [not real for real in truths]).alarm
    assert performance.read_target(profile, POLICY, []).verdict is Verdict.INCONCLUSIVE
    unlabelled = Profile(profile.rows, profile.features)
    assert performance.read_target(unlabelled, POLICY, truths).why == "The reference has no labels."
    assert performance.unknown(Kind.TARGET, "why").score is None


def test_an_opaque_problem_has_no_metric() -> None:
    with pytest.raises(ValueError, match="opaque"):
        performance.judge(config(Problem.OPAQUE), Usual(None), POLICY, [], [])
