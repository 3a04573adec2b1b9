"""`mlcp predict | outcomes | explain`: what a product service does, from a terminal."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from control_plane.cli import connect
from control_plane.cli.console import Json, Model, show, table
from control_plane.errors import InvalidInput

File = Annotated[str | None, typer.Option("--file", "-f", help="JSON; - reads stdin.", metavar="FILE")]
Example = Annotated[bool, typer.Option("--example", help="Send the model's own example.")]
_ROWS_AT_ONCE = 500


def register(app: typer.Typer) -> None:
    app.command()(predict)
    app.command()(explain)
    app.command()(outcomes)


def predict(
    model: Model,
    file: File = None,
    example: Example = False,
    unit: Annotated[str | None, typer.Option("--unit", help="unit_id, such as a customer.")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="Answer every row of FILE, into this file.")] = None,
    as_json: Json = False,
) -> None:
    """Ask MODEL for one answer. FILE holds a whole body or the features alone.

    With --out, FILE is a table of rows: .parquet, .csv, .arrow, .ndjson; so is what is written.
    """
    if out is not None:
        _batch(model, file, out, as_json)
        return
    with connect.predictions() as ml:
        body = ml.example(model) if _wants_example(file, example) else _body(file)
        answer = ml.predict_body(model, body if unit is None else {**body, "unit_id": unit})
    output = answer.output if isinstance(answer.output, dict) else {"output": answer.output}
    lines = {
        "decision": answer.decision,
        **output,
        "threshold": answer.threshold,
        "version": f"{answer.model_version} ({answer.variant})" if answer.variant else answer.model_version,
        "prediction": answer.prediction_id,
    }
    rows = [(name, value) for name, value in lines.items() if value is not None]
    rows += [("because", reason) for reason in answer.reasons]
    rows += [] if answer.logged else [("logged", "no: the record could not be kept")]
    show(answer, as_json, table(["", model], rows))


def _batch(model: str, file: str | None, out: str, as_json: bool) -> None:
    if file is None:
        raise InvalidInput("Say which rows: -f FILE.")
    with connect.predictions() as ml:
        ml.batch_predict(model, file, out)
    size = Path(out).stat().st_size
    show({"out": out, "bytes": size}, as_json, f"{model} answered every row of {file}: {out}, {size} bytes.")


def explain(model: Model, file: File = None, example: Example = False, as_json: Json = False) -> None:
    """Why MODEL answers as it does: what each feature contributes, to one answer or, without -f, on the whole."""
    if file is None and not example:
        _importances(model, as_json)
        return
    with connect.predictions() as ml:
        body = ml.example(model) if _wants_example(file, example) else _body(file)
        answer = ml.explain(model, body)
    found = answer.explanation
    ordered = sorted(found.contributions.items(), key=lambda pair: -abs(pair[1]))
    given = cast(Mapping[str, object], body.get("features", {}))
    rows = [(name, given.get(name), f"{value:+.4f}") for name, value in ordered]
    what = f"{found.space} of {found.of}" if found.of else found.space
    lines = [
        table(["feature", "value", "#contribution"], rows),
        f"Base {found.base:+.4f}; all of it adds up to the {what}.",
    ]
    show(answer, as_json, *lines)


def _importances(model: str, as_json: bool) -> None:
    with connect.admin() as cp:
        found = cp.importances(model)
    rows = [(name, f"{value:.4f}") for name, value in found.features.items()]
    head = f"{model} {found.version}: mean absolute contribution over {found.rows} rows, in {found.space} units."
    show(found, as_json, head, table(["feature", "#moves the score by"], rows))


def outcomes(
    model: Model,
    file: Annotated[str, typer.Option("--file", "-f", help="JSON, NDJSON or CSV; - reads stdin.", metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Report what really happened: rows with prediction_id or unit_id, and value."""
    reports = list(_reports(_read(file)))
    accepted = 0
    with connect.predictions() as ml:
        for start in range(0, len(reports), _ROWS_AT_ONCE):
            accepted += ml.outcomes(model, reports[start : start + _ROWS_AT_ONCE]).accepted
    show({"accepted": accepted}, as_json, f"{accepted} outcomes of {model} taken.")


def _wants_example(file: str | None, example: bool) -> bool:
    if example == (file is not None):
        raise InvalidInput("Say either -f FILE or --example.")
    return example


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{file} cannot be read: {exc}") from exc


def _body(file: str | None) -> dict[str, Any]:
    """The predict body in the file: as it is, or made around bare features."""
    try:
        found = json.loads(_read(str(file)))
    except ValueError as exc:
        raise InvalidInput(f"{file} is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} must hold one object: a body, or features.")
    body = cast(dict[str, Any], found)
    return body if isinstance(body.get("features"), dict) else {"features": body}


def _reports(text: str) -> Iterator[dict[str, Any]]:
    """Outcomes out of a JSON list, one JSON object per line, or CSV with a header."""
    stripped = text.lstrip()
    try:
        if stripped.startswith("["):
            yield from json.loads(stripped)
        elif stripped.startswith("{"):
            yield from (json.loads(line) for line in stripped.splitlines() if line.strip())
        else:
            for row in csv.DictReader(io.StringIO(text), strict=True):
                yield {name: _value(name, cell) for name, cell in row.items() if cell not in (None, "")}
    except (ValueError, csv.Error) as exc:
        raise InvalidInput(f"The outcomes cannot be read: {exc}") from exc


def _value(name: str, cell: str) -> object:
    """A CSV cell as the value it spells: true, false, a number, else text. Ids stay text."""
    if name != "value":
        return cell
    if cell.lower() in {"true", "false"}:
        return cell.lower() == "true"
    try:
        return float(cell)
    except ValueError:
        return cell
