"""How the versions of a model did with customers over a period: requests, latency, and quality where truth is known."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store import figures, request_hours, versions
from control_plane.adapters.store import quality as store
from control_plane.adapters.store.figures import Availability, Figure
from control_plane.adapters.store.request_hours import Requests
from control_plane.contracts.models import (
    AvailabilityView,
    BusinessFigure,
    MetricView,
    PerformanceView,
    VersionPerformance,
)
from control_plane.domain import latency
from control_plane.domain import quality as domain
from control_plane.domain.model_config import Label, ModelConfig, Problem
from control_plane.domain.quality import Tally
from control_plane.errors import InvalidInput
from control_plane.services import quality

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_NAMED = {"hour": "1h", "day": "24h", "week": "7d", "month": "30d"}
_LONGEST = timedelta(days=366)
_NOBODYS = frozenset({"shadow", "pinned"})  # variants whose answers say nothing about a customer's
_SPANS = (timedelta(days=1), timedelta(days=7), timedelta(days=30))
_ENOUGH = 100  # labelled predictions on which a metric says something


@dataclass(frozen=True, slots=True)
class Ripe:
    """Quality of the newest predictions whose labels had their time; `accuracy` of all versions together."""

    accuracy: float | None
    versions: Sequence[VersionPerformance]


def parse(period: str) -> timedelta:
    """ "15m", "24h", "7d", "2w", or hour, day, week, month; at most a year. InvalidInput for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", _NAMED.get(period, period))
    if found and (length := int(found[1]) * _UNITS[found[2]]) <= _LONGEST:
        return length
    raise InvalidInput(
        "The period cannot be used.", reasons=["period: give minutes, hours, days or weeks such as 24h, up to 366d."]
    )


async def view(session: AsyncSession, name: str, period: str, *, now: datetime, ended: bool = False) -> PerformanceView:
    """Read from hourly sums: what it costs does not depend on the traffic.

    `ended`: the period was over at `now`, a full hour, and what came later does not count.
    """
    await versions.model(session, name)
    since = (now - parse(period)).replace(minute=0, second=0, microsecond=0)
    config = await quality.config_of(session, name)
    until = now if ended else None
    requests = await request_hours.requests(session, name, since, until)
    tallies: dict[tuple[str, str], Tally] = {}
    for row in await store.tallies(session, name, since, until):
        tallies.setdefault((row.version, row.variant), Tally()).add(domain.read(row.tally))
    variants = [
        _performance(config, *key, requests.get(key, Requests()), tallies.get(key, Tally()))
        for key in sorted({*requests, *tallies})
        if key[0]
    ]
    mine = [key for key in {*requests, *tallies} if key[0] and key[1] not in _NOBODYS]
    shown = [
        _performance(
            config,
            version,
            None,
            _summed(requests[key] for key in mine if key[0] == version and key in requests),
            domain.merged(tallies[key] for key in mine if key[0] == version and key in tallies),
        )
        for version in sorted({key[0] for key in mine})
    ]
    everything = _metrics(config, domain.merged(tallies[key] for key in mine if key in tallies))
    labelled = sum(row.labelled for row in shown)
    label = config.label if config else Label()
    return PerformanceView(
        model=name,
        period=period,
        since=since,
        until=now,
        predictions=sum(row.predictions for row in shown),
        labelled=labelled,
        accuracy=everything["accuracy"].value if "accuracy" in everything else None,
        versions=shown,
        variants=variants,
        label_delay_s=label.delay_s,
        availability=_availability(await figures.availability(session, since, name, until=until), config),
        business=_business(await figures.business(session, since, name, until=until), config),
        note=_note(shown, labelled, label),
    )


async def ripe(session: AsyncSession, name: str, *, now: datetime) -> Ripe:
    """Of the day that ended `label.delay_s` ago; of the week or the month, where the day has too few labels."""
    config = await quality.config_of(session, name)
    delay = timedelta(seconds=config.label.delay_s if config else 0.0)
    until = (now - delay).replace(minute=0, second=0, microsecond=0) + timedelta(hours=0 if delay else 1)
    rows = [row for row in await store.tallies(session, name, until - _SPANS[-1]) if row.hour < until]
    rows = [row for row in rows if row.version and row.variant not in _NOBODYS]
    tallies: dict[str, Tally] = {}
    for span in _SPANS:
        tallies = {}
        for row in rows:
            if row.hour >= until - span:
                tallies.setdefault(row.version, Tally()).add(domain.read(row.tally))
        if sum(tally.labelled for tally in tallies.values()) >= _ENOUGH:
            break
    accuracy = _metrics(config, domain.merged(tallies.values())).get("accuracy")
    shown = [_performance(config, version, None, Requests(), tally) for version, tally in sorted(tallies.items())]
    return Ripe(accuracy.value if accuracy else None, shown)


def _summed(parts: Iterable[Requests]) -> Requests:
    made = Requests()
    for part in parts:
        made.merge(part)
    return made


def _metrics(config: ModelConfig | None, tally: Tally) -> dict[str, MetricView]:
    problem = config.problem if config else Problem.OPAQUE
    found = domain.metrics(tally, problem, config.costs if config else None)
    return {name: MetricView(value=m.value, low=m.low, high=m.high, n=m.n) for name, m in found.items()}


def _performance(
    config: ModelConfig | None, version: str, variant: str | None, requests: Requests, tally: Tally
) -> VersionPerformance:
    metrics = _metrics(config, tally)
    value = {name: metric.value for name, metric in metrics.items()}
    p95 = latency.quantile_us(requests.latencies, 0.95)
    return VersionPerformance(
        version=version,
        variant=variant,
        predictions=requests.answered,
        failures=requests.missed,
        latency_ms_mean=requests.latency_us / requests.answered / 1_000 if requests.answered else None,
        latency_ms_p95=None if p95 is None else p95 / 1_000,
        labelled=tally.labelled,
        accuracy=value.get("accuracy"),
        precision=value.get("precision"),
        recall=value.get("recall"),
        mean_absolute_error=value.get("mae"),
        metrics=metrics,
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


def _note(rows: list[VersionPerformance], labelled: int, label: Label) -> str | None:
    if not rows:
        return "No predictions were logged in this period."
    if not labelled:
        return "No outcome of these predictions is known yet: quality cannot be computed."
    if label.depends_on_decision:
        return "Outcomes are only seen where the decision let them happen: quality is of those predictions alone."
    return None
