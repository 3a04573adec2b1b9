from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import rollouts
from control_plane.domain.analysis.plan import AnalysisPlan
from control_plane.domain.assignment import BUCKETS
from control_plane.domain.rollouts import OPEN, TERMINAL, Observation, Phase, Plan, Rollout, Step, Strategy, Verdict
from control_plane.errors import Conflict

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
steps = st.lists(st.builds(Step, st.integers(0, BUCKETS), st.sampled_from([0 * MINUTE, 5 * MINUTE])), max_size=4)
plans = st.builds(
    Plan,
    st.sampled_from([Strategy.IMMEDIATE, Strategy.BLUE_GREEN, Strategy.CANARY]),
    steps.map(tuple),
    st.sampled_from([0 * MINUTE, 10 * MINUTE]),
    st.integers(0, 2),
)
looks = st.builds(
    Observation,
    st.booleans(),
    st.sampled_from([None, T0, T0 + 20 * MINUTE]),
    st.sampled_from([None, None, None, "exit code 3"]),
    st.sampled_from([None, *Verdict]),
)
hands = st.sampled_from([rollouts.pause, rollouts.resume, rollouts.abort, rollouts.promote, rollouts.skip])
READY = Observation(candidate_ready=True)


@given(plans, st.lists(st.one_of(looks, hands), max_size=40))
def test_any_history_keeps_the_invariants(plan: Plan, events: list[object]) -> None:
    rollout, was_ready = Rollout(plan, T0), False
    for minute, event in enumerate(events, 1):
        now = T0 + 2 * minute * MINUTE
        if isinstance(event, Observation):
            was_ready |= event.candidate_ready
            after = rollouts.advance(rollout, event, now=now)
            assert after == rollouts.advance(rollout, event, now=now)
            if rollout.phase in TERMINAL | {Phase.PAUSED}:
                assert after == rollout
            if event.verdict is Verdict.INCONCLUSIVE and rollout.phase is Phase.PROGRESSING:
                assert after == rollout or after.phase is Phase.ABORTED  # never forward
        else:
            try:
                after = event(rollout, "by hand", now=now)  # type: ignore[operator]
            except Conflict:
                continue
        if rollout.phase in TERMINAL:
            assert after == rollout
        if rollouts.candidate_weight(after) > 0:
            assert was_ready, "weight on a candidate that was never ready"
        if after.phase is Phase.ABORTED:
            assert rollouts.candidate_weight(after) == 0
            assert not rollouts.is_cut_over(after)
        assert (after.paused_from is not None) == (after.phase is Phase.PAUSED)
        assert after.failures <= plan.failure_limit or after.phase is Phase.ABORTED
        rollout = after


@given(
    st.lists(st.sampled_from([0, 1, 5]), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(["decide", "publish"]), st.integers(0, 30)), max_size=40),
)
def test_customers_get_every_step_for_its_hold_whatever_the_reconciler_misses(
    holds: list[int], events: list[tuple[str, int]]
) -> None:
    plan = Plan(Strategy.CANARY, tuple(Step(1_000 * (at + 1), hold * MINUTE) for at, hold in enumerate(holds)))
    now = T0
    rollout = rollouts.advance(Rollout(plan, T0), READY, now=T0)
    shown: dict[int, datetime] = {}  # step -> when routers were told
    known: datetime | None = None  # what the database says of it
    for event, minutes in events:
        now += minutes * MINUTE  # dead or alive
        if event == "publish" and known is None and rollout.phase is Phase.PROGRESSING:
            known = shown[rollout.step] = now
        if event == "decide":
            seen = Observation(candidate_ready=True, told=known, verdict=Verdict.PASS)
            after = rollouts.advance(rollout, seen, now=now)
            if after != rollout:
                assert now - shown[rollout.step] >= plan.steps[rollout.step].hold
                known = None
            rollout = after


