"""Drift between two sets of rows, offline: no server is asked.

    detector = DriftDetector("reference.parquet")
    report = detector.detect_drift("today.csv")
    report.verdict, report.drifted      # FAIL, ["amount"]

The statistics live in `control_plane.domain.drift`; they need numpy, which the SDK must not, so a process of its own
computes them. What live traffic does is watched by the control plane itself, against each version's own profile.
"""

import json
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from control_plane.contracts.drift import FeatureDrift
from control_plane.domain.rollouts import Verdict
from control_plane.errors import InvalidInput
from control_plane.sdk import subprocesses


class Frame(Protocol):
    """What a pandas or polars-like frame offers."""

    def to_dict(self, *, orient: Any) -> Any: ...


Rows = str | Path | list[dict[str, Any]] | tuple[dict[str, Any], ...] | Frame


class DriftReport(BaseModel):
    """`verdict`: FAIL if any column drifted, else INCONCLUSIVE if any could not be judged, else PASS."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    why: str
    features: list[FeatureDrift]  # the largest PSI first
    largest_psi: float | None
    reference_rows: int
    current_rows: int
    left_out: list[str]  # columns of the reference that are neither numbers, true and false, nor text

    @property
    def drifted(self) -> list[str]:
        return [feature.name for feature in self.features if feature.verdict is Verdict.FAIL]


class DriftDetector:
    """Compares rows with `reference`: a CSV, Parquet or NDJSON file, a folder of Parquet files, a version's
    profile.json, rows, or a frame.

    `psi`: practical threshold per column. `alpha`: false alarms per look over all columns together. `types`: column ->
    number, integer, boolean, category or text, instead of what the values say. `histograms`: of every column, too.
    `workers`: so many Dask processes of this host read and count; `scheduler`: those of this Dask scheduler.
    """

    def __init__(
        self,
        reference: Rows,
        *,
        psi: float = 0.1,
        alpha: float = 0.01,
        types: Mapping[str, str] | None = None,
        histograms: bool = False,
        workers: int | None = None,
        scheduler: str | None = None,
    ) -> None:
        self._reference = reference
        self._options = [f"--psi={psi}", f"--alpha={alpha}"]
        self._options += [f"--type={name}={kind}" for name, kind in (types or {}).items()]
        self._options += ["--histograms"] if histograms else []
        self._options += subprocesses.workers(workers, scheduler)

    def detect_drift(self, current: Rows) -> DriftReport:
        """One look at `current`.

        Raises:
            InvalidInput: a file cannot be read, or the two have no column in common.
            Unavailable: numpy, scipy or pyarrow are not installed, or the scheduler does not answer.
        """
        with _file(self._reference) as reference, _file(current) as looked_at:
            files = ["--reference", str(reference), "--current", str(looked_at)]
            *_, found = subprocesses.events("serving", "control_plane.embedded.drift", *files, *self._options, "--json")
        return DriftReport.model_validate(found)


@contextmanager
def _file(rows: Rows) -> Generator[Path]:
    """The file itself, or the rows in a temporary one."""
    if isinstance(rows, str | Path):
        yield Path(rows)
        return
    listed: Sequence[Mapping[str, object]] = rows if isinstance(rows, list | tuple) else rows.to_dict(orient="records")
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
        for row in listed:
            file.write(json.dumps(dict(row), default=_plain) + "\n")
        file.flush()
        yield Path(file.name)


def _plain(value: Any) -> object:
    """A numpy scalar as the Python value it is; anything else JSON does not know as text."""
    try:
        return value.item()
    except AttributeError:
        return str(value)
    except ValueError as exc:
        raise InvalidInput(f"A cell holds {type(value).__name__}, not one value.") from exc
