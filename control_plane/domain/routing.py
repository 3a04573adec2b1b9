"""What routers are told about one model, from what should be and what is. Pure.

Weight moves towards the desired split only onto servers that are ready. A server that stops being ready keeps what the
last route gave it: routers fall back by themselves, and a wrong look at readiness must not take a service down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from control_plane.domain import rollouts
from control_plane.domain.assignment import BUCKETS, canary_slices
from control_plane.domain.rollouts import Phase, Rollout, Strategy

Variant = Literal["stable", "candidate", "baseline"]


@dataclass(frozen=True, slots=True)
class Server:
    """A deployment that may be routed to: it has an address and is not being retired. `id` is the deployment's."""

    id: str
    version: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The model's open rollout."""

    id: str
    candidate: str  # versions
    stable: str | None
    state: Rollout


@dataclass(frozen=True, slots=True)
class Share:
    """`weight`: buckets."""

    version: str
    weight: int


@dataclass(frozen=True, slots=True)
class Arm:
    variant: Variant
    weight: int  # buckets; 0 for a stable that answers nobody but is there to fall back on
    target: str  # a server's id


@dataclass(frozen=True, slots=True)
class Route:
    """Arms sum to 10,000 buckets, or there are none: nobody is to answer yet."""

    targets: frozenset[str] = frozenset()
    arms: tuple[Arm, ...] = ()
    salt: str = ""
    rollout_id: str | None = None
    step: int | None = None
    shadows: tuple[tuple[str, int], ...] = ()  # (target, buckets)
    previous: str | None = None  # target
    allowed: str | None = None  # the target of units that get the candidate by name


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the route of one model depends on. `last`: the route published before this one."""

    salt: str
    production: str | None
    previous: str | None = None
    staging: frozenset[str] = frozenset()  # versions there that are to answer whoever names them: not the idle ones
    traffic: tuple[Share, ...] = ()  # a split set by hand; empty: none
    servers: tuple[Server, ...] = ()  # at most one per version
    release: Release | None = None
    last: Route = field(default_factory=Route)


def is_idle(staged: datetime, asked: datetime | None, now: datetime, patience: timedelta) -> bool:
    """Whether a version in Staging may go without servers: nobody has named it in a request for `patience`."""
    return now - max(staged, asked or staged) >= patience


def wanted(facts: Facts) -> frozenset[str]:
    """Versions whose servers should run now, beyond those kept warm: routed, about to be, or of `staging`."""
    named = {facts.production, *facts.staging, *(share.version for share in facts.traffic)}
    if facts.release:
        named |= {facts.release.candidate, facts.release.stable}
    return frozenset(version for version in named if version is not None)


def route(facts: Facts) -> Route:
    """The next route.

    The desired split is the open rollout's while it is progressing, else the one set by hand, else all on Production.
    - A part of it that is not ready gets no more than the last route gave it; Production takes the rest.
    - Production not ready: the last arms stay as they are, but for servers that no longer exist.
    """
    servers = {server.version: server for server in facts.servers}
    previous = servers.get(facts.previous or "")
    targets = {server.id for server in facts.servers if server.ready}
    arms, salt, release = _arms(facts, servers)
    shadows = _shadows(facts, servers)
    return Route(
        targets=frozenset(targets | {arm.target for arm in arms}),
        arms=arms,
        salt=salt,
        rollout_id=release[0],
        step=release[1],
        shadows=shadows,
        previous=previous.id if previous and previous.ready else None,
        allowed=_allowed(facts, servers, arms),
    )


_Release = tuple[str | None, int | None]  # rollout_id, step


def _arms(facts: Facts, servers: dict[str, Server]) -> tuple[tuple[Arm, ...], str, _Release]:
    production = servers.get(facts.production or "")
    if production is None or not production.ready:
        kept = _kept(facts.last, {server.id for server in facts.servers})
        last = facts.last
        return kept, last.salt if kept else facts.salt, (last.rollout_id, last.step) if kept else (None, None)

    def granted(version: str, weight: int) -> int:
        """Buckets of `weight` that `version` may have, given whether it is ready."""
        server = servers.get(version)
        if server is None:
            return 0
        return weight if server.ready else min(weight, _weight(facts.last, server.id))

    release = facts.release
    if release and _is_split(release.state):
        weight = granted(release.candidate, rollouts.candidate_weight(release.state))
        arms: list[Arm] = []
        for part in canary_slices(weight):
            version = release.candidate if part.key == "candidate" else facts.production
            arms.append(_arm(part.key, part.weight, servers[version or ""].id if version in servers else ""))
        # A step without weight is for the allow-list: who comes meanwhile is exposed to nothing yet.
        compares = rollouts.candidate_weight(release.state) > 0
        return _useful(arms), release.id, (release.id, release.state.step if compares else None)
    if release and rollouts.is_cut_over(release.state):
        return (Arm("stable", BUCKETS, production.id),), release.id, (release.id, None)
    arms = [
        Arm("candidate", granted(share.version, share.weight), servers[share.version].id)
        for share in facts.traffic
        if share.version != facts.production and share.version in servers
    ]
    rest = BUCKETS - sum(arm.weight for arm in arms)
    return _useful([*arms, Arm("stable", rest, production.id)]), facts.salt, (None, None)


def _allowed(facts: Facts, servers: dict[str, Server], arms: tuple[Arm, ...]) -> str | None:
    release = facts.release
    if release is None or release.state.plan.targeting is None or not arms or not _is_split(release.state):
        return None
    candidate, production = servers.get(release.candidate), servers.get(facts.production or "")
    ready = candidate is not None and candidate.ready and production is not None and production.ready
    return candidate.id if candidate is not None and ready and release.state.plan.targeting.allow else None


def _is_split(state: Rollout) -> bool:
    """Whether the rollout, paused or not, divides the traffic between two versions."""
    position = state.paused_from if state.phase is Phase.PAUSED else state.phase
    return position is Phase.PROGRESSING and state.plan.strategy is not Strategy.SHADOW


def _shadows(facts: Facts, servers: dict[str, Server]) -> tuple[tuple[str, int], ...]:
    release = facts.release
    if release is None or release.state.plan.strategy is not Strategy.SHADOW:
        return ()
    candidate = servers.get(release.candidate)
    if candidate is None or not candidate.ready or release.state.phase is not Phase.PROGRESSING:
        return ()
    return ((candidate.id, release.state.plan.shadow_weight),) if release.state.plan.shadow_weight else ()


def _kept(last: Route, alive: set[str]) -> tuple[Arm, ...]:
    """The last arms without the servers that are gone, whose share goes to the last arm left."""
    arms = [arm for arm in last.arms if arm.target in alive]
    if not arms:
        return ()
    missing = BUCKETS - sum(arm.weight for arm in arms)
    return (*arms[:-1], Arm(arms[-1].variant, arms[-1].weight + missing, arms[-1].target))


def _weight(last: Route, target: str) -> int:
    return sum(arm.weight for arm in last.arms if arm.target == target)


def _arm(key: str, weight: int, target: str) -> Arm:
    variants: dict[str, Variant] = {"candidate": "candidate", "stable": "stable", "baseline": "baseline"}
    return Arm(variants[key], weight, target)


def _useful(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """Without the arms that answer nobody, but with stable: requests fall back on it."""
    return tuple(arm for arm in arms if arm.weight or arm.variant == "stable")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What one router said last. `pins`: targets it sends a model's whole traffic to, whatever the snapshot says."""

    epoch: int
    revision: int
    age_s: float
    pins: frozenset[str] = frozenset()


def may_retire(
    target: str,
    revision: int,
    routers: Sequence[Acknowledgement],
    *,
    epoch: int,
    drained_s: float,
    live_s: float,
    silence_s: float,
) -> bool:
    """Whether the servers of `target`, which is in no snapshot since `revision`, may be stopped.

    Every live router must have applied that snapshot, and none may be pinned to the target. With no live router at all
    nobody says so: then after `silence_s`, since routers that cannot report may well go on answering.
    """
    if any(target in router.pins for router in routers):
        return False
    live = [router for router in routers if router.age_s <= live_s]
    if not live:
        return drained_s >= silence_s
    return all((router.epoch, router.revision) >= (epoch, revision) for router in live)


def position_after_restore(published: tuple[int, int], seen: Sequence[tuple[int, int]]) -> int | None:
    """The epoch to continue under if someone has applied a snapshot newer than any this database knows, else None.

    (epoch, revision) pairs. That happens after a restore from a backup: routers keep the highest they have seen, so
    without a higher epoch they would ignore everything published from now on.
    """
    highest = max(seen, default=published)
    return highest[0] + 1 if highest > published else None
