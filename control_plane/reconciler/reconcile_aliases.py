"""Stages -> MLflow: the aliases `production` and `staging`, and what each version's gates say, as tags and text.

An alias somebody moved in MLflow is audited once and then, by the model's `alias_policy`, put back or taken as a
request for a promotion through the same gates as any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.registry import RegisteredModel, RegisteredVersion
from control_plane.adapters.store import audit, discovered, rollouts, versions, wake
from control_plane.adapters.store.discovered import Known
from control_plane.adapters.store.lease import LeaseLost
from control_plane.adapters.store.tables import AliasRow, ModelRow
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain import registry as domain
from control_plane.domain.audit import Actor
from control_plane.domain.registry import Mirror
from control_plane.domain.stages import Stage
from control_plane.errors import ControlPlaneError, InvalidInput, NotFound
from control_plane.reconciler.context import Context
from control_plane.reconciler.reconcile_registry import Listing
from control_plane.services import approvals, promotion, proposals
from control_plane.services.cutover import Cause

_HAND = Cause(Actor("mlflow"), "mlflow", automated=True)  # nobody knows who moved it
_STAGE_OF = {"production": Stage.PRODUCTION, "staging": Stage.STAGING}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Wish:
    """Of one model: where its aliases belong, and what moving one by hand means."""

    aliases: Mapping[str, str | None]
    adopt: bool
    rollout: str | None  # candidate of the open rollout


@dataclass(slots=True)
class Memory:
    """Of this leader alone: what each version's last report was made from, to spare the work of making it again."""

    reported: dict[tuple[str, str], tuple[Known, str | None]] = field(
        default_factory=dict[tuple[str, str], tuple[Known, str | None]]
    )


async def look(context: Context, memory: Memory, listing: Listing) -> None:
    registered = {model.name: model for model in listing.models}
    async with context.looking() as session:
        rows = await discovered.aliases(session)
        known = await discovered.known(session)
        models = [m for m in await versions.models(session, after=None, limit=100_000) if m.name in registered]
        wishes = {model.name: await _wish(session, model, known.get(model.name, {})) for model in models}
    for name, wish in wishes.items():
        for alias, desired in wish.aliases.items():
            try:
                await _mirror(context, registered[name], alias, desired, wish, rows.get((name, alias)))
            except (NotFound, InvalidInput) as exc:  # the version went away under our hands: the next look knows
                log.warning("an alias cannot be set", model=name, alias=alias, error=exc.detail)
    for model in models:
        shown = {version.version: version for version in listing.versions.get(model.name, ())}
        for version in known.get(model.name, {}).values():
            if not version.deleted:
                await _report(context, memory, model, version, shown.get(version.version))


async def _wish(session: AsyncSession, model: ModelRow, known: Mapping[str, Known]) -> _Wish:
    there = {row.version: row for row in known.values() if not row.deleted}
    staging = max((row.version for row in there.values() if row.stage == Stage.STAGING), key=int, default=None)
    production = model.production_version if model.production_version in there else None
    declared = production or max(there, key=int, default=None)
    config = (await versions.version(session, model.name, declared)).config if declared else {}
    registry = cast("Mapping[str, Any]", config.get("registry") or {})
    entry = await rollouts.open_of(session, model.name)
    return _Wish(
        {"production": production, "staging": staging},
        registry.get("alias_policy") == "adopt",
        entry.candidate_version if entry else None,
    )


async def _mirror(
    context: Context, model: RegisteredModel, alias: str, desired: str | None, wish: _Wish, row: AliasRow | None
) -> None:
    observed, name = model.aliases.get(alias), model.name
    known = domain.Written(row.last_applied, row.observed, row.writing) if row else None
    decision = domain.mirror(desired, observed, known)
    first_sight = known is None or known.observed != observed
    last_applied = known.last_applied if known else None
    if decision is Mirror.CONVERGED:
        if known != domain.Written(desired, observed, None):
            async with context.leading() as session:
                await _note(session, name, alias, domain.Written(desired, observed))
        return
    refused: tuple[str, ...] = ()
    if decision in {Mirror.HAND_MOVED, Mirror.FOUND}:
        if wish.adopt and observed is not None:
            if not first_sight and wish.rollout == observed:
                return  # its promotion is under way
            if first_sight:
                told = await _adopted(context, name, alias, observed, last_applied)
                if told is None:
                    return
                refused = told
        if decision is Mirror.FOUND:
            if first_sight:
                why = f"The alias {alias} was there before this control plane; it is left alone and means nothing here."
                left = domain.Written(None, observed)
                await _tell(context, "alias.found", name, alias, (observed, observed), left, [why, *refused])
            return
        if first_sight:
            why = f"The alias {alias} was moved in MLflow and is put back."
            begun = domain.Written(last_applied, observed, desired or "")
            await _tell(context, "alias.reverted", name, alias, (observed, desired), begun, [why, *refused])
    async with context.leading() as session:
        await _note(session, name, alias, domain.Written(last_applied, observed, desired or ""))
    if desired is None:
        await context.registry.delete_alias(name, alias)
    else:
        await context.registry.set_alias(name, alias, desired)
    async with context.leading() as session:
        await _note(session, name, alias, domain.Written(desired, desired))
    log.info("alias", model=name, alias=alias, was=observed, now=desired)


