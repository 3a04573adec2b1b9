"""The router hashes with a precomputed key; it must give the buckets of the domain, and of the published vectors."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.metrics import Metrics
from control_plane.contracts import snapshot
from control_plane.domain import assignment
from control_plane.domain.assignment import BUCKETS, canary_slices
from control_plane.router.metrics import Meter
from control_plane.router.routes import Known, Route, build
from tests.support.data_plane import document, target

VECTORS = json.loads((Path(__file__).parents[1] / "contract" / "assignment_vectors.json").read_text())["cases"]
OLD, NEW = target("1", "unix:/a"), target("2", "unix:/b")


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Meter:
    return Meter(Metrics(tmp_path_factory.mktemp("metrics"), "test"))


async def routed(meter: Meter, salt: str, weight: int) -> Route:
    slices = canary_slices(weight)
    arms = {v.key: (v.weight, NEW if v.key == "candidate" else OLD) for v in slices}
    return build(snapshot.decode(document(1, OLD, NEW, arms=arms, salt=salt)), {}, Known(meter)).models["churn"]


@pytest.mark.parametrize("case", VECTORS, ids=lambda c: f"{c['salt'][:8]}-{c['unit_id'][:8]}-{c['weight']}")
async def test_the_router_agrees_with_the_published_vectors(case: dict[str, object], meter: Meter) -> None:
    salt, unit, weight = str(case["salt"]), str(case["unit_id"]), int(str(case["weight"]))
    assert assignment.bucket(salt, unit) == case["bucket"]
    assert (await routed(meter, salt, weight)).arm_of(unit.encode()).variant == case["variant"]


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=16), st.integers(0, BUCKETS))
async def test_any_unit_salt_and_weight_gets_the_variant_of_the_domain(
    meter: Meter, unit: str, salt: str, weight: int
) -> None:
    expected = assignment.assign(canary_slices(weight), salt=salt, unit_id=unit).key
    assert (await routed(meter, salt, weight)).arm_of(unit.encode()).variant == expected


async def test_a_salt_that_cannot_key_the_hash_refuses_the_snapshot(meter: Meter) -> None:
    with pytest.raises(ValueError, match="maximum key length"):
        await routed(meter, "x" * 65, 0)
