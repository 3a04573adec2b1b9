"""The worker's side task: folds labels as they ripen and shows how the models do."""

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store import versions
from control_plane.errors import Unavailable
from control_plane.services import performance, quality
from control_plane.telemetry import Metric

_LOOK_S: Final = 2.0
_SHOW_S: Final = 15.0
_SHOW_ANYWAY_S: Final = 60.0  # with nothing folded, periods move on
PERIODS: Final = ("1h", "24h", "7d")  # values of the label `period`

log = structlog.get_logger()


class Gauges:
    """Performance as Prometheus sees it. Nothing is set where nothing is known; NaN where it is known no more."""

    def __init__(self, metrics: Metrics) -> None:
        self._accuracy = metrics.gauge(
            Metric.ACCURACY, "Share of labelled predictions that were right.", ("model_name", "period")
        )
        self._quality = metrics.gauge(
            Metric.QUALITY, "Metrics of labelled predictions.", ("model_name", "version", "metric", "period")
        )
        self._labelled = metrics.gauge(
            Metric.LABELLED, "Predictions whose truth is known.", ("model_name", "version", "period")
        )

        self._gauges = {Metric.ACCURACY: self._accuracy, Metric.QUALITY: self._quality, Metric.LABELLED: self._labelled}
        self._shown = set[tuple[str, tuple[str, ...]]]()

    async def show(self, session: AsyncSession, *, now: datetime) -> None:
        known = dict[tuple[str, tuple[str, ...]], float]()
        for model in [row.name for row in await versions.models(session, after=None, limit=1_000)]:
            for period in PERIODS:
                found = await performance.view(session, model, period, now=now)
                if found.accuracy is not None:
                    known[Metric.ACCURACY, (model, period)] = found.accuracy
                for row in found.versions:
                    known[Metric.LABELLED, (model, row.version, period)] = row.labelled
                    for name, metric in row.metrics.items():
                        known[Metric.QUALITY, (model, row.version, name, period)] = metric.value
        for gone in self._shown - known.keys():  # a series cannot be taken back, but it can say so
            known[gone] = math.nan
        for (name, labels), value in known.items():
            self._gauges[name].labels(*labels).set(value)
        self._shown = {key for key, value in known.items() if not math.isnan(value)}


async def run(sessions: async_sessionmaker[AsyncSession], metrics: Metrics) -> None:
    """Until cancelled."""
    gauges, shown_at, folded = Gauges(metrics), -math.inf, 0
    while True:
        looked = 0
        try:
            looked = await quality.fold_due(sessions, now=datetime.now(UTC))
            folded += looked
            if time.monotonic() - shown_at >= (_SHOW_S if folded else _SHOW_ANYWAY_S):
                shown_at, folded = time.monotonic(), 0
                async with sessions() as session:
                    await gauges.show(session, now=datetime.now(UTC))
        except (Unavailable, SQLAlchemyError, OSError) as exc:
            log.warning("quality cannot be folded", error=repr(exc))
        except Exception:
            log.exception("quality cannot be shown")
        await asyncio.sleep(0.1 if looked else _LOOK_S)