@given(plans)
def test_a_paused_rollout_keeps_its_weight_and_goes_on_where_it_was(plan: Plan) -> None:
    rollout = rollouts.advance(Rollout(plan, T0), READY, now=T0)
    if rollout.phase in TERMINAL:
        return
    paused = rollouts.pause(rollout, "look at it", now=T0 + MINUTE)
    assert rollouts.candidate_weight(paused) == rollouts.candidate_weight(rollout)
    assert rollouts.is_cut_over(paused) == rollouts.is_cut_over(rollout)
    resumed = rollouts.resume(paused, "fine", now=T0 + 2 * MINUTE)
    assert replace(resumed, since=rollout.since, reason=rollout.reason) == rollout


def test_blue_green_cuts_over_when_ready_bakes_and_succeeds() -> None:
    plan = Plan(Strategy.BLUE_GREEN, bake=10 * MINUTE)
    rollout = Rollout(plan, T0)
    waiting = rollouts.advance(rollout, Observation(candidate_ready=False), now=T0 + MINUTE)
    assert (waiting.phase, rollouts.candidate_weight(waiting)) == (Phase.PENDING, 0)
    baking = rollouts.advance(waiting, READY, now=T0 + 2 * MINUTE)
    assert (baking.phase, rollouts.candidate_weight(baking), rollouts.is_cut_over(baking)) == ("baking", BUCKETS, True)
    assert rollouts.advance(baking, READY, now=T0 + 99 * MINUTE) == baking, "nobody was told of it"
    told = replace(READY, told=T0 + 5 * MINUTE)
    assert rollouts.advance(baking, told, now=T0 + 14 * MINUTE) == baking
    assert rollouts.advance(baking, told, now=T0 + 15 * MINUTE).phase is Phase.SUCCEEDED


def test_a_previewed_blue_green_gives_the_candidate_nobody_until_a_hand_cuts_over() -> None:
    plan = Plan(Strategy.BLUE_GREEN, (Step(0, 0 * MINUTE),), bake=10 * MINUTE)
    preview = rollouts.advance(Rollout(plan, T0), READY, now=T0)
    assert (preview.phase, rollouts.candidate_weight(preview)) == ("progressing", 0)
    assert not rollouts.is_cut_over(preview)
    assert rollouts.advance(preview, replace(READY, told=T0), now=T0 + 99 * MINUTE) == preview
    baking = rollouts.promote(preview, "it looks right", now=T0 + 100 * MINUTE)
    assert (baking.phase, rollouts.candidate_weight(baking), rollouts.is_cut_over(baking)) == ("baking", BUCKETS, True)
    assert rollouts.candidate_weight(rollouts.abort(preview, "no", now=T0)) == 0


def test_a_hand_moves_a_rollout_one_step_on_and_from_the_last_to_everybody() -> None:
    plan = Plan(Strategy.CANARY, (Step(500, MINUTE), Step(2_500, MINUTE), Step(8_000, MINUTE)), bake=10 * MINUTE)
    rollout = rollouts.advance(Rollout(plan, T0), READY, now=T0)
    second = rollouts.skip(rollout, "enough seen", now=T0 + MINUTE)
    assert (second.phase, second.step, second.since, second.reason) == ("progressing", 1, T0 + MINUTE, "enough seen")
    assert rollouts.candidate_weight(second) == 2_500
    third = rollouts.skip(rollouts.pause(second, "wait", now=T0), "go on", now=T0 + 2 * MINUTE)
    assert (third.phase, third.step, third.paused_from, third.crossed) == ("progressing", 2, None, T0 + 2 * MINUTE)
    over = rollouts.skip(third, "all of them", now=T0 + 3 * MINUTE)
    assert over == rollouts.promote(third, "all of them", now=T0 + 3 * MINUTE)
    assert (over.phase, rollouts.candidate_weight(over)) == ("baking", BUCKETS)


def test_a_candidate_that_is_never_ready_gives_up_at_the_deadline_and_says_so() -> None:
    plan = Plan(Strategy.BLUE_GREEN, deploy_deadline=MINUTE)
    waiting = Rollout(plan, T0)
    assert rollouts.advance(waiting, Observation(candidate_ready=False), now=T0 + 9 * MINUTE) == waiting
    late = rollouts.advance(waiting, Observation(candidate_ready=False, told=T0), now=T0 + 2 * MINUTE)
    assert (late.phase, late.reason) == (Phase.ABORTED, "The candidate was not ready within 60 s.")


