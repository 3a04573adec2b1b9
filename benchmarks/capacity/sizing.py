"""From what a prediction costs to how many replicas a rate needs. Plain arithmetic on measured figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHARE = 0.6  # of a core that is planned for: what the autoscaler of a model aims at, too
PER_REPLICA = {"router": 2, "model servers": 2, "shipper": 1, "ingester": 1}  # processes, each worth one core at most


@dataclass(frozen=True, slots=True)
class Needed:
    """For one rate. `cores`: by role, busy to `SHARE`. `replicas`: of the roles that are replicated."""

    rate: float
    cores: Mapping[str, float]
    replicas: Mapping[str, int]
    memory_mb: float


def needed(rate: float, cost_us: Mapping[str, float], replica_mb: Mapping[str, float]) -> Needed:
    """`rate`: predictions a second. `cost_us`: CPU microseconds a prediction takes, by role; `replica_mb`: of one."""
    cores = {role: rate * cost / 1e6 / SHARE for role, cost in cost_us.items()}
    replicas = {role: max(2, math.ceil(cores[role] / each)) for role, each in PER_REPLICA.items() if role in cores}
    memory = sum(count * replica_mb.get(role, 0.0) for role, count in replicas.items())
    return Needed(rate, cores, replicas, memory)


def core_hours_per_million(cost_us: Mapping[str, float]) -> float:
    """At `SHARE` of a core: what is paid for, not what is used."""
    return sum(cost_us.values()) / SHARE / 3_600


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *[[str(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
