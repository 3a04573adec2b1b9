"""What the worker shows of the installation, against what is put into the database."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.metrics import Metrics
from control_plane.adapters.store import analysis, audit, ids, jobs, rollouts
from control_plane.adapters.store.analysis import Run
from control_plane.adapters.store.tables import KeyRow, LeaseRow, QualityRow, RouterRow, SnapshotRow
from control_plane.domain import rollouts as domain
from control_plane.domain.audit import Actor
from control_plane.domain.quality import Tally
from control_plane.domain.rollouts import Observation, Plan, Rollout, Step, Strategy
from control_plane.worker.quality import Gauges
from control_plane.worker.watch import Platform, Releases
from tests.support.api import add_model

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path / "metrics", "worker")


def shown(metrics: Metrics, name: str, **labels: str) -> float | None:
    for line in metrics.render().decode().splitlines():
        found = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")) == labels:
            return float(found[2])
    return None


async def test_an_open_rollout_is_shown_with_its_evidence_until_it_ends(
    maker: Sessions, metrics: Metrics, tmp_path: Path
) -> None:
    await add_model(maker)
    plan = Plan(Strategy.CANARY, (Step(1_000, 5 * MINUTE),))
    state = domain.advance(Rollout(plan, NOW), Observation(candidate_ready=True), now=NOW)
    async with maker.begin() as session:
        await session.execute(text("UPDATE models SET production_version = '1'"))
        entry = await rollouts.add(
            session, state, model="fraud", kind="promotion", candidate="2", stable="1", created_by="ann", now=NOW
        )
        arms = {"candidate": {"units": 40, "mean": 0.1}, "baseline": {"units": 50, "mean": 0.1}}
        measured = {"metric": "error_rate", "effect": 0.01, "low": -0.02, "high": None, **arms}
        evidence = {"measurements": [measured], "srm": {"p": 1e-9, "mismatch": True, "why": "40 : 50"}}
        await analysis.add_run(session, entry.id, Run(NOW, 0, "inconclusive", None, "too few", None, evidence))
    releases = Releases(metrics)
    async with maker() as session:
        await releases.show(session, NOW + 65 * MINUTE)
    assert shown(metrics, "model_rollout_phase_seconds", model_name="fraud", phase="progressing") == 65 * 60
    assert shown(metrics, "model_rollout_phase_seconds", model_name="fraud", phase="paused") == 0
    assert shown(metrics, "model_rollout_overdue_seconds", model_name="fraud") == 60 * 60
    assert shown(metrics, "model_rollout_candidate_weight_ratio", model_name="fraud") == 0.1
    assert shown(metrics, "model_rollout_srm", model_name="fraud") == 1
    assert shown(metrics, "model_rollout_verdict", model_name="fraud") == 0
    assert shown(metrics, "model_rollout_units", model_name="fraud", variant="baseline") == 50
    effect = {"model_name": "fraud", "metric": "error_rate"}
    assert shown(metrics, "model_rollout_effect", **effect, bound="low") == -0.02
    assert shown(metrics, "model_rollout_effect", **effect, bound="high") is None
    assert shown(metrics, "model_production_info", model_name="fraud", version="1") == 1
    due = shown(metrics, "model_review_due_timestamp_seconds", model_name="fraud")
    assert due is not None
    async with maker.begin() as session:
        await session.execute(text("UPDATE rollouts SET phase = 'aborted'"))
        await session.execute(text("UPDATE models SET production_version = '2'"))
    async with maker() as session:
        await Releases(Metrics(tmp_path / "metrics", "worker")).show(session, NOW)  # its successor
    assert shown(metrics, "model_rollout_phase_seconds", model_name="fraud", phase="progressing") == 0
    assert shown(metrics, "model_rollout_srm", model_name="fraud") == 0
    assert math.isnan(shown(metrics, "model_rollout_verdict", model_name="fraud") or 0)
    assert shown(metrics, "model_production_info", model_name="fraud", version="1") == 0
    assert shown(metrics, "model_production_info", model_name="fraud", version="2") == 1


async def test_jobs_keys_the_lease_and_routers_are_shown(maker: Sessions, metrics: Metrics) -> None:
    async with maker.begin() as session:
        await jobs.want(session, "archive", None, {}, created_by="ann", now=NOW - 10 * MINUTE)
        for prefix, ends, revoked in (("a", 5, None), ("b", 5, NOW), ("c", -5, None), ("d", 0, None)):
            expires = NOW + ends * MINUTE if ends else None
            facts = {"principal_id": ids.new(), "scopes": [], "created_at": NOW, "revoked_at": revoked}
            await session.execute(
                insert(KeyRow).values(id=ids.new(), prefix=prefix, hash=prefix.encode(), expires_at=expires, **facts)
            )
        await session.execute(
            insert(LeaseRow).values(name="reconciler", holder="me", epoch=1, expires_at=NOW - 10 * MINUTE)
        )
        await session.execute(
            insert(SnapshotRow).values(revision=7, epoch=1, document=b"", content_hash=b"", published_at=NOW)
        )
        for name, revision, minutes in (("a", 7, 0), ("b", 6, 0), ("gone", 1, 60)):
            seen = {"pins": {}, "epoch": 1, "seen_at": NOW - minutes * MINUTE}
            await session.execute(insert(RouterRow).values(router_id=name, revision=revision, **seen))
    async with maker() as session:
        await Platform(metrics).show(session, NOW)
    assert shown(metrics, "mlcp_jobs", kind="archive", state="wanted") == 1
    assert shown(metrics, "mlcp_job_waiting_seconds", kind="archive") == 600
    assert shown(metrics, "mlcp_key_expires_timestamp_seconds", key="a") == (NOW + 5 * MINUTE).timestamp()
    assert [shown(metrics, "mlcp_key_expires_timestamp_seconds", key=name) for name in "bcd"] == [None] * 3
    assert (shown(metrics, "mlcp_leader_lease_seconds") or 0) <= -600
    assert shown(metrics, "mlcp_snapshot_published_revision") == 7
    assert shown(metrics, "mlcp_routers", state="live") == 2
    assert shown(metrics, "mlcp_routers", state="behind") == 1


@pytest.mark.parametrize(
    "forgery",
    ["UPDATE audit SET payload = payload || ' ' WHERE seq = 2", "DELETE FROM audit WHERE seq > 2"],
    ids=["changed", "cut"],
)
async def test_a_forged_audit_chain_is_seen_within_the_hour_and_never_before(
    maker: Sessions, metrics: Metrics, forgery: str
) -> None:
    platform = Platform(metrics)

    async def look(now: datetime) -> float | None:
        async with maker() as session:
            await platform.verify(session, now)
        return shown(metrics, "mlcp_audit_chain_intact")

    for number in range(3):
        async with maker.begin() as session:
            await audit.append(session, "noted", actor=Actor("ann"), object=f"thing:{number}", trigger="test")
        assert await look(NOW) == 1
    assert shown(metrics, "mlcp_audit_links") == 3
    assert shown(metrics, "mlcp_audit_verified_timestamp_seconds") == NOW.timestamp()
    async with maker.begin() as session:
        await session.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        await session.execute(text(forgery))
        await session.execute(text("ALTER TABLE audit ENABLE TRIGGER USER"))
    await look(NOW + MINUTE)
    assert await look(NOW + 61 * MINUTE if "UPDATE" in forgery else NOW + 2 * MINUTE) == 0
    assert await look(NOW + 62 * MINUTE) == (0 if "UPDATE" in forgery else 1), "what is left of a cut chain follows"


async def test_quality_for_the_rules_is_of_predictions_whose_labels_had_their_time(
    maker: Sessions, metrics: Metrics
) -> None:
    await add_model(maker)
    delay = {"label": {"delay_s": 86_400.0}}
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    async with maker.begin() as session:
        declare = text("UPDATE model_versions SET config = config || CAST(:c AS jsonb)")
        await session.execute(declare, {"c": json.dumps(delay)})
        for days, right in ((0.5, 0), (1.5, 90), (3, 10)):
            tally = Tally()
            tally.decide(True, True, right)
            tally.decide(True, False, 95 - right if days < 2 else 0)
            at = hour - timedelta(days=days)
            row = {
                "model": "fraud",
                "version": "1",
                "variant": "stable",
                "hour": at,
                "tally": tally.document(),
                "folded_at": NOW,
            }
            await session.execute(insert(QualityRow).values(**row))
    async with maker() as session:
        await Gauges(metrics).show(session, now=NOW)
    assert shown(metrics, "model_labelled_predictions", model_name="fraud", version="1", period="ripe") == 105
    assert shown(metrics, "model_accuracy", model_name="fraud", period="ripe") == pytest.approx(100 / 105)
