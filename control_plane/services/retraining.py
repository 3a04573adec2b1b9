"""What a retraining came to: a better version is put into Staging with its evidence, anything else is told and left.

A better one is replayed over logged traffic, too; its signal is decided about when that is over (`signals.undecided`).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, versions
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.contracts.replays import ReplaySpec
from control_plane.contracts.rollouts import PromoteSpec
from control_plane.domain import retraining as domain
from control_plane.domain.audit import Actor
from control_plane.domain.governance.decide import Signal, Status
from control_plane.domain.governance.policy import Severity, Source
from control_plane.domain.replay.gate import ReplayGate
from control_plane.domain.retraining import Judged
from control_plane.domain.rollouts import Verdict
from control_plane.domain.stages import Stage
from control_plane.errors import GatesNotMet, InvalidInput, RolloutOpen
from control_plane.services import evidence, promotion, replays, signals
from control_plane.services.cutover import Cause

CAUSE: Final = Cause(Actor("worker"), "retraining", automated=True)
BETTER, NOT_BETTER, FAILED = "better", "not_better", "failed"  # names of the signals


async def settle(
    session: AsyncSession, model: str, job_id: UUID, said: Mapping[str, Any], *, now: datetime
) -> dict[str, Any]:
    """Judge the version a training registered, put it into Staging if it is better, and note all of it.

    Returns what the job's result gains. Raises NotFound while the version is not known here yet.
    """
    row = await versions.model(session, model, lock=True)
    version = await versions.version(session, model, str(said["version"]))
    config, _ = evidence.config(version)
    higher = config is None or config.metric is None or config.metric.higher_is_better
    judged = _judged(said, row.production_version, higher_is_better=higher)
    stage = Stage(version.stage)
    if judged.verdict is Verdict.PASS and stage is Stage.DEVELOPMENT:
        try:
            spec = PromoteSpec(version=version.version, reason=f"Retrained by job {job_id}. {judged.why}")
            stage = (await promotion.to_stage(session, model, Stage.STAGING, spec, cause=CAUSE, now=now)).to_stage
        except (GatesNotMet, RolloutOpen) as exc:
            reasons = "; ".join(map(str, exc.extra.get("reasons") or (exc.detail,)))
            judged = Judged(Verdict.INCONCLUSIVE, f"{judged.why} It cannot be in Staging: {reasons}")
    found: dict[str, Any] = {"verdict": judged.verdict.value, "why": judged.why, "stage": stage.value}
    if judged.verdict is Verdict.PASS and stage is Stage.STAGING and row.production_version is not None:
        gate = config.registry.gates.replay if config else None
        found |= await _replay(session, version, gate or ReplayGate(), job_id, now=now)
    facts = {name: said.get(name) for name in ("version", "metric", "production", "gathered")} | {"job": str(job_id)}
    await audit.append(
        session,
        "model.retrain",
        actor=CAUSE.actor,
        object=f"model:{model}",
        trigger=CAUSE.trigger,
        after=found | {"version": version.version},
        reasons=[judged.why],
        evidence=facts,
    )
    name = BETTER if judged.verdict is Verdict.PASS else NOT_BETTER
    await _notice(session, model, job_id, name, Severity.INFO, facts | found, now=now)
    return found


async def _replay(
    session: AsyncSession, version: ModelVersionRow, gate: ReplayGate, job_id: UUID, *, now: datetime
) -> dict[str, Any]:
    """Have it replayed beside Production over the traffic its gate asks for. `replay`: its id; None: `not_replayed`
    says why."""
    try:
        since = now - timedelta(days=gate.since_days)
        spec = ReplaySpec(candidate=version.version, since=since, reason=f"Retrained by job {job_id}.")
        asked = await replays.request(session, version.model, spec, cause=CAUSE, now=now)
    except InvalidInput as exc:
        return {"replay": None, "not_replayed": "; ".join(map(str, exc.extra.get("reasons") or (exc.detail,)))}
    except OverflowError:
        return {"replay": None, "not_replayed": f"registry.gates.replay.since_days: {gate.since_days:g} is too long."}
    return {"replay": str(asked.id)}


async def failed(session: AsyncSession, model: str, job_id: UUID, why: str, *, now: datetime) -> None:
    """Production is as it was; people hear why."""
    await audit.append(
        session,
        "model.retrain",
        actor=CAUSE.actor,
        object=f"model:{model}",
        trigger=CAUSE.trigger,
        after={"verdict": FAILED},
        reasons=[why],
        evidence={"job": str(job_id)},
    )
    await _notice(session, model, job_id, FAILED, Severity.WARNING, {"why": why, "job": str(job_id)}, now=now)


async def _notice(
    session: AsyncSession,
    model: str,
    job_id: UUID,
    name: str,
    severity: Severity,
    facts: Mapping[str, object],
    *,
    now: datetime,
) -> None:
    signal = Signal(Source.RETRAINING, name, model, severity, Status.FIRING, now, facts)
    await signals.notice(session, str(job_id), signal, now=now)


def _judged(said: Mapping[str, Any], production: str | None, *, higher_is_better: bool) -> Judged:
    metric = cast("dict[str, Any]", said.get("metric") or {})
    compared, difference = domain.comparison(cast("dict[str, Any]", said.get("production") or {}))
    if compared != production:  # promoted meanwhile, or made by somebody else
        difference = None
    return domain.judge(
        str(metric.get("name")),
        difference,
        higher_is_better=higher_is_better,
        production=production,
        rows=int(metric.get("holdout_rows") or 0),
    )
