"""Rollouts of versions whose truth is known, begun from a file, through real routers, model servers and the log."""

import contextlib
from typing import Any

import psutil
import pytest

from tests.support.market import Market, apply, install
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.integration
ANALYSIS: dict[str, Any] = {
    "observation_s": 2,
    "interval_s": 0.5,
    "metrics": [
        {"name": "error_rate", "margin": 0.1},
        {"name": "outcome:bought", "role": "goal", "margin": 0.2},
    ],
}
RAMP: dict[str, Any] = {
    "strategy": "canary",
    "steps": [{"weight": 20, "hold_s": 2}, {"weight": 50, "hold_s": 2}, {"weight": 80, "hold_s": 1}],
    "bake_s": 2,
    "analysis": ANALYSIS,
}
RATE = 80.0  # customers a second
WITHIN_S = 240.0  # a verdict needs a few hundred customers of each arm


def ended(stack: Stack, rollout: str, within: float = WITHIN_S) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        found = stack.json("rollouts", "show", rollout)
        return found if found["closed_at"] and found["told_at"] else None

    found = eventually(over, f"the end of rollout {rollout}", within=within, every=1)
    assert found is not None
    return found


def answering(market: Market, model: str) -> set[str | None]:
    """Versions of the newest answers."""
    return {answer.version for answer in market.traffic[model].answers[-20:]}


def test_a_worse_candidate_comes_back_by_itself_and_it_is_told_what_it_cost(stack: Stack) -> None:
    install(stack, "worse")
    with Market(stack, {"worse": {"1": 0.6, "2": 0.1}}, RATE) as market:
        rollout = apply(stack, "worse", RAMP)
        found = ended(stack, rollout)
        eventually(lambda: answering(market, "worse") == {"1"}, "version 1 answers everybody")
    assert not market.failed, market.failed[:5]
    assert (found["phase"], found["conclusion"], found["cut_over"]) == ("aborted", "worse", False)
    assert "outcome:bought" in found["reason"]
    reach = found["reach"]
    by_candidate = sum(answer.version == "2" for answer in market.traffic["worse"].answers)
    assert 0 < by_candidate <= reach["customers"] + 20  # routers go on for a moment with what they were told
    assert by_candidate < market.asked / 2
    assert 0 < reach["seconds"] < WITHIN_S
    told = stack.mlcp("why", rollout).stdout
    assert f"Exposed    {reach['customers']:,} customers to the candidate; " in told
    assert "rollout.aborted" in told
    assert max(map(len, told.splitlines())) <= 80
    test = stack.mlcp("ab-tests", "show", rollout).stdout
    assert "outcome:bought" in test
    assert max(map(len, test.splitlines())) <= 80
    assert stack.json("ab-tests", "list", "worse")[0]["id"] == rollout


@pytest.mark.slow
def test_a_better_candidate_ramps_to_everybody_by_itself(stack: Stack) -> None:
    install(stack, "better")
    with Market(stack, {"better": {"1": 0.2, "2": 0.6}}, RATE) as market:
        rollout = apply(stack, "better", RAMP)
        found = ended(stack, rollout)
        eventually(lambda: answering(market, "better") == {"2"}, "version 2 answers everybody")
    assert not market.failed, market.failed[:5]
    assert (found["phase"], found["conclusion"]) == ("succeeded", "better")
    decided = [look["decided"] for look in found["analyses"] if look["decided"]]
    assert decided == ["step", "step", "cut_over", "succeeded"]
    versions = {v["version"]: v["stage"] for v in stack.json("versions", "better")}
    assert versions == {"1": "Archived", "2": "Production"}


@pytest.mark.slow
def test_an_equal_candidate_ends_as_no_difference(stack: Stack) -> None:
    install(stack, "equal")
    plan = {"strategy": "ab_test", "steps": [{"weight": 50, "hold_s": 2}], "analysis": ANALYSIS}
    with Market(stack, {"equal": {"1": 0.2, "2": 0.2}}, RATE) as market:
        found = ended(stack, apply(stack, "equal", plan))
        eventually(lambda: answering(market, "equal") == {"1"}, "version 1 answers everybody")
    assert not market.failed, market.failed[:5]
    assert (found["phase"], found["conclusion"]) == ("aborted", "no_difference")
    assert found["reason"].startswith("No difference")


@pytest.mark.slow
def test_a_candidate_whose_calls_fall_back_is_never_promoted_however_well_customers_buy(stack: Stack) -> None:
    install(stack, "falls", broken=True)
    with Market(stack, {"falls": {"1": 0.5, "2": 0.95}}, RATE, nulls=0.4) as market:
        found = ended(stack, apply(stack, "falls", RAMP | {"failure_limit": 2}))
        eventually(lambda: answering(market, "falls") == {"1"}, "version 1 answers everybody")
    assert not market.failed, market.failed[:5]  # whom the candidate fails stable answers
    assert (found["phase"], found["cut_over"], found["step"]) == ("aborted", False, 0)
    assert "fallbacks" in found["reason"]


@pytest.mark.slow
def test_without_traffic_a_rollout_waits_and_then_pauses(stack: Stack) -> None:
    install(stack, "silent")
    rollout = apply(stack, "silent", RAMP | {"analysis": ANALYSIS | {"no_traffic_s": 8}})
    states: list[str] = []

    def paused() -> bool:
        found = stack.json("rollouts", "show", rollout)
        states.append(found["phase"])
        return bool(found["phase"] == "paused" and "Nobody asked" in found["reason"])

    eventually(paused, "it pauses", every=1)
    assert "progressing" in states
    assert stack.json("rollouts", "show", rollout)["weight"] == 20
    assert stack.json("rollouts", "abort", rollout, "--reason", "nobody comes")["phase"] == "aborted"


@pytest.mark.slow
def test_blue_green_is_previewed_cut_over_by_hand_and_comes_back_when_requests_fail_in_the_bake(stack: Stack) -> None:
    install(stack, "bluegreen")
    plan = {"strategy": "blue_green", "bake_s": 300, "failure_limit": 0, "by_hand": True}
    pinned = {"features": {"x": 0.5, "y": 0.5}, "model_version": "2"}
    with Market(stack, {"bluegreen": {"1": 0.5, "2": 0.5}}, RATE) as market:
        rollout = apply(stack, "bluegreen", plan)
        with stack.data_plane("admin") as client:
            path = "/ml/bluegreen/predict"
            eventually(lambda: client.post(path, json=pinned).status_code == 200, "the preview")
        found = eventually(
            lambda: (r := stack.json("rollouts", "show", rollout))["phase"] == "progressing" and r, "it waits"
        )
        assert (found["weight"], answering(market, "bluegreen")) == (0, {"1"})
        stack.mlcp("rollouts", "promote", rollout, "--reason", "it looks right")
        eventually(lambda: answering(market, "bluegreen") == {"2"}, "version 2 answers everybody")
        found = stack.json("rollouts", "show", rollout)
        assert (found["phase"], found["cut_over"], found["weight"]) == ("baking", True, 100)
        assert not market.failed, market.failed[:5]
        server = psutil.Process(stack.process("bluegreen-2")["pid"])
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            process.suspend()  # requests to it run into their deadline
        try:
            found = ended(stack, rollout)
            assert (found["phase"], found["cut_over"]) == ("aborted", False)
            assert "failed" in found["reason"]
            eventually(lambda: answering(market, "bluegreen") == {"1"}, "version 1 answers everybody again")
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
