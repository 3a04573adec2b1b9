"""`mlcp promote | rollback | rollouts | traffic`: move customers from one version to another."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import approvals, connect, evidence
from control_plane.cli.console import Commands, Json, Limit, Model, OfModel, Reason, ago, show, table
from control_plane.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk import ControlPlane
    from control_plane.sdk.answers import ApprovalView, RolloutView, TrafficView

Wait = Annotated[bool, typer.Option("--wait", help="Return only when every router answers so.")]
Timeout = Annotated[float, typer.Option("--timeout", help="With --wait: give up after so many seconds.", min=0)]
RolloutId = Annotated[str, typer.Argument(help="The rollout's id.", metavar="ID")]


def register(app: typer.Typer) -> None:
    app.command()(promote)
    app.command()(rollback)
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="Rollouts: on their way, and past.")
    group.command(name="list")(list_rollouts)
    group.command(name="show")(show_rollout)
    group.command()(pause)
    group.command()(resume)
    group.command()(abort)
    group.command()(skip)
    group.command(name="promote")(complete)
    evidence.register(group)
    app.add_typer(group, name="rollouts")
    split = typer.Typer(cls=Commands, no_args_is_help=True, help="Who answers which share of customers.")
    split.command(name="show")(show_traffic)
    split.command(name="set")(set_traffic)
    app.add_typer(split, name="traffic")


def promote(
    model: Model,
    reason: Reason,
    version: Annotated[str | None, typer.Argument(help="Left out: the newest whose gates let it.")] = None,
    to: Annotated[str, typer.Option("--to", help="production or staging (or archived, development).")] = "production",
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="immediate, blue_green, canary, ...; else model.yaml's.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = 120.0,
    as_json: Json = False,
) -> None:
    """Make a version of MODEL answer customers, if its gates let it."""
    began = time.monotonic()
    with connect.admin() as cp:
        if to.lower() != "production":
            if strategy is not None:
                raise InvalidInput(f"--strategy is for production; {to} moves no traffic.")
            moved = cp.set_stage(model, version, stage=to, reason=reason)
            if approvals.is_one(moved):
                approvals.waits(moved, as_json)
                return
            show(moved, as_json, f"{model} {moved.version}: {moved.from_stage} -> {moved.to_stage}.")
            return
        rollout = cp.promote(model, version, strategy=strategy, reason=reason)
        if wait:
            rollout = cp.wait_rollout(rollout, timeout_s=timeout)
    _show(rollout, as_json, began if wait else None)


def rollback(model: Model, reason: Reason, wait: Wait = False, timeout: Timeout = 60.0, as_json: Json = False) -> None:
    """Back to the version before: at once, and reviewed afterwards."""
    began = time.monotonic()
    with connect.admin() as cp:
        rollout = cp.rollback(model, reason=reason)
        if wait:
            rollout = cp.wait_rollout(rollout, timeout_s=timeout)
    _show(rollout, as_json, began if wait else None)


def list_rollouts(
    model: OfModel = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those on their way.")] = False,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Rollouts, newest first."""
    with connect.admin() as cp:
        found = cp.rollouts(model=model, open=True if open_only else None, limit=limit).items
    columns = ["=id", "model", "=versions", "=phase", "=age"]
    rows = [
        (r.id, r.model, f"{r.stable_version or '-'} -> {r.candidate_version}", r.phase, ago(r.created_at))
        for r in found
    ]
    show(found, as_json, table(columns, rows))


def show_rollout(rollout: RolloutId, as_json: Json = False) -> None:
    """One rollout: where it is, why, and what is to come."""
    with connect.admin() as cp:
        found = cp.rollout(rollout)
    show(found, as_json, *_described(found))


def pause(rollout: RolloutId, reason: Reason, as_json: Json = False) -> None:
    """Hold the weights as they are."""
    with connect.admin() as cp:
        found = cp.pause(rollout, reason=reason)
    _show(found, as_json, None)


def resume(rollout: RolloutId, reason: Reason, as_json: Json = False) -> None:
    """Go on where it was paused."""
    with connect.admin() as cp:
        found = cp.resume(rollout, reason=reason)
    _show(found, as_json, None)


def abort(rollout: RolloutId, reason: Reason, as_json: Json = False) -> None:
    """Give all traffic back to the stable version."""
    with connect.admin() as cp:
        found = cp.abort(rollout, reason=reason)
    _show(found, as_json, None)


