"""Gathers the facts of a report from what the other services show. Nothing here reads a prediction."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, checkpoints, versions
from control_plane.adapters.store import rollouts as rollout_store
from control_plane.adapters.store.tables import ModelRow, ModelVersionRow, ReportRow
from control_plane.contracts.drift import DriftView
from control_plane.contracts.models import PerformanceView
from control_plane.contracts.reports import ReportView
from control_plane.contracts.rollouts import RolloutView
from control_plane.domain import reviews
from control_plane.domain.model_config import ModelConfig
from control_plane.domain.reports.facts import (
    Approval,
    Drift,
    DriftFeatureRead,
    DriftIncidentRead,
    DriftPointRead,
    DriftRead,
    Facts,
    Gate,
    Happened,
    Inventory,
    Kind,
    Lineage,
    Look,
    Measured,
    Proof,
    Release,
    Score,
    Served,
    Service,
    rounded,
)
from control_plane.errors import NotFound
from control_plane.services import drift_view, evidence, performance, promotion, rollouts, signing, timeline
from control_plane.services.evidence import Defaults

_PERIOD = {Kind.MONTHLY: 30, Kind.INCIDENT: 30, Kind.DRIFT: 30}  # days; the others: of the release, at least one
FOLDER = "reports"  # beside the archive of the log
_EVENTS, _POINTS, _IMPORTANCES, _LOOKS = 60, 120, 12, 40
_TITLE = {
    Kind.DEPLOYMENT: "Deployment report",
    Kind.ROLLBACK: "Rollback report",
    Kind.RETRAINING: "Retraining report",
    Kind.DRIFT: "Drift report",
    Kind.INCIDENT: "Incident report",
    Kind.MONTHLY: "Monthly report",
}


def file(report_id: UUID, form: str) -> str:
    """Where a report's JSON or PDF is, below FOLDER."""
    return f"{report_id}.{form}"


def calendar_month(month: str) -> tuple[datetime, datetime]:
    """First moments of the month written YYYY-MM, and of the next one."""
    begun = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    return begun, (begun + timedelta(days=31)).replace(day=1)


def view(row: ReportRow) -> ReportView:
    return ReportView.model_validate(row, from_attributes=True)


