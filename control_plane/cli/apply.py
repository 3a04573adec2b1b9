"""`mlcp apply -f FILE`: what a file describes, a rollout or a policy, after showing what would change."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from control_plane.cli import approvals, connect
from control_plane.cli.console import Json, show, table
from control_plane.errors import GatesNotMet, InvalidInput

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk.answers import PlanView

_FIELDS = ("version", "strategy", "bake_s", "analysis", "by_hand", "failure_limit", "targeting")


def register(app: typer.Typer) -> None:
    app.command()(apply)


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML or JSON: kind (rollout, policy), ...")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change and what is in the way.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; else as FILE says.", metavar="TEXT")] = None,
    as_json: Json = False,
) -> None:
    """Begin the rollout, or put in force the policy, FILE describes.

    A rollout applied again while it is open changes nothing.
    """
    document = _parsed(file)
    if document.get("kind") == "policy":
        _policy(document, reason, dry_run, as_json)
        return
    wanted = _read(file, document | ({} if reason is None else {"reason": reason}))
    model, reason = str(wanted.pop("model")), str(wanted.pop("reason"))
    with connect.admin() as cp:
        plan = cp.plan(model, **wanted)
        if plan.open and not plan.changes:
            show(plan, as_json, f"{model}: this rollout is open already; nothing to do.")
            return
        if dry_run:
            show(plan, as_json, *_described(plan))
            if plan.reasons:
                raise typer.Exit(4)
            return
        if plan.reasons and not plan.open:
            raise GatesNotMet(f"The rollout of {model} cannot begin.", reasons=list(plan.reasons))
        rollout = cp.promote(model, reason=reason, **wanted)
    if approvals.is_one(rollout):
        approvals.waits(rollout, as_json)
        return
    told = f"{model}: {rollout.stable_version or 'nothing'} -> {rollout.candidate_version}, {rollout.strategy}."
    show(rollout, as_json, told, f"mlcp rollouts watch {rollout.id}")


def _policy(document: dict[str, Any], reason: str | None, dry_run: bool, as_json: bool) -> None:
    given = document.pop("reason", None)
    with connect.admin() as cp:
        plan = cp.plan_policy(document)
        rows = [(change.field, change.before, change.after) for change in plan.changes]
        if dry_run or not plan.changes:
            waits = "It would wait for an approval." if plan.needs_approval else "It would be in force at once."
            show(plan, as_json, table(["=field", "now", "wanted"], rows), waits if rows else "Nothing would change.")
            return
        why = reason or given
        if not why:
            raise InvalidInput("Say why: --reason TEXT, or a line `reason:` in the file.")
        applied = cp.apply_policy(document, reason=str(why))
    if approvals.is_one(applied):
        approvals.waits(applied, as_json)
    else:
        show(applied, as_json, f"Policy {applied.name} is in force, version {applied.version}.")


def _read(file: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `promote`. InvalidInput with every reason for a file that cannot be used."""
    known = {"kind", "model", "reason", "steps", *_FIELDS}
    reasons = [f"{name}: there is no such field." for name in sorted(document.keys() - known)]
    if document.get("kind") != "rollout":
        reasons.append("kind: must be rollout or policy.")
    reasons += [f"{name}: is missing." for name in ("model", "reason") if not document.get(name)]
    steps: list[tuple[float, float]] | None = None
    try:
        if "steps" in document:
            steps = [(float(step["weight"]), float(step["hold_s"])) for step in document["steps"]]
    except (KeyError, TypeError, ValueError):
        reasons.append("steps: give weight (percent) and hold_s (seconds) of each.")
    if reasons:
        raise InvalidInput(f"{file} cannot be used.", reasons=reasons)
    wanted = {name: document[name] for name in _FIELDS if document.get(name) is not None}
    if "version" in wanted:
        wanted["version"] = str(wanted["version"])
    return {"model": document["model"], "reason": document["reason"], "steps": steps} | wanted


def _parsed(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be read: {exc.strerror}.") from exc
    try:
        found: object = json.loads(text)
    except ValueError:
        found = _yaml(file, text)
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} holds no mapping.")
    return dict(cast("Mapping[str, Any]", found))


def _yaml(file: Path, text: str) -> object:
    try:
        import yaml
    except ImportError as exc:
        raise InvalidInput(f"{file} is no JSON, and YAML needs PyYAML: pip install pyyaml.") from exc
    try:
        return cast("object", yaml.safe_load(text))
    except yaml.YAMLError as exc:
        raise InvalidInput(f"{file} is neither JSON nor YAML: {exc}") from exc


def _described(plan: "PlanView") -> "list[RenderableType]":
    beside = "beside the open rollout" if plan.open else "new"
    lines: list[RenderableType] = [
        f"{plan.model}: {plan.stable_version or 'nothing'} -> {plan.candidate_version}, {plan.strategy} ({beside})."
    ]
    if plan.forecast is not None:
        lines.append(plan.forecast.why)
    rows = [(change.field, change.before, change.after) for change in plan.changes]
    lines += ["", table(["=field", "now", "wanted"], rows)]
    if plan.reasons:
        lines += ["", "In the way:", *(f"  - {reason}" for reason in plan.reasons)]
    return lines
