"""Figures of models that Postgres knows, as metrics: read a few times a minute."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from control_plane.adapters import store
from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store import figures
from control_plane.errors import ControlPlaneError
from control_plane.telemetry import Metric

EVERY_S: Final = 15.0
SLO_WINDOW: Final = timedelta(days=30)
BUSINESS_WINDOW: Final = timedelta(hours=24)
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Figures:
    """The gauges of every model, and the counters that begin before anything is counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._availability = metrics.gauge(
            Metric.AVAILABILITY, "Share of asked predictions that were answered.", ("model_name", "period")
        )
        self._business = metrics.gauge(
            Metric.BUSINESS, "What model.yaml declares under business.", ("model_name", "metric", "unit", "period")
        )

        self._releases = metrics.gauge(
            Metric.DEPLOYMENTS, "Releases of models, by how they ended.", ("model_name", "stage", "status")
        )
        self._active = metrics.gauge(Metric.ACTIVE_MODELS, "Models with a version in Production.", ("service_name",))
        self._refused = metrics.counter(
            Metric.TRAINING_DATA_REFUSED, "Trainings refused because of their data", ("model_name",)
        )

    async def refresh(self, session: AsyncSession, now: datetime) -> None:
        for found in await figures.availability(session, now - SLO_WINDOW):
            if found.asked:
                self._availability.labels(found.model, "30d").set(found.answered / found.asked)
        units = await figures.units(session)
        totals = dict.fromkeys(units, 0.0)
        for figure in await figures.business(session, now - BUSINESS_WINDOW):
            key = (figure.model, figure.name)
            totals[key] = totals.get(key, 0.0) + figure.total
        for (model, name), total in totals.items():
            self._business.labels(model, name, units.get((model, name), ""), "24h").set(total)
        for labels, count in (await figures.releases(session)).items():
            self._releases.labels(*labels).set(count)
        self._active.labels("mlcp").set(await figures.active_models(session))
        # Each refusal is counted by a training that ends with it. Here the series begins at 0, so that it can rise.
        for model in await figures.models(session):
            self._refused.labels(model)


async def keep_fresh(engine: AsyncEngine, metrics: Metrics) -> None:
    """For ever. While Postgres is away the last figures stay."""
    gauges, sessions = Figures(metrics), store.sessions(engine)
    while True:
        try:
            async with store.transaction(sessions) as session:
                await gauges.refresh(session, datetime.now(UTC))
        except ControlPlaneError as exc:
            _log.info("figures.late", error=str(exc))
        except Exception:  # noqa: BLE001  (figures may be late; records may not)
            _log.exception("figures.failed")
        await asyncio.sleep(EVERY_S)
