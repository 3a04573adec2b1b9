"""The worker's side task: what the installation is doing, and what waits for a person, as metrics."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import structlog
from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.registry import Registry
from control_plane.adapters.store import audit, rollouts, watch
from control_plane.adapters.store.rollouts import Entry
from control_plane.adapters.store.watch import Analysed
from control_plane.domain import audit as chain
from control_plane.domain import reviews
from control_plane.domain import rollouts as domain
from control_plane.domain.assignment import BUCKETS
from control_plane.errors import Unavailable
from control_plane.services import evidence
from control_plane.telemetry import Metric

EVERY_S: Final = 15.0
_ANEW: Final = timedelta(hours=1)  # between two verifications of the whole chain; new links are read every time
_HEARD_OF: Final = timedelta(seconds=30)
_VERDICTS: Final = {"pass": 1.0, "inconclusive": 0.0, "fail": -1.0}
_PHASES: Final = tuple(phase.value for phase in domain.OPEN)
_MODEL: Final = ("model_name",)

log = structlog.get_logger()


class Releases:
    """Rollouts, servers and the versions in Production."""

    def __init__(self, metrics: Metrics) -> None:
        board = metrics.board
        self._age = board(
            Metric.ROLLOUT_AGE, "Seconds the open rollout is in its phase.", ("model_name", "phase"), gone=0
        )
        self._overdue = board(Metric.ROLLOUT_OVERDUE, "Seconds beyond what the plan gives the phase.", _MODEL, gone=0)
        self._weight = board(Metric.ROLLOUT_WEIGHT, "Share of traffic the candidate should get.", _MODEL, gone=0)
        self._srm = board(Metric.ROLLOUT_SRM, "1 while the arms' sizes contradict their weights.", _MODEL, gone=0)
        self._verdict = board(Metric.ROLLOUT_VERDICT, "Of the last look: 1 pass, 0 inconclusive, -1 fail.", _MODEL)
        self._units = board(Metric.ROLLOUT_UNITS, "Closed customers of each arm.", ("model_name", "variant"))
        self._effect = board(Metric.ROLLOUT_EFFECT, "Candidate minus baseline.", ("model_name", "metric", "bound"))
        self._production = board(
            Metric.PRODUCTION, "1: this version answers customers.", ("model_name", "version"), gone=0
        )
        self._review = board(Metric.REVIEW_DUE, "When the model is to be reviewed, in Unix time.", _MODEL)
        self._servers = board(Metric.SERVERS, "Model servers by state.", ("model_name", "state"), gone=0)

    async def show(self, session: AsyncSession, now: datetime) -> None:
        entries = await rollouts.all_open(session)
        looks = await watch.analysed(session, [entry.id for entry in entries])
        rows = await watch.production(session)
        idle = {(row.model, phase): 0.0 for row in rows for phase in _PHASES}
        ages = {(e.model, e.rollout.phase.value): (now - e.rollout.since).total_seconds() for e in entries}
        self._age.show(idle | ages)
        quiet = {(row.model,): 0.0 for row in rows}
        self._overdue.show(quiet | {(e.model,): domain.overdue(e.rollout, now=now).total_seconds() for e in entries})
        self._weight.show(quiet | {(e.model,): domain.candidate_weight(e.rollout) / BUCKETS for e in entries})
        found = [(entry, looks[entry.id]) for entry in entries if entry.id in looks]
        self._srm.show(quiet | {(e.model,): float(_mismatch(look.evidence)) for e, look in found})
        self._verdict.show({(e.model,): _VERDICTS[look.verdict] for e, look in found})
        units, effects = dict[tuple[str, str], float](), dict[tuple[str, str, str], float]()
        for entry, look in found:
            _compare(entry, look, units, effects)
        self._units.show(units)
        self._effect.show(effects)
        self._production.show({(row.model, row.version): 1.0 for row in rows})
        due = dict[tuple[str], float]()
        for row in rows:
            config, _ = evidence.config(row)
            materiality = config.materiality if config else "medium"
            due[row.model,] = reviews.due(materiality, row.created_at).timestamp()
        self._review.show(due)
        self._servers.show({key: float(count) for key, count in (await watch.servers(session)).items()})


class Platform:
    """Jobs, keys, the lease, and the audit chain."""

    def __init__(self, metrics: Metrics) -> None:
        what = "Jobs on record, by kind and state."
        self._jobs = metrics.board(Metric.JOBS, what, ("kind", "state"), gone=0)
        what = "Age of the oldest job nobody has begun."
        self._waiting = metrics.board(Metric.JOB_WAITING, what, ("kind",), gone=0)
        what = "When the key expires, in Unix time."
        self._keys = metrics.board(Metric.KEY_EXPIRES, what, ("key",))
        self._lease: Gauge = metrics.gauge(Metric.LEADER_LEASE, "Seconds until the reconciler's lease runs out.")
        self._published = metrics.gauge(Metric.SNAPSHOT_PUBLISHED, "Revision of the newest snapshot.")
        what = "Router workers heard of, and those of them without the newest snapshot."
        self._routers = metrics.board(Metric.ROUTERS, what, ("state",), gone=0)
        self._intact = metrics.gauge(Metric.AUDIT_INTACT, "1 while every link of the audit chain follows.")
        self._links = metrics.gauge(Metric.AUDIT_LINKS, "Length of the audit chain.")
        self._verified = metrics.gauge(Metric.AUDIT_VERIFIED, "When the chain was last verified, in Unix time.")
        self._head, self._anew_at, self._bad = chain.GENESIS, datetime.min.replace(tzinfo=UTC), False

    async def show(self, session: AsyncSession, now: datetime) -> None:
        jobs = await watch.jobs(session, now)
        self._jobs.show({key: float(count) for key, count in jobs.counts.items()})
        self._waiting.show({(kind,): seconds for kind, seconds in jobs.waiting_s.items()})
        self._keys.show({(key,): at.timestamp() for key, at in (await watch.expiries(session, now)).items()})
        lease = await watch.lease_s(session)
        if lease is not None:
            self._lease.set(lease)
        if (revision := await watch.published(session)) is not None:
            self._published.set(revision)
            live, behind = await watch.routers(session, revision, now - _HEARD_OF)
            self._routers.show({("live",): float(live), ("behind",): float(behind)})

    async def verify(self, session: AsyncSession, now: datetime) -> None:
        """New links against the head that was verified last, which has to be there still; hourly from the start."""
        if now >= self._anew_at:
            self._head, self._anew_at, self._bad = chain.GENESIS, now + _ANEW, False
        elif self._bad:
            return
        elif self._head.seq and await audit.links(session, after=self._head.seq - 1, limit=1) != [self._head]:
            self._broken(self._head.seq)
            return
        while found := await audit.links(session, after=self._head.seq, limit=500):
            bad = chain.first_bad(found, after=self._head)
            if bad is not None:
                self._broken(bad)
                return
            self._head = found[-1]
            await asyncio.sleep(0)
        self._intact.set(1)
        self._links.set(self._head.seq)
        self._verified.set(now.timestamp())

    def _broken(self, seq: int) -> None:
        self._bad = True
        log.error("audit.broken", first_bad=seq)
        self._intact.set(0)


def _mismatch(found: Mapping[str, Any]) -> bool:
    return isinstance(ratio := found.get("srm"), dict) and bool(cast("dict[str, Any]", ratio).get("mismatch"))


def _compare(
    entry: Entry, look: Analysed, units: dict[tuple[str, str], float], effects: dict[tuple[str, str, str], float]
) -> None:
    """Add what the look says of each metric. The arms' sizes are those of the metric most customers are closed for."""
    for measured in cast("list[dict[str, Any]]", look.evidence.get("measurements") or []):
        for variant in ("candidate", "baseline"):
            key, arm = (entry.model, variant), cast("dict[str, Any]", measured.get(variant) or {})
            units[key] = max(units.get(key, 0.0), float(arm.get("units") or 0))
        for bound, name in (("estimate", "effect"), ("low", "low"), ("high", "high")):
            if measured.get(name) is not None:
                effects[entry.model, str(measured["metric"]), bound] = float(measured[name])


async def run(sessions: async_sessionmaker[AsyncSession], registry: Registry, metrics: Metrics) -> None:
    """For ever. What cannot be read keeps its last value, and the dependency that is missing says so."""
    releases, platform = Releases(metrics), Platform(metrics)
    up = metrics.gauge(Metric.DEPENDENCY_UP, "1 while it answers.", ("process", "dependency"))
    while True:
        began, now = time.monotonic(), datetime.now(UTC)
        try:
            async with sessions() as session:
                await releases.show(session, now)
                await platform.show(session, now)
            async with sessions() as session:
                await platform.verify(session, now)
            up.labels("worker", "postgres").set(1)
        except (Unavailable, SQLAlchemyError, OSError) as exc:
            up.labels("worker", "postgres").set(0)
            log.warning("the installation cannot be watched", error=repr(exc))
        except Exception:
            log.exception("the installation cannot be watched")
        up.labels("worker", "mlflow").set(float(await registry.answers()))
        await asyncio.sleep(max(1.0, EVERY_S - (time.monotonic() - began)))
