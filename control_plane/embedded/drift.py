"""`python -m control_plane.embedded.drift --reference FILE --current FILE [--json]`: drift between two files, offline.

A file is CSV, Parquet or NDJSON; the reference may also be a version's profile.json. Exit code 0 whatever the verdict:
the answer is in the report. Runs anywhere numpy, scipy and pyarrow are; no service is asked.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from control_plane.domain.drift import decide, document, fold
from control_plane.domain.drift.profiles import Profile
from control_plane.domain.model_config import FeatureType
from control_plane.errors import ControlPlaneError, InvalidInput

Columns = dict[str, list[object]]


def report(
    reference: Path, current: Path, *, policy: decide.Policy, types: Mapping[str, FeatureType], bins: int
) -> dict[str, Any]:
    """The verdict as JSON-ready members; `left_out` names reference columns of a type drift is not defined for.

    Raises:
        InvalidInput: a file cannot be read, or they have no column in common.
    """
    columns = read(current)
    known, left_out = _reference(reference, types, bins)
    if not known.features.keys() & columns.keys():
        raise InvalidInput(f"{current} has none of the reference's columns: {', '.join(sorted(known.features))}.")
    window = fold.fold(known, columns)
    found = decide.compare(known, window, policy)
    members = dataclasses.asdict(found)
    del members["prediction"], members["label"]  # columns of a file are features
    return {
        **members,
        "largest_psi": found.largest_psi,
        "reference_rows": known.rows,
        "current_rows": window.rows,
        "left_out": left_out,
    }


def read(path: Path) -> Columns:
    """Columns of a file, by its suffix."""
    try:
        match path.suffix.lower():
            case ".csv":
                return _table(path, "pyarrow.csv", "read_csv")
            case ".parquet":
                return _table(path, "pyarrow.parquet", "read_table")
            case ".ndjson" | ".jsonl":
                return _rows(path)
            case suffix:
                raise InvalidInput(f"{path}: {suffix or 'no suffix'} is none of .csv, .parquet, .ndjson.")
    except (OSError, ValueError) as exc:  # pyarrow's own errors are ValueErrors
        raise InvalidInput(f"{path} cannot be read: {exc}") from exc


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m control_plane.embedded.drift", description=__doc__)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--current", type=Path, required=True)
    parser.add_argument("--psi", type=float, default=0.1, help="practical threshold per column")
    parser.add_argument("--alpha", type=float, default=0.01, help="false alarms per look, over all columns together")
    parser.add_argument("--bins", type=int, default=16, help="quantile bins per number")
    parser.add_argument("--type", action="append", default=[], metavar="COLUMN=TYPE", help="instead of the file's own")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        policy = _policy(given.psi, given.alpha)
        found = report(given.reference, given.current, policy=policy, types=_types(given.type), bins=given.bins)
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


def _reference(path: Path, types: Mapping[str, FeatureType], bins: int) -> tuple[Profile, list[str]]:
    if path.suffix.lower() == ".json":
        try:
            return document.from_json(json.loads(path.read_bytes())), []
        except (OSError, ValueError) as exc:
            raise InvalidInput(f"{path} cannot be read: {exc}") from exc
    if bins < 1:
        raise InvalidInput(f"--bins must be at least 1, got {bins}.")
    columns = read(path)
    known = {name: kind for name, column in columns.items() if (kind := types.get(name) or _kind(column)) is not None}
    if not known:
        raise InvalidInput(f"{path} has no column of numbers, true and false, or text.")
    profile = fold.reference({name: columns[name] for name in known}, known, cells=fold.Cells(bins=bins))
    return profile, sorted(columns.keys() - known.keys())


def _kind(column: Sequence[object]) -> FeatureType | None:
    """The type most of its values say: text counts as categories unless told otherwise. None: neither."""
    seen = {type(value) for value in column if value is not None}
    if seen and seen <= {bool}:
        return FeatureType.BOOLEAN
    if seen and seen <= {int, float}:
        return FeatureType.INTEGER if seen == {int} else FeatureType.NUMBER
    return FeatureType.CATEGORY if seen == {str} else None


def _table(path: Path, module: str, function: str) -> Columns:
    """Read by pyarrow, which has no types: this is where they begin."""
    table = getattr(import_module(module), function)(path)
    return {str(name): table.column(name).to_pylist() for name in table.column_names}


def _rows(path: Path) -> Columns:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.strip():
            found = json.loads(line)
            if not isinstance(found, dict):
                raise InvalidInput(f"{path}: line {number} is no object.")
            rows.append(cast(dict[str, object], found))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


if __name__ == "__main__":
    sys.exit(main())
