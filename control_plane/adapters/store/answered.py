"""Answers of one version with the truth, where it is known: the newest ones, never more than asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Float, case, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adapters.store.tables import OutcomeRow, PredictionRow


@dataclass(frozen=True, slots=True)
class Answer:
    """`score`: probability, else value. `said`: the decision's word, else the label. `truth` None: not known."""

    score: float | None
    said: str | None
    above: bool | None  # probability >= the threshold in force; None without one
    threshold: float | None
    truth: float | bool | str | None


async def newest(
    session: AsyncSession, model: str, version: str, *, since: datetime, until: datetime, limit: int
) -> Sequence[Answer]:
    """Customers' answers received in [since, until), newest first; corrections of a truth count."""
    row, outcome = PredictionRow, OutcomeRow
    first_day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    answers = (
        select(row.prediction_id, row.output, row.decision, row.threshold)
        .where(row.model == model, row.received_at >= since, row.received_at < until, row.day >= first_day)
        .where(row.served_version == version, row.status == "ok", ~row.shadow, ~row.pinned)
        .order_by(row.received_at.desc())
        .limit(limit)
        .subquery()
    )
    truth = (
        select(outcome.value)
        .where(outcome.prediction_id == answers.c.prediction_id, outcome.name == "label", outcome.model == model)
        .order_by(outcome.observed_at.desc(), outcome.received_at.desc())
        .limit(1)
        .lateral()
    )
    probability, value = (_number(answers.c.output[name]) for name in ("probability", "value"))
    said = func.coalesce(answers.c.decision, answers.c.output["label"].astext)
    shown = (func.coalesce(probability, value), said, probability >= answers.c.threshold, answers.c.threshold)
    query = select(*shown, truth.c.value).select_from(answers.outerjoin(truth, true()))
    return [Answer(*found) for found in await session.execute(query)]


def _number(document: Any) -> Any:
    """The JSON number, or NULL for anything else: a stranger's model may answer whatever it likes."""
    return case((func.jsonb_typeof(document) == "number", cast(document[()].astext, Float)), else_=None)
