"""Traffic: who should answer customers now, and a split set by hand."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, deployments, versions, wake
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.tables import ModelRow
from control_plane.contracts.base import PER_PERCENT
from control_plane.contracts.models import ArmView, TrafficSpec, TrafficView
from control_plane.domain import rollouts
from control_plane.domain.assignment import BUCKETS, canary_slices
from control_plane.errors import GatesNotMet, InvalidSplit, RolloutOpen, StaleRevision
from control_plane.services import promotion
from control_plane.services.cutover import Cause
from control_plane.services.promotion import Policy


async def view(session: AsyncSession, name: str) -> TrafficView:
    model = await versions.model(session, name)
    return _shown(model, await store.open_of(session, name))


async def split(
    session: AsyncSession,
    name: str,
    spec: TrafficSpec,
    *,
    revision: int,
    policy: Policy,
    cause: Cause,
    now: datetime,
) -> TrafficView:
    """Divide the traffic between Production and one more version, until the next promotion or rollback.

    A version that would get customers this way passes the same gates as one that is promoted.

    Raises:
        StaleRevision: `revision` is not the traffic's any more.
        RolloutOpen: the open rollout decides on the traffic.
        InvalidSplit: the shares do not sum to 100, or there is no Production version among them.
        GatesNotMet: with every reason.
    """
    model, shares, others = await splittable(session, name, spec, revision=revision, policy=policy)
    for version in others:
        row = await versions.version(session, name, version)
        if row.digest is not None:  # a gate
            await deployments.ensure(session, name, version, row.digest, now=now, retry=True)
    before = _shown(model, None)
    fixed: list[dict[str, object]] | None
    fixed = [{"version": version, "weight": weight} for version, weight in shares.items()] if others else None
    await versions.set_traffic(session, name, fixed)
    after = await view(session, name)
    await wake.notify(session, f"traffic {name}")
    await audit.append(
        session,
        "traffic.set",
        actor=cause.actor,
        object=f"model:{name}",
        trigger=cause.trigger,
        request_id=cause.request_id,
        before=before.arms,
        after=after.arms,
        reasons=[spec.reason],
        approver=cause.approver,
    )
    return after


async def splittable(
    session: AsyncSession, name: str, spec: TrafficSpec, *, revision: int, policy: Policy
) -> tuple[ModelRow, dict[str, int], list[str]]:
    """The model, locked, each version's share and those that are not Production; raises as `split` does."""
    model = await versions.model(session, name, lock=True)
    if model.revision != revision:
        raise StaleRevision(f"The traffic of {name} is at revision {model.revision}.", expected=revision)
    if (entry := await store.open_of(session, name)) is not None:
        raise RolloutOpen(f"Rollout {entry.id} of {name} decides on its traffic.", rollout=str(entry.id))
    shares = {arm.version: round(arm.percent * PER_PERCENT) for arm in spec.arms}
    _check(shares, len(spec.arms), model)
    others = [version for version in shares if version != model.production_version]
    reasons: list[str] = []
    for version in others:
        row = await versions.version(session, name, version)
        reasons += (await promotion.decide(session, model, row, policy.defaults)).reasons
    if reasons:
        raise GatesNotMet(f"Version {others[0]} of {name} may not answer customers.", model=name, reasons=reasons)
    return model, shares, others


def _check(shares: dict[str, int], given: int, model: ModelRow) -> None:
    if not shares:
        return
    reasons: list[str] = []
    if sum(shares.values()) != BUCKETS or len(shares) != given:
        reasons.append("arms: name each version once; the percentages sum to 100.")
    if model.production_version not in shares:
        reasons.append(f"arms: Production version {model.production_version} has to be one of them.")
    if reasons:
        raise InvalidSplit(f"The traffic of {model.name} cannot be split like that.", reasons=reasons)


def _shown(model: ModelRow, entry: Entry | None) -> TrafficView:
    fixed = entry is None and bool(model.traffic)
    if entry is not None:
        arms = _of_rollout(entry, model.production_version)
    elif model.traffic:
        arms = [("fixed", share["version"], share["weight"]) for share in model.traffic]
    else:
        arms = [("stable", model.production_version, BUCKETS)]
    return TrafficView(
        model=model.name,
        revision=model.revision,
        fixed=fixed,
        rollout_id=entry.id if entry else None,
        arms=[ArmView(variant=k, version=v, percent=w / PER_PERCENT) for k, v, w in arms if v is not None and w],
    )


def _of_rollout(entry: Entry, production: str | None) -> list[tuple[str, str | None, int]]:
    if rollouts.is_cut_over(entry.rollout):
        return [("stable", production, BUCKETS)]
    slices = canary_slices(rollouts.candidate_weight(entry.rollout))
    owner = {"candidate": entry.candidate_version}
    return [(part.key, owner.get(part.key, production), part.weight) for part in slices]
