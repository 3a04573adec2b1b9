"""Erasure of everything that names or describes one unit. Answers, counts and metrics stay."""

import asyncio
import base64
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive, Row
from control_plane.adapters.store import erasures, replays
from control_plane.domain import quality as domain
from control_plane.domain.model_config import Label
from control_plane.services import quality


@dataclass(slots=True)
class Report:
    """What lost the unit's data."""

    predictions: int = 0
    outcomes: int = 0
    archived_predictions: int = 0
    archive_files: int = 0
    dead_letters: int = 0  # removed: nobody could read them anyway


async def run(
    sessions: async_sessionmaker[AsyncSession], archive: Archive, letters: Path, job_id: UUID, *, now: datetime
) -> dict[str, Any]:
    """Carry out what was asked for under this job. Done twice it finds nothing the second time.

    Records that still lie in a spool are erased by the ingester when they come. `letters`: this host's dead letters.
    """
    async with sessions() as session:
        asked = await erasures.load(session, job_id)
    if asked is None or asked.unit_id is None:
        return dict((asked.report if asked else None) or asdict(Report()))
    unit, report = asked.unit_id, Report()
    async with sessions.begin() as session:
        await erasures.settle(session)
    async with sessions() as session:
        models = await erasures.models_of(session, unit)
    for model in models:
        async with sessions.begin() as session:
            config = await quality.config_of(session, model)
            window = domain.window(config.label if config else Label())
            await replays.forget(session, model, await erasures.identities(session, model, unit))
            predictions, outcomes = await erasures.erase(session, model, unit, window)
        report.predictions += predictions
        report.outcomes += outcomes
    async with sessions.begin() as session:
        await erasures.unlink(session, unit)
    for model, identities in (await asyncio.to_thread(_archive, archive, unit, report)).items():
        async with sessions.begin() as session:
            await replays.forget(session, model, identities)
    report.dead_letters = await asyncio.to_thread(_letters, letters, unit)
    async with sessions.begin() as session:
        await erasures.end(session, job_id, asdict(report), now=now)
    return asdict(report)


def _archive(archive: Archive, unit: str, report: Report) -> dict[str, list[str]]:
    """Write every file anew that names the unit; the old one goes when the new one counts. Its predictions by model."""
    named: dict[str, list[str]] = {}
    for model in archive.models():
        for manifest in archive.hours(model):
            found = archive.names(manifest, unit)
            if not found:
                continue
            hour = datetime.fromisoformat(manifest.hour)
            mine = named.setdefault(model, [])
            blanked = (
                [_blanked(row, unit, mine) for row in batch.to_pylist()] for batch in archive.file_batches(manifest)
            )
            archive.publish(archive.write(model, hour, blanked, changed=manifest.changed))
            report.archived_predictions += found
            report.archive_files += 1
    return named


def _names(row: Row, unit: str) -> bool:
    return row["unit_id"] == unit or any(outcome["unit_id"] == unit for outcome in row["outcomes"] or ())


def _blanked(row: Row, unit: str, named: list[str]) -> Row:
    if not _names(row, unit):
        return row
    named.append(row["prediction_id"])
    outcomes = [{**outcome, "unit_id": None} for outcome in row["outcomes"] or ()]
    return {**row, "unit_id": None, "request_id": None, "features": None, "outcomes": outcomes}


def _letters(folder: Path, unit: str) -> int:
    """Remove dead letters that hold the unit's name."""
    removed, name = 0, unit.encode()
    for path in folder.glob("*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if name not in _content(line)]
        if len(kept) < len(lines):
            fresh = path.with_suffix(".new")
            descriptor = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
            removed += len(lines) - len(kept)
    return removed


def _content(line: bytes) -> bytes:
    try:
        return base64.b64decode(json.loads(line)["data"])
    except (ValueError, KeyError, TypeError):
        return line
