"""Whether the log has enough to learn from, and whether what was learnt is better than Production. Pure."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, cast
from uuid import UUID

from control_plane.domain.model_config import Label, ModelConfig, Problem
from control_plane.domain.rollouts import Verdict

_RARER_SHARE: Final = 0.1  # of `training.retrain_rows`, that the rarer answer of a binary problem must have
FOLDER: Final = "retraining"  # of the archive: rows lie there for as long as the job that learns from them is open
LOG_TIME: Final = "received_at"  # the time column of rows out of the log, where model.yaml names none


def file_of(job_id: UUID) -> str:
    """Of a job's rows, below FOLDER."""
    return f"{job_id}.ndjson.gz"


class Source(StrEnum):
    """Where a retraining takes its rows from."""

    ARCHIVE = "archive"  # the prediction log and its outcomes, in Postgres and in the archive
    FILE = "file"
    SIMULATED = "simulated"  # the model's own simulate.py


@dataclass(slots=True)
class Gathered:
    """What became of the answers of a period. Each is counted once: the members but `classes` add up to `answers`."""

    answers: int = 0
    unusable: int = 0  # failed, a shadow's copy, without a unit the model needs, or features that are no document
    young: int = 0  # their label has not had its time
    unlabelled: int = 0
    repeated: int = 0  # the same `id` or `training.unique` came again later
    rows: int = 0  # to learn from and to be judged on
    classes: dict[str, int] = field(default_factory=dict[str, int])  # of the rows; empty for numbers

    def document(self) -> dict[str, Any]:
        return asdict(self)


def shortages(found: Gathered, config: ModelConfig) -> list[str]:
    """Why these rows are too few, with every number it takes to see it; empty when they suffice."""
    least = config.training.retrain_rows
    short: list[str] = []
    if found.rows < least:
        short.append(f"{found.rows:,} labelled rows, {least:,} are needed (training.retrain_rows)")
    rarer = max(1, round(least * _RARER_SHARE))
    if found.rows and config.problem in {Problem.BINARY, Problem.MULTICLASS}:
        if len(found.classes) < 2:
            short.append(f"every label says {next(iter(found.classes), 'nothing')}")
        elif config.problem is Problem.BINARY and min(found.classes.values()) < rarer:
            name, count = min(found.classes.items(), key=lambda item: item[1])
            short.append(f"{count:,} rows of {name}, {rarer:,} are needed")
    return short


def told(found: Gathered, label: Label) -> str:
    """What was found, in one sentence."""
    days = label.delay_s / 86_400
    parts = [f"{found.answers:,} answers", f"{found.unusable:,} not usable"]
    parts += [f"{found.young:,} whose label has not had its {days:g} days", f"{found.unlabelled:,} without a label"]
    return ", ".join([*parts, f"{found.repeated:,} repeated", f"{found.rows:,} rows"])


@dataclass(frozen=True, slots=True)
class Difference:
    """The new version minus Production on the same rows, in the metric's unit, with its paired 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judged:
    """PASS: better beyond doubt, or the first version there is. INCONCLUSIVE and FAIL leave Production alone."""

    verdict: Verdict
    why: str


def judge(
    metric: str, difference: Difference | None, *, higher_is_better: bool, production: str | None, rows: int
) -> Judged:
    """`production`: the version compared with, None without one. `difference` None: they could not be compared.

    A bound that is NaN decides nothing.
    """
    if production is None:
        return Judged(Verdict.PASS, "There is no Production version to be better than.")
    if difference is None:
        why = f"It could not be compared with Production version {production} on rows neither has learnt from."
        return Judged(Verdict.INCONCLUSIVE, why)
    sign = 1 if higher_is_better else -1
    bounds = sorted((sign * difference.low, sign * difference.high))
    said = f"{metric} {difference.value:+.4f} beside version {production} on the same {rows:,} rows"
    said += f" (95 %: {difference.low:+.4f} to {difference.high:+.4f})"
    if not all(math.isfinite(one) for one in (difference.value, *bounds)):
        return Judged(Verdict.INCONCLUSIVE, f"Not to be told: {said}.")
    if bounds[0] > 0:
        return Judged(Verdict.PASS, f"Better: {said}.")
    if bounds[1] < 0:
        return Judged(Verdict.FAIL, f"Worse: {said}.")
    return Judged(Verdict.INCONCLUSIVE, f"No better beyond doubt: {said}.")


def comparison(found: Mapping[str, Any]) -> tuple[str | None, Difference | None]:
    """Version and difference of the `production` member of a version's evidence; (None, None) without one."""
    version, given = found.get("version"), found.get("difference")
    if version is None:
        return None, None
    if not isinstance(given, Mapping):
        return str(version), None
    bounds = cast("Mapping[str, object]", given)
    numbers = [float(n) for name in ("value", "low", "high") if isinstance(n := bounds.get(name), int | float)]
    return str(version), Difference(*numbers) if len(numbers) == 3 else None
