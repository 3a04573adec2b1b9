"""A candidate over logged traffic, beside the version it would replace: `compare`."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.adapters.archive import Archive
from control_plane.adapters.artifacts import ArtifactCache
from control_plane.adapters.scorers import Scored, Scorer, Version
from control_plane.adapters.store import versions
from control_plane.adapters.store.tables import ModelVersionRow
from control_plane.domain import quality
from control_plane.domain.model_config import Label, ModelConfig
from control_plane.domain.replay import read
from control_plane.domain.replay.report import FeatureChange, Flips, Refusal, Report
from control_plane.errors import InvalidInput
from control_plane.services import evidence, logged_rows, replayable
from control_plane.services.logged_rows import Piece
from control_plane.services.replay_fold import Chosen, Fold, Subject

ROWS: Final = 8_192  # of one chunk
_SINGLES: Final = 8  # rows of a chunk that are timed alone as well
_LOAD_S: Final = 1_800.0  # an environment may have to be built
_REFUSALS: Final = 20


@dataclass(frozen=True, slots=True)
class Place:
    """What a replay reads from and runs with. `processes`: that score at the same time, two at least."""

    sessions: async_sessionmaker[AsyncSession]
    archive: Archive
    artifacts: ArtifactCache
    home: Path
    processes: int = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """`rows` of `of` have been looked at."""

    rows: int
    of: int
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class _Pair:
    baseline: Scorer
    candidate: Scorer


async def compare(
    place: Place,
    model: str,
    candidate: str,
    baseline: str,
    since: datetime,
    until: datetime,
    *,
    sample: float = 1.0,
    segment: str | None = None,
    told: Callable[[Progress], None] = lambda progress: None,
) -> Report:
    """Both versions over everything logged in [since, until): what would have changed.

    Rows are streamed, each version runs in processes of its own without our credentials, and what is kept are sums: the
    memory needed does not grow with the window. `sample`: share of the customers. `segment`: a feature to tell apart
    by.

    Raises:
        InvalidInput: a version that cannot be replayed, versions that answer different questions, no such segment.
        NotFound: no such version. Damaged, Unavailable: the log cannot be read.
    """
    began = time.monotonic()
    rows = await _versions(place, model, baseline, candidate)
    subject = _subject(rows, sample, segment)
    artifacts = [await _version(place, row) for row in rows]
    found = await logged_rows.pieces(place.sessions, place.archive, model, since, until)
    fold, total, done = Fold(subject), sum(piece.rows for piece in found), 0
    siblings = ",".join(sorted({name for one in (subject.config, subject.candidate) if one for name in one.features}))
    with ExitStack() as stack:
        pairs = asyncio.Queue[_Pair]()
        count = max(1, place.processes // 2)
        pool = stack.enter_context(ThreadPoolExecutor(2 * count))
        made = [_Pair(*(stack.enter_context(Scorer(one, home=place.home)) for one in artifacts)) for _ in range(count)]
        loop = asyncio.get_running_loop()
        ready = [
            loop.run_in_executor(pool, scorer.wait_ready, _LOAD_S)
            for pair in made
            for scorer in (pair.baseline, pair.candidate)
        ]
        await asyncio.gather(*ready)
        for pair in made:
            pairs.put_nowait(pair)

        async def score(chosen: Chosen) -> tuple[Chosen, Scored, Scored]:
            pair = await pairs.get()
            try:
                features: Sequence[str] = chosen.columns["features"]

                def ask(scorer: Scorer) -> Scored:
                    return scorer.score(features, siblings=siblings, singles=_SINGLES)

                both = [loop.run_in_executor(pool, ask, scorer) for scorer in (pair.baseline, pair.candidate)]
                before, after = await asyncio.gather(*both)
            finally:
                pairs.put_nowait(pair)
            return chosen, before, after

        waiting = deque[asyncio.Task[tuple[Chosen, Scored, Scored]]]()
        started = time.monotonic()
        try:
            async for seen, chosen in _chunks(place, fold, subject, found, model, since, until):
                waiting.append(asyncio.create_task(score(chosen)))
                done += seen
                if len(waiting) > count + 1:  # folded in the order they came, whoever was faster
                    fold.add(*await waiting.popleft())
                    told(Progress(done, total, done / (time.monotonic() - started)))
            while waiting:
                fold.add(*await waiting.popleft())
        finally:
            for task in waiting:
                task.cancel()
        took = time.monotonic() - started
    told(Progress(done, total, done / max(took, 1e-9)))
    speed = fold.sums.rows / max(took, 1e-9)
    return _report(fold, subject, rows, since, until, found, took_s=time.monotonic() - began, rows_per_s=speed)


async def _chunks(
    place: Place, fold: Fold, subject: Subject, found: Sequence[Piece], model: str, since: datetime, until: datetime
) -> AsyncGenerator[tuple[int, Chosen]]:
    """How many rows were looked at, and those of them to replay."""
    window = quality.window(subject.config.label if subject.config else Label())
    for piece in found:
        async for columns in logged_rows.read(
            place.sessions, place.archive, model, piece, since, until, window=window, rows=ROWS
        ):
            chosen = fold.choose(columns)
            if chosen.columns["features"]:
                yield len(columns["features"]), chosen


async def _versions(place: Place, model: str, baseline: str, candidate: str) -> tuple[ModelVersionRow, ModelVersionRow]:
    async with place.sessions() as session:
        before = await versions.version(session, model, baseline)
        after = await versions.version(session, model, candidate)
    if wrong := [reason for row in (before, after) for reason in replayable.unusable(row)]:
        raise InvalidInput("This cannot be replayed.", model=model, reasons=wrong)
    return before, after


def _subject(rows: tuple[ModelVersionRow, ModelVersionRow], sample: float, segment: str | None) -> Subject:
    if wrong := replayable.mismatches(*rows, sample=sample, segment=segment):
        raise InvalidInput("This cannot be replayed.", model=rows[0].model, reasons=wrong)
    before, after = (evidence.config(row)[0] for row in rows)
    return Subject(rows[0].version, before, after, sample, segment, datetime.now(UTC))


async def _version(place: Place, row: ModelVersionRow) -> Version:
    assert row.digest is not None  # `unusable`
    tree = await place.artifacts.get(row.model, row.version, row.digest, native=row.runtime == "native")
    return Version(row.model, row.version, row.digest, row.runtime, tree, row.config, row.inferred)


def _report(
    fold: Fold,
    subject: Subject,
    rows: tuple[ModelVersionRow, ModelVersionRow],
    since: datetime,
    until: datetime,
    found: Sequence[Piece],
    *,
    took_s: float,
    rows_per_s: float,
) -> Report:
    sums, config = fold.sums, subject.config
    flips = read.flips(sums, fold.words)
    stale = sum(piece.stale for piece in found)
    notes = [f"{stale} hours are in the archive alone, without the labels of the last day."] if stale else []
    if not found:
        notes.append("Nothing was logged in this time.")
    return Report(
        model=rows[0].model,
        candidate=rows[1].version,
        baseline=rows[0].version,
        since=since,
        until=until,
        rows=sums.rows,
        units=sums.units(),
        left_out=dict(fold.left_out.most_common()),
        versions=dict(fold.versions.most_common(20)),
        consistency=fold.consistency(),
        shift=read.shift(sums),
        flips=None if flips is None else Flips(*flips, fold.examples.shown()),
        labels=read.labels(sums),
        metrics=read.metrics(sums),
        currency=config.costs.currency if config and config.costs else None,
        latency={name: times.shown() for name, times in fold.times.items()},
        refused={name: fold.refused[name] for name in ("baseline", "candidate")},
        refusals=tuple(Refusal(*what, count) for what, count in fold.refusals.most_common(_REFUSALS)),
        features=feature_changes(subject.config, subject.candidate),
        segments=read.segments(sums, fold.segments.word),
        segment=subject.segment,
        sample=subject.sample,
        took_s=took_s,
        rows_per_s=rows_per_s,
        notes=tuple(notes),
    )


def feature_changes(before: ModelConfig | None, after: ModelConfig | None) -> tuple[FeatureChange, ...]:
    """Features the candidate reads otherwise, by name."""
    if before is None or after is None:
        return ()
    made: list[FeatureChange] = []
    for name in sorted(before.features.keys() | after.features.keys()):
        old, new = before.features.get(name), after.features.get(name)
        if old is None and new is not None:
            made.append(FeatureChange(name, "new" if not new.nullable else "new, may be null"))
        elif new is None:
            made.append(FeatureChange(name, "not read any more"))
        elif old is not None and old.type is not new.type:
            made.append(FeatureChange(name, f"{old.type} -> {new.type}"))
        elif old is not None and old.nullable and not new.nullable:
            made.append(FeatureChange(name, "may not be null any more"))
        elif old is not None and old.categories != new.categories:
            made.append(FeatureChange(name, "other categories"))
    return tuple(made)
