"""Reports of real rows: wanted, made by their own process, fetched in both forms."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.store import analysis, drift, rollouts
from control_plane.adapters.store.analysis import Run
from control_plane.domain import rollouts as domain
from control_plane.domain.audit import Actor
from control_plane.domain.reports import summary
from control_plane.domain.rollouts import Phase, Plan, Step, Strategy
from control_plane.errors import Forbidden, InvalidInput, NotFound
from control_plane.sdk import AsyncControlPlane
from control_plane.services import cutover
from control_plane.services.cutover import Cause
from control_plane.settings import ReporterSettings
from control_plane.worker import reporter, schedule
from tests.support.api import Api, add_model
from tests.support.report_facts import everything

pytestmark = pytest.mark.integration
WHY = "a test"
MINUTE = timedelta(minutes=1)
Sessions = async_sessionmaker[AsyncSession]
ARMS = {"candidate": {"units": 40, "mean": 0.2}, "baseline": {"units": 50, "mean": 0.1}}
WORSE: dict[str, Any] = {
    "metric": "error_rate",
    "role": "guardrail",
    "comparison": "difference",
    "verdict": "fail",
    "why": "worse",
    **ARMS,
    "effect": 0.1,
    "low": 0.01,
    "high": 0.2,
}
EVIDENCE = {"measurements": [WORSE]}
LOOK: dict[str, Any] = {  # as the worker keeps one
    "reference": {"source": "training", "rows": 5_000, "created_at": "2026-01-01T00:00:00Z"},
    "basis": "days",
    "window": {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "rows": 900, "blocks": 800},
    "readings": [
        {"kind": "data", "verdict": "fail", "alarm": True, "score": 0.31, "why": "amount", "features": ["amount"]}
    ],
    "features": [
        {
            "name": "amount",
            "verdict": "fail",
            "why": "w",
            "rows": 900,
            "psi": 0.31,
            "limit": 0.2,
            "js": None,
            "ks": None,
        }
        | {"ks": None, "wasserstein": None, "cramers_v": None, "findings": [], "log_evidence": 9.0, "share": None}
    ],
    "prediction": None,
    "performance": {},
}


async def make(dsn: str, home: Path, job: object, **env: str) -> dict[str, Any]:
    """As the worker does."""
    told = {**os.environ, "MLCP_HOME": str(home), "MLCP_POSTGRES_DSN": dsn, **env}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane.worker.reporter", str(job), env=told, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(child.communicate(), 240)
    return dict(json.loads(out))


async def test_a_report_is_wanted_made_and_read_in_both_forms(api: Api, dsn: str, home: Path) -> None:
    await add_model(api.maker)
    async with AsyncControlPlane(api.url, await api.key("operator")) as cp:
        await cp.set_stage("fraud", "1", stage="staging", reason="first look")
        job = await cp.make_report("fraud", "monthly", reason=WHY)
        with pytest.raises(NotFound):
            await cp.report(job.id)
        said = await make(dsn, home, job.id)
        assert said["event"] == "made", said
        found = await cp.report(job.id)
        pieces, pdf = list[bytes](), list[bytes]()
        await cp.report_json(pieces.append, job.id)
        await cp.report_pdf(pdf.append, job.id)
        schema = await cp.report_schema()
        listed = (await cp.reports(model="fraud", kind="monthly")).items
    document = json.loads(b"".join(pieces))
    Draft202012Validator(schema).validate(document)
    assert [one.id for one in listed] == [found.id]
    assert document["summary"] == found.summary
    assert document["facts"]["scores"][0]["value"] == 0.72
    assert document["facts"]["inventory"]["undeclared"] == ["owner", "purpose", "materiality"]
    assert any("first look" in line["why"] for line in document["facts"]["timeline"])
    assert b"".join(pdf).startswith(b"%PDF-")


async def test_what_cannot_be_reported_is_refused_by_name(api: Api) -> None:
    await add_model(api.maker)
    async with AsyncControlPlane(api.url, await api.key("operator", "fraud")) as cp:
        with pytest.raises(Forbidden):
            await cp.make_report("churn", "monthly", reason=WHY)
        with pytest.raises(InvalidInput):
            await cp.make_report("fraud", "weekly", reason=WHY)
        with pytest.raises(NotFound):
            await cp.make_report("fraud", "retraining", version="9", reason=WHY)
    async with AsyncControlPlane(api.url, await api.key("viewer")) as cp:
        with pytest.raises(Forbidden):
            await cp.make_report("fraud", "monthly", reason=WHY)
        assert (await cp.reports()).items == []


async def test_a_release_that_never_was_fails_the_job_with_a_sentence(api: Api, dsn: str, home: Path) -> None:
    await add_model(api.maker)
    async with AsyncControlPlane(api.url, await api.key("operator")) as cp:
        job = await cp.make_report("fraud", "deployment", reason=WHY)
    said = await make(dsn, home, job.id)
    assert said == {"event": "failed", "detail": "fraud has no deployment to report on."}


async def test_what_ends_a_release_asks_for_its_report_and_the_evidence_is_in_it(
    api: Api, dsn: str, home: Path
) -> None:
    await add_model(api.maker)
    now = datetime.now(UTC)
    state = domain.Rollout(Plan(Strategy.CANARY, (Step(1_000, MINUTE),)), now, phase=Phase.PROGRESSING)
    why = Cause(Actor("reconciler"), "test")
    async with api.maker.begin() as session:
        entry = await rollouts.add(
            session, state, model="fraud", kind="promotion", candidate="2", stable="1", created_by="ann", now=now
        )
        await analysis.add_run(session, entry.id, Run(now, 0, "fail", "worse", "worse", "aborted", EVIDENCE))
        await drift.save_look(session, "fraud", "2", LOOK, at=now)
        lost = domain.abort(state, "error_rate is worse", now=now)
        await cutover.move(session, entry, lost, action="rollout.abort", cause=why, now=now, warm=MINUTE)
        [(job, args)] = await session.execute(text("SELECT id, args FROM jobs_wanted WHERE kind = 'report'"))
    assert args == {"kind": "rollback", "rollout_id": str(entry.id)}
    said = await make(dsn, home, job)
    assert said["event"] == "made", said
    facts = json.loads((home / "archive" / "reports" / f"{job}.json").read_text())["facts"]
    assert facts["release"]["phase"] == "aborted"
    assert facts["release"]["measured"][0]["low"] == 0.01
    assert facts["drift"]["features"] == [{"name": "amount", "verdict": "fail", "psi": 0.31, "limit": 0.2}]
    assert [what["what"] for what in facts["timeline"]] == ["rollout.abort"]


async def test_each_month_is_reported_once_of_every_model_that_answered_in_it(maker: Sessions) -> None:
    for name in ("churn", "fraud", "new"):
        await add_model(maker, name)
    async with maker.begin() as session:
        await session.execute(text("UPDATE models SET production_version = '1' WHERE name <> 'churn'"))
        await session.execute(text("UPDATE models SET created_at = '2026-11-01T00:00:01Z' WHERE name = 'new'"))
    for hour in (0, 1, 700):
        await schedule.monthly(maker, datetime(2026, 11, 1, 0, 12, tzinfo=UTC) + timedelta(hours=hour))
    async with maker() as session:
        wanted = (await session.execute(text("SELECT model, args FROM jobs_wanted"))).all()
    assert [tuple(row) for row in wanted] == [("fraud", {"kind": "monthly", "month": "2026-10"})]


@asynccontextmanager
async def endpoint(text: str) -> AsyncIterator[str]:
    """A local endpoint that speaks the chat completions API and always says `text`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = [line for line in head.lower().splitlines() if line.startswith(b"content-length")]
        await reader.readexactly(int(length.split(b":")[1]))
        body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("text", "taken"),
    [("Version 12 of churn reaches a roc_auc of 0.8449.", True), ("Version 12 of churn reaches 0.9312.", False)],
)
async def test_a_language_model_that_invents_a_number_is_caught(text: str, taken: bool) -> None:
    facts = everything()
    async with endpoint(text) as url:
        settings = ReporterSettings(postgres_dsn=SecretStr("unused"), summary_url=url, summary_model="local")
        made = await reporter.narrate(settings, facts)
    if taken:
        assert (made.summary, made.summary_by) == ((text,), "local")
    else:
        assert (made.summary, made.summary_by) == (summary.sentences(facts), "template")
        assert "0.9312" in (made.summary_note or "")


async def test_an_endpoint_that_does_not_answer_leaves_the_template() -> None:
    settings = ReporterSettings(postgres_dsn=SecretStr("unused"), summary_url="http://127.0.0.1:9/v1")
    made = await reporter.narrate(settings, everything())
    assert made.summary_by == "template"
    assert "no answer" in (made.summary_note or "")
