"""The arithmetic of benchmarks/capacity: replicas are those a rate needs at the planned share of a core, never one."""

import pytest

from benchmarks.capacity import sizing

COST = {"router": 120.0, "model servers": 60.0, "shipper": 12.0, "ingester": 30.0, "postgres": 45.0, "redis": 3.0}
MB = {"router": 80.0, "model servers": 200.0, "shipper": 50.0, "ingester": 120.0}


def test_cores_are_what_the_rate_uses_at_the_planned_share() -> None:
    found = sizing.needed(10_000, COST, MB)
    assert found.cores["router"] == pytest.approx(10_000 * 120e-6 / sizing.SHARE)
    assert found.cores["postgres"] == pytest.approx(0.75)
    assert found.replicas == {"router": 2, "model servers": 2, "shipper": 2, "ingester": 2}
    assert found.memory_mb == 2 * sum(MB.values())


def test_replicas_grow_with_the_rate_and_carry_it() -> None:
    small, large = sizing.needed(10_000, COST, MB), sizing.needed(100_000, COST, MB)
    for role, each in sizing.PER_REPLICA.items():
        assert small.replicas[role] <= large.replicas[role]
        assert large.replicas[role] * each >= large.cores[role]
        assert (large.replicas[role] - 1) * each < large.cores[role], "none too many"
    assert "postgres" not in large.replicas, "one database; its cores are told"


def test_a_million_predictions_cost_the_hours_that_are_paid_for() -> None:
    assert sizing.core_hours_per_million(COST) == pytest.approx(270e-6 * 1e6 / 0.6 / 3600)
