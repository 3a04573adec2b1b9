"""`python -m control_plane.worker.reporter JOB_ID`: makes one report. Prints what it made as JSON.

The worker starts it for every job of the kind `report`. Run again it makes the same report anew, in its own place.
"""

import asyncio
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters import narrator, store, typeset
from control_plane.adapters.objects import Objects, location
from control_plane.adapters.store import jobs, versions
from control_plane.adapters.store import reports as report_store
from control_plane.adapters.store.tables import JobRow, ReportRow
from control_plane.contracts import reports as wire
from control_plane.domain.governance.policy import Severity
from control_plane.domain.notices import Notice
from control_plane.domain.reports import summary
from control_plane.domain.reports.facts import Facts, Kind, Report
from control_plane.errors import ControlPlaneError, NotFound
from control_plane.services import notices, reports
from control_plane.services.evidence import Defaults
from control_plane.settings import ReporterSettings
from control_plane.telemetry import configure_logging

_PATIENCE = timedelta(seconds=60)  # until the registry's new version is known here
_LOOK_S = 1.0


async def run(settings: ReporterSettings, job_id: UUID) -> dict[str, Any]:
    """Make the report the job asks for, and say where it is."""
    engine = store.create_engine(settings.postgres_dsn.get_secret_value(), pooler=settings.transaction_pooler, size=1)
    sessions = store.sessions(engine)
    try:
        async with store.transaction(sessions) as session:
            job = await jobs.load(session, job_id)
        found = await _facts(settings, sessions, job)
        report = await narrate(settings, found)
        document = wire.document(report)
        pdf = await asyncio.to_thread(typeset.pdf, document.decode())
        objects = Objects(location(settings.archive_url, settings.home), reports.FOLDER)
        await asyncio.to_thread(objects.put, reports.file(job_id, "json"), document)
        await asyncio.to_thread(objects.put, reports.file(job_id, "pdf"), pdf)
        row = ReportRow(
            id=job_id,
            model=str(job.model),
            kind=found.kind.value,
            title=found.title,
            summary=list(report.summary),
            made_at=found.at,
            sha256=hashlib.sha256(document).hexdigest(),
            pdf_sha256=hashlib.sha256(pdf).hexdigest(),
        )
        path = f"/api/v1/reports/{job_id}.pdf"
        async with store.transaction(sessions) as session:
            await report_store.save(session, row)
            said = Notice(
                f"report:{job_id}", "report.made", Severity.INFO, job.model, found.title, report.summary, path
            )
            await notices.tell(session, said, now=datetime.now(UTC))
    finally:
        await engine.dispose()
    return {"event": "made", "report": str(job_id), "title": found.title, "summary_by": report.summary_by}


async def _facts(settings: ReporterSettings, sessions: async_sessionmaker[AsyncSession], job: JobRow) -> Facts:
    kind, args = Kind(job.args["kind"]), job.args
    rollout = UUID(args["rollout_id"]) if args.get("rollout_id") else None
    defaults = Defaults(settings.auto_promote_threshold, settings.performance_degradation_threshold)
    if kind is Kind.RETRAINING and args.get("version"):
        await _known(sessions, str(job.model), str(args["version"]))
    async with store.transaction(sessions) as session:
        return await reports.gather(
            session,
            kind,
            str(job.model),
            report_id=job.id,
            now=datetime.now(UTC),
            rollout_id=rollout,
            version=args.get("version"),
            month=args.get("month"),
            defaults=defaults,
        )


async def _known(sessions: async_sessionmaker[AsyncSession], model: str, version: str) -> None:
    """Wait for a version just registered: the reconciler looks at the registry every few seconds."""
    deadline = datetime.now(UTC) + _PATIENCE
    while datetime.now(UTC) < deadline:
        async with store.transaction(sessions) as session:
            try:
                await versions.version(session, model, version)
                return
            except NotFound:
                pass
        await asyncio.sleep(_LOOK_S)


async def narrate(settings: ReporterSettings, found: Facts) -> Report:
    """The template's summary, or a language model's where one is configured and every number of it is a fact."""
    template = summary.sentences(found)
    if settings.summary_url is None:
        return Report(found, template)
    key = settings.summary_key.get_secret_value() if settings.summary_key else None
    try:
        text = await narrator.written(settings.summary_url, settings.summary_model, key, template, wire.facts(found))
    except ControlPlaneError as exc:
        return Report(found, template, summary_note=f"No other summary was taken: {exc.detail}")
    why = summary.usable(text, found)
    if why is not None:
        return Report(found, template, summary_note=f"The summary of {settings.summary_model} was not taken: {why}.")
    return Report(found, (" ".join(text.split()),), summary_by=settings.summary_model)


def main() -> int:
    settings = ReporterSettings()  # pyright: ignore[reportCallIssue]  (the environment has the rest)
    configure_logging("reporter", level=settings.log_level)
    try:
        said, code = asyncio.run(run(settings, UUID(sys.argv[1]))), 0
    except ControlPlaneError as exc:
        said, code = {"event": "failed", "detail": exc.detail}, 1
    sys.stdout.write(json.dumps(said) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