async def _adopted(
    context: Context, name: str, alias: str, observed: str, last_applied: str | None
) -> tuple[str, ...] | None:
    """Take a hand's move as a request. None if it was accepted, else every reason why not."""
    try:
        async with context.leading() as session:
            await _note(session, name, alias, domain.Written(last_applied, observed))
            await _request(session, context, name, _STAGE_OF[alias], observed, datetime.now(UTC))
    except LeaseLost:
        raise
    except ControlPlaneError as exc:
        return tuple(cast("Sequence[str]", exc.extra.get("reasons") or (exc.detail,)))
    log.warning("an alias moved by hand became a request", model=name, alias=alias, version=observed)
    return None


async def _tell(
    context: Context,
    action: str,
    name: str,
    alias: str,
    move: tuple[str | None, str | None],
    written: domain.Written,
    reasons: Sequence[str],
) -> None:
    async with context.leading() as session:
        await _note(session, name, alias, written)
        await audit.append(
            session,
            action,
            actor=_HAND.actor,
            object=f"model:{name}",
            trigger=_HAND.trigger,
            before={"alias": alias, "version": move[0]},
            after={"alias": alias, "version": move[1]},
            reasons=reasons,
        )
    log.warning(action, model=name, alias=alias, was=move[0], now=move[1])


async def _request(
    session: AsyncSession, context: Context, name: str, stage: Stage, version: str, now: datetime
) -> None:
    spec = PromoteSpec(version=version, reason=f"The alias of {stage} was moved to version {version} in MLflow.")
    asked = (proposals.promote if stage is Stage.PRODUCTION else proposals.deploy)(name, spec)
    await approvals.submit(session, asked, platform=context.policy, cause=_HAND, now=now)
    await wake.notify(session, f"alias {name}")


async def _note(session: AsyncSession, model: str, alias: str, written: domain.Written) -> None:
    await discovered.set_alias(
        session,
        model,
        alias,
        last_applied=written.last_applied,
        observed=written.observed,
        writing=written.writing,
        now=datetime.now(UTC),
    )


async def _report(
    context: Context, memory: Memory, model: ModelRow, version: Known, shown: RegisteredVersion | None
) -> None:
    """Write what has changed of stage and gates into MLflow; `shown`: what MLflow shows, where this look has read it.

    The stage's tag is put back, and the move audited, where somebody edited it.
    """
    key, basis = (model.name, version.version), (version, model.production_version)
    edited = shown is not None and version.reported is not None and shown.tags.get("mlcp.stage") != version.stage
    if memory.reported.get(key) == basis and not edited:
        return
    async with context.looking() as session:
        report = await _gates(session, context, model, version)
    if version.reported != report.hash or edited:
        try:
            now_shown = await context.registry.version(*key)
            by_hand = version.reported == report.hash and now_shown.tags.get("mlcp.stage") != report.stage
            await context.registry.set_tag(*key, "mlcp.stage", report.stage)
            await context.registry.set_tag(*key, "mlcp.gates", report.gates)
            description = domain.described(now_shown.description, report.paragraph)
            if description != now_shown.description:
                await context.registry.describe(*key, description)
        except (NotFound, InvalidInput) as exc:
            log.info("a gate report cannot be written", model=model.name, version=version.version, error=exc.detail)
            return
        async with context.leading() as session:
            await discovered.reported(session, *key, report.hash)
            if by_hand:
                await audit.append(
                    session,
                    "tag.reverted",
                    actor=_HAND.actor,
                    object=f"model:{model.name}",
                    trigger=_HAND.trigger,
                    before={"version": version.version, "mlcp.stage": now_shown.tags.get("mlcp.stage")},
                    after={"version": version.version, "mlcp.stage": report.stage},
                    reasons=["The tag mlcp.stage was edited in MLflow and is put back."],
                )
    memory.reported[key] = (replace(version, reported=report.hash), model.production_version)


async def _gates(session: AsyncSession, context: Context, model: ModelRow, version: Known) -> domain.Report:
    if version.stage == Stage.PRODUCTION:
        return domain.report(version.stage, ())
    row = await versions.version(session, model.name, version.version)
    decision = await promotion.decide(session, model, row, context.policy.defaults, alone=True)
    return domain.report(version.stage, decision.reasons)
