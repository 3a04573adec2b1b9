"""One look at the drift of a model's Production version: load what was counted, decide, save what was found."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import drift as store
from control_plane.adapters.store import versions
from control_plane.adapters.store.drift import DAY, Reference, hour_of, midnight
from control_plane.adapters.store.tables import DriftIncidentRow, ModelVersionRow
from control_plane.domain.drift import days, decide, evidence, incidents, monitor
from control_plane.domain.drift.decide import Report
from control_plane.domain.drift.evidence import Day, Scores
from control_plane.domain.drift.incidents import Action, Episode
from control_plane.domain.drift.monitor import Course, Kind, Reading, Severity, Share, Weighed
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.governance import policy as governance
from control_plane.domain.governance.decide import Signal, Status
from control_plane.domain.governance.policy import Source
from control_plane.domain.model_config import Drift, ModelConfig
from control_plane.services import evidence as gates
from control_plane.services import labels, signals

WINDOW = timedelta(hours=24)  # what the scores are of
_PREDICTION = "prediction:"  # before a version's name: measured days of its predictions
_SEVERITIES = {
    Severity.LOW: governance.Severity.INFO,
    Severity.MEDIUM: governance.Severity.WARNING,
    Severity.HIGH: governance.Severity.CRITICAL,
}
_KEPT = 200  # entries of an incident's history
_DECLARED = Drift()  # what a version that declares nothing is watched by


@dataclass(frozen=True, slots=True)
class Settings:
    """`psi`: threshold where model.yaml names none. `early`: also judge a day so far whose usual course is unknown."""

    psi: float = _DECLARED.psi
    early: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    model: str
    version: str
    readings: tuple[Reading, ...]
    incident: bool  # one is open


async def look(session: AsyncSession, model: str, *, settings: Settings, now: datetime) -> Looked | None:
    """One look, saved with what it changes. None without a Production version that has a reference."""
    row = await versions.model(session, model)
    if row.production_version is None:
        return None
    version = await versions.version(session, model, row.production_version)
    reference = await store.reference(session, model, version.version)
    if reference is None:
        return None
    config, _ = gates.config(version)
    declared = _drift_of(version, config, settings)
    opened = await store.open_incident(session, model)
    past = await store.incidents(session, model, limit=20)
    mine = [(row.opened_at, row.closed_at) for row in past if row.version == version.version]
    excluded = days.of_incidents(mine, now)
    since = days.since(await store.last_closed(session, model, version.version))

    recent = await store.window(session, reference, model, "rows", hour_of(now - WINDOW), now + DAY)
    blocks = await store.window(session, reference, model, "blocks", hour_of(now - WINDOW), now + DAY)
    policy = monitor.policy_for(declared, rows=recent.rows, blocks=blocks.rows)
    report = decide.compare(reference.profile, recent, policy)

    scores = evidence.scores_of(reference.profile)
    alpha = monitor.settings_for(declared.alpha, Kind.DATA, early=settings.early)
    course = await _measured(session, model, reference, scores, reference.profile, settings, now, "")
    prior = evidence.prior(scores, reference.profile, alpha)
    facts: dict[str, Any] = {"since": since, "excluded": excluded, "early": settings.early}
    weighed = monitor.weigh(scores, prior, course, now.date(), settings=alpha, **facts)
    calm = opened is not None and days.is_calm(
        scores, course, prior, opened.opened_at, opened.features, excluded=excluded, settings=alpha
    )

    said: Weighed | None = None
    answers = monitor.prediction_profile(reference.profile)
    if answers is not None:
        of_answers = evidence.scores_of(answers)
        beta = monitor.settings_for(declared.alpha, Kind.PREDICTION, early=settings.early)
        spoken = await _measured(session, model, reference, of_answers, answers, settings, now, _PREDICTION)
        said = monitor.weigh(
            of_answers, evidence.prior(of_answers, answers, beta), spoken, now.date(), settings=beta, **facts
        )

    truth = await labels.look(session, version, reference, config, policy, now=now)
    readings = (
        monitor.read_data(report, weighed),
        monitor.read_prediction(report.prediction, said),
        truth.target,
        truth.performance,
        monitor.read_quality(report, reference.profile, recent, weighed, policy),
    )
    importances = gates.importances(version)
    shares = monitor.attribute(report, importances, readings[0].features)
    severity = monitor.severity(readings, shares, importances)
    is_open = await _step(session, model, version.version, opened, readings, severity, calm=calm, now=now)
    document = {
        "reference": _about(reference),
        "basis": weighed.basis,
        "window": {
            "since": hour_of(now - WINDOW).isoformat(),
            "until": now.isoformat(),
            "rows": recent.rows,
            "blocks": blocks.rows,
        },
        "readings": [dataclasses.asdict(reading) for reading in readings],
        "features": _features(report, weighed, shares),
        "prediction": None if report.prediction is None else _plain(report.prediction),
        "performance": dict(truth.document),
    }
    await store.save_look(session, model, version.version, document, at=now)
    return Looked(model, version.version, readings, is_open)


def _drift_of(version: ModelVersionRow, config: ModelConfig | None, settings: Settings) -> Drift:
    """As model.yaml declares it; a threshold it does not name is the platform's."""
    drift = config.drift if config else _DECLARED
    named = cast("Mapping[str, Any]", version.config.get("drift") or {})
    return drift if config and "psi" in named else dataclasses.replace(drift, psi=settings.psi)


