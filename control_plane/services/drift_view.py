"""The drift of a model as people read it: the newest look, both histograms, incidents and history."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import drift as store
from control_plane.adapters.store import versions
from control_plane.adapters.store.drift import DAY, hour_of
from control_plane.adapters.store.tables import DriftIncidentRow, DriftLookRow
from control_plane.contracts.drift import (
    DriftCost,
    DriftEvent,
    DriftFeature,
    DriftIncident,
    DriftInterval,
    DriftPerformance,
    DriftPoint,
    DriftReading,
    DriftReference,
    DriftView,
    DriftWindow,
    Histogram,
)
from control_plane.domain.drift import decide
from control_plane.domain.drift.profiles import Feature
from control_plane.services.drift import WINDOW

_INCIDENTS = 20


async def view(session: AsyncSession, model: str, *, days: int, now: datetime) -> DriftView:
    """NotFound for a model there is none of. `days`: how far back the history goes."""
    row = await versions.model(session, model)
    newest = await store.newest_look(session, model)
    past = await store.incidents(session, model, limit=_INCIDENTS)
    looks = await store.looks(session, model, since=now - timedelta(days=days))
    facts: dict[str, Any] = {
        "model": model,
        "alarm": any(incident.closed_at is None for incident in past),
        "incidents": [_incident(incident) for incident in past],
        "history": [_point(look) for look in looks],
    }
    if newest is None:
        note = "Nobody has looked yet: the worker looks every minute at models in Production that have a reference."
        if row.production_version is None:
            note = "No version is Production."
        return DriftView(version=row.production_version, looked_at=None, note=note, **facts)
    found = newest.look
    histograms, prediction = await _histograms(session, model, newest)
    return DriftView(
        version=newest.version,
        looked_at=newest.at,
        reference=DriftReference.model_validate(found["reference"]),
        window=DriftWindow.model_validate(found["window"]),
        basis=found["basis"],
        readings=[DriftReading.model_validate(reading) for reading in found["readings"]],
        features=[_feature(feature, histograms.get(feature["name"])) for feature in found["features"]],
        prediction=None if found["prediction"] is None else _feature(found["prediction"], prediction),
        performance=_performance(found["performance"]),
        note=_note(row.production_version, newest, now),
        **facts,
    )


def _note(production: str | None, look: DriftLookRow, now: datetime) -> str | None:
    if look.version != production:
        return f"Version {production or 'none'} is Production now; the last look was at version {look.version}."
    if now - look.at > timedelta(hours=1):
        return "The last look is more than an hour old: does the worker run?"
    return None


async def _histograms(
    session: AsyncSession, model: str, look: DriftLookRow
) -> tuple[Mapping[str, Histogram], Histogram | None]:
    """Of the window the look was at, read anew."""
    reference = await store.reference(session, model, look.version)
    if reference is None:
        return {}, None
    since = hour_of(look.at - WINDOW)
    current = await store.window(session, reference, model, "rows", since, look.at + DAY)
    found = {name: _histogram(feature, current.features[name]) for name, feature in reference.profile.features.items()}
    before, after = reference.profile.prediction, current.prediction
    spoken = None if before is None or after is None else _histogram(before, after)
    return {name: shown for name, shown in found.items() if shown is not None}, spoken


def _histogram(reference: Feature, current: Feature) -> Histogram | None:
    found = decide.histogram(reference, current)
    return None if found is None else Histogram.model_validate(found)


def _feature(document: Mapping[str, Any], shown: Histogram | None) -> DriftFeature:
    return DriftFeature.model_validate({**document, "histogram": shown})


def _performance(document: Mapping[str, Any]) -> DriftPerformance:
    read = dict(document)
    for name, kind in (("realised", DriftInterval), ("estimated", DriftInterval), ("expected_cost", DriftCost)):
        read[name] = None if read.get(name) is None else kind.model_validate(read[name])
    return DriftPerformance.model_validate(read)


def _incident(row: DriftIncidentRow) -> DriftIncident:
    history = cast("Sequence[Mapping[str, Any]]", row.history)
    facts = {name: getattr(row, name) for name in ("id", "version", "opened_at", "closed_at", "severity")}
    events = [DriftEvent.model_validate(entry) for entry in history]
    return DriftIncident.model_validate({**facts, "kinds": row.kinds, "features": row.features, "history": events})


def _point(row: DriftLookRow) -> DriftPoint:
    look, performance = row.look, cast("Mapping[str, Any]", row.look["performance"])
    return DriftPoint(
        at=row.at,
        version=row.version,
        rows=look["window"]["rows"],
        scores={reading["kind"]: reading["score"] for reading in look["readings"]},
        psi={feature["name"]: feature["psi"] for feature in look["features"]},
        estimated=_value(performance.get("estimated")),
        realised=_value(performance.get("realised")),
    )


def _value(interval: Mapping[str, Any] | None) -> float | None:
    return None if interval is None else interval["value"]
