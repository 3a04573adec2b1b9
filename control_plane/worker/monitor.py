"""Every minute: references for versions that have none, windows added up, a look at every model in Production."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.registry import Registry
from control_plane.adapters.store import drift as store
from control_plane.adapters.store import versions
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain.drift import document
from control_plane.domain.registry import NATIVE_FOLDER
from control_plane.domain.stages import Stage
from control_plane.errors import InvalidInput, NotFound
from control_plane.services import drift, references
from control_plane.services.drift import Looked
from control_plane.settings import WorkerSettings
from control_plane.telemetry import Metric

_PROFILES = (f"{NATIVE_FOLDER}/profile.json", "profile.json", "artifacts/profile.json")
_LARGEST = 16 * 2**20  # bytes of a profile.json
_HOURS, _DAYS, _MONTHS = timedelta(days=8), timedelta(days=100), timedelta(days=1_100)  # windows are kept so long
_MODELS = 1_000

log = structlog.get_logger()


class Gauges:
    """What dashboards and alert rules read."""

    def __init__(self, metrics: Metrics) -> None:
        what = "Largest PSI (data, prediction, target), drop of the metric (performance), share of bad rows (quality)."
        self._score = metrics.gauge(Metric.DRIFT_SCORE, what, ("model_name", "drift_type"))
        self._alarm = metrics.gauge(Metric.DRIFT_ALARM, "1 while a drift incident is open.", ("model_name",))

    def show(self, looked: Looked) -> None:
        """A score that could not be computed is NaN, never 0."""
        for reading in looked.readings:
            score = float("nan") if reading.score is None else reading.score
            self._score.labels(looked.model, reading.kind.value).set(score)
        self._alarm.labels(looked.model).set(float(looked.incident))


@dataclass(frozen=True, slots=True)
class Monitor:
    settings: WorkerSettings
    sessions: async_sessionmaker[AsyncSession]
    registry: Registry
    gauges: Gauges

    async def __call__(self) -> None:
        """One round. What fails for one model is logged and waits for no other."""
        now = datetime.now(UTC)
        for step in (self._references, self._windows):
            try:
                await step(now)
            except Exception:
                log.exception("drift.step_failed", step=step.__name__)
        async with self.sessions() as session:
            models = [row.name for row in await versions.models(session, after=None, limit=_MODELS)]
        for model in models:
            try:
                await self.look(model, now)
            except Exception:
                log.exception("drift.look_failed", model=model)

    async def look(self, model: str, now: datetime) -> Looked | None:
        settings = drift.Settings(psi=self.settings.drift_threshold, early=self.settings.drift_early)
        async with self.sessions.begin() as session:
            looked = await drift.look(session, model, settings=settings, now=now)
        if looked is not None:
            self.gauges.show(looked)
            for reading in looked.readings:
                if reading.alarm:
                    log.warning("drift.alarm", model=model, version=looked.version, kind=reading.kind, why=reading.why)
        return looked

    async def _references(self, now: datetime) -> None:
        """From the artifact of a version of our pipeline, else from the first answers of a version that gives any."""
        async with self.sessions() as session:
            rows = await _watched(session)
            wanted = set(await store.without_reference(session, [(row.model, row.version) for row in rows]))
        for row in rows:
            if (row.model, row.version) not in wanted:
                continue
            try:
                await self._reference(row, now)
            except Exception:
                log.exception("drift.reference_failed", model=row.model, version=row.version)

    async def _reference(self, row: ModelVersionRow, now: datetime) -> None:
        found = await self._artifact(row)
        async with self.sessions.begin() as session:
            if found is not None:
                await store.add_reference(session, row.model, row.version, "training", found, now=now)
            else:
                await references.from_traffic(session, row, now=now)

    async def _artifact(self, row: ModelVersionRow) -> dict[str, Any] | None:
        """The version's profile.json; None if it has none that can be read."""
        for path in _PROFILES:
            try:
                content = await self.registry.read(row.model, row.version, path, limit=_LARGEST)
                found: object = json.loads(content)
                document.from_json(cast("dict[str, Any]", found))
            except NotFound:
                continue
            except (ValueError, InvalidInput, RecursionError) as exc:
                log.warning("drift.profile_unusable", model=row.model, version=row.version, error=str(exc))
                return None
            return cast("dict[str, Any]", found)
        return None

    async def _windows(self, now: datetime) -> None:
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        async with self.sessions.begin() as session:
            await store.roll_up(session, "hour", before=now + timedelta(days=1))
        async with self.sessions.begin() as session:
            await store.roll_up(session, "day", before=today - _HOURS)
        async with self.sessions.begin() as session:
            month = (today - _DAYS).replace(day=1)
            await store.roll_up(session, "month", before=month)
            blocks = (today - timedelta(days=2)).date()
            await store.forget(session, profiles_before=today - _MONTHS, blocks_before=blocks)


async def _watched(session: AsyncSession) -> Sequence[ModelVersionRow]:
    """Versions whose traffic is counted: Staging, so that it is there before the first customer, and Production."""
    found: list[ModelVersionRow] = []
    for model in await versions.models(session, after=None, limit=_MODELS):
        rows = await versions.versions(session, model.name)
        found += [row for row in rows if row.stage in {Stage.STAGING, Stage.PRODUCTION} and row.deleted_at is None]
    return found
