"""Replays as they are asked for, kept, shown, and asked by the gate."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import audit, jobs, replays, versions, wake
from control_plane.adapters.store.replays import Pair
from control_plane.adapters.store.tables import JobRow, ModelVersionRow, ReplayRow
from control_plane.contracts.replays import ReplaySpec, ReplayView
from control_plane.domain.audit import Actor
from control_plane.domain.replay import gate as gates
from control_plane.domain.replay import words
from control_plane.domain.replay.gate import ReplayGate
from control_plane.domain.replay.report import Report
from control_plane.errors import InvalidInput
from control_plane.services import evidence, replayable
from control_plane.services.cutover import NO_REASON, Cause

_REPORT: Final = TypeAdapter(Report)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST: Final = timedelta(days=400)
_SLACK: Final = 0.05  # of a window: how far two may lie apart and still answer the same question
_MOST_SLACK: Final = timedelta(days=1)


async def request(session: AsyncSession, name: str, spec: ReplaySpec, *, cause: Cause, now: datetime) -> ReplayView:
    """Want a replay, or find the one that answers the same question: same artifacts, sample and segment, and a window
    that is the same to within a twentieth.

    Raises:
        InvalidInput: with every reason.
        NotFound: no such model or version.
    """
    model = await versions.model(session, name, lock=True)
    since, until = window(spec, now=now)
    wrong = _window_problems(since, until, now)
    candidate = await versions.version(session, name, spec.candidate)
    named = spec.baseline or model.production_version
    if named is None:
        wrong.append(f"baseline: {name} has no version in Production; name the one to compare with.")
    elif named == candidate.version:
        wrong.append(f"candidate: version {named} is the one to compare with.")
    if wrong or named is None:
        raise InvalidInput("This cannot be replayed.", model=name, reasons=wrong)
    baseline = await versions.version(session, name, named)
    wrong = [*replayable.unusable(baseline), *replayable.unusable(candidate)]
    if not wrong:
        wrong = replayable.mismatches(baseline, candidate, sample=spec.sample, segment=spec.segment)
    if wrong:
        raise InvalidInput("This cannot be replayed.", model=name, reasons=wrong)
    pair = _pair(candidate, baseline)
    slack = min(_MOST_SLACK, (until - since) * _SLACK)
    if not spec.anew:
        same = await replays.like(session, pair, since, until, slack, spec.sample, spec.segment)
        if same is not None:
            return await view(session, name, same)
    facts = {"candidate": candidate.version, "baseline": named, "since": since.isoformat(), "until": until.isoformat()}
    job_id = await jobs.want(session, "replay", name, facts, created_by=cause.actor.person, now=now)
    await session.flush()
    row: dict[str, Any] = {"model": name, "candidate_version": candidate.version, "baseline_version": named}
    row |= {"candidate_digest": pair.candidate_digest, "baseline_digest": pair.baseline_digest}
    row |= {"since": since, "until": until, "sample": spec.sample, "segment": spec.segment}
    await replays.add(session, job_id, row)
    await wake.notify(session, f"job {job_id}")
    await _tell(session, "replay.want", name, job_id, cause.actor, cause.trigger, facts, [spec.reason or NO_REASON])
    return await view(session, name, job_id)


async def finish(session: AsyncSession, replay_id: UUID, found: Report, *, now: datetime) -> ReplayView:
    """Keep what came of it, with its audit row."""
    await replays.finish(session, replay_id, _REPORT.dump_python(found, mode="json"), now=now)
    shown = await view(session, found.model, replay_id)
    facts = {"candidate": found.candidate, "baseline": found.baseline, "rows": found.rows}
    facts |= {"gate": shown.gate} if shown.gate is not None else {}
    await _tell(session, "replay.done", found.model, replay_id, Actor("worker"), "job", facts, list(shown.summary))
    return shown


async def view(session: AsyncSession, name: str, replay_id: UUID) -> ReplayView:
    row, job = await replays.load(session, replay_id, name)
    return await _shown(session, row, job, whole=True)


async def page(session: AsyncSession, name: str, *, before: UUID | None, limit: int) -> Sequence[ReplayView]:
    """Newest first, without their reports."""
    await versions.model(session, name)
    found = await replays.page(session, name, before=before, limit=limit)
    return [await _shown(session, row, job, whole=False) for row, job in found]


async def newest(
    session: AsyncSession, candidate: ModelVersionRow, baseline: ModelVersionRow, gate: ReplayGate, *, now: datetime
) -> Report | None:
    """The report that answers `gate`: of these two artifacts, over a window that is long and fresh enough."""
    if candidate.digest is None or baseline.digest is None:
        return None
    for row in await replays.done(session, _pair(candidate, baseline)):
        if gates.covers(gate, row.since, row.until, now=now) and row.report is not None:
            return _REPORT.validate_python(row.report)
    return None


async def reasons(
    session: AsyncSession,
    candidate: ModelVersionRow,
    production: ModelVersionRow,
    asked: ReplayGate | None,
    *,
    now: datetime,
) -> tuple[str, ...]:
    """What stands against a promotion by the gate asked for, or by model.yaml's; nothing where there is none."""
    config, _ = evidence.config(candidate)
    gate = asked or (config.registry.gates.replay if config else None)
    if gate is None:
        return ()
    if wrong := gates.problems(gate):
        return tuple(f"replay: {reason}" for reason in wrong)
    found = await newest(session, candidate, production, gate, now=now)
    if found is None:
        days = f"{max(1, round(gate.since_days))}d"
        command = f"mlcp replay {candidate.model} --candidate {candidate.version} --since {days}"
        return (
            f"replay: version {candidate.version} was not replayed against Production version {production.version} "
            f"over the last {gate.since_days:g} days (INCONCLUSIVE); run `{command}`.",
        )
    metric = config.metric.name if config and config.metric else None
    return gates.reasons(gate, found, metric=metric)


