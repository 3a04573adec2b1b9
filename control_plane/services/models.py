"""Models and their versions, as they are shown."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import deployments, versions
from control_plane.adapters.store import rollouts as store
from control_plane.adapters.store.tables import DeploymentRow, ModelRow, ModelVersionRow
from control_plane.contracts.models import (
    DeploymentView,
    GateReport,
    ImportancesView,
    ModelView,
    VersionDetail,
    VersionView,
)
from control_plane.domain import stages
from control_plane.domain.stages import Stage
from control_plane.errors import NotFound
from control_plane.services import evidence, promotion
from control_plane.services.evidence import Defaults

_OWN = (
    "model version stage stage_since semver runtime inferred digest digest_from run_id source created_at "
    "discovered_at deleted_at"
)


async def shown(session: AsyncSession, model: ModelRow) -> ModelView:
    rows = [row for row in await versions.versions(session, model.name) if row.deleted_at is None]
    declared = next((row for row in rows if row.version == model.production_version), rows[0] if rows else None)
    config = evidence.config(declared)[0] if declared else None
    entry = await store.open_of(session, model.name)
    return ModelView(
        name=model.name,
        problem=config.problem if config else None,
        owner=config.owner or None if config else None,
        purpose=config.purpose or None if config else None,
        created_at=model.created_at,
        production_version=model.production_version,
        previous_version=model.previous_version,
        staging_version=next((row.version for row in rows if row.stage == Stage.STAGING), None),
        newest_version=rows[0].version if rows else None,
        versions=len(rows),
        open_rollout=entry.id if entry else None,
    )


async def page_of_versions(
    session: AsyncSession, name: str, *, before: int | None, limit: int
) -> Sequence[VersionView]:
    """Newest first; those gone from MLflow stay in the list."""
    await versions.model(session, name)
    rows = await versions.versions(session, name, before=before, limit=limit)
    servers = {row.version: row for row in await deployments.live(session, name)}
    return [VersionView.model_validate(_facts(row, servers.get(row.version))) for row in rows]


async def detail(session: AsyncSession, name: str, number: str, defaults: Defaults) -> VersionDetail:
    """One version, with what a promotion to Staging and to Production would be answered now."""
    model = await versions.model(session, name)
    row = await versions.version(session, name, number)
    server = await deployments.of_version(session, name, number)
    staging = stages.decide_stage(evidence.candidate(row), Stage.STAGING, rollout=None)
    production = await promotion.decide(session, model, row, defaults)
    gates = [
        GateReport(stage=stage, allowed=decision.allowed, reasons=list(decision.reasons))
        for stage, decision in ((Stage.STAGING, staging), (Stage.PRODUCTION, production))
    ]
    more = {"config": row.config, "evidence": row.evidence, "gates": gates}
    return VersionDetail.model_validate({**_facts(row, server), **more})


def _facts(row: ModelVersionRow, server: DeploymentRow | None) -> dict[str, object]:
    metric, value = evidence.headline(row)
    shown: dict[str, object] = {name: getattr(row, name) for name in _OWN.split()}
    return {**shown, "metric": metric, "metric_value": value, "deployment": server and _deployment(server)}


def _deployment(row: DeploymentRow) -> DeploymentView:
    return DeploymentView.model_validate(
        {name: getattr(row, name) for name in ("id", "state", "desired", "error", "changed_at", "warm_until")}
    )


async def importances(session: AsyncSession, model: str, version: str | None) -> ImportancesView:
    """Of `version`, else of the one in Production, else of the newest.

    Raises:
        NotFound: no such model or version, or its training measured none.
    """
    row = await versions.model(session, model)
    wanted = version or row.production_version
    if wanted is None:
        wanted = next((row.version for row in await versions.versions(session, model) if row.deleted_at is None), None)
    if wanted is None:
        raise NotFound(f"{model} has no version yet.", model=model)
    of_version = await versions.version(session, model, wanted)
    measured: Any = of_version.evidence.get("importances")
    about = {"model": model, "version": wanted, "features": evidence.importances(of_version)}
    try:
        return ImportancesView.model_validate({**measured, **about})
    except (TypeError, ValidationError):
        detail = f"The training of {model} {wanted} measured no importances; versions of `mlcp train` have them."
        raise NotFound(detail, model=model, version=wanted) from None
