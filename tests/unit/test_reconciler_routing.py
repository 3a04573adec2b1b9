"""What routers are told: weights, readiness, and who may be routed at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from control_plane.domain.assignment import BUCKETS, bucket
from control_plane.domain.rollouts import Phase, Plan, Rollout, Step, Strategy
from control_plane.domain.routing import (
    Acknowledgement,
    Arm,
    Facts,
    Release,
    Route,
    Server,
    Share,
    is_idle,
    may_retire,
    position_after_restore,
    route,
    wanted,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
VERSIONS = ("1", "2", "3")
weights = st.integers(0, BUCKETS)


@st.composite
def releases(draw: st.DrawFn) -> Release:
    strategy = draw(st.sampled_from([Strategy.BLUE_GREEN, Strategy.CANARY, Strategy.AB_TEST, Strategy.SHADOW]))
    steps = (Step(draw(weights), timedelta(0)),) if strategy is not Strategy.BLUE_GREEN else ()
    phases = [Phase.PENDING, Phase.BAKING] + ([Phase.PROGRESSING] if steps else [])
    phase = draw(st.sampled_from(phases))
    state = Rollout(Plan(strategy, steps, timedelta(60), shadow_weight=draw(weights)), T0, phase)
    if draw(st.booleans()):
        state = replace(state, phase=Phase.PAUSED, paused_from=phase)
    return Release("r-1", candidate="2", stable="1", state=state)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    servers = tuple(
        Server(f"d{version}", version, draw(st.booleans())) for version in VERSIONS if draw(st.integers(0, 3))
    )
    release = draw(st.none() | releases())
    cut_over = release is not None and Phase.BAKING in {release.state.phase, release.state.paused_from}
    production = "2" if cut_over else draw(st.sampled_from(["1", "1", None]))
    traffic = (Share("3", draw(weights)),) if draw(st.booleans()) else ()
    last = Route()
    if draw(st.booleans()):
        share = draw(st.integers(1, BUCKETS - 1))
        last = Route(arms=(Arm("candidate", share, "d3"), Arm("stable", BUCKETS - share, "d1")), salt="old")
    return Facts("salt", production, "1", traffic=traffic, servers=servers, release=release, last=last)


def given_by(route: Route, target: str) -> int:
    return sum(arm.weight for arm in route.arms if arm.target == target)


@given(facts())
def test_arms_cover_the_traffic_or_there_are_none_and_every_target_is_listed(facts: Facts) -> None:
    made = route(facts)
    assert sum(arm.weight for arm in made.arms) in ({0} if not made.arms else {BUCKETS})
    assert all(arm.weight > 0 for arm in made.arms if arm.variant != "stable")
    assert {arm.target for arm in made.arms} | {target for target, _ in made.shadows} <= made.targets
    assert made.targets <= {server.id for server in facts.servers}


@given(facts())
def test_a_server_that_is_not_ready_gets_no_weight_it_did_not_have(facts: Facts) -> None:
    made = route(facts)
    for server in facts.servers:
        if not server.ready and given_by(made, server.id):
            assert given_by(facts.last, server.id)
    if not facts.last.arms:
        ready = {server.id for server in facts.servers if server.ready}
        assert {arm.target for arm in made.arms} | set(made.targets) <= ready


@given(facts())
def test_everyone_routed_is_production_the_candidate_set_by_hand_or_was_routed_before(facts: Facts) -> None:
    named = {facts.production, *(share.version for share in facts.traffic)}
    if facts.release:
        named.add(facts.release.candidate)
    version = {server.id: server.version for server in facts.servers}
    for arm in route(facts).arms:
        assert version[arm.target] in named or given_by(facts.last, arm.target)
        assert version[arm.target] in wanted(facts) or given_by(facts.last, arm.target)


@given(facts())
def test_a_ready_production_is_never_left_without_what_the_others_do_not_take(facts: Facts) -> None:
    ready = {server.version for server in facts.servers if server.ready}
    assume(facts.production in ready)
    made = route(facts)
    assert [arm.target for arm in made.arms if arm.variant == "stable"] == [f"d{facts.production}"]  # to fall back on
    quiet = facts.release is None or Phase.PENDING in {facts.release.state.phase, facts.release.state.paused_from}
    if quiet and not facts.traffic:
        assert made.arms == (Arm("stable", BUCKETS, f"d{facts.production}"),)


@given(facts())
def test_building_on_its_own_result_changes_nothing(facts: Facts) -> None:
    once = route(facts)
    assert route(replace(facts, last=once)) == once


@pytest.mark.parametrize("weight", [100, 5_000, 6_000, BUCKETS])
def test_stable_stays_there_to_fall_back_on_whatever_the_candidate_gets(weight: int) -> None:
    state = Rollout(Plan(Strategy.CANARY, (Step(weight, timedelta(0)),), timedelta(60)), T0, Phase.PROGRESSING)
    both = (Server("d1", "1", True), Server("d2", "2", True))
    made = route(Facts("salt", "1", servers=both, release=Release("r-1", "2", "1", state)))
    assert ("stable", "d1") in {(arm.variant, arm.target) for arm in made.arms}
    assert given_by(made, "d2") == weight


def owner(made: Route, unit: str) -> str:
    position, end = bucket("r-1", unit), 0
    for arm in made.arms:
        end += arm.weight
        if position < end:
            return arm.target
    raise AssertionError(position)


@given(weights, weights, st.text(min_size=1, max_size=20))
def test_raising_the_weight_never_takes_a_unit_from_the_candidate(a: int, b: int, unit: str) -> None:
    low, high = sorted((a, b))
    servers = (Server("d1", "1", True), Server("d2", "2", True))

    def at(weight: int, by_hand: bool) -> Route:
        state = Rollout(Plan(Strategy.CANARY, (Step(weight, timedelta(0)),)), T0, Phase.PROGRESSING)
        release = None if by_hand else Release("r-1", "2", "1", state)
        return route(Facts("r-1", "1", servers=servers, release=release, traffic=(Share("2", weight),)))

    for by_hand in (False, True):
        if owner(at(low, by_hand), unit) == "d2":
            assert owner(at(high, by_hand), unit) == "d2"


def test_a_rollback_to_a_server_that_died_keeps_the_version_that_answers() -> None:
    before = Route(frozenset({"d2"}), (Arm("stable", BUCKETS, "d2"),), "salt")
    servers = (Server("d1", "1", False), Server("d2", "2", True))
    made = route(Facts("salt", "1", servers=servers, last=before))
    assert made.arms == before.arms
    back = route(Facts("salt", "1", servers=(Server("d1", "1", True), servers[1]), last=made))
    assert back.arms == (Arm("stable", BUCKETS, "d1"),)


def test_a_candidate_that_dies_keeps_its_customers_and_gains_none() -> None:
    def canary(weight: int) -> Release:
        state = Rollout(Plan(Strategy.CANARY, (Step(weight, timedelta(0)),)), T0, Phase.PROGRESSING)
        return Release("r-1", "2", "1", state)

    alive = (Server("d1", "1", True), Server("d2", "2", True))
    dead = (alive[0], Server("d2", "2", False))
    small = route(Facts("salt", "1", servers=alive, release=canary(1_000)))
    assert given_by(small, "d2") == 1_000
    assert route(Facts("salt", "1", servers=dead, release=canary(5_000), last=small)).arms == small.arms
    assert given_by(route(Facts("salt", "1", servers=dead, release=canary(5_000))), "d2") == 0


def test_a_shadow_takes_copies_and_no_weight() -> None:
    plan = Plan(Strategy.SHADOW, (Step(0, timedelta(60)),), shadow_weight=2_500)
    release = Release("r-1", "2", "1", Rollout(plan, T0, Phase.PROGRESSING))
    made = route(Facts("salt", "1", servers=(Server("d1", "1", True), Server("d2", "2", True)), release=release))
    assert (made.arms, made.shadows) == ((Arm("stable", BUCKETS, "d1"),), (("d2", 2_500),))


def test_servers_are_stopped_only_after_every_live_router_has_let_go() -> None:
    def may(*routers: Acknowledgement, drained_s: float = 10.0) -> bool:
        return may_retire("d1", 7, routers, epoch=2, drained_s=drained_s, live_s=5.0, silence_s=60.0)

    done, behind, old_epoch = Acknowledgement(2, 7, 1.0), Acknowledgement(2, 6, 1.0), Acknowledgement(1, 9, 1.0)
    dead = Acknowledgement(2, 1, 5.1)
    assert may(done)
    assert may(done, dead)
    assert not may(done, behind)
    assert not may(done, old_epoch)
    assert not may(dead)  # nobody says it is safe
    assert may(dead, drained_s=60.0)
    assert not may(done, Acknowledgement(2, 7, 900.0, frozenset({"d1"})), drained_s=900.0)  # pinned by hand


@given(st.tuples(st.integers(1, 3), st.integers(0, 9)), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9))))
def test_after_a_restore_the_epoch_beats_everything_a_router_has_seen(
    published: tuple[int, int], seen: list[tuple[int, int]]
) -> None:
    epoch = position_after_restore(published, seen)
    if epoch is None:
        assert all(one <= published for one in seen)
    else:
        assert all((epoch, 0) > one for one in seen)
        assert any(one > published for one in seen)


@given(st.integers(0, 100), st.none() | st.integers(0, 100), st.integers(0, 200), st.integers(1, 100))
def test_a_staged_version_is_idle_once_neither_its_stage_nor_a_request_is_younger_than_the_patience(
    staged: int, asked: int | None, now: int, patience: int
) -> None:
    def at(second: int) -> datetime:
        return T0 + timedelta(seconds=second)

    idle = is_idle(at(staged), None if asked is None else at(asked), at(now), timedelta(seconds=patience))
    young = [moment for moment in (staged, asked) if moment is not None and now - moment < patience]
    assert idle is not bool(young)