def window(spec: ReplaySpec, *, now: datetime) -> tuple[datetime, datetime]:
    until = spec.until or now
    if isinstance(spec.since, datetime):
        return spec.since, until
    found = re.fullmatch(r"([0-9]+)([mhdw])", spec.since)
    assert found is not None  # the contract
    return until - timedelta(**{_UNITS[found[2]]: int(found[1])}), until


def _window_problems(since: datetime, until: datetime, now: datetime) -> list[str]:
    found: list[str] = []
    if since >= until:
        found.append("since: must be before until.")
    if until - since > _LONGEST:
        found.append(f"since: at most {_LONGEST.days} days before until.")
    if since >= now:
        found.append("since: nothing is logged of the future.")
    return found


def _pair(candidate: ModelVersionRow, baseline: ModelVersionRow) -> Pair:
    assert candidate.digest is not None  # `unusable`
    assert baseline.digest is not None
    return Pair(candidate.model, candidate.digest, baseline.digest)


async def _shown(session: AsyncSession, row: ReplayRow, job: JobRow, *, whole: bool) -> ReplayView:
    report = None if row.report is None else _REPORT.validate_python(row.report)
    gate: list[str] | None = None
    if report is not None:
        config, _ = evidence.config(await versions.version(session, row.model, row.candidate_version))
        declared = config.registry.gates.replay if config else None
        if declared is not None:
            metric = config.metric.name if config and config.metric else None
            gate = list(gates.reasons(declared, report, metric=metric))
    return ReplayView(
        id=row.id,
        model=row.model,
        candidate_version=row.candidate_version,
        baseline_version=row.baseline_version,
        since=row.since,
        until=row.until,
        sample=row.sample,
        segment=row.segment,
        state=job.state,  # pyright: ignore[reportArgumentType]
        fraction=_fraction(job),
        error=job.error,
        created_at=job.created_at,
        created_by=job.created_by,
        done_at=row.done_at,
        summary=list(words.summary(report)) if report is not None else [],
        gate=gate,
        report=report if whole else None,
    )


def _fraction(job: JobRow) -> float | None:
    found: object = job.progress.get("fraction")
    return float(found) if job.state == "running" and isinstance(found, int | float) else None


async def _tell(
    session: AsyncSession,
    action: str,
    name: str,
    job_id: UUID,
    actor: Actor,
    trigger: str,
    after: Mapping[str, object],
    reasons: list[str],
) -> None:
    told = {"replay": str(job_id), **after}
    await audit.append(
        session, action, actor=actor, object=f"model:{name}", trigger=trigger, after=told, reasons=reasons
    )
