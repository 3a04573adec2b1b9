"""`python -m control_plane.embedded.drift --reference FILE --current FILE [--json]`: drift between two files, offline.

A file is CSV, Parquet, NDJSON or a folder of Parquet files; the reference may also be a version's profile.json. Exit
code 0 whatever the verdict: the answer is in the report. Runs anywhere numpy, scipy and pyarrow are; no service is
asked. With --workers or --scheduler Dask workers read and count; the report is the same.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from control_plane.domain.drift import decide, document, fold
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import FeatureType
from control_plane.embedded import drift_files, drift_workers
from control_plane.errors import ControlPlaneError, InvalidInput
from training.common import workers
from training.common.workers import Workers


def report(
    reference: Path,
    current: Path,
    *,
    policy: decide.Policy,
    types: Mapping[str, FeatureType],
    bins: int,
    histograms: bool = False,
    by: Workers | None = None,
) -> dict[str, Any]:
    """The verdict as JSON-ready members; `left_out` names reference columns of a type drift is not defined for.

    `by`: who reads and counts; None: this process.

    Raises:
        InvalidInput: a file cannot be read, or they have no column in common.
    """
    known, left_out = _reference(reference, types, bins, by)
    with drift_files.opened(current) as file:
        if not known.features.keys() & file.kinds.keys():
            raise InvalidInput(f"{current} has none of the reference's columns: {', '.join(sorted(known.features))}.")
        window = drift_files.window(file, known) if by is None else drift_workers.window(by, file, known)
    found = decide.compare(known, window, policy)
    members = dataclasses.asdict(found)
    del members["prediction"], members["label"]  # columns of a file are features
    if histograms:
        for feature in members["features"]:
            name = feature["name"]
            feature["histogram"] = decide.histogram(known.features[name], window.features[name])
    return {
        **members,
        "largest_psi": found.largest_psi,
        "reference_rows": known.rows,
        "current_rows": window.rows,
        "left_out": left_out,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m control_plane.embedded.drift", description=__doc__)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--current", type=Path, required=True)
    parser.add_argument("--psi", type=float, default=0.1, help="practical threshold per column")
    parser.add_argument("--alpha", type=float, default=0.01, help="false alarms per look, over all columns together")
    parser.add_argument("--bins", type=int, default=16, help="quantile bins per number")
    parser.add_argument("--type", action="append", default=[], metavar="COLUMN=TYPE", help="instead of the file's own")
    parser.add_argument("--histograms", action="store_true", help="both sides' shares per cell, too")
    parser.add_argument("--workers", type=int, metavar="N", help="so many Dask processes of this host")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="the Dask workers of this scheduler")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        policy = _policy(given.psi, given.alpha)
        types = _types(given.type)
        place = workers.place(given.workers, given.scheduler)
        with nullcontext() if place is None else workers.opened(place) as by:
            found = report(
                given.reference.absolute(),
                given.current.absolute(),
                policy=policy,
                types=types,
                bins=given.bins,
                histograms=given.histograms,
                by=by,
            )
    except ControlPlaneError as error:
        sys.stderr.write(json.dumps({"type": error.type, "detail": error.detail, **error.extra}) + "\n")
        return 1
    lines = [json.dumps(found)] if given.json else [found["why"], *(f"  {f['why']}" for f in found["features"])]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _policy(psi: float, alpha: float) -> decide.Policy:
    try:
        return decide.Policy(psi=psi, alpha=alpha)
    except ValueError as exc:
        raise InvalidInput(str(exc)) from exc


def _types(given: Sequence[str]) -> dict[str, FeatureType]:
    try:
        return {name: FeatureType(kind) for name, kind in (item.rsplit("=", 1) for item in given)}
    except ValueError as exc:
        raise InvalidInput(f"--type takes COLUMN={'|'.join(FeatureType)}, got {' '.join(given)}.") from exc


def _reference(
    path: Path, types: Mapping[str, FeatureType], bins: int, by: Workers | None
) -> tuple[Profile, list[str]]:
    if path.suffix.lower() == ".json":
        try:
            return document.from_json(json.loads(path.read_bytes())), []
        except (OSError, ValueError) as exc:
            raise InvalidInput(f"{path} cannot be read: {exc}") from exc
    if bins < 1:
        raise InvalidInput(f"--bins must be at least 1, got {bins}.")
    with drift_files.opened(path) as file:
        kinds = {name: types.get(name) or kind for name, kind in file.kinds.items()}
        known = {name: kind for name, kind in kinds.items() if kind is not None}
        if not known:
            raise InvalidInput(f"{path} has no column of numbers, true and false, or text.")
        cells = fold.Cells(bins=bins)
        if by is None:
            made = drift_files.reference(file, known, cells=cells)
        else:
            made = drift_workers.reference(by, file, known, cells=cells)
        return made, sorted(kinds.keys() - known.keys())


if __name__ == "__main__":
    sys.exit(main())
