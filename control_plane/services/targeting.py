"""Targeting: units named in a request become digests, layers are kept free of overlaps."""

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store import versions
from control_plane.contracts.base import PER_PERCENT
from control_plane.contracts.rollouts import PromoteSpec, TargetingSpec, TargetingView
from control_plane.domain.rollouts import Plan
from control_plane.domain.targeting import Layer, Targeting, listed


async def hashed(session: AsyncSession, model: str, spec: PromoteSpec) -> PromoteSpec:
    """The same request without a unit's name in it."""
    asked = spec.targeting
    if asked is None or not (asked.allow or asked.exclude):
        return spec
    key = (await versions.model(session, model)).salt
    made = asked.model_copy(
        update={
            "allow": [],
            "exclude": [],
            "allow_digests": sorted({*asked.allow_digests, *listed(key, asked.allow)}),
            "exclude_digests": sorted({*asked.exclude_digests, *listed(key, asked.exclude)}),
        }
    )
    return spec.model_copy(update={"targeting": made})


def targeting(spec: TargetingSpec | None, salt: str) -> Targeting | None:
    """As a plan holds it; `salt`: the model's, with which `hashed` has keyed the digests."""
    if spec is None or not (spec.allow_digests or spec.exclude_digests or spec.layer):
        return None
    layer = None
    if spec.layer is not None:
        layer = Layer(spec.layer.name, *(round(end * PER_PERCENT) for end in (spec.layer.first, spec.layer.last)))
    return Targeting(salt, tuple(sorted(spec.allow_digests)), tuple(sorted(spec.exclude_digests)), layer)


async def conflicts(session: AsyncSession, model: str, plan: Plan) -> tuple[str, ...]:
    """Open rollouts of other models whose slice of the same layer meets this one's; held until the transaction ends."""
    layer = plan.targeting.layer if plan.targeting else None
    if layer is None:
        return ()
    await store.lock_layer(session, layer.name)
    found: list[str] = []
    for entry in await store.all_open(session):
        other = entry.rollout.plan.targeting
        if entry.model != model and other and other.layer and layer.meets(other.layer):
            taken = f"{other.layer.first / PER_PERCENT:g} to {other.layer.last / PER_PERCENT:g} %"
            found.append(
                f"targeting.layer: {entry.model} tests on {taken} of {layer.name} already (rollout {entry.id}); "
                "take another slice, or wait."
            )
    return tuple(found)


def view(found: Targeting | None) -> TargetingView | None:
    if found is None:
        return None
    layer = found.layer
    return TargetingView(
        allowed=len(found.allow),
        excluded=len(found.exclude),
        layer=layer.name if layer else None,
        first=layer.first / PER_PERCENT if layer else None,
        last=layer.last / PER_PERCENT if layer else None,
    )
