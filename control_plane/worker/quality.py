"""The worker's side task: folds labels as they ripen and shows how the models do."""

import asyncio
import math
import time
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Board, Metrics
from control_plane.adapters.store import versions
from control_plane.contracts.models import PerformanceView
from control_plane.errors import Unavailable
from control_plane.services import performance, quality
from control_plane.services.performance import Ripe
from control_plane.telemetry import Metric

_LOOK_S: Final = 2.0
_SHOW_S: Final = 15.0
_SHOW_ANYWAY_S: Final = 60.0  # with nothing folded, periods move on
PERIODS: Final = ("1h", "24h", "7d")  # values of the label `period`
RIPE: Final = "ripe"  # and the newest predictions whose labels had their time: what alert rules read

log = structlog.get_logger()


class Gauges:
    """Performance as Prometheus sees it. Nothing is set where nothing is known; NaN where it is known no more."""

    def __init__(self, metrics: Metrics) -> None:
        def board(name: str, what: str, *labels: str) -> Board:
            return metrics.board(name, what, labels)

        right = "Share of labelled predictions that were right."
        self._accuracy = board(Metric.ACCURACY, right, "model_name", "period")
        measured = "Metrics of labelled predictions."
        self._quality = board(Metric.QUALITY, measured, "model_name", "version", "metric", "period")
        known = "Predictions whose truth is known."
        self._labelled = board(Metric.LABELLED, known, "model_name", "version", "period")

    async def show(self, session: AsyncSession, *, now: datetime) -> None:
        accuracy, labelled = dict[tuple[str, str], float](), dict[tuple[str, str, str], float]()
        shown = dict[tuple[str, str, str, str], float]()
        for model in [row.name for row in await versions.models(session, after=None, limit=1_000)]:
            looks: dict[str, PerformanceView | Ripe] = {RIPE: await performance.ripe(session, model, now=now)}
            for period in PERIODS:
                looks[period] = await performance.view(session, model, period, now=now)
            for period, found in looks.items():
                if found.accuracy is not None:
                    accuracy[model, period] = found.accuracy
                for row in found.versions:
                    labelled[model, row.version, period] = row.labelled
                    for name, metric in row.metrics.items():
                        shown[model, row.version, name, period] = metric.value
        self._accuracy.show(accuracy)
        self._quality.show(shown)
        self._labelled.show(labelled)


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
