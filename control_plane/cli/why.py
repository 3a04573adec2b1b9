"""`mlcp why`: how it came to this, from the audit."""

from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import connect, evidence
from control_plane.cli.console import Json, moment, show, table
from control_plane.errors import NotFound

if TYPE_CHECKING:
    from control_plane.sdk import ControlPlane
    from control_plane.sdk.answers import AuditView, PredictionView, RolloutView


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(
    subject: Annotated[str, typer.Argument(help="Id of a rollout, or of a prediction.", metavar="ID")],
    as_json: Json = False,
) -> None:
    """The story of a rollout, or of the version that gave a prediction."""
    with connect.admin() as cp:
        prediction = None
        try:
            rollout: RolloutView | None = cp.rollout(subject)
        except NotFound:
            prediction = cp.prediction(subject)
            rollout = None if prediction.rollout_id is None else cp.rollout(prediction.rollout_id)
        if rollout is None and prediction is not None:
            story = _of_version(cp, prediction)
        else:
            assert rollout is not None
            story = _of_rollout(cp, rollout)
    told = _prediction(prediction) if prediction else []
    told += _rollout(rollout) if rollout else []
    rows = [(moment(row.at), row.actor.person, row.action, "; ".join(row.reasons)) for row in story]
    value = {"prediction": prediction, "rollout": rollout, "audit": story}
    proof = evidence.described(rollout) if rollout and prediction is None else []
    show(value, as_json, *told, *proof, "", table(["=at (UTC)", "who", "action", "why"], rows))


def _of_rollout(cp: "ControlPlane", rollout: "RolloutView") -> "list[AuditView]":
    """Audit rows that name the rollout, oldest first."""
    rows = _rows_of_model(cp, rollout.model)
    return [row for row in rows if str(rollout.id) in f"{row.before} {row.after} {row.object}"]


def _of_version(cp: "ControlPlane", prediction: "PredictionView") -> "list[AuditView]":
    """Audit rows of the change that made the version answer when it did."""
    timeline = cp.timeline(prediction.model, as_of=prediction.received_at)
    mine = [event for event in timeline.events if event.version == prediction.served_version and event.rollout_id]
    if not mine:
        return []
    rows = _rows_of_model(cp, prediction.model)
    return [row for row in rows if str(mine[0].rollout_id) in f"{row.before} {row.after} {row.object}"]


def _rows_of_model(cp: "ControlPlane", model: str) -> "list[AuditView]":
    from control_plane.sdk import every

    return sorted(every(cp.audit, object=f"model:{model}", limit=200), key=lambda row: row.seq)


def _prediction(prediction: "PredictionView") -> list[str]:
    line = f"{prediction.model} answered {prediction.status} at {moment(prediction.received_at)} UTC"
    served = f"version {prediction.served_version or 'none'} ({prediction.served_variant or 'no variant'})"
    lines = [f"{line} by {served} in {prediction.latency_ms:.1f} ms."]
    if prediction.pinned:
        lines.append("The caller, or a pin on the router's host, chose the version.")
    if prediction.assigned_version and prediction.assigned_version != prediction.served_version:
        lines.append(
            f"Assigned to version {prediction.assigned_version} ({prediction.assigned_variant}), "
            f"which did not answer: {prediction.fallback_reason}."
        )
    return lines


def _rollout(rollout: "RolloutView") -> list[str]:
    versions = f"{rollout.stable_version or 'nothing'} -> {rollout.candidate_version}"
    return [
        f"{rollout.kind.capitalize()} of {rollout.model}, {versions}, {rollout.strategy}, by {rollout.created_by}.",
        f"It is {rollout.phase} since {moment(rollout.since)} UTC: {rollout.reason}",
    ]
