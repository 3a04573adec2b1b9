"""`mlcp simulate`: made-up customers, or the rows of a file, send live traffic, and later tell what really happened."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control_plane.cli import connect
from control_plane.cli.console import Json, Model, show, stderr, table
from control_plane.errors import ControlPlaneError, InvalidInput

if TYPE_CHECKING:
    import asyncio

    from rich.console import RenderableType

    from control_plane.sdk import AsyncPredictionClient, Prediction

_IN_FLIGHT = 256  # requests at once; beyond it the sender waits
_LATE_S = 0.1
_OUTCOMES_AT_ONCE = 200


@dataclass(slots=True)
class Tally:
    """What came of the traffic so far. Latencies in ms, as the client saw them."""

    sent: int = 0
    late: int = 0  # sent over `_LATE_S` after their time: this client, or what it asks, cannot keep up
    latencies: list[float] = field(default_factory=list[float])
    versions: Counter[str] = field(default_factory=Counter[str])
    failures: Counter[str] = field(default_factory=Counter[str])  # by slug
    outcomes: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    def quantile(self, share: float) -> float | None:
        """The latency `share` of the answers did not exceed; None without answers."""
        ordered = sorted(self.latencies)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

    def summary(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "answered": len(self.latencies),
            "failed": sum(self.failures.values()),
            "failures": dict(self.failures),
            "versions": dict(self.versions),
            "outcomes": self.outcomes,
            "seconds": round(self.seconds, 3),
            "rate": round(self.sent / self.seconds, 1) if self.seconds else None,
            "late": self.late,
            "latency_ms": {name: self.quantile(share) for name, share in _QUANTILES.items()},
        }


_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}


def register(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    model: Model,
    rate: Annotated[float, typer.Option("--rate", help="Requests per second.", min=0.1, max=5_000)] = 20.0,
    duration: Annotated[float, typer.Option("--duration", help="Seconds.", min=0.1, max=86_400)] = 30.0,
    scenario: Annotated[str, typer.Option("--scenario", help="stable, drifted, better or worse.")] = "stable",
    outcomes: Annotated[bool, typer.Option("--outcomes", help="Also report what really happened.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Send the rows of this Parquet or CSV file instead, in their order, with their labels."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything random; left out: never the same.")] = None,
    as_json: Json = False,
) -> None:
    """Send made-up customers of MODEL, or a file's, as live traffic. Exits with 1 if a request failed."""
    import asyncio
    import secrets

    if not (math.isfinite(rate) and math.isfinite(duration)):
        raise InvalidInput("--rate and --duration: must be finite numbers.")
    chosen = secrets.randbelow(2**31) if seed is None else seed
    rows = list(_rows(model, math.ceil(rate * duration), scenario, chosen, data))
    if not rows:
        raise InvalidInput(f"The simulation of {model} made no rows.")
    tally = asyncio.run(_send_all(model, rows, rate, outcomes=outcomes, quiet=as_json))
    show({**tally.summary(), "seed": chosen}, as_json, *_rendered(model, tally))
    if tally.failures:
        raise typer.Exit(1)


def _rows(model: str, count: int, scenario: str, seed: int, file: Path | None) -> Iterator[dict[str, Any]]:
    from control_plane.sdk import subprocesses

    options = ["--rows", str(count), "--scenario", scenario, "--seed", str(seed), "--ndjson", "--json"]
    options += ["--data", str(file)] if file else []
    yield from subprocesses.events("training", "training", "simulate", model, *options)


async def _send_all(model: str, rows: list[dict[str, Any]], rate: float, *, outcomes: bool, quiet: bool) -> Tally:
    """One request per row at its time, whatever the answers to the ones before take."""
    import asyncio

    from rich.live import Live

    tally, room = Tally(), asyncio.Semaphore(_IN_FLIGHT)
    waiting: list[dict[str, object]] = []
    async with connect.async_predictions(_IN_FLIGHT) as ml, asyncio.TaskGroup() as sending:
        console = stderr()
        shown = Live(_counters(tally), console=console, refresh_per_second=4, transient=True)
        with shown if console.is_terminal and not quiet else nullcontext():
            tally.began = time.monotonic()
            for number, row in enumerate(rows):
                due = tally.began + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await room.acquire()
                tally.late += time.monotonic() - due > _LATE_S
                sending.create_task(_send(ml, model, row, tally, waiting if outcomes else None, room))
                if len(waiting) >= _OUTCOMES_AT_ONCE:
                    sending.create_task(_report(ml, model, waiting[:], tally))
                    waiting.clear()
                shown.update(_counters(tally))
            for _ in range(_IN_FLIGHT):  # until the last answer
                await room.acquire()
            if waiting:
                await _report(ml, model, waiting, tally)
            tally.ended = time.monotonic()
    return tally


async def _send(
    ml: "AsyncPredictionClient",
    model: str,
    row: dict[str, Any],
    tally: Tally,
    outcomes: list[dict[str, object]] | None,
    room: "asyncio.Semaphore",
) -> None:
    body = {name: row[name] for name in ("features", "unit_id") if row.get(name) is not None}
    tally.sent += 1
    began = time.monotonic()
    try:
        answer: Prediction = await ml.predict_body(model, body)
    except ControlPlaneError as error:
        tally.failures[error.type] += 1
    else:
        tally.latencies.append((time.monotonic() - began) * 1000)
        tally.versions[answer.model_version] += 1
        if outcomes is not None and row.get("label") is not None:
            outcomes.append({"prediction_id": answer.prediction_id, "name": "label", "value": row["label"]})
    finally:
        room.release()


async def _report(ml: "AsyncPredictionClient", model: str, reports: list[dict[str, object]], tally: Tally) -> None:
    try:
        tally.outcomes += (await ml.outcomes(model, reports)).accepted
    except ControlPlaneError as error:
        tally.failures[f"outcomes: {error.type}"] += len(reports)


def _counters(tally: Tally) -> str:
    versions = ", ".join(f"{version}: {count}" for version, count in sorted(tally.versions.items()))
    return (
        f"{tally.seconds:.0f} s  sent {tally.sent}  failed {sum(tally.failures.values())}  versions {versions or '-'}"
    )


def _rendered(model: str, tally: Tally) -> "list[RenderableType]":
    found = tally.summary()
    latency = "  ".join(f"{name} {tally.quantile(share) or 0:.1f}" for name, share in _QUANTILES.items())
    answered = len(tally.latencies)
    rows: list[tuple[str, object]] = [
        ("requests", f"{tally.sent} in {tally.seconds:.1f} s ({found['rate']}/s)"),
        ("answered", answered),
        *((f"failed, {slug}", count) for slug, count in tally.failures.most_common()),
        *((f"version {v}", f"{n} ({n / answered:.1%})") for v, n in sorted(tally.versions.items())),
        ("latency ms", latency if answered else None),
    ]
    rows += [("outcomes", tally.outcomes)] if tally.outcomes else []
    rows += [("late", f"{tally.late} requests, by more than {_LATE_S:g} s")] if tally.late else []
    return [table(["=", model], rows)]
