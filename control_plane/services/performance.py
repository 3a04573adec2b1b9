"""How the versions of a model did with customers over a period: requests, latency, and quality where truth is known."""

import re
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import figures, predictions, versions
from control_plane.adapters.store.figures import Availability, Figure
from control_plane.adapters.store.predictions import Cell, Requests
from control_plane.contracts.models import AvailabilityView, BusinessFigure, PerformanceView, VersionPerformance
from control_plane.domain import performance
from control_plane.domain.model_config import ModelConfig, Problem
from control_plane.domain.performance import Answered, Scores
from control_plane.errors import InvalidInput
from control_plane.services import evidence

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_NAMED = {"hour": "1h", "day": "24h", "week": "7d", "month": "30d"}
_LONGEST = timedelta(days=366)


def parse(period: str) -> timedelta:
    """ "15m", "24h", "7d", "2w", or hour, day, week, month; at most a year. InvalidInput for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", _NAMED.get(period, period))
    if found and (length := int(found[1]) * _UNITS[found[2]]) <= _LONGEST:
        return length
    raise InvalidInput(
        "The period cannot be used.", reasons=["period: give minutes, hours, days or weeks such as 24h, up to 366d."]
    )


async def view(session: AsyncSession, name: str, period: str, *, now: datetime) -> PerformanceView:
    model = await versions.model(session, name)
    since = now - parse(period)
    counts = await predictions.requests(session, name, since, now)
    config = await _config(session, name, model.production_version)
    found: dict[str, Scores] = {}
    distances = dict[str, float]()
    if config is not None and config.problem in {Problem.BINARY, Problem.MULTICLASS}:
        cells = await predictions.confusion(session, name, since, now)
        for version in {cell.version for cell in cells}:
            found[version] = performance.scores(_answers(config, [c for c in cells if c.version == version]))
    else:
        for error in await predictions.errors(session, name, since, now):
            found[error.version] = Scores(error.count, None)
            distances[error.version] = error.total / error.count
    rows = [_version(count, found.get(count.version), distances.get(count.version)) for count in counts]
    labelled = sum(row.labelled for row in rows)
    right = sum(row.accuracy * row.labelled for row in rows if row.accuracy is not None)
    scored = sum(row.labelled for row in rows if row.accuracy is not None)
    return PerformanceView(
        model=name,
        period=period,
        since=since,
        until=now,
        predictions=sum(row.predictions for row in rows),
        labelled=labelled,
        accuracy=right / scored if scored else None,
        versions=rows,
        availability=_availability(await figures.availability(session, since, name), config),
        business=_business(await figures.business(session, since, name), config),
        note=_note(rows, labelled),
    )


async def _config(session: AsyncSession, name: str, production: str | None) -> ModelConfig | None:
    """What says how answers are read: Production's model.yaml, else the newest version's."""
    rows = await versions.versions(session, name)
    row = next((row for row in rows if row.version == production), rows[0] if rows else None)
    return evidence.config(row)[0] if row else None


def _answers(config: ModelConfig, cells: list[Cell]) -> list[Answered]:
    """Cells as said and truth; what cannot be told apart is left out, never guessed."""
    if config.problem is Problem.MULTICLASS:
        return [Answered(cell.said, str(cell.truth), cell.count) for cell in cells if cell.said is not None]
    positive = config.target.positive if config.target else None
    read = [(cell, performance.means_yes(cell.truth, positive)) for cell in cells]
    said = {config.decision.positive: True, config.decision.negative: False}
    answered = [(said.get(cell.said or "", cell.above), truth, cell.count) for cell, truth in read]
    return [Answered(yes, truth, count) for yes, truth, count in answered if yes is not None and truth is not None]


def _version(count: Requests, scores: Scores | None, distance: float | None) -> VersionPerformance:
    found = scores or Scores(0, None)
    return VersionPerformance(
        version=count.version,
        predictions=count.answered,
        failures=count.failures,
        latency_ms_mean=None if count.mean_us is None else count.mean_us / 1_000,
        latency_ms_p95=None if count.p95_us is None else count.p95_us / 1_000,
        labelled=found.labelled,
        accuracy=found.accuracy,
        precision=found.precision,
        recall=found.recall,
        mean_absolute_error=distance,
    )


def _availability(windows: list[Availability], config: ModelConfig | None) -> AvailabilityView:
    asked = sum(window.asked for window in windows)
    answered = sum(window.answered for window in windows)
    share = answered / asked if asked else None
    objective = config.slo.availability if config else None
    met = None if share is None or objective is None else share >= objective
    return AvailabilityView(asked=asked, answered=answered, share=share, objective=objective, met=met)


def _business(found: list[Figure], config: ModelConfig | None) -> list[BusinessFigure]:
    """With the words of Production's model.yaml; a metric it no longer declares is left out."""
    declared = config.business if config else {}
    return [
        BusinessFigure(
            name=figure.name,
            kind=declared[figure.name].kind,
            unit=declared[figure.name].unit,
            version=figure.version,
            predictions=figure.predictions,
            total=figure.total,
        )
        for figure in found
        if figure.name in declared
    ]


def _note(rows: list[VersionPerformance], labelled: int) -> str | None:
    if not rows:
        return "No predictions were logged in this period."
    return None if labelled else "No outcome of these predictions is known yet: quality cannot be computed."