async def _measured(
    session: AsyncSession,
    model: str,
    reference: Reference,
    scores: Scores,
    measured: Profile,
    settings: Settings,
    now: datetime,
    prefix: str,
) -> Course:
    """Measure what is new, save it, and give the course of all days. `measured`: the profile `scores` are of."""
    key = f"{prefix}{reference.version}"
    today, hour = now.date(), days.last_hour(now)

    async def day(one: date, until: datetime) -> Day | None:
        blocks = await store.window(session, reference, model, "blocks", midnight(one), until)
        if not blocks.rows:
            return None
        counted = blocks if measured is reference.profile else monitor.prediction_profile(blocks)
        return None if counted is None else evidence.measure(scores, counted)

    known = await store.days(session, model, key, [days.WHOLE, max(0, hour)])
    closed = {d: monitor.measured_from(m) for d, m in known.get(days.WHOLE, {}).items() if d < today}
    for one in days.to_close(closed, now):
        if (found := await day(one, midnight(one) + DAY)) is not None:
            closed[one] = found
            await store.save_day(session, model, key, one, days.WHOLE, monitor.measured_json(found))
    complete = await day(today, hour_of(now)) if hour >= 0 else None
    if complete is not None and hour < days.WHOLE:
        await store.save_day(session, model, key, today, hour, monitor.measured_json(complete))
    so_far = await day(today, now + DAY) if settings.early else complete
    same = {d: monitor.measured_from(m) for d, m in known.get(hour, {}).items() if d < today} if hour >= 0 else {}
    return days.course(closed, same, so_far, early=settings.early)


async def _step(
    session: AsyncSession,
    model: str,
    version: str,
    opened: DriftIncidentRow | None,
    readings: Sequence[Reading],
    severity: Severity,
    *,
    calm: bool,
    now: datetime,
) -> bool:
    """Open, change or close the model's incident. Whether one is open then."""
    episode = None if opened is None else _episode(opened)
    found = incidents.step(episode, readings, severity, version=version, calm=calm, now=now)
    entry: dict[str, Any] = {"at": now.isoformat(), "what": found.action.value, "version": version, "why": found.why}
    entry |= {"severity": found.severity.value, "kinds": [*found.kinds], "features": [*found.features]}
    entry["scores"] = {reading.kind.value: reading.score for reading in readings}
    lists = {"kinds": [kind.value for kind in found.kinds], "features": list(found.features)}
    match found.action:
        case Action.NONE:
            return opened is not None
        case Action.OPEN:
            await _notice(session, model, now, found, Status.FIRING, now=now)
            await store.begin_incident(session, model, version, severity=found.severity, entry=entry, now=now, **lists)
            return True
        case Action.CHANGE:
            assert opened is not None
            history = [*opened.history, entry][-_KEPT:]
            changed = {"severity": found.severity.value, "version": version, "history": history, **lists}
            await store.change_incident(session, opened, **changed)
            await _notice(session, model, opened.opened_at, found, Status.FIRING, now=now)
            return True
        case Action.CLOSE:
            assert opened is not None
            await store.change_incident(session, opened, closed_at=now, history=[*opened.history, entry])
            await _notice(session, model, opened.opened_at, found, Status.RESOLVED, now=now)
            return False


async def _notice(
    session: AsyncSession, model: str, opened_at: datetime, found: incidents.Step, status: Status, *, now: datetime
) -> None:
    """An incident that opened, grew or closed, for the policy in force to decide about."""
    source = Source.PERFORMANCE if Kind.PERFORMANCE in found.kinds else Source.DRIFT
    facts = {"kinds": [*found.kinds], "features": [*found.features], "severity": found.severity, "why": found.why}
    key = f"{model}:{opened_at.isoformat()}:{status}:{found.severity}:{','.join(found.kinds)}"
    signal = Signal(source, "incident", model, _SEVERITIES[found.severity], status, now, facts)
    await signals.notice(session, key, signal, now=now)


def _episode(row: DriftIncidentRow) -> Episode:
    kinds = tuple(Kind(kind) for kind in row.kinds)
    return Episode(row.version, row.opened_at, Severity(row.severity), kinds, tuple(row.features))


def _features(report: Report, weighed: Weighed, shares: Sequence[Share]) -> list[dict[str, Any]]:
    by_name = {share.name: share for share in shares}
    log_e: Mapping[str, float] = weighed.evidence.features if weighed.evidence else {}
    found: list[dict[str, Any]] = []
    for drift in report.features:
        share = by_name.get(drift.name)
        more = {"log_evidence": _finite(log_e.get(drift.name)), "share": share.share if share else None}
        found.append(_plain(drift) | more)
    return found


def _plain(drift: decide.FeatureDrift) -> dict[str, Any]:
    return dataclasses.asdict(drift)


def _about(reference: Reference) -> dict[str, Any]:
    when = reference.created_at.isoformat()
    return {"source": reference.source, "rows": reference.profile.rows, "created_at": when}


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("-inf") else round(value, 4)
