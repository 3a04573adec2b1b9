"""Who is not divided by buckets: the domain, the router and the published vectors agree, in every step of any ramp."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.metrics import Metrics
from control_plane.contracts import snapshot
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain import routing, targeting
from control_plane.domain.analysis import judge
from control_plane.domain.analysis.judge import Evidence, Live, Tally
from control_plane.domain.analysis.plan import AnalysisPlan
from control_plane.domain.assignment import BUCKETS, assign, canary_slices
from control_plane.domain.rollouts import Phase, Plan, Rollout, Step, Strategy, Verdict
from control_plane.domain.routing import Release, Server
from control_plane.domain.targeting import Group, Layer, Targeting, listed
from control_plane.router.metrics import Meter
from control_plane.router.routes import Known, Route, build
from control_plane.services import planning
from tests.support.data_plane import document, target

VECTORS = json.loads((Path(__file__).parents[1] / "contract" / "targeting_vectors.json").read_text())
OLD, NEW = target("1", "unix:/a"), target("2", "unix:/b")
units = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)
LISTS = Targeting(VECTORS["key"], *(listed(VECTORS["key"], VECTORS[name]) for name in ("allow", "exclude")))


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Meter:
    return Meter(Metrics(tmp_path_factory.mktemp("metrics"), "test"))


def routed(meter: Meter, found: Targeting, weight: int, *, hold_out: int) -> Route:
    layer = found.layer
    wire = snapshot.Targeting(
        hold_out=hold_out, key=found.key, exclude=found.exclude, allow=found.allow, candidate=NEW.id,
        layer=layer.name if layer else None, first=layer.first if layer else 0, last=layer.last if layer else BUCKETS,
    )  # fmt: skip
    arms = {v.key: (v.weight, NEW if v.key == "candidate" else OLD) for v in canary_slices(weight)}
    sealed = document(1, OLD, NEW, arms=arms, salt="rollout", targeting=wire)
    return build(snapshot.decode(sealed), {}, Known(meter)).models["churn"]


@pytest.mark.parametrize("weight", [0, 3_000, BUCKETS])
async def test_domain_and_router_agree_with_the_published_vectors(weight: int, meter: Meter) -> None:
    assert targeting.digest(VECTORS["key"], "vip") == VECTORS["digest_of_vip"]
    routes: dict[tuple[int, str], Route] = {}
    for case in VECTORS["cases"]:
        slice_, hold_out, unit = case["layer"], case["hold_out"], case["unit_id"]
        found = replace(LISTS, layer=Layer(VECTORS["layer"], *slice_) if slice_ else None)
        assert targeting.group(found, hold_out=hold_out, unit_id=unit) == case["group"]
        key = (hold_out, str(slice_))
        route = routes.get(key) or routed(meter, found, weight, hold_out=hold_out)
        routes[key] = route
        divided = assign(canary_slices(weight), salt="rollout", unit_id=unit).key
        assert route.arm_of(unit.encode()).variant == (case["group"] or divided)


async def test_a_held_out_or_excluded_unit_gets_no_candidate_in_any_ramp_and_an_allowed_one_always(
    meter: Meter,
) -> None:
    """Whatever the step: the versions, not the names of variants."""
    names = [f"unit-{number}" for number in range(300)]
    lists = Targeting("k", listed("k", names[:40]), listed("k", names[40:80]))
    for weight in (0, 1, 500, 5_000, 8_000, BUCKETS):
        route = routed(meter, lists, weight, hold_out=1_500)
        for at, name in enumerate(names):
            version = route.arm_of(name.encode()).target.version
            held_out = targeting.group(Targeting(), hold_out=1_500, unit_id=name) is Group.HELD_OUT
            if held_out or 40 <= at < 80:
                assert version == "1"
            elif at < 40:
                assert version == "2"


@given(units, st.lists(st.integers(1, BUCKETS - 1), max_size=4, unique=True), st.integers(0, 5_000))
def test_a_unit_is_in_at_most_one_test_of_a_layer(unit: str, cuts: list[int], hold_out: int) -> None:
    ends = [0, *sorted(cuts), BUCKETS]
    tests = [Targeting(layer=Layer("one", a, b)) for a, b in pairwise(ends)]
    parts = [targeting.group(test, hold_out=hold_out, unit_id=unit) for test in tests]
    held_out = Group.HELD_OUT in parts
    assert parts.count(None) == (0 if held_out else 1)


@given(st.integers(0, 99), st.integers(1, 100), st.integers(0, 99), st.integers(1, 100))
def test_slices_that_do_not_meet_share_no_bucket(a: int, b: int, c: int, d: int) -> None:
    one, other = Layer("l", a, a + b), Layer("l", c, c + d)
    shared = set(range(one.first, one.last)) & set(range(other.first, other.last))
    assert one.meets(other) == other.meets(one) == bool(shared)
    assert not one.meets(Layer("m", a, a + b))


def test_a_hold_out_that_grows_takes_nobody_back() -> None:
    names = [f"u{number}" for number in range(2_000)]
    slices = [{n for n in names if targeting.group(Targeting(), hold_out=h, unit_id=n)} for h in (200, 1_000, 2_500)]
    assert slices[0] < slices[1] < slices[2]
    assert len(slices[1]) / 2_000 == pytest.approx(0.1, abs=0.03)


async def test_a_route_without_targeting_asks_nothing(meter: Meter) -> None:
    sealed = document(1, OLD, NEW, arms={"candidate": (1, NEW), "stable": (9_999, OLD)})
    assert build(snapshot.decode(sealed), {}, Known(meter)).models["churn"].named is None


def test_a_step_without_weight_is_for_the_allow_list_and_exposes_nobody() -> None:
    plan = Plan(
        Strategy.CANARY, (Step(0, timedelta(0)), Step(500, timedelta(0))), analysis=AnalysisPlan(), targeting=LISTS
    )
    state = Rollout(plan, datetime(2026, 1, 1, tzinfo=UTC), Phase.PROGRESSING)
    servers = tuple(Server(f"d{version}", version, ready=True) for version in ("1", "2"))
    facts = routing.Facts("salt", "1", servers=servers, release=Release("r", "2", "1", state))
    alone, both = (
        routing.route(facts),
        routing.route(replace(facts, release=Release("r", "2", "1", replace(state, step=1)))),
    )
    assert (alone.allowed, alone.step, [arm.variant for arm in alone.arms]) == ("d2", None, ["stable"])
    assert (both.allowed, both.step) == ("d2", 1)
    dead = replace(facts, servers=(servers[0], replace(servers[1], ready=False)))
    assert routing.route(dead).allowed is None


def test_the_allow_list_alone_lets_a_step_pass_only_by_answers() -> None:
    plan = Plan(Strategy.CANARY, (Step(0, timedelta(0)), Step(500, timedelta(0))), targeting=LISTS)

    def look(live: Live, idle_s: float = 0.0) -> judge.Analysis:
        seen = Evidence(live=live, idle_s=idle_s)
        return judge.judge(plan, AnalysisPlan(), [], seen, Tally(), step=0, held=True)

    assert look(Live(5, 0)).verdict is Verdict.PASS
    assert look(Live(60, 40)).verdict is Verdict.FAIL
    assert [look(live).verdict for live in (Live(), Live(3, 3))] == [Verdict.INCONCLUSIVE] * 2
    assert "Nobody asked" in look(Live(), idle_s=9_999).pause


def test_a_plan_says_what_is_wrong_with_its_targeting() -> None:
    both = {"allow_digests": ["a" * 32], "exclude_digests": ["a" * 32]}

    def wrong(**spec: object) -> str:
        given = PromoteSpec.model_validate({"strategy": "canary", **spec})
        return " ".join(planning.plan(given, None, first=False, prometheus=False, salt="s")[1])

    assert "both allowed and excluded" in wrong(targeting=both)
    assert "takes no targeting" in wrong(strategy="blue_green", targeting=both)
    ramp = [{"weight": 0, "hold_s": 1}, {"weight": 5, "hold_s": 1}]
    assert "above 0" in wrong(steps=ramp)
    assert wrong(steps=ramp, targeting={"allow_digests": ["a" * 32]}) == ""
    with pytest.raises(ValueError, match="first must be below last"):
        wrong(targeting={"layer": {"name": "l", "first": 50, "last": 50}})