def test_a_bake_that_fails_beyond_the_limit_goes_back() -> None:
    plan = Plan(Strategy.BLUE_GREEN, bake=10 * MINUTE, failure_limit=1)
    bad = Observation(candidate_ready=True, verdict=Verdict.FAIL, why="error rate 0.2 > 0.01")
    rollout = rollouts.advance(Rollout(plan, T0), READY, now=T0)
    rollout = rollouts.advance(rollout, bad, now=T0 + MINUTE)
    assert (rollout.phase, rollouts.candidate_weight(rollout)) == (Phase.BAKING, BUCKETS)
    rollout = rollouts.advance(rollout, bad, now=T0 + 2 * MINUTE)
    assert (rollout.phase, rollouts.candidate_weight(rollout)) == (Phase.ABORTED, 0)
    assert rollout.reason == "error rate 0.2 > 0.01 (2 failed looks > failure limit 1)"


def test_what_a_phase_does_not_allow_is_a_conflict_that_names_it() -> None:
    pending = Rollout(Plan(Strategy.BLUE_GREEN), T0)
    for forbidden in (rollouts.resume, rollouts.promote, rollouts.skip):
        with pytest.raises(Conflict, match="pending"):
            forbidden(pending, "", now=T0)
    done = rollouts.abort(pending, "", now=T0)
    for forbidden in (rollouts.pause, rollouts.resume, rollouts.abort, rollouts.promote, rollouts.skip):
        with pytest.raises(Conflict, match="aborted"):
            forbidden(done, "", now=T0)


def test_every_phase_is_open_or_terminal() -> None:
    assert not OPEN & TERMINAL
    assert set(Phase) == OPEN | TERMINAL


def test_a_shadow_never_takes_traffic_not_even_when_it_ends() -> None:
    plan = Plan(Strategy.SHADOW, (Step(0, 5 * MINUTE),), bake=MINUTE, shadow_weight=BUCKETS)
    seen = replace(READY, verdict=Verdict.PASS, told=T0)
    rollout = rollouts.advance(Rollout(plan, T0), READY, now=T0)
    with pytest.raises(Conflict, match="shadow"):
        rollouts.promote(rollout, "", now=T0)
    ended = rollouts.advance(rollout, seen, now=T0 + 5 * MINUTE)
    assert ended.phase is Phase.SUCCEEDED
    assert (rollouts.candidate_weight(ended), rollouts.is_cut_over(ended)) == (0, False)


def test_a_rollout_is_overdue_for_what_its_plan_does_not_give_the_phase() -> None:
    canary = Plan(Strategy.CANARY, (Step(1_000, 5 * MINUTE),), bake=10 * MINUTE)
    pending = Rollout(canary, T0)
    assert rollouts.overdue(pending, now=T0 + 10 * MINUTE) == 0 * MINUTE
    assert rollouts.overdue(pending, now=T0 + 25 * MINUTE) == 15 * MINUTE
    held = rollouts.advance(pending, READY, now=T0)
    assert rollouts.overdue(held, now=T0 + 6 * MINUTE) == MINUTE, "nothing decides but a hand"
    decided = replace(held, plan=replace(canary, analysis=AnalysisPlan(decide_within_s=3_600)))
    assert rollouts.overdue(decided, now=T0 + 61 * MINUTE) == MINUTE
    assert rollouts.overdue(rollouts.pause(held, "wait", now=T0), now=T0 + MINUTE) == MINUTE
    baking = rollouts.promote(held, "go", now=T0)
    assert rollouts.overdue(baking, now=T0 + 12 * MINUTE) == 2 * MINUTE
    assert rollouts.overdue(rollouts.abort(held, "no", now=T0), now=T0 + 99 * MINUTE) == 0 * MINUTE
