"""A candidate over logged traffic: real artifacts in processes of their own, a real log in Postgres and the archive."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text, update

from control_plane.adapters.archive import Archive
from control_plane.adapters.scorers import Scorer, Version
from control_plane.adapters.store import replays as store
from control_plane.adapters.store.tables import AuditRow, JobRow, ModelVersionRow, ReplayRow
from control_plane.contracts.replays import ReplayView
from control_plane.errors import InvalidInput
from control_plane.ingest import replayer
from control_plane.services import archive as archiving
from control_plane.settings import ReplayerSettings, WorkerSettings
from control_plane.worker import carry_out
from tests.support import replayed
from tests.support.api import Api, add_version

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC)
EARLIER = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
LATELY = NOW - timedelta(minutes=90)
PATH = "/models/fraud/replay"


async def run(api: Api, dsn: str, home: Path, asked: dict[str, Any]) -> ReplayView:
    settings = ReplayerSettings(postgres_dsn=SecretStr(dsn), home=home, mlflow_url="http://127.0.0.1:9")
    return await replayer.run(settings, UUID(asked["id"]))


async def ask(api: Api, status: int = 202, **spec: Any) -> dict[str, Any]:
    async with await api.as_("operator") as operator:
        answer = await operator.post(PATH, json={"candidate": "2", "since": "3d"} | spec)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def end(api: Api, done: ReplayView) -> None:
    """Say that its job is over, as the worker does."""
    async with api.maker.begin() as session:
        await session.execute(text("UPDATE jobs_wanted SET state = 'succeeded' WHERE id = :id"), {"id": done.id})


async def test_a_replay_says_what_would_have_changed_and_the_gate_reads_it(api: Api, dsn: str, home: Path) -> None:
    gate = {"since_days": 2, "min_rows": 100, "max_flip_rate": 0.9, "metric": "accuracy", "metric_margin": 0.5}
    ours, theirs = await replayed.model(api.maker, home, registry={"gates": {"replay": gate}})
    engine = api.maker.kw["bind"]
    before, after = (replayed.engine_of(home, found, replayed.CONFIG) for found in (ours, theirs))
    old = await replayed.answered(engine, before, replayed.traffic(400, EARLIER, seconds=8))
    await archiving.run(api.maker, Archive((home / "archive").as_uri()), now=datetime.now(UTC), keep=timedelta(days=35))
    new = await replayed.answered(engine, before, replayed.traffic(200, LATELY, seconds=0.1, seed=1))
    async with api.maker.begin() as session:  # a file is read where Postgres has nothing newer
        await session.execute(text("DELETE FROM predictions WHERE received_at < :then"), {"then": NOW - timedelta(1)})

    async with await api.as_("operator") as operator:
        promoted = await operator.post("/models/fraud/promote/production", json={"version": "2"})
        assert promoted.status_code == 409
        (reason,) = [one for one in promoted.json()["reasons"] if one.startswith("replay:")]
        assert "mlcp replay fraud --candidate 2 --since 2d" in reason

    asked = await ask(api, segment="night", reason="is it fit?")
    assert (asked["state"], asked["summary"], asked["gate"]) == ("wanted", [], None)
    again = await ask(api, segment="night")
    assert again["id"] == asked["id"], "the same question is asked once"
    done = await run(api, dsn, home, asked)
    await end(api, done)
    report = done.report
    assert report is not None
    assert (report.rows, report.units, report.left_out) == (600, 100, {})
    assert report.versions == {"1": 600}
    assert (report.consistency.rows, report.consistency.differ) == (600, 0)

    rows = [record["features"] for record in (*old, *new)]
    said = [replayed.answers(one, rows) for one in (before, after)]
    flips = [i for i in range(600) if said[0][i]["decision"] != said[1][i]["decision"]]
    assert report.flips is not None
    assert (report.flips.rows, report.flips.count) == (600, len(flips))
    assert report.flips.rate.low is not None
    assert report.flips.rate.high is not None
    assert report.flips.rate.low < len(flips) / 600 < report.flips.rate.high
    assert sum(one.count for one in report.flips.directions) == len(flips)
    scores = [[answer["output"]["probability"] for answer in side] for side in said]
    moved = sum(b - a for a, b in zip(*scores, strict=True)) / 600
    assert report.shift is not None
    assert report.shift.difference.value == pytest.approx(moved, abs=1e-9)
    (example, *_) = report.flips.examples
    assert example.features["risk"] == "***", "declared personal"
    assert isinstance(example.features["amount"], float)
    assert "customer-" not in done.model_dump_json()

    assert (report.labels.labelled, report.labels.hidden, report.labels.waiting) == (600, 0, 0)
    cost = next(change for change in report.metrics if change.name == "cost")
    assert (cost.baseline, cost.candidate) == tuple(pytest.approx(_cost(rows, side)) for side in said)
    assert {one.name: one.rows for one in report.segments} == {
        name: sum(row["night"] is value for row in rows) for name, value in (("true", True), ("false", False))
    }
    assert all(report.latency[name].single for name in ("baseline", "candidate"))
    assert done.gate == []

    async with await api.as_("viewer") as viewer:
        listed = (await viewer.get("/models/fraud/replays")).json()["items"]
        assert [(one["id"], one["report"]) for one in listed] == [(asked["id"], None)]
        shown = (await viewer.get(f"/models/fraud/replays/{asked['id']}")).json()
        assert shown["report"]["flips"]["count"] == len(flips)
        assert (await viewer.get(f"/models/other/replays/{asked['id']}")).status_code == 404
        strict = {"version": "2", "replay": {"since_days": 2, "min_rows": 601}}
        planned = (await viewer.post("/models/fraud/plan", json=strict)).json()
        assert [one for one in planned["reasons"] if "replay" in one] == [
            "replay: 600 rows were compared, 601 are asked for (INCONCLUSIVE)."
        ]
    async with await api.as_("operator") as operator:
        promoted = await operator.post("/models/fraud/promote/production", json={"version": "2"})
        assert not [one for one in promoted.json().get("reasons", []) if "replay" in one], promoted.text
    async with api.maker() as session:
        actions = list(await session.scalars(select(AuditRow.action).order_by(AuditRow.seq)))
        assert actions.count("replay.want") == actions.count("replay.done") == 1
    async with api.maker.begin() as session:  # another artifact under the same number: the answer is not about it
        await session.execute(update(ModelVersionRow).where(ModelVersionRow.version == "2").values(digest="sha256:0"))
    assert (await ask(api, segment="night"))["id"] != asked["id"]
    async with api.maker.begin() as session:
        await store.forget(session, "fraud", [example.prediction_id])
        kept = await session.get(ReplayRow, UUID(asked["id"]), populate_existing=True)
        assert kept is not None
        assert example.prediction_id not in json.dumps(kept.report)


def _cost(rows: list[dict[str, Any]], said: list[dict[str, Any]]) -> float:
    total = 0.0
    for row, answer in zip(rows, said, strict=True):
        fraud, review = row["amount"] + 100 * (row["risk"] or 0) > 150, answer["decision"] == "review"
        total += 0.0 if fraud is review else row["amount"] if fraud else 5.0
    return total / len(rows)


async def test_skew_refusals_and_labels_the_decision_prevented_are_found(api: Api, dsn: str, home: Path) -> None:
    label = {"absence_means": "negative", "depends_on_decision": True}
    ours, theirs = await replayed.model(api.maker, home, label=label)
    engine = api.maker.kw["bind"]
    stricter = replayed.CONFIG | {"features": replayed.FEATURES | {"risk": {"type": "number"}}, "label": label}
    await add_version(api.maker, "fraud", "3", digest=theirs, config=stricter)
    before = replayed.engine_of(home, ours, replayed.CONFIG)
    rows = replayed.traffic(220, LATELY, seconds=1)
    records = await replayed.answered(engine, before, rows)
    reviewed = sum(record["decision"] == "review" for record in records)
    async with api.maker.begin() as session:  # an answer nobody gives any more
        changed = {"id": records[0]["prediction_id"], "output": '{"probability": 0.123}'}
        await session.execute(
            text("UPDATE predictions SET output = CAST(:output AS jsonb) WHERE prediction_id = :id"), changed
        )
        await session.execute(
            text("UPDATE predictions SET shadow = true WHERE prediction_id = :id"), {"id": records[1]["prediction_id"]}
        )
        await session.execute(text("DELETE FROM outcomes"))
    done = await run(api, dsn, home, await ask(api, candidate="3"))
    report = done.report
    assert report is not None
    assert report.left_out == {"copies for a shadow": 1}
    assert (report.consistency.rows, report.consistency.differ) == (219, 1)
    assert "skew" in done.summary[0]
    nulls = sum(features["risk"] is None for _, _, features in rows)
    assert report.refused == {"baseline": 0, "candidate": nulls}
    assert [(one.feature, one.reason, one.rows) for one in report.refusals] == [
        ("risk", "expected a number, got null", nulls)
    ]
    assert [(one.name, one.change) for one in report.features] == [("risk", "may not be null any more")]
    assert 0 < report.labels.hidden <= reviewed
    assert report.labels.labelled + report.labels.hidden == report.rows
    cost = next(change for change in report.metrics if change.name == "cost")
    assert cost.bounds is not None
    assert "prevented" in cost.why


async def test_what_cannot_be_replayed_is_refused_with_every_reason(api: Api, dsn: str, home: Path) -> None:
    ours, _ = await replayed.model(api.maker, home)
    await add_version(
        api.maker, "fraud", "4", digest=None, config=replayed.CONFIG | {"serving": {"endpoint": "http://x"}}
    )
    refused = await ask(api, 422, candidate="4", segment="risk")
    assert refused["reasons"] == [
        "the artifact of version 4 has not been read yet.",
        "version 4 runs at somebody else's endpoint; there is nothing to run here.",
    ]
    assert (await ask(api, 422, segment="risk"))["reasons"] == ["segment: risk is personal."]
    assert "nothing is logged of the future" in str(await ask(api, 422, since="2126-01-01T00:00:00Z"))
    assert "is the one to compare with" in str(await ask(api, 422, candidate="1"))
    assert "since" in str(await ask(api, 422, since="soon"))
    gone = await ask(api)
    (home / "cache" / "artifacts" / ours.removeprefix("sha256:") / "booster.ubj").write_bytes(b"no booster")
    with pytest.raises(Exception, match=r"MLflow|registry"):
        await run(api, dsn, home, gone)
    empty = {"since": "2025-01-01T00:00:00Z", "until": "2025-01-02T00:00:00Z"}
    replayed.artifact(home, seed=0)
    done = await run(api, dsn, home, await ask(api, **empty))
    assert done.summary == ["No row could be compared: nothing was logged."]


def test_a_version_knows_no_password_and_ends_with_its_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCP_POSTGRES_DSN", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = replayed.artifact(home, seed=0)
    folder = home / "cache" / "artifacts" / found.removeprefix("sha256:")
    version = Version("fraud", "1", found, "native", folder, replayed.CONFIG)
    with Scorer(version, home=home) as scorer:
        scorer.wait_ready(120)
        environ = Path(f"/proc/{scorer._process.pid}/environ").read_bytes()
        assert b"secret" not in environ
        assert b"MLCP_" not in environ
        rows = ['{"amount": 5.0, "night": true, "risk": null, "more": 1}', '{"amount": "x", "night": true, "risk": 1}']
        scored = scorer.score(rows, siblings="more", singles=2)
        assert [(at, name) for at, name, _ in scored.refused] == [(1, "amount")]
        assert "x" not in scored.refused[0][2].replace("expected", "")
        assert scored.said[0] in {"accept", "review"}
        scorer._process.kill()
        with pytest.raises(InvalidInput, match="ended with -9"):
            scorer.score(rows)
    other = Version("fraud", "1", "sha256:0", "native", folder, replayed.CONFIG)
    with Scorer(other, home=home) as scorer, pytest.raises(InvalidInput, match="not the one registered"):
        scorer.wait_ready(120)


def test_the_worker_starts_a_replay_in_a_process_of_its_own(home: Path) -> None:
    row = JobRow(id=UUID(int=7), kind="replay", model="fraud", args={})
    settings = WorkerSettings(postgres_dsn=SecretStr("postgresql://x"), home=home)
    argv = carry_out._command(row, settings)
    assert argv is not None
    assert argv[1:] == ["-m", "control_plane.ingest.replayer", str(row.id)]