def skip(rollout: RolloutId, reason: Reason, as_json: Json = False) -> None:
    """Go on to the next step now, whatever was measured."""
    with connect.admin() as cp:
        found = cp.skip(rollout, reason=reason)
    _show(found, as_json, None)


def complete(rollout: RolloutId, reason: Reason, as_json: Json = False) -> None:
    """Skip the remaining steps: all traffic to the candidate."""
    with connect.admin() as cp:
        found = cp.complete(rollout, reason=reason)
    _show(found, as_json, None)


def show_traffic(model: Model, as_json: Json = False) -> None:
    """Which versions of MODEL should answer customers, and each one's share."""
    with connect.admin() as cp:
        found = cp.traffic(model)
    show(found, as_json, *_split(found))


def set_traffic(
    model: Model,
    reason: Reason,
    shares: Annotated[
        list[str] | None, typer.Argument(help="VERSION=PERCENT, 100 in all; none: all back to Production.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Split the traffic of MODEL by hand, until the next promotion or rollback."""
    wanted = _shares(shares or [])
    with connect.admin() as cp:
        found = cp.set_traffic(model, wanted, revision=_revision(cp, model), reason=reason)
    if approvals.is_one(found):
        approvals.waits(found, as_json)
    else:
        show(found, as_json, *_split(found))


def _revision(cp: "ControlPlane", model: str) -> int:
    return cp.traffic(model).revision


def _shares(given: list[str]) -> dict[str, float]:
    """{"2": 90.0, "3": 10.0} of ["2=90", "3=10"]."""
    try:
        return {version: float(percent) for version, percent in (share.split("=") for share in given)}
    except ValueError as exc:
        raise InvalidInput(f"Shares are written VERSION=PERCENT, such as 2=90 3=10; got {' '.join(given)}.") from exc


def _show(answer: "RolloutView | ApprovalView", as_json: bool, began: float | None) -> None:
    if approvals.is_one(answer):
        approvals.waits(answer, as_json)
    else:
        show(answer, as_json, _told(answer, began))


def _told(rollout: "RolloutView", began: float | None) -> str:
    """One line: versions, phase, and the seconds it took where we waited."""
    stable = rollout.stable_version or "nothing"
    if rollout.phase == "aborted":
        moved = f"{stable} answers, the rollout of {rollout.candidate_version} is aborted"
    elif rollout.cut_over:
        moved = f"{stable} -> {rollout.candidate_version}"
    else:
        moved = f"{stable} -> {rollout.candidate_version}, {rollout.phase}, {rollout.weight:g} % so far"
    if began is not None:
        return f"{rollout.model}: {moved}; every router agrees after {time.monotonic() - began:.1f} s."
    hint = "" if rollout.applied else f"\nmlcp rollouts show {rollout.id}"
    return f"{rollout.model}: {moved}.{hint}"


def _described(rollout: "RolloutView") -> "list[RenderableType]":
    steps = ", ".join(f"{step.weight:g} % for {step.hold_s:g} s" for step in rollout.steps) or "none"
    lines: list[RenderableType] = [
        f"Rollout    {rollout.id}",
        f"Model      {rollout.model}, {rollout.kind} by {rollout.created_by} {ago(rollout.created_at)} ago",
        f"Versions   {rollout.stable_version or 'nothing'} -> {rollout.candidate_version}, {rollout.strategy}",
        f"Phase      {rollout.phase} since {ago(rollout.since)}; the candidate gets {rollout.weight:g} %",
        f"Steps      {steps}; bake {rollout.bake_s:g} s",
        f"Why        {rollout.reason}",
        f"Routers    {'all answer so' if rollout.applied else rollout.waiting_for or 'not yet'}",
    ]
    if rollout.failures:
        lines.append(f"Failures   {rollout.failures}")
    return [*lines, *evidence.described(rollout)]


def _split(traffic: "TrafficView") -> "list[RenderableType]":
    how = "set by hand" if traffic.fixed else "by a rollout" if traffic.rollout_id else "all to Production"
    rows = [(arm.version, arm.variant, f"{arm.percent:g}") for arm in traffic.arms]
    return [f"{traffic.model}: {how} (revision {traffic.revision}).", table(["=version", "=variant", "#percent"], rows)]
