"""`python -m training train|features|simulate MODEL`.

Exit codes: 0 done, 2 wrong usage, 3 no such model, 4 data refused (with a JSON report under <home>/reports/training),
6 MLflow or a Dask scheduler does not answer, or workers were lost, 7 a model.yaml that cannot be used.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from control_plane.errors import ControlPlaneError, InvalidConfig, InvalidData, InvalidInput, NotFound, Unavailable

SCENARIOS = ("stable", "drifted", "better", "worse")
_EXIT = ((NotFound, 3), (InvalidData, 4), (Unavailable, 6), (InvalidConfig, 7), (InvalidInput, 2))


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser(os.environ).parse_args(argv)
    try:
        match arguments.command:
            case "train":
                _train(arguments)
            case "features":
                _features(arguments)
            case _:
                _simulate(arguments)
    except ControlPlaneError as error:
        return _fail(error, arguments)
    except BrokenPipeError:  # whoever read our rows has enough
        sys.stderr.close()
        return 0
    return 0


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Train models declared by model.yaml.")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("model", help="name or alias; looked for in the folders of MLCP_MODELS, then in our own")
    shared.add_argument("--seed", type=int, default=1, help="of everything random (default 1)")
    shared.add_argument("--home", type=Path, default=Path(environ.get("MLCP_HOME", "var")), help="default MLCP_HOME")
    shared.add_argument("--json", action="store_true", help="progress and errors as JSON lines on stdout")

    train = commands.add_parser("train", parents=[shared], help="train and register one version")
    train.add_argument("--data", type=Path, help="Parquet or CSV of raw rows; default: simulated rows")
    train.add_argument("--logged", metavar="URL", help="rows of the prediction log, as the worker gathers them")
    train.add_argument("--job", help="who asks: a version it has registered already is not trained again")
    url = environ.get("MLCP_MLFLOW_URL") or environ.get("MLFLOW_TRACKING_URI") or "http://127.0.0.1:5000"
    _mlflow_url(train, url)
    train.add_argument(
        "--workers", type=int, help="Dask processes of this host to fit XGBoost by; default training.workers"
    )
    train.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster to fit by; default MLCP_DASK_SCHEDULER"
    )
    train.add_argument("--cpus", type=int, default=min(os.cpu_count() or 1, 4), help="threads that compute at a time")

    features = commands.add_parser(
        "features", parents=[shared], help="final features of raw rows, as the model sees them"
    )
    features.add_argument("--data", type=Path, required=True, help="Parquet or CSV of raw rows")
    features.add_argument("--version", help="by the code of this version; default: that beside model.yaml")
    _mlflow_url(features, url)
    features.add_argument("--out", type=Path, help="Parquet or CSV to write; default: JSON lines on stdout")

    simulate = commands.add_parser("simulate", parents=[shared], help="rows with a known truth")
    simulate.add_argument("--rows", type=int, help="default: training.rows of model.yaml")
    simulate.add_argument("--scenario", choices=SCENARIOS, default="stable")
    simulate.add_argument("--data", type=Path, help="raw rows of a file instead, with --ndjson")
    simulate.add_argument("--out", type=Path, help="Parquet or CSV to write; default: JSON lines on stdout")
    simulate.add_argument(
        "--ndjson", action="store_true", help="predict bodies with their labels, one JSON object a line"
    )
    return parser


def _mlflow_url(parser: argparse.ArgumentParser, url: str) -> None:
    parser.add_argument("--mlflow-url", default=url, help="default MLCP_MLFLOW_URL, else port 5000 of this host")


def _train(arguments: argparse.Namespace) -> None:
    from training.common import candidates, models, progress, run, workers

    say = progress.to_stdout(as_json=arguments.json)
    say("starting", f"reading the rows of {arguments.model}", 0.0)
    source = models.find(arguments.model, models.folders(os.environ))
    local, scheduler = arguments.workers, arguments.scheduler
    if (local or scheduler) and not candidates.by_workers(source.config):
        raise InvalidInput(f"XGBoost alone is fitted by workers, and it is no candidate of {source.config.name}.")
    if local is None and scheduler is None:
        scheduler = os.environ.get("MLCP_DASK_SCHEDULER")
        local = None if scheduler else source.config.training.workers
    at = workers.place(local, scheduler)
    raw, known_as = run.rows_of(source, arguments.logged or arguments.data, seed=arguments.seed)
    run.train(
        source,
        raw,
        known_as,
        url=arguments.mlflow_url,
        home=arguments.home.absolute(),
        seed=arguments.seed,
        cpus=max(1, arguments.cpus),
        now=datetime.now(UTC),
        say=say,
        logged=arguments.logged is not None,
        job=arguments.job,
        at=at,
    )


def _features(arguments: argparse.Namespace) -> None:
    from training.common import models, register, rows

    source = models.find(arguments.model, models.folders(os.environ))
    if arguments.version is None:
        _write(rows.final(source, arguments.data), arguments.out)
        return
    with tempfile.TemporaryDirectory(prefix="mlcp-features-") as folder:
        registry = register.Registry(arguments.mlflow_url)
        artifact = registry.artifact(source.config.name, arguments.version, Path(folder))
        _write(rows.final(models.read(artifact / "model.yaml"), arguments.data), arguments.out)


def _simulate(arguments: argparse.Namespace) -> None:
    from training.common import models, rows

    source = models.find(arguments.model, models.folders(os.environ))
    wanted = arguments.rows if arguments.rows is not None else source.config.training.rows
    if not 0 < wanted <= 10_000_000:
        raise InvalidData(f"--rows: {wanted} is not within 1..10,000,000.")
    if arguments.data is not None and (not arguments.ndjson or arguments.scenario != "stable"):
        raise InvalidData("--data: the rows of a file are sent as they are: with --ndjson, and without --scenario.")
    if arguments.ndjson:
        lines = rows.bodies(source, wanted, seed=arguments.seed, scenario=arguments.scenario, file=arguments.data)
        with arguments.out.open("w", encoding="utf-8") if arguments.out else nullcontext(sys.stdout) as out:
            for line in lines:
                out.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        return
    _write(rows.simulated(source, wanted, seed=arguments.seed, scenario=arguments.scenario), arguments.out)


def _write(frame: Any, out: Path | None) -> None:
    match out.suffix if out else None:
        case None:
            for chunk in range(0, len(frame), 1_000):
                frame.iloc[chunk : chunk + 1_000].to_json(sys.stdout, orient="records", lines=True, date_format="iso")
        case ".parquet":
            frame.to_parquet(out, index=False)
        case ".csv":
            frame.to_csv(out, index=False)
        case suffix:
            raise InvalidData(f"--out: {suffix or 'no suffix'} is neither .parquet nor .csv.")


def _fail(error: ControlPlaneError, arguments: argparse.Namespace) -> int:
    """One sentence on stderr, the same as JSON on stdout with --json; refused data also leaves report and metric."""
    members: dict[str, Any] = {"type": error.type, **error.extra}
    if isinstance(error, InvalidData) and arguments.command == "train":
        members["report"] = str(_report(error, arguments))
    if arguments.json:
        line = {"event": "failed", "detail": error.detail, "fraction": 1.0, **members}
        sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stderr.write(error.detail + "\n")
    if "report" in members:
        sys.stderr.write(f"Report: {members['report']}\n")
    return next((code for kind, code in _EXIT if isinstance(error, kind)), 1)


def _source(arguments: argparse.Namespace) -> str:
    if arguments.logged:
        return "prediction log"
    return str(arguments.data) if arguments.data else f"simulated, seed {arguments.seed}"


def _report(error: InvalidData, arguments: argparse.Namespace) -> Path:
    from training.common import models, telemetry

    source = models.find(arguments.model, models.folders(os.environ))
    home = arguments.home.absolute()
    telemetry.refused(source.config, home)
    now = datetime.now(UTC)
    path: Path = home / "reports" / "training" / f"{source.config.name}-{now:%Y%m%dT%H%M%S%fZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "model": source.config.name,
        "at": now.isoformat(),
        "data": _source(arguments),
        "detail": error.detail,
        "rows": error.extra.get("rows"),
        "findings": error.extra.get("findings", []),
        "leakage": error.extra.get("leakage"),
    }
    path.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
    return path
