"""`mlcp ab-tests`: what a comparison on customers says, and the reports beside what decides."""

from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Commands, Json, Limit, OfModel, ago, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk.answers import AbTestView

_BESIDE = "Beside it, for one look at a size planned before (p by Holm) and as a probability; neither decides:"


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Commands, no_args_is_help=True, help="Comparisons of two versions on customers.")
    group.command(name="list")(list_tests)
    group.command(name="show")(show_test)
    app.add_typer(group, name="ab-tests")


def list_tests(
    model: OfModel = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Rollouts that compare two versions, newest first."""
    with connect.admin() as cp:
        found = cp.ab_tests(model=model, limit=limit).items
    rows = [
        (
            one.id,
            one.model,
            f"{one.baseline_version or '-'} -> {one.candidate_version}",
            one.status,
            ago(one.started_at),
        )
        for one in found
    ]
    show(found, as_json, table(["=id", "model", "=versions", "=status", "=age"], rows))


def show_test(
    test: Annotated[str, typer.Argument(help="The rollout's id.", metavar="ID")], as_json: Json = False
) -> None:
    """One test: effects, what decides, and the reports beside it."""
    with connect.admin() as cp:
        found = cp.ab_test(test)
    show(found, as_json, *_described(found))


def _described(found: "AbTestView") -> "list[RenderableType]":
    concluded = f", {found.conclusion.replace('_', ' ')}" if found.conclusion else ""
    lines: list[RenderableType] = [
        f"{found.model}  {found.baseline_version or 'nothing'} -> {found.candidate_version}  {found.phase}{concluded}",
        f"Why        {found.reason}",
    ]
    if found.srm is not None:
        lines.append(f"Arms       {found.srm.why}")
    if found.alpha is None:
        return [*lines, "No analysis was planned: its steps wait for a hand."]
    decides = [
        (
            one.decides.metric,
            one.decides.candidate.mean,
            one.decides.baseline.mean,
            one.decides.candidate.units + one.decides.baseline.units,
            "" if one.decides.effect is None else _ends(one.decides.effect, one.decides.low, one.decides.high),
            one.decides.comparison.replace("_", " "),
        )
        for one in found.metrics
    ]
    beside = [
        (
            one.decides.metric,
            "" if one.lift is None else f"{one.lift:+.1%}",
            one.one_look.test if one.one_look else "",
            one.one_look.adjusted if one.one_look else None,
            "" if one.posterior is None else f"{one.posterior.better:.1%}",
            one.posterior.loss if one.posterior else None,
        )
        for one in found.metrics
    ]
    return [
        *lines,
        "",
        f"Decides, however often it is looked at (alpha {found.alpha:g} in all):",
        table(["metric", "#candidate", "#baseline", "#units", "=effect", "=says"], decides),
        "",
        _BESIDE,
        table(["metric", "=lift", "=test", "#p", "=better", "#loss"], beside),
    ]


def _ends(effect: float, low: float | None, high: float | None) -> str:
    return f"{effect:+.3g}" if low is None or high is None else f"{effect:+.3g} [{low:+.3g}, {high:+.3g}]"
