"""`mlcp predict | outcomes | explain`: what a product service does, from a terminal."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import typer

from control_plane.cli import connect
from control_plane.cli.console import Json, Model, moment, show, table
from control_plane.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk.predictions import Explanation

File = Annotated[str | None, typer.Option("--file", "-f", help="JSON; - reads stdin.", metavar="FILE")]
Example = Annotated[bool, typer.Option("--example", help="Send the model's own example.")]


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


def explain(
    model: Annotated[str, typer.Argument(help="Name of the model, or id of a prediction.", metavar="MODEL|ID")],
    file: File = None,
    example: Example = False,
    as_json: Json = False,
) -> None:
    """Why MODEL answers as it does, or once did: what each feature contributes; without -f, on the whole."""
    if (past := _prediction_id(model)) is not None:
        _explain_past(past, as_json)
        return
    if file is None and not example:
        _importances(model, as_json)
        return
    with connect.predictions() as ml:
        body = ml.example(model) if _wants_example(file, example) else _body(file)
        answer = ml.explain(model, body)
    given = cast(Mapping[str, object], body.get("features", {}))
    show(answer, as_json, *_contributions(answer.explanation, given))


def _explain_past(prediction_id: str, as_json: bool) -> None:
    """Its story, and the contributions computed again by the version that answered, while it still serves."""
    from control_plane.errors import ControlPlaneError

    with connect.admin() as cp:
        found = cp.prediction(prediction_id)
    explanation, why_not = None, "Its features are no longer kept."
    features: object = found.features
    given = cast("dict[str, object]", features) if isinstance(features, dict) else {}
    if given and found.served_version is not None:
        body = {"features": given, "model_version": found.served_version}
        try:
            with connect.pinning() as ml:
                explanation = ml.explain(found.model, body).explanation
        except ControlPlaneError as exc:
            why_not = f"What each feature contributed cannot be computed again: {exc.detail}"
    lines = [f"{found.model}, {moment(found.received_at)} UTC{', from the archive' if found.archived else ''}"]
    lines += found.story
    shown = _contributions(explanation, given) if explanation else [table(["feature", "value"], given.items()), why_not]
    show({"prediction": found, "explanation": explanation}, as_json, *lines, "", *shown)


def _contributions(found: "Explanation", given: Mapping[str, object]) -> "list[RenderableType]":
    ordered = sorted(found.contributions.items(), key=lambda pair: -abs(pair[1]))
    rows = [(name, given.get(name), f"{value:+.4f}") for name, value in ordered]
    what = f"{found.space} of {found.of}" if found.of else found.space
    return [
        table(["feature", "value", "#contribution"], rows),
        f"Base {found.base:+.4f}; all of it adds up to the {what}.",
    ]


def _prediction_id(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None


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
    from control_plane.sdk import outcome_files

    text = _read(file)
    with connect.predictions() as ml:
        accepted = outcome_files.report_text(ml, model, text).accepted
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
