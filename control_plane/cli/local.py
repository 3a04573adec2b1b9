"""`mlcp train | generate | features`: work on this machine, by processes of their own."""

import time
from typing import Annotated

import typer

from control_plane.cli import connect
from control_plane.cli.console import Json, Model, Scheduler, Workers, show, stderr, table
from control_plane.errors import DeadlineExceeded, NotFound

_DATA_REFUSED = 4  # exit status of `python -m training`: what we call input that cannot be used
Data = Annotated[str | None, typer.Option("--data", help="CSV or Parquet; left out: simulated rows.", metavar="FILE")]


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(generate)
    app.command()(features)


def train(
    model: Model,
    data: Data = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything random.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the control plane knows the version.")] = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Train and register a version of MODEL on this machine."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from control_plane.sdk import train_model

    columns = (BarColumn(16), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0)
        trained = train_model(
            model,
            data=data,
            seed=seed,
            workers=workers,
            scheduler=scheduler,
            told=lambda detail, fraction: progress.update(task, description=detail, completed=fraction),
        )
    if wait:
        _known(trained.model, trained.version)
    metric = trained.metric
    rows = [
        ("version", f"{trained.version} ({trained.semver})"),
        (metric.name, f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f}) on {metric.holdout_rows} rows"),
        ("digest", f"{trained.digest[:23]}..."),
    ]
    if cost := trained.cost:
        said = f"{cost.model:.0f} {cost.currency}; the best constant answer costs {cost.trivial:.0f}"
        rows.insert(2, ("cost", said))
    show(trained, as_json, table(["=", trained.model], rows))


def generate(
    model: Model,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if something would change.")] = False,
    signature: Annotated[
        str | None, typer.Option("--signature", help="MLflow signature (JSON) to agree with.", metavar="FILE")
    ] = None,
) -> None:
    """Write MODEL's server, Dockerfile, manifest and OpenAPI from its model.yaml."""
    from control_plane.sdk import subprocesses

    options = ["--check"] if check else []
    options += [] if signature is None else ["--signature", signature]
    raise typer.Exit(subprocesses.run("serving", "model_servers.generator", model, *options))


def features(
    model: Model,
    data: Annotated[str, typer.Option("--data", help="CSV or Parquet of raw rows.", metavar="FILE")],
    out: Annotated[
        str | None, typer.Option("--out", help="CSV or Parquet; left out: JSON lines on stdout.", metavar="FILE")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="With the code this version was trained with.", metavar="VERSION")
    ] = None,
) -> None:
    """Make MODEL's final features of raw rows, as its predict bodies carry them."""
    from control_plane.sdk import subprocesses

    options = [] if out is None else ["--out", out]
    options += [] if version is None else ["--version", version]
    status = subprocesses.run("training", "training", "features", model, "--data", data, *options)
    raise typer.Exit(7 if status == _DATA_REFUSED else status)


def _known(model: str, version: str, timeout_s: float = 60.0) -> None:
    """Wait until the control plane has found the version in MLflow."""
    deadline = time.monotonic() + timeout_s
    with connect.admin() as cp:
        while True:
            try:
                cp.version(model, version)
            except NotFound as exc:
                if time.monotonic() > deadline:
                    detail = f"Version {version} of {model} is registered but not known after {timeout_s:g} s."
                    raise DeadlineExceeded(detail) from exc
                time.sleep(0.3)
            else:
                return
