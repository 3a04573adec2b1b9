"""A candidate that answers copies is called fit or not by pairs, as often as one looks."""

import numpy as np
import pytest

from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain.analysis import plan as plans
from control_plane.domain.analysis import shadow
from control_plane.domain.analysis.judge import Analysis, Tally
from control_plane.domain.analysis.plan import SHADOW, AnalysisPlan, Declared, Metric
from control_plane.domain.analysis.shadow import Pairs
from control_plane.domain.experiments.samples import Mean
from control_plane.domain.rollouts import Conclusion, Strategy, Verdict
from control_plane.domain.stages import Candidate, Incumbent, OpenRollout, Stage, decide_shadow
from control_plane.services import planning

METRICS = tuple(plans.resolve(metric, Declared()) for metric in SHADOW.metrics)


def judged(n: int, *, differ: float = 0.0, failed: float = 0.0, moved: float = 0.0, **more: object) -> Analysis:
    rng = np.random.default_rng(1)
    found = {
        "error_rate": Pairs(Mean.of((rng.random(n) < failed).astype(float))),
        "latency": Pairs(Mean.of(np.zeros(n))),
        "score": Pairs(Mean.of(np.clip(moved + rng.normal(0, 0.01, n), -1, 1))),
        "disagreement": Pairs(Mean.of((rng.random(n) < differ).astype(float))),
    }
    given = {"idle_s": 0.0, "held": True} | more
    return shadow.judge(SHADOW, METRICS, found if n else {}, Tally(), **given)  # type: ignore[arg-type]


def test_a_candidate_that_answers_alike_is_fit_and_one_that_does_not_is_not() -> None:
    fit = judged(3_000, differ=0.01)
    assert (fit.verdict, fit.conclusion) == (Verdict.PASS, Conclusion.NOT_WORSE)
    assert fit.why.startswith("Fit: ")
    for wrong in ({"differ": 0.2}, {"failed": 0.2}, {"moved": 0.3}, {"moved": -0.3}):
        unfit = judged(3_000, **wrong)
        assert (unfit.verdict, unfit.conclusion) == (Verdict.FAIL, Conclusion.WORSE), wrong
        assert unfit.why.startswith("Not fit: ")


def test_too_little_waits_and_what_cannot_come_pauses() -> None:
    few = judged(30)
    assert (few.verdict, few.pause, few.conclusion) == (Verdict.INCONCLUSIVE, "", None)
    nothing = judged(0, idle_s=7_200.0)
    assert nothing.verdict is Verdict.INCONCLUSIVE
    assert "nothing to decide on" in nothing.pause
    assert "did not decide" in judged(30, exhausted=True).pause
    assert judged(3_000, idle_s=7_200.0).pause == "", "it is decided"


def alarms(worlds: int, looks: int, seed: int) -> float:
    """How often a candidate that is exactly at its margin is ever called fit, looked at all along."""
    rng, plan = np.random.default_rng(seed), AnalysisPlan(metrics=(Metric("disagreement", margin=0.05),))
    metrics, wrong = (plans.resolve(plan.metrics[0], Declared()),), 0
    for _ in range(worlds):
        events = np.cumsum(rng.random(looks * 40) < 0.05)
        for at in range(40, len(events) + 1, 40):
            found = {"disagreement": Pairs(Mean.of_events(int(events[at - 1]), at))}
            if shadow.judge(plan, metrics, found, Tally(), idle_s=0, held=True).verdict is Verdict.PASS:
                wrong += 1
                break
    return wrong / worlds


def test_a_candidate_at_the_margin_is_rarely_called_fit_however_often_one_looks() -> None:
    assert alarms(20, 6, seed=3) <= 0.1


@pytest.mark.slow
def test_a_candidate_at_the_margin_is_called_fit_in_at_most_five_of_100_worlds() -> None:
    assert alarms(300, 30, seed=4) <= 0.05


def test_a_shadow_needs_what_serving_needs_and_no_evidence() -> None:
    unmeasured = Candidate("2", Stage.DEVELOPMENT, "sha256:1", needs={"amount": "number"})
    sends = Incumbent("1", {"amount": "number"})
    assert decide_shadow(unmeasured, incumbent=sends, rollout=None).allowed
    refused = decide_shadow(
        Candidate("2", Stage.ARCHIVED, None, needs={"more": "number"}),
        incumbent=sends,
        rollout=OpenRollout("r", "3", "progressing"),
    )
    assert [reason.partition(":")[0] for reason in refused.reasons] == ["digest", "stage", "rollout", "features"]


def test_a_shadow_is_judged_by_pairs_unless_a_hand_is_asked_for() -> None:
    def planned(**spec: object) -> tuple[AnalysisPlan | None, tuple[str, ...]]:
        given = PromoteSpec.model_validate({"strategy": "shadow"} | spec)
        made, wrong = planning.plan(given, None, first=False, prometheus=False)
        assert made.strategy is Strategy.SHADOW
        return made.analysis, wrong

    assert planned() == (SHADOW, ())
    assert planned(by_hand=True) == (None, ())
    reasons = planned(analysis={"metrics": [{"name": "label_error"}]})[1]
    assert any("a shadow is judged by guardrails error_rate, latency, score, disagreement" in one for one in reasons)
    canary = PromoteSpec.model_validate({"strategy": "canary", "analysis": {"metrics": [{"name": "disagreement"}]}})
    assert "only a shadow" in planning.plan(canary, None, first=False, prometheus=False)[1][0]
