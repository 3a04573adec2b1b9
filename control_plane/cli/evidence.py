"""`mlcp rollouts watch | effect`: what a rollout's decisions stand on, live, as a table, as JSON or as a plot."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import connect, plot
from control_plane.cli.console import Json, ago, moment, show, stdout, table
from control_plane.cli.plot import Point
from control_plane.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import RenderableType

    from control_plane.sdk.answers import AnalysisView, RolloutView

Id = Annotated[str, typer.Argument(help="The rollout's id.", metavar="ID")]


def register(group: typer.Typer) -> None:
    group.command()(watch)
    group.command()(effect)


def watch(
    rollout: Id,
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.2)] = 2.0,
) -> None:
    """Follow a rollout until it ends; Ctrl-C stops watching, not the rollout."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with connect.admin() as cp, Live(console=stdout(), auto_refresh=False) as screen:
        while True:
            found = cp.rollout(rollout)
            shown = [Text(part) if isinstance(part, str) else part for part in _now(found)]
            screen.update(Group(*shown), refresh=True)
            if found.closed_at is not None:
                return
            time.sleep(every)


def effect(
    rollout: Id,
    metric: Annotated[str | None, typer.Option("--metric", help="Left out: the goal, else the first.")] = None,
    svg: Annotated[Path | None, typer.Option("--plot", help="Write the plot to this SVG file.")] = None,
    as_json: Json = False,
) -> None:
    """Candidate minus baseline over time, with the interval that holds at every look together."""
    with connect.admin() as cp:
        found = cp.rollout(rollout)
    name = metric or _main(found)
    points = series(found, name)
    if not points:
        known = sorted({m.metric for run in found.analyses for m in run.measurements if m.effect is not None})
        raise InvalidInput(f"There is no effect of {name} yet; measured so far: {', '.join(known) or 'nothing'}.")
    lines: list[RenderableType] = []
    if svg is not None:
        margin = next((m.margin for m in found.plan.metrics if m.name == name), None) if found.plan else None
        title = f"{found.model} {found.stable_version} -> {found.candidate_version}: {name}"
        svg.write_text(plot.svg(points, title=title, margin=margin))
        lines.append(f"Plot       {svg}")
    rows = [(moment(p.at), p.step + 1, p.units, p.effect, p.low, p.high, p.decided) for p in points]
    value = {"rollout": found.id, "metric": name, "points": points}
    columns = ["=at (UTC)", "#step", "#units", "#effect", "#low", "#high", "decided"]
    show(value, as_json, f"{name}: candidate - baseline, always valid", *lines, table(columns, rows))


def series(found: "RolloutView", metric: str) -> list[Point]:
    """The kept looks at `metric` that have an effect, oldest first."""
    points: list[Point] = []
    for run in found.analyses:
        for m in run.measurements:
            if m.metric == metric and m.effect is not None and m.low is not None and m.high is not None:
                units = m.candidate.units + m.baseline.units
                points.append(Point(run.at, run.step, units, m.effect, m.low, m.high, run.decided))
                break
    return points


def described(found: "RolloutView") -> "list[RenderableType]":
    """The story of the decisions, and the newest look's numbers."""
    if not found.analyses:
        return ["Decided    by evidence; no look yet"] if found.plan else []
    lines: list[RenderableType] = [*_reached(found), ""]
    lines += [
        f"{moment(run.at)}  step {run.step + 1}: {run.verdict}, {run.decided}. {run.why}"
        for run in found.analyses
        if run.decided
    ]
    newest = found.analyses[-1]
    if not newest.decided:
        lines.append(f"{moment(newest.at)}  step {newest.step + 1}: {newest.verdict}. {newest.why}")
    if newest.srm is not None:
        lines.append(f"Arms       {newest.srm.why}")
    measured = next((run for run in reversed(found.analyses) if run.measurements), None)  # a bake's looks have none
    return [*lines, "", _numbers(measured)] if measured else lines


def _reached(found: "RolloutView") -> list[str]:
    if found.reach is None:
        return []
    seconds = found.reach.seconds
    times = "" if seconds is None else f"; {_words(seconds)} from the first to the end"
    return [f"Exposed    {found.reach.customers:,} customers to the candidate{times}"]


def _words(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _numbers(run: "AnalysisView") -> "RenderableType":
    rows = [
        (
            m.metric,
            m.candidate.mean,
            m.baseline.mean,
            m.candidate.units + m.baseline.units,
            "" if m.effect is None else f"{m.effect:+.3g} [{m.low:+.3g}, {m.high:+.3g}]",
            "undecided" if m.verdict == "inconclusive" else m.verdict,
        )
        for m in run.measurements
    ]
    return table(["metric", "#candidate", "#baseline", "#units", "=effect", "=verdict"], rows)


def _now(found: "RolloutView") -> "list[RenderableType]":
    bar = round(found.weight / 4)
    steps = " > ".join(
        f"[{s.weight:g} %]" if at == found.step else f"{s.weight:g} %" for at, s in enumerate(found.steps)
    )
    head = f"{found.model}  {found.stable_version or 'nothing'} -> {found.candidate_version}  {found.strategy}"
    lines: list[RenderableType] = [
        f"{head}  {found.phase} since {ago(found.since)}",
        f"{'#' * bar}{'.' * (25 - bar)}  the candidate gets {found.weight:g} %   {steps}",
        f"Why        {found.reason}",
    ]
    if found.conclusion:
        lines.append(f"Conclusion {found.conclusion.replace('_', ' ')}")
    return [*lines, *described(found)]


def _main(found: "RolloutView") -> str:
    if found.plan is None or not found.plan.metrics:
        raise InvalidInput("This rollout is decided by hand: nothing was measured.")
    goals = [metric.name for metric in found.plan.metrics if metric.role == "goal"]
    return (goals or [found.plan.metrics[0].name])[0]