async def gather(
    session: AsyncSession,
    kind: Kind,
    model: str,
    *,
    report_id: UUID,
    now: datetime,
    rollout_id: UUID | None = None,
    version: str | None = None,
    month: str | None = None,
    defaults: Defaults = Defaults(),  # noqa: B008  (frozen)
) -> Facts:
    """The facts as they are now.

    `rollout_id`: of a deployment or rollback; left out, the newest one of that kind. `version`: of a retraining; left
    out, the newest there is. `month`: of a monthly report, as YYYY-MM; left out, the last 30 days. NotFound: no such
    model, rollout or version.
    """
    owner = await versions.model(session, model)
    release = await _release(session, kind, model, rollout_id)
    row = await _version(session, owner, kind, release, version)
    config = evidence.config(row)[0] if row else None
    since, until = calendar_month(month) if month else (now - timedelta(days=_PERIOD.get(kind, 1)), now)
    if release is not None:
        since = min(since, release.created_at)
    days = min(366, max(1, -(-(until - since) // timedelta(days=1))))
    happened, approvals = await _happened(session, model, since, until)
    seen = await performance.view(session, model, f"{days}d", now=until, ended=month is not None)
    watched = await drift_view.view(session, model, days=days + (now - until).days + 1, now=now)
    answers = owner.production_version
    production = await versions.version(session, model, answers) if answers else None
    return Facts(
        kind=kind,
        id=str(report_id),
        title=f"{_TITLE[kind]}: {model}" + (f" {row.version}" if row and kind not in _PERIOD else ""),
        at=now,
        since=since,
        until=until,
        inventory=_inventory(owner, production or row, now),
        lineage=_lineage(row) if row else None,
        scores=_scores(row, config) if row else (),
        gate=await _gate(session, owner, row, defaults) if row else None,
        importances=tuple((name, rounded(value) or 0.0) for name, value in _largest(row)),
        release=release,
        service=_service(seen, config),
        drift=_drift(watched, since, until),
        timeline=happened,
        approvals=approvals,
        limits=_limits(row, config, seen),
        proof=await _proof(session),
    )


async def _release(session: AsyncSession, kind: Kind, model: str, rollout_id: UUID | None) -> Release | None:
    if rollout_id is None and kind not in {Kind.DEPLOYMENT, Kind.ROLLBACK}:
        return None
    if rollout_id is None:
        found = await rollout_store.page(session, before=None, limit=50, model=model)
        wanted = [entry for entry in found if (entry.kind == "rollback") == (kind is Kind.ROLLBACK)]
        if not wanted:
            raise NotFound(f"{model} has no {kind} to report on.", model=model)
        entry = wanted[0]
    else:
        entry = await rollout_store.load(session, rollout_id)
        if entry.model != model:
            raise NotFound(f"Rollout {rollout_id} is not one of {model}.", model=model)
    return _told(await rollouts.view(session, entry, timedelta(seconds=5)))


def _told(view: RolloutView) -> Release:
    last = next((look for look in reversed(view.analyses) if look.measurements), None)
    return Release(
        id=str(view.id),
        kind=view.kind,
        strategy=view.strategy.value,
        phase=view.phase.value,
        candidate=view.candidate_version,
        stable=view.stable_version,
        created_by=view.created_by,
        created_at=view.created_at,
        closed_at=view.closed_at,
        conclusion=view.conclusion.value if view.conclusion else None,
        reason=view.reason,
        looks=tuple(
            Look(look.at, look.step, look.verdict.value, look.decided, look.why) for look in view.analyses[-_LOOKS:]
        ),
        measured=tuple(
            Measured(m.metric, m.role.value, m.verdict.value, m.why, rounded(m.effect), rounded(m.low), rounded(m.high))
            for m in (last.measurements if last else ())
        ),
    )


async def _version(
    session: AsyncSession, owner: ModelRow, kind: Kind, release: Release | None, wanted: str | None
) -> ModelVersionRow | None:
    if wanted is None:
        wanted = release.candidate if release else owner.production_version
    if wanted is None or (kind is Kind.RETRAINING and release is None and wanted == owner.production_version):
        newest = [row for row in await versions.versions(session, owner.name) if row.deleted_at is None]
        return newest[0] if newest else None
    return await versions.version(session, owner.name, wanted)


def _inventory(owner: ModelRow, row: ModelVersionRow | None, now: datetime) -> Inventory:
    """Of the version in Production; where there is none, of the one the report is about."""
    config = evidence.config(row)[0] if row else None
    said = {name: getattr(config, name) or None for name in ("owner", "purpose")} if config else {}
    declared = config.materiality if config and row and "materiality" in row.config else None
    due = reviews.due(config.materiality if config else "medium", row.created_at) if row else None
    found = {"owner": said.get("owner"), "purpose": said.get("purpose"), "materiality": declared}
    return Inventory(
        model=owner.name,
        problem=config.problem.value if config else None,
        owner=said.get("owner"),
        purpose=said.get("purpose"),
        materiality=declared,
        production_version=owner.production_version,
        previous_version=owner.previous_version,
        validated_at=row.created_at if row and evidence.candidate(row).validated else None,
        next_review=due,
        review_overdue=due is not None and due < now,
        undeclared=tuple(name for name, value in found.items() if value is None),
    )


def _lineage(row: ModelVersionRow) -> Lineage:
    data: Mapping[str, Any] = row.evidence.get("data") or {}
    winner, seed = row.evidence.get("winner"), row.evidence.get("seed")
    return Lineage(
        version=row.version,
        semver=row.semver,
        created_at=row.created_at,
        run_id=row.run_id,
        digest=row.digest,
        digest_from=row.digest_from,
        algorithm=_text(winner),
        seed=seed if isinstance(seed, int) else None,
        data_source=_text(data.get("source")),
        data_sha256=_text(data.get("sha256")),
        data_rows=data.get("rows") if isinstance(data.get("rows"), int) else None,
        data_from=_text(data.get("from")),
        data_to=_text(data.get("to")),
    )


def _scores(row: ModelVersionRow, config: ModelConfig | None) -> tuple[Score, ...]:
    """The declared metric first, then what else the training measured."""
    declared = evidence.candidate(row)
    production: Mapping[str, Any] = row.evidence.get("production") or {}
    found = list[Score]()
    if declared.metric is not None and declared.value is not None:
        reference = _number(production.get("value"))
        found.append(
            Score(
                declared.metric,
                rounded(declared.value) or 0.0,
                rounded(declared.low),
                rounded(declared.high),
                rounded(reference),
                _text(production.get("version")) if reference is not None else None,
            )
        )
    if declared.cost is not None:
        currency = f" ({config.costs.currency})" if config and config.costs else ""
        found.append(Score(f"cost on the hold-out{currency}", rounded(declared.cost, 6) or 0.0))
    measured: Mapping[str, Any] = row.evidence.get("metrics") or {}
    more = [(name, value) for name, given in measured.items() if (value := _number(given)) is not None]
    said = {declared.metric, None if declared.cost is None else "cost"}
    return (*found, *(Score(name, rounded(value) or 0.0) for name, value in more if name not in said))


async def _gate(session: AsyncSession, owner: ModelRow, row: ModelVersionRow, defaults: Defaults) -> Gate:
    decided = await promotion.decide(session, owner, row, defaults)
    return Gate(decided.allowed, tuple(decided.reasons))


def _largest(row: ModelVersionRow | None) -> Sequence[tuple[str, float]]:
    return list(evidence.importances(row).items())[:_IMPORTANCES] if row else []


def _service(seen: PerformanceView, config: ModelConfig | None) -> Service:
    available = seen.availability
    return Service(
        since=seen.since,
        until=seen.until,
        predictions=seen.predictions,
        availability=rounded(available.share, 6) if available else None,
        objective=available.objective if available else None,
        met=available.met if available else None,
        latency_objective_ms=config.slo.p95_ms if config else None,
        versions=tuple(
            Served(v.version, v.predictions, v.failures, rounded(v.latency_ms_p95, 3), v.labelled, rounded(v.accuracy))
            for v in seen.versions
        ),
        note=seen.note,
    )


def _drift(seen: DriftView, since: datetime, until: datetime) -> Drift:
    within = [point for point in seen.history if since <= point.at < until]
    points = [(p.at, max((s for s in p.psi.values() if s is not None), default=None)) for p in within]
    known = [(at, score) for at, score in points if score is not None]
    step = max(1, -(-len(known) // _POINTS))
    return Drift(
        version=seen.version,
        looked_at=seen.looked_at,
        alarm=seen.alarm,
        readings=tuple(DriftRead(str(r.kind), str(r.verdict), r.alarm, rounded(r.score), r.why) for r in seen.readings),
        features=tuple(
            DriftFeatureRead(f.name, str(f.verdict), rounded(f.psi, 3) or 0.0, rounded(f.limit, 3))
            for f in sorted(seen.features, key=lambda f: -(f.psi or 0.0))[:_IMPORTANCES]
            if f.psi is not None
        ),
        history=tuple(DriftPointRead(at, rounded(score, 3) or 0.0) for at, score in known[::step]),
        incidents=tuple(
            DriftIncidentRead(
                str(i.id),
                i.version,
                str(i.severity),
                i.opened_at,
                i.closed_at,
                tuple(map(str, i.kinds)),
                tuple(i.features),
            )
            for i in seen.incidents
            if i.opened_at < until and (i.closed_at is None or i.closed_at >= since)
        ),
        note=seen.note,
    )


async def _happened(
    session: AsyncSession, model: str, since: datetime, now: datetime
) -> tuple[tuple[Happened, ...], tuple[Approval, ...]]:
    """What the audit chain says of the model in the period, and which of it somebody else approved."""
    found = await audit.page(session, before=None, limit=_EVENTS, object=f"model:{model}", since=since, until=now)
    records = [record for record, _ in reversed(found)]
    told = tuple(
        Happened(
            datetime.fromisoformat(r["at"]), r["action"], r["actor"]["person"], "; ".join(r["reasons"]), int(r["seq"])
        )
        for r in records
    )
    approved = tuple(
        Approval(
            datetime.fromisoformat(r["at"]),
            r["after"]["operation"],
            r["after"]["author"],
            ", ".join(r["after"]["agreed"]),
            "; ".join(r["reasons"]),
            int(r["seq"]),
        )
        for r in records
        if r["action"] == "approval.approve" and r["after"]["state"] == "approved"
    )
    if not told:
        events = (await timeline.view(session, model, as_of=now, limit=_EVENTS)).events
        told = tuple(
            Happened(e.at, f"{e.version}: {e.from_stage} to {e.to_stage}", e.actor, e.reason) for e in reversed(events)
        )
    return told, approved


def _limits(row: ModelVersionRow | None, config: ModelConfig | None, seen: PerformanceView) -> tuple[str, ...]:
    found = ["Judged on one hold-out; its interval covers sampling, not a world that changes."]
    if row is None:
        return ("There is no version to speak of.",)
    if row.inferred or config is None:
        found.append("No model.yaml came with this version: purpose, costs and limits are not declared by its owner.")
    data: Mapping[str, Any] = row.evidence.get("data") or {}
    if (leakage := _text(data.get("leakage"))) and "checked" not in leakage:
        found.append(f"Leakage: {leakage}.")
    if config and config.label.depends_on_decision:
        found.append("The outcome of a positive decision is not observed: live metrics are bounds.")
    if config and config.time is None and data.get("from") is None:
        found.append("Rows of the training data have no time: nothing is said about how fast the model ages.")
    if not seen.labelled:
        found.append("No outcome of a prediction in the period is known: quality with customers is not measured.")
    found.append("Importances say what the model uses, not what causes an outcome.")
    return tuple(found)


async def _proof(session: AsyncSession) -> Proof:
    return Proof(await checkpoints.head(session), signing.newest_seq(await checkpoints.newest(session)))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
